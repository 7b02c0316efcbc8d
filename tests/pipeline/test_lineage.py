"""The lineage columns, in Arrow and in SQL."""

from datetime import UTC, datetime, timedelta, timezone

import pyarrow as pa
import pytest

from lakehouse_utils.pipeline import lineage


def test_lineage_types_are_the_same_in_arrow_and_sql(lake):
    """DuckDB's types of the lineage columns are the Arrow types; it names its own time zone instead of UTC."""
    casts = ", ".join(f"NULL::{sql_type} AS {name}" for name, sql_type in lineage.BRONZE_SQL_TYPES.items())
    with lake.duckdb() as connection:
        schema = connection.sql(f"SELECT {casts}").to_arrow_table().schema
    types = [
        pa.timestamp(field.type.unit, "UTC") if getattr(field.type, "tz", None) else field.type for field in schema
    ]
    assert pa.schema(list(zip(schema.names, types, strict=True))) == pa.schema(lineage.BRONZE_FIELDS)


def test_lineage_names_are_reserved():
    """Every lineage column starts with an underscore, which no described column may."""
    names = {*lineage.BRONZE_SQL_TYPES, *lineage.SILVER_COLUMNS}
    assert len(names) == 6
    assert all(name.startswith("_") for name in names)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_file_columns_are_constant(count):
    """Every row gets the same batch, file and time, in the types that bronze has."""
    lines = pa.array(range(2, 2 + count), pa.int64())
    ingested_at = datetime(2026, 1, 2, 3, 4, 5, 678901, timezone(timedelta(hours=2)))
    rows = lineage.add_file_columns(
        pa.table({lineage.SOURCE_LINE: lines}), "2026-01-02 é", "2026-01-02 é/t.csv", ingested_at
    )
    rows.validate(full=True)
    assert rows.select(list(lineage.BRONZE_SQL_TYPES)).cast(pa.schema(lineage.BRONZE_FIELDS)).to_pylist() == [
        {
            "_batch": "2026-01-02 é",
            "_source_file": "2026-01-02 é/t.csv",
            "_source_line": 2 + i,
            "_ingested_at": ingested_at.astimezone(UTC),
        }
        for i in range(count)
    ]
