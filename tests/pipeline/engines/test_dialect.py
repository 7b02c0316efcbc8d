"""Translation from DuckDB's SQL to Spark's: what sqlglot does not know, and what would give another result."""

import pytest

pytest.importorskip("sqlglot", reason="the extra spark isn't installed: make test installs it")

from lakehouse_utils.pipeline import gold
from lakehouse_utils.pipeline.engines.dialect import to_spark
from lakehouse_utils.pipeline.sql import statements


@pytest.mark.parametrize(
    ("duckdb", "spark"),
    [
        ("SELECT * FROM silver.orders AS o", "SELECT * FROM silver__orders AS o"),
        ("regexp_full_match(a, '\\d+')", "REGEXP_LIKE(a, '\\\\A(?:\\\\d+)\\\\z')"),
        ("isodow(day)", "(((DAYOFWEEK(day) + 5) % 7) + 1)"),
        ("isfinite(x)", "(ABS(x) < CAST('Infinity' AS DOUBLE))"),
        ("epoch_us(at)", "UNIX_MICROS(at)"),
        ("CAST(concat('0x', digits) AS BIGINT)", "CAST(CONV(digits, 16, 10) AS BIGINT)"),
        ("TRY_CAST(x AS DATE)", "TRY_CAST(REGEXP_EXTRACT(x, '^[^T ]*', 0) AS DATE)"),
        ("WITH a AS MATERIALIZED (SELECT 1 AS x) FROM a SELECT x", "WITH a AS (SELECT 1 AS x) SELECT x FROM a"),
    ],
)
def test_sql_is_translated_to_spark(duckdb, spark):
    """What sqlglot does not translate, or differently, is translated to what gives DuckDB's result."""
    assert to_spark(duckdb) == spark


def test_functions_of_the_pipeline_are_replaced_by_their_definitions():
    """Nested calls as well; Spark has no macros."""
    text = to_spark(
        "SELECT surrogate_key('dim_stores', s.id, in_force_from(s.since, s.is_first)) AS k FROM silver.stores AS s"
    )
    assert "surrogate_key" not in text.lower() and "in_force_from" not in text.lower()
    assert "('dim_stores')" in text
    assert "CASE WHEN (s.is_first) THEN" in text and "UNIX_MICROS" in text and "CONV(" in text


@pytest.mark.parametrize("table", gold.TABLES)
def test_gold_has_no_duckdb_function_after_translation(table):
    """No function that only DuckDB has remains in a statement of the table."""
    duckdb_only = [
        "strftime",
        "epoch_us",
        "isodow",
        "generate_series",
        "qualify",
        "timestamptz",
        *statements("functions"),
    ]
    for text in gold.GoldTable.load(table).statements.values():
        all_rows = text.replace("{is_changed}", "IS NOT NULL")
        translated = to_spark(all_rows.replace("{", "").replace("}", "")).lower()
        assert [name for name in duckdb_only if name in translated] == []
