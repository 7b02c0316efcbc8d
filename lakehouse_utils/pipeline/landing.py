"""Raw files as they were delivered: where they are, how to open them, and whether one was delivered again.

A file is `<landing>/<batch>/<table>.<csv|jsonl|parquet>`, with `.gz` after csv or jsonl if it is compressed. Batches
are loaded in name order. Files directly in the landing folder are one batch, named `.`.

Two files are the same delivery if they have the same path below the landing folder and the same bytes, in whichever
folder or bucket they are and whenever they were written.
"""

import errno
import gzip
import hashlib
import io
import os
import re
import stat
import tempfile
import unicodedata
import zlib
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

from botocore.exceptions import ClientError

from lakehouse_utils import settings
from lakehouse_utils.errors import LakehouseError, MachineError, SettingError, UnreadableFileError
from lakehouse_utils.lake import Lake
from lakehouse_utils.lake.s3_errors import translate_errors
from lakehouse_utils.machine_errors import recognize, translate_machine_errors
from lakehouse_utils.pipeline.content_hints import ContentHints, FileState

CHANGED_WHILE_READ = "the file changed while it was being read; the next run loads its new content"
LEADS_OUTSIDE = "it is a link that leads outside the landing folder; put the files themselves into the folder"

_BLOCK_BYTES = 1 << 20  # of a file that is hashed
_MAX_HASHED_BYTES = 1 << 20  # of a larger file, the first version of this package hashed only samples
_SAMPLE_BYTES, _SAMPLE_COUNT = 64 * 1024, 8
_FILE_NAME = re.compile(r"(?P<table>[^.]+)\.(?P<format>csv|jsonl|ndjson|parquet(?!\.gz))(?P<gz>\.gz)?", re.IGNORECASE)
# Errors that concern one file only. After any other one, the next file could not be read either.
_ERRORS_OF_A_FILE = {
    errno.EISDIR: "it is a folder",
    errno.ENOTDIR: "the file was removed before it could be read",
    errno.ELOOP: "it is a link that leads back to itself",
    errno.ENAMETOOLONG: "its name is too long",
    errno.EINVAL: "the file system cannot read it",
}


@dataclass(frozen=True)
class LandingFile:
    """One raw file. `path` is relative to the landing folder, so it stays the same when the folder moves."""

    batch: str
    table: str
    path: str
    format: str
    gzipped: bool
    size_bytes: int
    etag: str = ""  # of an object on S3


class _Entry(NamedTuple):
    """An entry of a listing. `size_bytes` is None unless it is a regular file; a folder's `path` ends in a slash."""

    path: str
    size_bytes: int | None
    etag: str
    leads_outside: bool = False


class Listing(NamedTuple):
    """What is in a landing folder: the files to load, and one sentence for each other entry.

    `ignored` are entries that are no raw files, `refused` are links that lead outside the folder, and batches that
    cannot be listed.
    """

    files: list[LandingFile]
    ignored: list[str]
    refused: list[str]


class OpenFile(NamedTuple):
    """The bytes of a raw file, decompressed if it is gzipped, and the fingerprint of its content (see `Landing`)."""

    stream: BinaryIO
    fingerprint: int


class Landing:
    """The folder, or `s3://bucket/prefix`, in which raw files arrive.

    The fingerprint of a file is 63 bits of a hash of its size and of all its bytes, as delivered.
    """

    def __init__(self, address: str, lake: Lake, hints: ContentHints | None = None) -> None:
        """`lake` gives access to S3. With `hints`, unchanged files of a folder are not read again.

        Raises SettingError if `address` is a folder that does not exist.
        """
        self.address = address.rstrip("/") or "/"
        self._hints = hints or ContentHints()
        self._folders_outside: dict[str, bool] = {}
        self._lake = lake.sibling(settings.s3_uri(address)) if address.startswith("s3://") else None
        if self._lake is None and not Path(address).is_dir():
            raise SettingError(
                f"The landing folder {address} does not exist. Check --landing or LAKEHOUSE_LANDING.",
                setting="LAKEHOUSE_LANDING",
            )

    def files(self) -> Listing:
        """The files to load, sorted by batch and name, and what is ignored or refused.

        Hidden files, markers such as `_SUCCESS`, and source descriptions (`*.toml`) are ignored silently. Raises
        LakehouseError if the landing folder cannot be listed.
        """
        files: list[LandingFile] = []
        ignored: dict[str, None] = {}  # a dict, because S3 lists a deeper folder once for each file in it
        refused: list[str] = []
        for entry in sorted(self._list()):
            *folders, name = entry.path.split("/")
            if any(part.startswith((".", "_")) for part in (*folders, name)) or name.lower().endswith(".toml"):
                continue
            if entry.leads_outside:
                refused.append(f"{printable(entry.path)}: {LEADS_OUTSIDE}")
                continue
            if not name and len(folders) == 1:
                refused.append(f"{printable(entry.path)}: the folder cannot be listed; check its permissions")
                continue
            shown_path = entry.path
            if len(folders) > 1 or "" in folders:
                shown_path, reason = "/".join(entry.path.split("/")[:2]) + "/", "it is deeper than <batch>/<table>"
            elif not _is_utf8(entry.path):
                reason = "its name is not valid UTF-8"
            elif entry.size_bytes is None or not (match := _FILE_NAME.fullmatch(name)):
                reason = "its name is not <table> with .csv, .jsonl, .ndjson, one of these and .gz, or .parquet"
            else:
                file_format = match["format"].lower().replace("ndjson", "jsonl")
                batch, gzipped = folders[0] if folders else ".", bool(match["gz"])
                files.append(
                    LandingFile(batch, match["table"], entry.path, file_format, gzipped, entry.size_bytes, entry.etag)
                )
                continue
            ignored[f"{printable(shown_path)} is ignored: {reason}"] = None
        return Listing(sorted(files, key=lambda file: (file.batch, file.path)), list(ignored), refused)

    def _list(self) -> Iterator[_Entry]:
        if self._lake is None:
            yield from _list_folder(Path(self.address))
            return
        prefix = self._lake.key("")
        with translate_errors(f"list the landing {self.address}", self._lake):
            for entry in self._lake.objects(prefix):
                if not entry["Key"].endswith("/"):
                    yield _Entry(entry["Key"].removeprefix(prefix), entry["Size"], entry["ETag"])

    @contextmanager
    def open(self, file: LandingFile) -> Iterator[OpenFile]:
        """Open a raw file.

        Raises UnreadableFileError, also at the end of the `with` block if the file has changed in the meantime, and
        MachineError.
        """
        with self._open_raw(file) as raw:
            fingerprint = _fingerprint(raw)
            if file.gzipped:
                with _translate_gzip_errors():
                    yield OpenFile(cast("BinaryIO", gzip.GzipFile(fileobj=raw)), fingerprint)
            else:
                yield OpenFile(raw, fingerprint)
            was_just_written = self._lake is None and not FileState.of(os.fstat(raw.fileno())).is_settled
            if was_just_written and _fingerprint(raw) != fingerprint:
                raise UnreadableFileError(CHANGED_WHILE_READ)

    @contextmanager
    def _open_raw(self, file: LandingFile) -> Iterator[BinaryIO]:
        if self._lake is None:
            path = self._local_path(file)
            with _LocalFile(path, file.path) as raw, io.BufferedReader(raw) as stream:
                before = FileState.of(os.fstat(raw.fileno()))
                yield cast("BinaryIO", stream)
                with _translate_read_errors(file.path):
                    after = FileState.of(path.stat())
                if after != before:
                    raise UnreadableFileError(CHANGED_WHILE_READ)
            return
        # Downloaded completely: Parquet is read from its end, and an interrupted download is resumed.
        with ExitStack() as stack:
            with translate_machine_errors(f"download {self.address}/{printable(file.path)}"):
                temporary = cast("BinaryIO", stack.enter_context(tempfile.TemporaryFile()))
                self._download(self._lake, file, temporary)
                temporary.seek(0)
            yield temporary

    def _local_path(self, file: LandingFile) -> Path:
        """The path of a file in the landing folder. Raises UnreadableFileError for a link that leads outside."""
        path = Path(self.address) / file.path
        if _leads_outside(path, Path(self.address)):
            raise UnreadableFileError(LEADS_OUTSIDE)
        return path

    def _is_folder_outside(self, folder: str) -> bool:
        if folder not in self._folders_outside:
            self._folders_outside[folder] = _leads_outside(Path(folder), Path(self.address))
        return self._folders_outside[folder]

    def _download(self, lake: Lake, file: LandingFile, stream: BinaryIO) -> None:
        key = lake.key(file.path)
        with translate_errors(f"read {self.address}/{file.path}", lake):
            try:
                lake.s3.download_fileobj(Bucket=lake.bucket, Key=key, Fileobj=stream)
                changed = lake.s3.head_object(Bucket=lake.bucket, Key=key)["ETag"] != file.etag
            except ClientError as error:
                code = error.response["Error"]["Code"]
                if code in ("404", "NoSuchKey"):
                    raise UnreadableFileError("the file was removed before it could be read") from None
                if code in ("403", "AccessDenied"):
                    raise UnreadableFileError("permission to read the file was denied") from None
                if code not in ("412", "PreconditionFailed"):
                    raise
                changed = True
        if changed:
            raise UnreadableFileError(CHANGED_WHILE_READ)

    def fingerprint(self, file: LandingFile) -> int:
        """The fingerprint of a file's content. Reads the file unless a hint says that it has not changed.

        Raises UnreadableFileError and MachineError.
        """
        if self._lake is not None:
            with self._open_raw(file) as stream:
                return _fingerprint(stream)
        path = os.path.join(self.address, file.path)  # noqa: PTH118 - ten times as fast, for each file of each run
        with _translate_read_errors(file.path):
            status = os.lstat(path)
            if stat.S_ISLNK(status.st_mode) or self._is_folder_outside(path.rpartition("/")[0]):
                status = self._local_path(file).stat()
        state = FileState.of(status)
        if (known := self._hints.get(path, state)) is not None:
            return known
        with self._open_raw(file) as stream:
            fingerprint = _fingerprint(stream)
        self._hints.put(path, state, fingerprint)
        return fingerprint

    def etag_fingerprint(self, file: LandingFile) -> int | None:
        """63 bits of a hash of an object's ETag and size; None in a folder.

        Objects with the same one have the same content. Those with different ones may have it too, because the ETag of
        an upload in parts depends on the parts.
        """
        return None if self._lake is None else _hash([f"{file.size_bytes} {file.etag}".encode()])

    def earlier_fingerprint(self, file: LandingFile) -> int:
        """What the first version of this package recorded for a file that it had loaded.

        Of an object, a hash of the ETag; of a file of more than 1 MiB, one of its size, its modification time and eight
        samples. Raises UnreadableFileError and MachineError.
        """
        if self._lake is not None:
            return _hash([file.etag.encode()])
        with self._open_raw(file) as stream:
            status = os.fstat(stream.fileno())
            if status.st_size <= _MAX_HASHED_BYTES:
                return _fingerprint(stream)
            samples = [f"{status.st_size} {status.st_mtime_ns}".encode()]
            for number in range(_SAMPLE_COUNT):
                stream.seek(round(number * (status.st_size - _SAMPLE_BYTES) / (_SAMPLE_COUNT - 1)))
                samples.append(stream.read(_SAMPLE_BYTES))
            return _hash(samples)

    def save_hints(self) -> None:
        """Keep what is known about the files' contents for the next run."""
        self._hints.save()


def _fingerprint(stream: BinaryIO) -> int:
    """The fingerprint of all bytes of a file, which is then at its start again."""
    size_bytes = stream.seek(0, io.SEEK_END)
    stream.seek(0)
    blocks = iter(lambda: stream.read(_BLOCK_BYTES), b"")
    fingerprint = _hash(chain([f"{size_bytes} ".encode()], blocks))
    stream.seek(0)
    return fingerprint


def _hash(parts: Iterable[bytes]) -> int:
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        digest.update(part)
    return int.from_bytes(digest.digest()) >> 1


class _LocalFile(io.FileIO):
    """A raw file in a folder. What goes wrong while it is read is raised as UnreadableFileError or MachineError."""

    def __init__(self, path: Path, shown_path: str) -> None:
        self._shown_path = shown_path
        with _translate_read_errors(shown_path):
            super().__init__(path, "rb")

    def readinto(self, buffer: Any) -> int | None:  # noqa: ANN401 - any writable buffer, as in io.FileIO
        with _translate_read_errors(self._shown_path):
            return super().readinto(buffer)

    def read(self, size: int | None = -1) -> bytes | Any:  # noqa: ANN401 - as in typeshed
        with _translate_read_errors(self._shown_path):
            return super().read(size)

    def readall(self) -> bytes:
        with _translate_read_errors(self._shown_path):
            return super().readall()


def printable(name: str) -> str:
    r"""`name` with characters that change how a terminal shows the text written as escapes, such as \x1b and \u202e.

    They are control characters, line separators, marks for the direction of text, and bytes that are not UTF-8.
    """
    return "".join(
        character.encode("unicode_escape").decode() if unicodedata.category(character) in _NOT_SHOWN else character
        for character in name
    )


_NOT_SHOWN = {"Cc", "Cf", "Cs", "Zl", "Zp"}


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:  # bytes that are not UTF-8 are surrogates in a name
        return False
    return True


def _leads_outside(path: Path, landing: Path) -> bool:
    """Whether a link on the way from the landing folder to `path` leads outside the folder, which may be a link too."""
    return not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(landing))


def _list_folder(landing: Path) -> Iterator[_Entry]:
    errors: list[OSError] = []
    batches, files = _scan(landing, errors)
    yield from _file_entries("", files, landing)
    for batch in batches:
        if _is_link_outside(batch, landing):
            yield _Entry(f"{batch.name}/", None, "", leads_outside=True)
            continue
        folders, files = _scan(batch.path, errors)
        yield from (_Entry(f"{batch.name}/{folder.name}/", None, "") for folder in folders)  # deeper than a batch
        yield from _file_entries(f"{batch.name}/", files, landing)
    for error in errors:
        folder_path = Path(error.filename)
        if folder_path == landing:
            raise LakehouseError(
                f"Could not list the landing folder {landing}: {error.strerror}. Check its permissions, or --landing."
            )
        if machine_error := recognize(error, f"list the landing folder {landing}"):
            raise machine_error
        yield _Entry(folder_path.relative_to(landing).as_posix() + "/", None, "")


def _scan(folder: Path | str, errors: list[OSError]) -> tuple[list["os.DirEntry[str]"], list["os.DirEntry[str]"]]:
    """The subfolders of a folder, links to folders included, and its other entries."""
    folders: list[os.DirEntry[str]] = []
    others: list[os.DirEntry[str]] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                (folders if _is_folder(entry) else others).append(entry)
    except OSError as error:
        errors.append(error)
    return folders, others


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads back to itself, for example
        return False


def _file_entries(prefix: str, files: list["os.DirEntry[str]"], landing: Path) -> Iterator[_Entry]:
    for file in files:
        path, is_outside = prefix + file.name, _is_link_outside(file, landing)
        try:
            status = file.stat()
        except OSError:  # just removed, or a broken link: the attempt to read it reports that
            yield _Entry(path, 0, "")
        else:
            size_bytes = status.st_size if stat.S_ISREG(status.st_mode) else None
            yield _Entry(path, size_bytes, "", is_outside and not _FILE_NAME.fullmatch(file.name))


def _is_link_outside(entry: "os.DirEntry[str]", landing: Path) -> bool:
    return entry.is_symlink() and _leads_outside(Path(entry.path), landing)


@contextmanager
def _translate_gzip_errors() -> Iterator[None]:
    try:
        yield
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UnreadableFileError(f"the gzip data is truncated or damaged ({error})") from None


@contextmanager
def _translate_read_errors(path: str) -> Iterator[None]:
    """Raise errors of one file as UnreadableFileError, and all others of the file system as MachineError."""
    try:
        yield
    except FileNotFoundError:
        raise UnreadableFileError("the file was removed before it could be read, or it is a broken link") from None
    except PermissionError:
        raise UnreadableFileError("permission to read the file was denied") from None
    except OSError as error:
        if error.errno in _ERRORS_OF_A_FILE:
            raise UnreadableFileError(_ERRORS_OF_A_FILE[error.errno]) from None
        action = f"read {printable(path)}"
        raise recognize(error, action) or MachineError(
            f"Could not {action}: {error.strerror or error}. Check the disk or network drive that it is on.",
            code=errno.errorcode.get(error.errno or 0, ""),
        ) from error
