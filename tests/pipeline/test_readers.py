"""The finished tables in the hands of others: DuckDB, Polars and pyarrow read the same rows, at the oldest protocol."""

from datetime import UTC
from decimal import Decimal

import polars as pl
import pytest
from support import lakes

TYPES = {int, float, str, bool, type(None), Decimal}


def plain(rows):
    """Rows as tuples that compare equal across readers: moments as microseconds, in UTC."""
    return sorted((tuple(_plain(value) for value in row) for row in rows), key=repr)


def _plain(value):
    if type(value) in TYPES:
        return value
    return value.astimezone(UTC).isoformat() if hasattr(value, "astimezone") else value.isoformat()


@pytest.fixture(scope="module")
def db(finished):
    with finished.lake.duckdb() as db:
        yield db


def test_all_tables_are_at_reader_1_and_writer_2(finished):
    protocols = {name: table.protocol() for name, table in lakes.opened(finished.lake)}
    assert {name.split(".")[0] for name in protocols} == {"bronze", "silver", "gold", "quarantine"}
    assert {(p.min_reader_version, p.min_writer_version) for p in protocols.values()} == {(1, 2)}


@pytest.mark.parametrize("layer", ["bronze", "silver", "gold", "quarantine"])
def test_duckdb_polars_and_pyarrow_read_the_same_rows(finished, db, layer):
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


def test_pandas_keeps_moments_and_decimals(finished):
    facts = finished.lake.delta("gold", "fact_sales").to_pandas()
    assert isinstance(facts["net_amount"].iloc[0], Decimal)
    customers = finished.lake.delta("gold", "dim_customers").to_pandas()
    assert str(customers["valid_from"].dt.tz) == "UTC"


def test_duckdb_reads_a_filter_on_a_moment_to_the_microsecond(finished, db):
    """The log's statistics of moments are in milliseconds: a reader must not skip a file for that."""
    moment = db.sql(f"SELECT max(_ingested_at) FROM delta_scan('{finished.lake.uri('bronze', 'orders')}')").fetchone()[
        0
    ]
    found = db.execute(
        f"SELECT count(*) FROM delta_scan('{finished.lake.uri('bronze', 'orders')}') WHERE _ingested_at = ?", [moment]
    )
    assert found.fetchone()[0] > 0
