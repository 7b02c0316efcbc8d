"""Notebook 01: what its prose says about policies and requests, and right answers in other spellings."""

import json
import re
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from botocore.exceptions import ClientError
from deltalake import DeltaTable, write_deltalake
from notebooks.books import Book

from lakehouse_utils.course import request_log, restricted_keys
from lakehouse_utils.course.exercises import Right, nb01
from lakehouse_utils.lake import Lake

BOOK = Book.of_number("01")


def policy_for(lake: Lake, *more_actions: str) -> dict[str, Any]:
    """The policy under In practice, for this lake, with more actions on its objects."""
    text = next(cell.source for cell in BOOK.cells if "least policy" in cell.source)
    found = re.search(r"```json\n(.*?)```", text, re.DOTALL)
    assert found
    code = found[1].replace("your-bucket", lake.bucket).replace("lakehouse", lake.prefix)
    policy: dict[str, Any] = json.loads(code.replace(f"arn:aws:s3:::{lake.prefix}", f"arn:aws:s3:::{lake.bucket}"))
    policy["Statement"][1]["Action"] += more_actions
    return policy


def options_under(lake: Lake, policy: dict[str, Any]) -> dict[str, str]:
    """The storage options with temporary keys that `policy` restricts."""
    return {**lake.storage_options, **restricted_keys.issue(lake, policy).variables, "max_retries": "0"}


def test_least_policy_lets_a_program_append_and_not_clean_up(lake: Lake) -> None:
    """Under the policy a table is created, appended to and read; vacuum is denied until it may delete."""
    uri, rows = lake.uri("policy"), pa.table({"id": [1, 2]})
    options = options_under(lake, policy_for(lake))
    for _ in range(2):
        write_deltalake(uri, rows, mode="append", storage_options=options)
    write_deltalake(uri, rows, mode="overwrite", storage_options=options)
    table = DeltaTable(uri, storage_options=options)
    assert table.to_pyarrow_table()["id"].to_pylist() == [1, 2]
    arguments: dict[str, Any] = {"retention_hours": 0, "dry_run": False, "enforce_retention_duration": False}
    with pytest.raises(OSError, match=r"AccessDenied|403"):
        table.vacuum(**arguments)
    may_delete = DeltaTable(uri, storage_options=options_under(lake, policy_for(lake, "s3:DeleteObject")))
    assert len(may_delete.vacuum(**arguments)) == 2


def test_duckdb_reads_the_footer_and_one_column(lake: Lake) -> None:
    """For the sum of one column, DuckDB requests the end of the file and exactly the bytes of that column."""
    uri, ids = lake.uri("wide"), range(20_000)
    rows = pa.table({name: [f"{name}{id}" for id in ids] for name in "abcd"} | {"net_amount": [id / 7 for id in ids]})
    write_deltalake(uri, rows.select(["a", "b", "net_amount", "c", "d"]), storage_options=lake.storage_options)
    key = DeltaTable(uri, storage_options=lake.storage_options).file_uris()[0].removeprefix(f"s3://{lake.bucket}/")
    body = lake.s3.get_object(Bucket=lake.bucket, Key=key)["Body"].read()
    column = pq.read_metadata(pa.BufferReader(body)).row_group(0).column(2)
    begin = min(filter(None, (column.dictionary_page_offset, column.data_page_offset)))
    with request_log.record(lake) as log, lake.duckdb() as db:
        db.execute(
            f"CREATE SECRET recorded (TYPE s3, SCOPE '{uri}', KEY_ID $key, SECRET $secret, REGION $region,"
            " ENDPOINT $endpoint, URL_STYLE 'path', USE_SSL false)",
            {
                "key": lake.storage_options["AWS_ACCESS_KEY_ID"],
                "secret": lake.storage_options["AWS_SECRET_ACCESS_KEY"],
                "region": lake.region,
                "endpoint": log.endpoint.partition("://")[2],
            },
        )
        db.sql(f"SELECT sum(net_amount) FROM delta_scan('{uri}')").fetchall()
    ranges = log.requests.query("object.str.startswith('part-') and request == 'GET'")["condition"].tolist()
    assert f"bytes={begin}-{begin + column.total_compressed_size - 1}" in ranges
    assert any(each.endswith(f"-{len(body) - 1}") for each in ranges)


def put_by_status(lake: Lake) -> Callable[[str, bytes], bool]:
    def put_if_absent(key: str, body: bytes) -> bool:
        try:
            lake.s3.put_object(Bucket=lake.bucket, Key=key, Body=body, IfNoneMatch="*")
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] != 412:
                raise
            return False
        return True

    return put_if_absent


def put_again_after_a_conflict(lake: Lake) -> Callable[[str, bytes], bool]:
    def put_if_absent(key: str, body: bytes) -> bool:
        while True:
            try:
                lake.s3.put_object(Bucket=lake.bucket, Key=key, Body=body, IfNoneMatch="*")
                return True
            except ClientError as error:
                if error.response["Error"]["Code"] == "PreconditionFailed":
                    return False
                if error.response["Error"]["Code"] != "ConditionalRequestConflict":
                    raise

    return put_if_absent


@pytest.mark.parametrize("make", [put_by_status, put_again_after_a_conflict])
def test_put_if_absent_in_other_spellings(make: Callable[[Lake], Callable[[str, bytes], bool]], lake: Lake) -> None:
    """A function may look at the status instead of the code, and may send the request again after a conflict."""
    assert isinstance(nb01.check_put_if_absent(make(lake), lake), Right)


def test_repair_makes_a_table_readable_without_the_rows_of_the_missing_file(lake: Lake) -> None:
    """After a data file was deleted, repair takes it out of the log: the table can be read, and its rows are lost."""
    uri, options = lake.uri("day_sales"), lake.storage_options
    for day in (1, 2, 3):
        write_deltalake(uri, pa.table({"day": [day]}), mode="append", storage_options=options)
    oldest = DeltaTable(uri, version=0, storage_options=options).file_uris()[0]
    lake.s3.delete_object(Bucket=lake.bucket, Key=oldest.removeprefix(f"s3://{lake.bucket}/"))
    table = DeltaTable(uri, storage_options=options)
    assert table.count() == 3
    with pytest.raises(FileNotFoundError):
        table.to_pyarrow_table()
    table.repair()
    assert sorted(DeltaTable(uri, storage_options=options).to_pyarrow_table()["day"].to_pylist()) == [2, 3]
