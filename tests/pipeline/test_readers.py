"""Other readers of the finished tables: DuckDB, Polars and pyarrow read the same rows, at the oldest protocol."""

from datetime import UTC
from decimal import Decimal

import polars as pl
import pytest
from support import filters, lakes

TYPES = {int, float, str, bool, type(None), Decimal}


def plain(rows):
    """Rows as tuples that compare equal across readers: timestamps as text, in UTC."""
    return sorted((tuple(_plain(value) for value in row) for row in rows), key=repr)


def _plain(value):
    if type(value) in TYPES:
        return value
    return value.astimezone(UTC).isoformat() if hasattr(value, "astimezone") else value.isoformat()


@pytest.fixture(scope="module")
def db(finished):
    with finished.lake.duckdb() as db:
        yield db


def test_tables_need_only_reader_1_and_writer_2(finished):
    """Every table has the oldest protocol versions, which all Delta readers support."""
    protocols = {name: table.protocol() for name, table in lakes.opened(finished.lake)}
    assert {name.split(".")[0] for name in protocols} == {"bronze", "silver", "gold", "quarantine"}
    assert {(p.min_reader_version, p.min_writer_version) for p in protocols.values()} == {(1, 2)}


@pytest.mark.parametrize("layer", ["bronze", "silver", "gold", "quarantine"])
def test_duckdb_polars_and_pyarrow_read_the_same_rows(finished, db, layer):
    """All three readers return the same rows of every table of the layer."""
    tables = [(name, table) for name, table in lakes.opened(finished.lake) if name.startswith(layer)]
    assert tables
    for name, table in tables:
        dataset = table.to_pyarrow_dataset().to_table()
        rows = plain(tuple(row.values()) for row in dataset.to_pylist())
        uri = finished.lake.uri(*name.split("."))
        assert len(rows) == table.count() > 0, name
        assert plain(db.sql(f"FROM delta_scan('{uri}')").fetchall()) == rows, name
        polars = pl.read_delta(uri, storage_options=finished.lake.storage_options)
        assert polars.columns == dataset.column_names
        assert plain(polars.rows()) == rows, name


@pytest.mark.slow
def test_filters_on_any_column_find_their_rows(finished):
    """No reader skips a file by the log's statistics that has rows with the value, or without one."""
    assert filters.wrong_counts(finished.lake) == []


def test_pandas_keeps_timestamps_and_decimals(finished):
    """In pandas, timestamps are in UTC and amounts are decimals."""
    facts = finished.lake.delta("gold", "fact_sales").to_pandas()
    assert isinstance(facts["net_amount"].iloc[0], Decimal)
    customers = finished.lake.delta("gold", "dim_customers").to_pandas()
    assert str(customers["valid_from"].dt.tz) == "UTC"


def test_duckdb_filters_on_microseconds(finished, db):
    """The log's statistics of timestamps are in milliseconds: a reader must not skip a file because of that."""
    rows = f"delta_scan('{finished.lake.uri('bronze', 'orders')}')"
    (newest,) = db.sql(f"SELECT max(_ingested_at) FROM {rows}").fetchone()
    (count,) = db.execute(f"SELECT count(*) FROM {rows} WHERE _ingested_at = ?", [newest]).fetchone()
    assert count > 0
