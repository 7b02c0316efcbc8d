"""The objects in a table's folder as S3 lists them, with what no commit names."""

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Self

from botocore.exceptions import ClientError

from lakehouse_utils.lake import Lake, TableRef
from lakehouse_utils.lake.s3_errors import translate_errors

PLAIN_PATH = re.compile(r"[A-Za-z0-9-][A-Za-z0-9._-]*\.parquet")  # the same in the log, as a key, and in a folder
_CHECKPOINT = re.compile(r"(\d{20})\.checkpoint\.parquet")
_MAX_DELETES = 1_000  # objects per request


@dataclass(frozen=True)
class StoredObject:
    """An object of the bucket. `modified` is by the server's clock."""

    size_bytes: int
    modified: datetime
    etag: str


@dataclass(frozen=True)
class TableObjects:
    """What a table's folder contains: data files directly in it, the files of its log, and logs that were set aside."""

    data: dict[str, StoredObject]
    log: dict[str, StoredObject]
    set_aside: list[StoredObject]

    @classmethod
    def read(cls, ref: TableRef) -> Self:
        """List a table's folder."""
        data, log, set_aside = dict[str, StoredObject](), dict[str, StoredObject](), []
        prefix = ref.key("")
        for entry in ref.lake.objects(prefix):
            path = entry["Key"].removeprefix(prefix)
            found = StoredObject(entry["Size"], entry["LastModified"], entry["ETag"])
            folder, _, name = path.rpartition("/")
            if folder == "_delta_log":
                log[name] = found
            elif folder.startswith("_old_logs"):  # see rebuild.py
                set_aside.append(found)
            elif not folder and PLAIN_PATH.fullmatch(name):
                data[name] = found
        return cls(data, log, set_aside)

    def etag(self, name: str) -> str | None:
        """The ETag of a file of the log."""
        return self.log[name].etag if name in self.log else None

    def commits(self) -> dict[int, StoredObject]:
        """The commit files, by version."""
        return {int(name[:20]): found for name, found in self.log.items() if re.fullmatch(r"\d{20}\.json", name)}

    def young_commits(self, now: datetime, retention: timedelta) -> list[int]:
        """The versions whose commits are younger than the retention."""
        return [version for version, found in self.commits().items() if now - found.modified < retention]

    def has_old_commits(self, now: datetime, retention: timedelta) -> bool:
        """Whether there is a commit that is older than the retention."""
        return len(self.young_commits(now, retention)) < len(self.commits())

    def checkpoints(self) -> dict[int, StoredObject]:
        """The checkpoints that are single files, by version."""
        return {int(match[1]): found for name, found in self.log.items() if (match := _CHECKPOINT.fullmatch(name))}


def delete_objects(ref: TableRef, keys: list[str]) -> None:
    """Delete objects of a table, in order. Raises ClientError if one is refused."""
    lake = ref.lake
    for start in range(0, len(keys), _MAX_DELETES):
        objects = [{"Key": key} for key in keys[start : start + _MAX_DELETES]]
        answer = lake.s3.delete_objects(Bucket=lake.bucket, Delete={"Objects": objects, "Quiet": True})  # type: ignore[typeddict-item]
        for refused in answer.get("Errors", []):
            raise ClientError(
                {"Error": {"Code": refused["Code"], "Message": refused.get("Message", "")}}, "DeleteObjects"
            )


def server_time(lake: Lake) -> datetime:
    """The time by the clock of the S3 server, which also sets the modification times of objects."""
    with translate_errors(f"list {lake.root}", lake):
        # Not HeadBucket: a policy that allows listing only below the lake's prefix does not allow that.
        answer = lake.s3.list_objects_v2(Bucket=lake.bucket, Prefix=lake.key(""), MaxKeys=1)
    return parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"])
