"""Raw files as they came: where they are, what changed, and how to open them.

A file is `<landing>/<batch>/<table>.<csv|jsonl|parquet>`, `.gz` after csv and jsonl; batches are taken in name order.
Files directly in the folder are one batch, named `.`.
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
from typing import BinaryIO

from botocore.exceptions import ClientError

from lakehouse_utils import settings
from lakehouse_utils.errors import LakehouseError, UnreadableFileError
from lakehouse_utils.lake import Lake
from lakehouse_utils.lake.s3_errors import translate_errors

_MIB = 1 << 20
_FILE_NAME = re.compile(r"(?P<table>[^.]+)\.(?P<kind>csv|jsonl|ndjson|parquet(?!\.gz))(?P<gz>\.gz)?", re.IGNORECASE)


@dataclass(frozen=True)
class LandingFile:
    """One raw file: `path`, relative to the landing, stays its identity when the landing moves."""

    batch: str
    table: str
    path: str
    format: str
    gzipped: bool
    size: int
    etag: str = ""  # of an object on S3


class Landing:
    """The folder, or `s3://bucket/prefix`, that raw files arrive in."""

    def __init__(self, address: str, lake: Lake) -> None:
        self.address = address.rstrip("/")
        self._lake = lake.sibling(settings.s3_uri(address)) if address.startswith("s3://") else None
        if self._lake is None and not Path(address).is_dir():
            raise LakehouseError(f"The landing folder {address} doesn't exist: check --landing or LAKEHOUSE_LANDING.")

    def files(self) -> tuple[list[LandingFile], list[str]]:
        """The files to load, by batch and name, and one sentence for each file or folder that is left alone."""
        found, ignored = [], {}  # a dict, for S3 names a deeper folder as often as it has files
        for path, size, etag in sorted(self._list()):
            *folders, name = path.split("/")
            if any(part.startswith((".", "_")) for part in (*folders, name)):
                continue  # hidden, or a marker like _SUCCESS
            shown = path.encode(errors="backslashreplace").decode()
            if len(folders) > 1 or "" in folders:
                shown, reason = "/".join(shown.split("/")[:2]) + "/", "deeper than <batch>/<table>"
            elif not name:
                reason = "the folder can't be listed"
            elif shown != path:
                reason = "its name is not UTF-8"
            elif size is None or not (parts := _FILE_NAME.fullmatch(name)):
                reason = "not a file <batch>/<table>.csv, .jsonl (both also .gz) or .parquet"
            else:
                kind = parts["kind"].lower().replace("ndjson", "jsonl")
                batch = folders[0] if folders else "."
                found.append(LandingFile(batch, parts["table"], path, kind, bool(parts["gz"]), size, etag))
                continue
            ignored[f"{shown}: {reason}; left alone"] = None
        return sorted(found, key=lambda file: (file.batch, file.path)), list(ignored)

    def _list(self) -> Iterator[tuple[str, int | None, str]]:
        """(path, size, ETag); the size is None where it is no regular file, and a folder's path ends in a slash."""
        if self._lake is None:
            yield from _walk(Path(self.address))
            return
        prefix = self._lake.key("")
        with translate_errors(f"list the landing {self.address}", self._lake):
            for entry in self._lake.objects(prefix):
                if not entry["Key"].endswith("/"):
                    yield entry["Key"].removeprefix(prefix), entry["Size"], entry["ETag"]

    @contextmanager
    def open(self, file: LandingFile) -> Iterator[BinaryIO]:
        """The bytes of `file`, unpacked when gzipped. Raises UnreadableFileError."""
        with _refusing(), self._stream(file) as stream:
            yield gzip.GzipFile(fileobj=stream) if file.gzipped else stream

    @contextmanager
    def _stream(self, file: LandingFile) -> Iterator[BinaryIO]:
        if self._lake is None:
            with (Path(self.address) / file.path).open("rb") as stream:
                yield stream
            return
        with tempfile.TemporaryFile() as stream:  # Parquet is read from its end, and a download can be resumed
            self._download(file, stream)
            stream.seek(0)
            yield stream

    def _download(self, file: LandingFile, stream: BinaryIO) -> None:
        place = {"Bucket": self._lake.bucket, "Key": self._lake.key(file.path)}
        with translate_errors(f"read {self.address}/{file.path}", self._lake):
            try:
                self._lake.s3.download_fileobj(**place, Fileobj=stream)
                changed = self._lake.s3.head_object(**place)["ETag"] != file.etag
            except ClientError as error:
                code = error.response["Error"]["Code"]
                if code in ("404", "NoSuchKey"):
                    raise UnreadableFileError("the file vanished before it was read") from None
                if code in ("403", "AccessDenied"):
                    raise UnreadableFileError("no permission to read the file") from None
                if code not in ("412", "PreconditionFailed"):
                    raise
                changed = True
        if changed:
            raise UnreadableFileError("the file changed while it was read; the next run takes it as it is then")

    def fingerprint(self, file: LandingFile) -> int:
        """63 bits that tell this delivery of the file from another one under the same name. Raises UnreadableFileError.

        Made of an object's ETag or a file's bytes; so that a rerun needn't read everything, of a file over 1 MiB they
        are made of its size, its time of change and eight samples.
        """
        digest = hashlib.blake2b(file.etag.encode(), digest_size=8)
        if self._lake is None:
            with _refusing(), self._stream(file) as stream:
                status = os.fstat(stream.fileno())
                digest.update(f"{status.st_size} {status.st_mtime_ns if status.st_size > _MIB else ''}".encode())
                for offset, length in _samples(status.st_size):
                    stream.seek(offset)
                    digest.update(stream.read(length))
        return int.from_bytes(digest.digest()) >> 1


def _walk(folder: Path) -> Iterator[tuple[str, int | None, str]]:
    denied = []
    for here, folders, names in os.walk(folder, followlinks=True, onerror=denied.append):
        place = Path(here).relative_to(folder)
        if place.parts:  # nothing is deeper than a batch
            yield from (((place / name).as_posix() + "/", None, "") for name in folders)
            folders.clear()
        for name in names:
            try:
                status = Path(here, name).stat()
            except OSError:  # it vanished, or is a link to nothing: reading it tells
                yield (place / name).as_posix(), 0, ""
            else:
                yield (place / name).as_posix(), status.st_size if stat.S_ISREG(status.st_mode) else None, ""
    for error in denied:
        if Path(error.filename) == folder:
            raise LakehouseError(f"The landing folder {folder} can't be listed: {error.strerror}.")
        yield Path(error.filename).relative_to(folder).as_posix() + "/", None, ""


def _samples(size: int) -> list[tuple[int, int]]:
    if size <= _MIB:
        return [(0, size)]
    length, count = 64 * 1024, 8
    return [(round(i * (size - length) / (count - 1)), length) for i in range(count)]


@contextmanager
def _refusing() -> Iterator[None]:
    """Errors of reading, as UnreadableFileError."""
    try:
        yield
    except FileNotFoundError:
        raise UnreadableFileError("the file vanished before it was read, or is a link to nothing") from None
    except PermissionError:
        raise UnreadableFileError("no permission to read the file") from None
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UnreadableFileError(f"the gzip data is cut off or damaged ({error})") from None
    except OSError as error:
        raise UnreadableFileError(f"reading failed: {error.strerror or error}") from None
