"""Opening a lake as a user with certain variables does, and using it with each of the three clients."""

import os
import traceback
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest
from deltalake import write_deltalake

from lakehouse_utils import settings
from lakehouse_utils.errors import StorageError
from lakehouse_utils.lake import Lake
from lakehouse_utils.lake.s3_errors import translate_errors

ROWS = pa.table({"id": [1, 2, 3], "name": ["a", "b", "c"]})
NO_ENV_FILE = Path(os.devnull, "none")


def open_lake(uri: str | None, *variables: dict[str, str], env_file: Path = NO_ENV_FILE) -> Lake:
    """Open a lake with these variables set; they stay set to the end of the test."""
    for group in variables:
        os.environ.update(group)
    return Lake.open(uri, settings.load(env_file))


def write(lake: Lake, *names: str, rows: pa.Table = ROWS, mode: str = "append") -> None:
    write_deltalake(lake.uri(*names), rows, mode=mode, storage_options=lake.storage_options)


_connections: list[duckdb.DuckDBPyConnection] = []  # one for all tests: loading its extensions takes half a second


def query(lake: Lake, sql: str) -> list[tuple]:
    """Run a statement in DuckDB with the lake's current credentials."""
    if not _connections:
        _connections.append(lake.duckdb())
    lake.authorize(_connections[0])
    return _connections[0].sql(sql).fetchall()


def scan(lake: Lake, *names: str) -> list[tuple]:
    return query(lake, f"FROM delta_scan('{lake.uri(*names)}') ORDER BY ALL")


def read_parquet(lake: Lake, *names: str) -> list[tuple]:
    return query(lake, f"FROM read_parquet('{lake.uri(*names, '*.parquet')}')")


def use_with_every_client(lake: Lake) -> None:
    """Do all that the course does to a lake: list, write, merge and read, with each of the three clients."""
    lake.check_access()
    write(lake, "t")
    source = pa.table({"id": [3, 4], "name": ["C", "D"]})
    merger = lake.delta("t").merge(source, "target.id = source.id", source_alias="source", target_alias="target")
    merger.when_matched_update_all().when_not_matched_insert_all().execute()
    assert scan(lake, "t") == [(1, "a"), (2, "b"), (3, "C"), (4, "D")]
    lake.s3.put_object(Bucket=lake.bucket, Key=lake.key("raw.csv"), Body=b"x")
    assert lake.s3.get_object(Bucket=lake.bucket, Key=lake.key("raw.csv"))["Body"].read() == b"x"


# One use of each client, as the pipeline or a notebook makes it.
CLIENTS = {
    "boto3": lambda lake: lake.s3.list_objects_v2(Bucket=lake.bucket, Prefix=lake.key("")),
    "boto3 HEAD": lambda lake: lake.s3.head_object(Bucket=lake.bucket, Key=lake.key("raw.csv")),
    "delta-rs": lambda lake: lake.delta("t"),
    "delta-rs writing": lambda lake: write(lake, "t"),
    "DuckDB on Delta": lambda lake: scan(lake, "t"),
    "DuckDB on Parquet": lambda lake: read_parquet(lake, "t"),
}


def translated_error(lake: Lake, client: str, *secrets: str) -> StorageError:
    """Return what `translate_errors` raises for a use of `client`, after a check of its form.

    The message is one short line, and no secret is in anything that a traceback or a notebook shows of the error.
    """
    with pytest.raises(StorageError) as info, translate_errors("read t", lake):
        CLIENTS[client](lake)
    error = info.value
    message = str(error)
    assert message.startswith("Could not ") and "\n" not in message and len(message) < 500, message
    assert (error.server, error.uri) == (lake.server_name, lake.root)
    shown = "".join(traceback.format_exception(error)) + repr(error) + repr(lake) + repr(vars(error))
    cause: BaseException | None = error
    while cause is not None:
        shown += f"{cause} {cause!r} {cause.args!r}"
        cause = cause.__cause__ or cause.__context__
    for secret in filter(None, secrets):
        assert secret not in shown, client
    return error
