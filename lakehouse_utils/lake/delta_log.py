"""The one reader of a Delta log: its commits, the live files, and how far a table has got.

How far a table has got is recorded in its own log, committed together with the rows, as an application transaction:
https://github.com/delta-io/delta/blob/master/PROTOCOL.md#transaction-identifiers
"""

import io
import json
from collections.abc import Callable
from functools import partial

import pyarrow as pa
import pyarrow.parquet as pq
from botocore.exceptions import ClientError
from deltalake import DeltaTable

from lakehouse_utils.lake import compatibility
from lakehouse_utils.lake.lake import TableRef
from lakehouse_utils.lake.s3_errors import translate_errors


class _MissingCommitError(Exception):
    """The log has no such commit file any more: a clean-up removed it."""


def progress(table: DeltaTable | None, app_id: str) -> int | None:
    """The version last committed under `app_id`; None where nothing was."""
    return None if table is None else table.transaction_version(app_id)


def progress_by_app_id(ref: TableRef, table: DeltaTable | None) -> Callable[[str], int | None]:
    """`progress` as a function of the app id, for many lookups: delta-rs reads the log each time, this reads it once."""
    if table is None:
        return {}.get
    versions, first = {}, 0
    try:
        with translate_errors(f"read the log of {ref.label}", ref.lake):
            if hint := _log_file(ref, "_last_checkpoint"):
                first = json.loads(hint)["version"] + 1
                checkpoint = _log_file(ref, f"{first - 1:020}.checkpoint.parquet")
                if first - 1 > table.version() or checkpoint is None:  # in several parts, written by another engine
                    return partial(progress, table)
                entries = pq.read_table(io.BytesIO(checkpoint), columns=["txn"])["txn"].to_pylist()
                versions = {entry["appId"]: entry["version"] for entry in entries if entry}
            for number in range(first, table.version() + 1):
                for action in _actions(ref, number):
                    if "txn" in action:
                        versions[action["txn"]["appId"]] = action["txn"]["version"]
    except _MissingCommitError:
        return partial(progress, table)
    return versions.get


def is_empty(table: DeltaTable | None) -> bool:
    """Whether the table does not exist, or has no rows yet."""
    return table is None or not table.file_uris()


def live_files(ref: TableRef, table: DeltaTable) -> list[str]:
    """Addresses of the table's files, as DuckDB reads them: `file_uris()` writes ö as %C3%B6.

    Raises IncompatibleReaderError where the rows are not in the files alone, as with deletion vectors.
    """
    compatibility.FILES.refuse(table)
    paths = pa.table(table.get_add_actions(flatten=True))["path"].to_pylist()
    return [f"{ref.uri}/{path}" for path in paths]


def files_added_since(ref: TableRef, table: DeltaTable, version: int | None) -> list[str]:
    """Addresses of the files that brought new rows after `version`; all files for None.

    Files that OPTIMIZE rewrote are not new. Where older commits have been cleaned up, the answer is all files as well:
    reading a row twice does no harm to a MERGE.
    """
    live = live_files(ref, table)
    if version is None:
        return live
    added: list[str] = []
    try:
        for number in range(version + 1, table.version() + 1):
            with translate_errors(f"read the log of {ref.label}", ref.lake):
                added += _paths_added_by(ref, number)
    except _MissingCommitError:
        return live
    uris = [f"{ref.uri}/{path}" for path in added]
    if not set(live).issuperset(uris):  # compacted since, and perhaps vacuumed
        return live
    return uris


def _paths_added_by(ref: TableRef, version: int) -> list[str]:
    actions = _actions(ref, version)
    return [action["add"]["path"] for action in actions if "add" in action and action["add"]["dataChange"]]


def _actions(ref: TableRef, version: int) -> list[dict]:
    text = _log_file(ref, f"{version:020}.json")
    if text is None:
        raise _MissingCommitError
    return [json.loads(line) for line in text.splitlines() if line.strip()]


def _log_file(ref: TableRef, name: str) -> bytes | None:
    try:
        key = ref.key("_delta_log", name)
        return ref.lake.s3.get_object(Bucket=ref.lake.bucket, Key=key)["Body"].read()
    except ClientError as error:
        if error.response["Error"]["Code"] in ("NoSuchKey", "404"):
            return None
        raise
