"""Make the lake's silver and gold tables known to Athena.

    python deploy/register_tables.py             # print the statements
    python deploy/register_tables.py --execute   # run them in the workgroup `lakehouse`

A second run changes nothing. Athena reads the Delta log, so a table that has changed need not be registered again.
Run it with keys that may create tables (glue:CreateTable); neither role of the template may.
Tables that Athena cannot read, or that its DDL cannot create, are named and left out.
"""

import argparse
import sys
import time
from collections.abc import Iterator
from typing import Any

import boto3
from deltalake.table import ProtocolVersions

from lakehouse_utils.lake import Lake, TableRef

DATABASE = WORKGROUP = "lakehouse"
LAYERS = ("silver", "gold")
# What Athena supports, by https://docs.aws.amazon.com/athena/latest/ug/delta-lake-tables.html, section "Delta Lake
# versioning and Athena" (a copy of the page, read on 2026-11-29; not tried): SELECT up to reader version 3 with these
# reader features, and DDL, such as CREATE EXTERNAL TABLE, only reader version 1.
SELECT_FEATURES = {"columnMapping", "timestampNtz", "deletionVectors"}
SELECT_READER_VERSION, DDL_READER_VERSION = 3, 1
_INTERVAL_S = 0.5


def tables(lake: Lake) -> Iterator[tuple[TableRef, str]]:
    """Yield each table with the reason why it is left out; "" if it is not."""
    for ref in lake.tables():
        if ref.names[0] in LAYERS and (table := ref.open()):
            yield ref, reason_to_leave_out(table.protocol())


def reason_to_leave_out(protocol: ProtocolVersions) -> str:
    """Why the statement would not work for a table with this protocol; "" if it would."""
    version = protocol.min_reader_version
    if unsupported := sorted({*(protocol.reader_features or [])} - SELECT_FEATURES):
        return f"Athena does not support {', '.join(unsupported)}"
    if version > SELECT_READER_VERSION:
        return f"Athena does not support reader version {version}"
    if version > DDL_READER_VERSION:
        return f"Athena reads reader version {version}, but cannot create the table: create it with AWS Glue"
    return ""


def statement(ref: TableRef) -> str:
    """The DDL of one table. Athena takes the columns from the Delta log."""
    return (
        f"CREATE EXTERNAL TABLE IF NOT EXISTS {DATABASE}.{'_'.join(ref.names)} "
        f"LOCATION '{ref.uri}/' TBLPROPERTIES ('table_type' = 'DELTA')"
    )


def execute(athena: Any, sql: str) -> None:  # noqa: ANN401 - a boto3 client
    """Run a statement and wait for it. Raises RuntimeError with Athena's reason if it fails."""
    query = athena.start_query_execution(QueryString=sql, WorkGroup=WORKGROUP)["QueryExecutionId"]
    while True:
        status = athena.get_query_execution(QueryExecutionId=query)["QueryExecution"]["Status"]
        if status["State"] == "SUCCEEDED":
            return
        if status["State"] in ("FAILED", "CANCELLED"):
            raise RuntimeError(f"{sql}: {status.get('StateChangeReason', status['State'])}")
        time.sleep(_INTERVAL_S)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--execute", action="store_true", help="run the statements instead of printing them")
    is_executed = parser.parse_args(arguments).execute
    lake = Lake.open()
    athena = boto3.client("athena") if is_executed else None
    left_out = 0
    for ref, reason in tables(lake):
        if reason:
            left_out += 1
            print(f"-- left out: {ref.label}: {reason}", file=sys.stderr)
        elif athena:
            execute(athena, statement(ref))
            print(f"registered: {ref.label}")
        else:
            print(f"{statement(ref)};")
    return 1 if left_out else 0


if __name__ == "__main__":
    sys.exit(main())
