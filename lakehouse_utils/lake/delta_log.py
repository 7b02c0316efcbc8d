"""The one reader of Delta logs: commits and their actions, the live files, and the progress of a load.

The progress of a load is recorded in the table's own log, in the same commit as the rows, as an application
transaction: https://github.com/delta-io/delta/blob/master/PROTOCOL.md#transaction-identifiers
"""

import hashlib
import io
import json
import re
import uuid
from base64 import b85decode
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NamedTuple, Protocol, Self, cast
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet as pq
from botocore.exceptions import ClientError
from deltalake import DeltaTable
from deltalake.fs import DeltaStorageHandler

from lakehouse_utils.errors import LakehouseError
from lakehouse_utils.lake import compatibility
from lakehouse_utils.lake.lake import TableRef
from lakehouse_utils.lake.s3_errors import translate_errors

_COMMIT_FILE = re.compile(r"(\d{20})\.json")
# Of one file, of several numbered parts, or with a UUID (the V2 format).
_CHECKPOINT_FILE = re.compile(
    r"(?P<version>\d{20})\.checkpoint(\.\d{10}\.(?P<parts>\d{10})|\.[0-9a-f-]{36})?\.(parquet|json)"
)
_PARALLEL_READS = 8  # a commit file is small, so most of the time is spent waiting for the answer
_PAGE_NAMES = 1000  # names in one page of a listing of S3


class MissingCommitError(LakehouseError):
    """The log has no file for this commit: there is no such version, or a clean-up of the log removed the file."""

    def __init__(self, uri: str, version: int) -> None:
        super().__init__(
            f"The log of {uri} has no commit file for version {version}. There is no such version, or a clean-up of"
            " the log removed the file: choose a version that the log still has."
        )
        self.uri = uri
        self.version = version


class Action(NamedTuple):
    """One line of a commit file, such as `{"add": {"path": ...}}`: its kind, and the fields of the action."""

    kind: str
    fields: dict[str, Any]


@dataclass(frozen=True)
class Commit:
    """One version of a table: the actions of its commit file, in order.

    `digest` is a hash of the file in 63 bits. Two commits with the same digest are the same commit of the same table.
    `etag` is what S3 calls this content of the file; empty on other storage.
    """

    version: int
    actions: list[Action]
    digest: int
    etag: str = field(default="", compare=False)

    @classmethod
    def parse(cls, version: int, text: str | bytes, etag: str = "") -> Self:
        """The commit that `text`, the content of a commit file, describes."""
        lines = (json.loads(line) for line in text.splitlines() if line.strip())
        return cls(version, [Action(*next(iter(line.items()))) for line in lines], digest(text), etag)

    def of_kind(self, kind: str) -> list[dict[str, Any]]:
        """The fields of the actions of one kind, such as "add", in order."""
        return [action.fields for action in self.actions if action.kind == kind]

    @property
    def info(self) -> dict[str, Any]:
        """The commitInfo action; empty if the commit has none."""
        return next(iter(self.of_kind("commitInfo")), {})

    @property
    def operation(self) -> str:
        """What the writer calls the commit, such as "MERGE"; empty if it does not say."""
        return cast("str", self.info.get("operation", ""))

    @property
    def is_by_delta_rs(self) -> bool:
        """Whether delta-rs has made the commit, and not for example Spark."""
        return str(self.info.get("engineInfo", "")).startswith("delta-rs")

    @property
    def transactions(self) -> dict[str, int]:
        """The versions of the application transactions in this commit, by app id."""
        return {txn["appId"]: txn["version"] for txn in self.of_kind("txn")}

    @property
    def schema(self) -> str | None:
        """The schema that the commit gives the table, as JSON; None if it does not set one."""
        return next((metadata["schemaString"] for metadata in self.of_kind("metaData")), None)

    @property
    def adds_rows(self) -> bool:
        """Whether the commit adds files with other rows than those that it removes: OPTIMIZE does not."""
        return any(add["dataChange"] for add in self.of_kind("add"))

    @property
    def removes_rows(self) -> bool:
        """Whether the commit removes files whose rows other files do not hold unchanged."""
        return any(remove["dataChange"] for remove in self.of_kind("remove"))


def digest(text: str | bytes) -> int:
    """A hash of `text` in 63 bits, the most that fits into the version of an application transaction."""
    data = text.encode() if isinstance(text, str) else text
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest()) >> 1


@dataclass(frozen=True)
class LogListing:
    """The files of a log: the ETags of the commit files by version, and the names of checkpoint files by version."""

    etags: dict[int, str] = field(default_factory=dict)
    checkpoints: dict[int, list[str]] = field(default_factory=dict)

    @classmethod
    def of(cls, files: Iterable["_LogFile"]) -> Self:
        """The listing that has these files. Checkpoints with a missing part are left out."""
        listing = cls()
        parts: dict[int, list[re.Match[str]]] = {}
        for name, etag in files:
            if match := _COMMIT_FILE.fullmatch(name):
                listing.etags[int(match[1])] = etag
            elif match := _CHECKPOINT_FILE.fullmatch(name):
                parts.setdefault(int(match["version"]), []).append(match)
        for version, matches in parts.items():
            single = [match[0] for match in matches if not match["parts"]]
            numbered = [match[0] for match in matches if match["parts"]]
            counts = {int(match["parts"]) for match in matches if match["parts"]}
            if single:
                listing.checkpoints[version] = [min(single, key=len)]
            elif counts == {len(numbered)}:
                listing.checkpoints[version] = numbered
        return listing

    @property
    def head(self) -> int | None:
        """The newest version of the table; None if the log has no commit and no checkpoint."""
        return max([*self.etags, *self.checkpoints], default=None)


@dataclass(frozen=True)
class LogSnapshot:
    """What a log says about one version of a table, apart from its files.

    `transactions` has the last version of each application transaction by app id, `schema` is the table's schema as
    JSON.
    """

    transactions: dict[str, int] = field(default_factory=dict)
    schema: str = ""

    def after(self, commits: Iterable[Commit]) -> "LogSnapshot":
        """What the log says after these commits, which follow in order."""
        transactions, schema = dict(self.transactions), self.schema
        for commit in commits:
            transactions |= commit.transactions
            schema = commit.schema or schema
        return LogSnapshot(transactions, schema)


class DeltaLog:
    """The `_delta_log` folder of one table.

    `of_table` reads it with the storage options of an open DeltaTable, on any storage. `of_ref` reads it with the S3
    client of the lake, which has current credentials, and needs no open table.
    """

    def __init__(self, uri: str, folder: "_Folder") -> None:
        self.uri = uri
        self._folder = folder

    @classmethod
    def of_table(cls, table: DeltaTable) -> Self:
        """The log of an open table, with the table's own storage options."""
        return cls(table.table_uri.rstrip("/"), _FolderOfTable(table))

    @classmethod
    def of_ref(cls, ref: TableRef) -> Self:
        """The log of a table in a lake, with the lake's credentials."""
        return cls(ref.uri, _FolderInLake(ref))

    def versions(self) -> list[int]:
        """The versions whose commit files exist, in order. A clean-up of the log removes the first ones."""
        return sorted(LogListing.of(self._folder.files()).etags)

    def listing(self, first_commit: int | None = None) -> LogListing:
        """The files of the log from the commit file of `first_commit` on; without it, at least those that are in use.

        One request, unless there are more than 1000 files.
        """
        if first_commit is not None:
            return LogListing.of(self._folder.files(f"{first_commit:020}.j"))  # sorts between ...checkpoint and ...json
        files = self._folder.files()
        names = list(islice(files, _PAGE_NAMES))
        if len(names) == _PAGE_NAMES and (checkpoint := self.checkpoint_version()) is not None:
            listing = LogListing.of(self._folder.files(f"{checkpoint:020}.c"))
            if checkpoint in listing.checkpoints:
                return listing
        return LogListing.of([*names, *files])

    def commit(self, version: int) -> Commit:
        """One commit. Raises MissingCommitError if its file does not exist."""
        file = self._folder.read(f"{version:020}.json")
        if file is None:
            raise MissingCommitError(self.uri, version)
        return Commit.parse(version, file.content, file.etag)

    def commits(self, versions: Iterable[int]) -> Iterator[Commit]:
        """The commits of `versions`, in that order, read in parallel. Raises MissingCommitError."""
        with ThreadPoolExecutor(_PARALLEL_READS) as pool:
            yield from pool.map(self.commit, versions)

    def commits_up_to(self, version: int) -> list[Commit]:
        """All commits that still have a file, up to `version`, in order."""
        return list(self.commits(number for number in self.versions() if number <= version))

    def checkpoint_version(self) -> int | None:
        """The version of the last checkpoint; None if there is none."""
        hint = self._folder.read("_last_checkpoint")
        return cast("int", json.loads(hint.content)["version"]) if hint else None

    def snapshot(self, version: int, listing: LogListing | None = None) -> LogSnapshot:
        """What the log says about `version`: reads the last checkpoint up to it, and the commits since then.

        `listing` is that of the log, if the caller has it. Raises MissingCommitError if commit files are missing.
        """
        listing = listing or self.listing()
        checkpoint = max((number for number in listing.checkpoints if number <= version), default=None)
        snapshot = LogSnapshot() if checkpoint is None else self._checkpoint(listing.checkpoints[checkpoint])
        first = 0 if checkpoint is None else checkpoint + 1
        return snapshot.after(self.commits(range(first, version + 1)))

    def _checkpoint(self, names: list[str]) -> LogSnapshot:
        """What a checkpoint says. The files that a V2 checkpoint refers to have only the table's data files."""
        transactions, schema = dict[str, int](), ""
        for name in names:
            if (file := self._folder.read(name)) is None:
                raise MissingCommitError(self.uri, int(name[:20]))
            if name.endswith(".json"):
                commit = Commit.parse(0, file.content)
                transactions |= commit.transactions
                schema = commit.schema or schema
                continue
            rows = pq.ParquetFile(io.BytesIO(file.content))
            columns = [name for name in rows.schema_arrow.names if name in ("txn", "metaData")]
            # A thread of Arrow that still holds Python's bytes when the process ends would abort it.
            actions = rows.read(columns=columns, use_threads=False).to_pydict()
            transactions |= {txn["appId"]: txn["version"] for txn in actions.get("txn", []) if txn}
            schema = next((metadata["schemaString"] for metadata in actions.get("metaData", []) if metadata), schema)
        return LogSnapshot(transactions, schema)


class _LogFile(NamedTuple):
    name: str
    etag: str


class _Content(NamedTuple):
    content: bytes
    etag: str


class _Folder(Protocol):
    def read(self, name: str) -> _Content | None:
        """The content of one file; None if it does not exist."""

    def files(self, after: str = "") -> Iterator[_LogFile]:
        """The files whose names sort after `after`, in order."""


class _FolderInLake:
    def __init__(self, ref: TableRef) -> None:
        self._ref = ref

    def read(self, name: str) -> _Content | None:
        lake = self._ref.lake
        try:
            answer = lake.s3.get_object(Bucket=lake.bucket, Key=self._ref.key("_delta_log", name))
            return _Content(answer["Body"].read(), answer["ETag"])
        except ClientError as error:
            if error.response["Error"]["Code"] in ("NoSuchKey", "404"):
                return None
            raise

    def files(self, after: str = "") -> Iterator[_LogFile]:
        prefix = self._ref.key("_delta_log", "")
        for entry in self._ref.lake.objects(prefix, after=prefix + after if after else ""):
            yield _LogFile(entry["Key"].removeprefix(prefix), entry["ETag"])


class _FolderOfTable:
    def __init__(self, table: DeltaTable) -> None:
        # delta-rs has no public way to read a file next to the table's data with the table's own options.
        handler: Any = DeltaStorageHandler.from_table(table._table)  # noqa: SLF001
        self._files = pa.fs.PyFileSystem(handler)

    def read(self, name: str) -> _Content | None:
        try:
            with self._files.open_input_file(f"_delta_log/{name}") as file:
                return _Content(file.read(), "")
        except FileNotFoundError:
            return None

    def files(self, after: str = "") -> Iterator[_LogFile]:
        entries = self._files.get_file_info(pa.fs.FileSelector("_delta_log", allow_not_found=True))
        return (_LogFile(name, "") for name in sorted(entry.base_name for entry in entries) if name > after)


# -- the progress of a load


def transactions(ref: TableRef, table: DeltaTable | None) -> dict[str, int]:
    """The last version of every application transaction of a table, by app id.

    delta-rs reads the log once for each app id; this reads it once for all. Raises StorageError if the log cannot be
    read, and MissingCommitError if it has neither a checkpoint nor all commits.
    """
    if table is None:
        return {}
    with translate_errors(f"read the log of {ref.label}", ref.lake):
        return DeltaLog.of_ref(ref).snapshot(table.version()).transactions


# -- files


def is_empty(table: DeltaTable | None) -> bool:
    """Whether the table does not exist, or has no rows yet."""
    return table is None or not table.file_uris()


def live_files(ref: TableRef, table: DeltaTable) -> list[str]:
    """The addresses of the table's live files, unencoded, as DuckDB needs them: `file_uris()` writes ö as %C3%B6.

    The paths need no decoding: only those of partitions do, and `compatibility` refuses partitioned tables.

    Raises IncompatibleReaderError if the files alone do not hold the right rows, as with deletion vectors.
    """
    compatibility.require(table, "files")
    paths = pa.table(table.get_add_actions(flatten=True))["path"].to_pylist()
    return [f"{ref.uri}/{path}" for path in paths]


def live_add_actions(table: DeltaTable) -> list[dict[str, Any]]:
    """The add action of each live file, flat: path, size_bytes, num_records, `partition.<column>`, `min.<column>` ...

    path is the object's key below the table; the log has it URL-encoded. num_records is None if the log does not have
    it; deleted rows are not counted. Statistics use the names of the table's columns, also under column mapping.
    """
    adds: list[dict[str, Any]] = pa.table(table.get_add_actions(flatten=True)).to_pylist()
    deleted = _deleted_rows_by_path(table)
    physical_names = compatibility.physical_names(table)
    for add in adds:
        if add["num_records"] is not None:
            add["num_records"] -= deleted.get(add["path"], 0)
        add["path"] = unquote(add["path"])
        for bound in ("min", "max"):
            add |= {f"{bound}.{name}": add.get(f"{bound}.{physical}") for name, physical in physical_names.items()}
    return adds


# -- deletion vectors: https://github.com/delta-io/delta/blob/master/PROTOCOL.md#deletion-vectors


def deletion_vector_path(action: dict[str, Any]) -> str | None:
    """The path, below the table, of the file with the deletion vector of an add or remove action.

    None if the action has no deletion vector, or if the vector is in the log itself.
    """
    vector = action.get("deletionVector") or {}
    if vector.get("storageType") != "u":
        return None
    folder, encoded = vector["pathOrInlineDv"][:-20], vector["pathOrInlineDv"][-20:]
    name = f"deletion_vector_{uuid.UUID(bytes=b85decode(encoded.translate(_FROM_Z85)))}.bin"
    return f"{folder}/{name}" if folder else name


_FROM_Z85 = str.maketrans(  # from ZeroMQ's alphabet for base 85 (https://rfc.zeromq.org/spec/32/) to Python's
    "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#",
    "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%&()*+-;<=>?@^_`{|}~",
)


def _deleted_rows_by_path(table: DeltaTable) -> dict[str, int]:
    if not compatibility.has_deletion_vectors(table):
        return {}
    root = table.table_uri.rstrip("/") + "/"
    vectors = table.deletion_vectors().read_all()
    paths, kept = vectors["filepath"].to_pylist(), vectors["selection_vector"].to_pylist()
    return {path.removeprefix(root): rows.count(False) for path, rows in zip(paths, kept, strict=True)}
