"""Raw files as they were delivered: where they are, how to open them, and whether one was delivered again.

A file is `<landing>/<batch>/<table>.<csv|jsonl|parquet>`, with `.gz` after csv or jsonl if it is compressed. Batches
are loaded in name order. Files directly in the landing folder are one batch, named `.`.
"""

import gzip
import hashlib
import os
import re
import stat
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

from botocore.exceptions import ClientError

from lakehouse_utils import settings
from lakehouse_utils.errors import LakehouseError, SettingError, UnreadableFileError
from lakehouse_utils.lake import Lake
from lakehouse_utils.lake.s3_errors import translate_errors

CHANGED_WHILE_READ = "the file changed while it was being read; the next run loads its new content"

_MAX_HASHED_BYTES = 1 << 20  # of a larger file only samples are hashed
_SAMPLE_BYTES, _SAMPLE_COUNT = 64 * 1024, 8
_FILE_NAME = re.compile(r"(?P<table>[^.]+)\.(?P<format>csv|jsonl|ndjson|parquet(?!\.gz))(?P<gz>\.gz)?", re.IGNORECASE)


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


class Landing:
    """The folder, or `s3://bucket/prefix`, in which raw files arrive."""

    def __init__(self, address: str, lake: Lake) -> None:
        """`lake` gives access to S3. Raises SettingError if `address` is a folder that does not exist."""
        self.address = address.rstrip("/")
        self._lake = lake.sibling(settings.s3_uri(address)) if address.startswith("s3://") else None
        if self._lake is None and not Path(address).is_dir():
            raise SettingError(
                f"The landing folder {address} does not exist. Check --landing or LAKEHOUSE_LANDING.",
                setting="LAKEHOUSE_LANDING",
            )

    def files(self) -> tuple[list[LandingFile], list[str]]:
        """The files to load, sorted by batch and name, and one sentence for each file or folder that is ignored.

        Hidden files and markers such as `_SUCCESS` are ignored silently. Raises LakehouseError if the landing folder
        cannot be listed.
        """
        files: list[LandingFile] = []
        ignored: dict[str, None] = {}  # a dict, because S3 lists a deeper folder once for each file in it
        for entry in sorted(self._list()):
            *folders, name = entry.path.split("/")
            if any(part.startswith((".", "_")) for part in (*folders, name)):
                continue
            shown_path = entry.path.encode(errors="backslashreplace").decode()
            if len(folders) > 1 or "" in folders:
                shown_path, reason = "/".join(shown_path.split("/")[:2]) + "/", "it is deeper than <batch>/<table>"
            elif not name:
                reason = "the folder cannot be listed"
            elif shown_path != entry.path:
                reason = "its name is not valid UTF-8"
            elif entry.size_bytes is None or not (match := _FILE_NAME.fullmatch(name)):
                reason = "it is not a file <batch>/<table>.csv, .jsonl (both also .gz) or .parquet"
            else:
                file_format = match["format"].lower().replace("ndjson", "jsonl")
                batch, gzipped = folders[0] if folders else ".", bool(match["gz"])
                files.append(
                    LandingFile(batch, match["table"], entry.path, file_format, gzipped, entry.size_bytes, entry.etag)
                )
                continue
            ignored[f"{shown_path} is ignored: {reason}"] = None
        return sorted(files, key=lambda file: (file.batch, file.path)), list(ignored)

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
    def open(self, file: LandingFile) -> Iterator[BinaryIO]:
        """The bytes of `file`, decompressed if it is gzipped. Raises UnreadableFileError."""
        with _translate_read_errors(), self._open_raw(file) as stream:
            yield cast("BinaryIO", gzip.GzipFile(fileobj=stream)) if file.gzipped else stream

    @contextmanager
    def _open_raw(self, file: LandingFile) -> Iterator[BinaryIO]:
        if self._lake is None:
            with (Path(self.address) / file.path).open("rb") as stream:
                yield stream
            return
        # Downloaded completely: Parquet is read from its end, and an interrupted download is resumed.
        with tempfile.TemporaryFile() as temporary:
            self._download(self._lake, file, cast("BinaryIO", temporary))
            temporary.seek(0)
            yield cast("BinaryIO", temporary)

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
        """63 bits that distinguish this delivery of the file from another one under the same name.

        They are a hash of an object's ETag, or of a file's bytes. Of a file of more than 1 MiB, only the size, the
        modification time and eight samples are hashed, so that a rerun does not read everything again. Raises
        UnreadableFileError.
        """
        digest = hashlib.blake2b(file.etag.encode(), digest_size=8)
        if self._lake is None:
            with _translate_read_errors(), self._open_raw(file) as stream:
                status = os.fstat(stream.fileno())
                modified_ns = status.st_mtime_ns if status.st_size > _MAX_HASHED_BYTES else ""
                digest.update(f"{status.st_size} {modified_ns}".encode())
                for offset, length in _hashed_ranges(status.st_size):
                    stream.seek(offset)
                    digest.update(stream.read(length))
        return int.from_bytes(digest.digest()) >> 1


def _list_folder(landing: Path) -> Iterator[_Entry]:
    errors: list[OSError] = []
    for folder, subfolders, names in os.walk(landing, followlinks=True, onerror=errors.append):
        relative = Path(folder).relative_to(landing)
        if relative.parts:  # nothing is deeper than a batch
            yield from (_Entry((relative / name).as_posix() + "/", None, "") for name in subfolders)
            subfolders.clear()
        for name in names:
            path = (relative / name).as_posix()
            try:
                status = Path(folder, name).stat()
            except OSError:  # just removed, or a broken link: the attempt to read it reports that
                yield _Entry(path, 0, "")
            else:
                yield _Entry(path, status.st_size if stat.S_ISREG(status.st_mode) else None, "")
    for error in errors:
        folder_path = Path(error.filename)
        if folder_path == landing:
            raise LakehouseError(
                f"Could not list the landing folder {landing}: {error.strerror}. Check its permissions, or --landing."
            )
        yield _Entry(folder_path.relative_to(landing).as_posix() + "/", None, "")


def _hashed_ranges(size_bytes: int) -> list[tuple[int, int]]:
    """(offset, length) of the parts of a file that its fingerprint is made of."""
    if size_bytes <= _MAX_HASHED_BYTES:
        return [(0, size_bytes)]
    last_offset = size_bytes - _SAMPLE_BYTES
    return [(round(i * last_offset / (_SAMPLE_COUNT - 1)), _SAMPLE_BYTES) for i in range(_SAMPLE_COUNT)]


@contextmanager
def _translate_read_errors() -> Iterator[None]:
    """Raise errors of the file system and of gzip as UnreadableFileError."""
    try:
        yield
    except FileNotFoundError:
        raise UnreadableFileError("the file was removed before it could be read, or it is a broken link") from None
    except PermissionError:
        raise UnreadableFileError("permission to read the file was denied") from None
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UnreadableFileError(f"the gzip data is truncated or damaged ({error})") from None
    except OSError as error:
        raise UnreadableFileError(f"could not read the file: {error.strerror or error}") from None
