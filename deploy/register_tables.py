"""Make the lake's silver and gold tables known to Athena.

    python deploy/register_tables.py             # print the statements
    python deploy/register_tables.py --execute   # run them in the workgroup `lakehouse`

A second run changes nothing. Athena reads the Delta log, so a table that has changed need not be registered again.
Tables whose protocol asks for more than the basic one, which Athena may refuse, are named and left out.
"""

import argparse
import sys
import time
from collections.abc import Iterator
from typing import Any

import boto3

from lakehouse_utils.lake import Lake, TableRef

DATABASE = WORKGROUP = "lakehouse"
LAYERS = ("silver", "gold")
_INTERVAL_S = 0.5


def tables(lake: Lake) -> Iterator[tuple[TableRef, str]]:
    """Yield each table with the reason why it is left out; "" if it is not."""
    for ref in lake.tables():
        if ref.names[0] in LAYERS and (table := ref.open()):
            reader = table.protocol().min_reader_version
            yield ref, f"it needs reader version {reader}" if reader > 1 else ""


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
