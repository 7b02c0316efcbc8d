"""Each message in the tables of docs/troubleshooting.md is provoked: the page has the text that people search for."""

import re
from collections.abc import Callable
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from deltalake import DeltaTable, write_deltalake
from support.markdown import tables
from support.s3_clients import open_lake
from support.s3_gateway import Gateway

from lakehouse_utils.lake import Lake
from lakehouse_utils.settings import CHECKOUT

ROWS = pa.table({"id": [1, 2, 3], "price": [1.0, 2.0, 3.0]})


def messages(page: str) -> list[str]:
    """The messages in the first column of the page's tables."""
    text = (CHECKOUT / "docs" / page).read_text("utf-8")
    rows = [row for table in tables(text) if table.head[0] in ("message", "mensagem") for row in table.rows]
    return [message.strip("`") for message, _ in rows]


# -- S3


def with_keys(gateway: Gateway, prefix: str, **changes: str) -> None:
    open_lake(prefix, gateway.environment(gateway.issue()._replace(**changes))).check_access()


def with_expired_keys(gateway: Gateway, prefix: str) -> None:
    keys = gateway.issue()
    gateway.expire(keys)
    open_lake(prefix, gateway.environment(keys)).check_access()


def with_answer(gateway: Gateway, prefix: str, status: int, code: str) -> None:
    lake = open_lake(prefix, gateway.environment(gateway.issue()))
    gateway.answer(f"/{lake.bucket}", status, code)
    lake.check_access()


def without_server(gateway: Gateway, prefix: str) -> None:
    closed = gateway.environment(gateway.issue()) | {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}
    open_lake(prefix, closed).check_access()


S3: dict[str, Callable[[Gateway, str], None]] = {
    "does not recognize the access key": partial(with_keys, access_key="ASIANOSUCHKEY"),
    "rejected the secret key": partial(with_keys, secret_key="wrong" * 8),
    "the temporary credentials have expired": with_expired_keys,
    "denied access to": partial(with_answer, status=403, code="AccessDenied"),
    "does not exist on": partial(with_answer, status=404, code="NoSuchBucket"),
    "is in another region": partial(with_answer, status=301, code="PermanentRedirect"),
    "cannot be reached": without_server,
    "kept failing (HTTP 5xx or throttling) after several retries": partial(with_answer, status=503, code="SlowDown"),
    "its clock and this machine's clock differ": partial(with_answer, status=403, code="RequestTimeTooSkewed"),
}


@pytest.mark.parametrize("message", S3)
def test_message_about_s3(gateway: Gateway, prefix: str, message: str) -> None:
    """The error of a lake that cannot be used has the text in the page."""
    with pytest.raises(Exception, match=re.escape(message)):
        S3[message](gateway, prefix)


# -- Delta Lake and DuckDB


class Table:
    """A table of three rows in two commits, and what a program may do with it."""

    def __init__(self, lake: Lake) -> None:
        self.lake = lake
        self.uri = lake.uri("practice", "prices")
        self.options = lake.storage_options
        self.write()
        self.write(mode="append")

    def write(self, rows: pa.Table = ROWS, **options: str) -> None:
        write_deltalake(self.uri, rows, storage_options=self.options, **options)

    def open(self, version: int | None = None) -> DeltaTable:
        return DeltaTable(self.uri, version=version, storage_options=self.options)

    def merge(self, rows: pa.Table, when: str | None = None) -> None:
        merger = self.open().merge(rows, "target.id = source.id", "source", "target")
        merger.when_matched_update_all(predicate=when).execute()

    def filter_merged_text(self) -> None:
        self.uri = self.lake.uri("practice", "names")
        self.write(pa.table({"id": [1, 2], "name": ["a", "a"]}))
        self.merge(pa.table({"id": [1, 2], "name": ["b", "c"]}))
        assert self.open().to_pyarrow_table().filter(pc.field("name") == "b").num_rows == 1
        self.open().to_pyarrow_table(filters=[("name", "=", "b")])

    def write_negative_price(self) -> None:
        self.open().alter.add_constraint({"price_is_positive": "price > 0"})
        self.write(pa.table({"id": [9], "price": [-1.0]}), mode="append")

    def delete_with_stale_handle(self) -> None:
        stale = self.open()
        self.open().delete("id = 1")
        stale.delete("id = 2")

    def restore_from_old_handle(self) -> None:
        table = self.open()
        table.load_as_version(0)
        table.restore(0)

    def read_vacuumed_version(self) -> None:
        self.open().delete("id = 1")
        self.open().vacuum(0, enforce_retention_duration=False, dry_run=False)
        self.open(version=1).to_pyarrow_table()

    def lose_commit(self) -> None:
        self.write(mode="append")
        key = self.lake.key("practice", "prices", "_delta_log", f"{1:020}.json")
        self.lake.s3.delete_object(Bucket=self.lake.bucket, Key=key)
        self.open()


DELTA: dict[str, Callable[[Table], object]] = {
    "No files in log segment": lambda table: table.lake.duckdb().sql(f"FROM delta_scan('{table.uri}_typo')"),
    "A table already exists at": lambda table: table.write(),
    "Cannot cast schema, number of fields does not match": lambda table: table.write(
        ROWS.append_column("currency", [["EUR"] * 3]), mode="append"
    ),
    "rows failed validation check": Table.write_negative_price,
    "Failed to commit transaction": Table.delete_with_stale_handle,
    "MERGE matched a target row with multiple source rows": lambda table: table.merge(
        pa.table({"id": [2, 2], "price": [5.0, 6.0]})
    ),
    "Cannot infer common argument type for logical boolean operation": lambda table: table.merge(
        ROWS, "target.id IS DISTINCT FROM source.id OR target.price IS DISTINCT FROM source.price"
    ),
    "no kernel matching input types (string, string_view)": Table.filter_merged_text,
    'Z-order column "i"': lambda table: table.open().optimize.z_order("id"),
    "should be less then last available version": Table.restore_from_old_handle,
    "Invalid retention period": lambda table: table.open().vacuum(0),
    "not the same as the specified end version": lambda table: table.open(version=99),
    "Object at location": Table.read_vacuumed_version,
    "Expected contiguous commit files, but found gap": Table.lose_commit,
}


@pytest.mark.parametrize("message", DELTA)
def test_message_about_a_table(lake: Lake, message: str) -> None:
    """The error of delta-rs or DuckDB has the text in the page."""
    with pytest.raises(Exception, match=re.escape(message)):
        DELTA[message](Table(lake))


@pytest.mark.parametrize("page", ["troubleshooting.md", "pt-BR/troubleshooting.md"])
def test_page_has_these_messages_only(page: str) -> None:
    """No message of the page is without a test."""
    assert messages(page) == [*S3, *DELTA]
