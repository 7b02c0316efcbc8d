"""The description of source tables: what it may contain, and what is reported about an invalid one."""

import subprocess
import sys

import pytest

from lakehouse_utils.errors import DescriptionError
from lakehouse_utils.pipeline import sources

GOOD = '[visits]\nkey = ["id"]\n[visits.columns]\nid = { type = "integer" }\nat = { type = "timestamp" }\n'


def described(tmp_path, text: str) -> dict[str, sources.Source]:
    path = tmp_path / "sources.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return sources.load(path)


def test_sources_of_the_shop():
    """The shop's tables are described, with keys, required columns and references that exist."""
    shop = sources.load()
    assert shop["order_items"].key == ["order_id", "item_id"]
    assert shop["order_items"].is_required("item_id") and not shop["orders"].is_required("shipped_date")
    for source in shop.values():
        for column in source.columns.values():
            if column.references:
                table, name = column.references.split(".")
                assert name in shop[table].columns


def test_sources_of_your_own(tmp_path):
    """A description may have a delimiter, an ordering column and history, or leave them out."""
    visits = described(tmp_path, GOOD.replace('["id"]', '["id"]\ndelimiter = "\\t"\norder_by = "at"'))["visits"]
    assert (visits.delimiter, visits.order_by, visits.history) == ("\t", "at", False)


@pytest.mark.parametrize(
    ("written", "sql", "delta"),
    [
        ("integer", "BIGINT", "long"),
        ("decimal(10,2)", "DECIMAL(10,2)", "decimal(10,2)"),
        ("decimal(38, 38)", "DECIMAL(38,38)", "decimal(38,38)"),
        ("timestamp", "TIMESTAMPTZ", "timestamp"),
        ("text", "VARCHAR", "string"),
    ],
)
def test_column_type(written, sql, delta):
    """A type in a description has one SQL type and one Delta type."""
    column = sources.Column(type=written)
    assert (column.sql_type, column.data_type.sql, column.data_type.delta) == (sql, sql, delta)


@pytest.mark.parametrize("type_", ["int", "", "decimal", "decimal(0,0)", "decimal(39,1)", "decimal(3,4)", "Integer"])
def test_column_type_invalid(type_):
    """Any other text is refused, with the list of types."""
    with pytest.raises(
        ValueError, match="is not a valid type; use integer, double, boolean, date, timestamp, text or decimal"
    ):
        sources.Column(type=type_)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "does not describe any table. See data/sources.toml for an example."),
        ("[visits", "is not valid TOML"),
        (b"# \xff", "is not valid TOML"),
        ("visits = 1", "[visits]"),
        (GOOD.replace('key = ["id"]', ""), "[visits.key]: Field required"),
        (GOOD.replace('["id"]', "[]"), "[visits.key]"),
        (
            GOOD.replace('["id"]', '["no"]'),
            "key and order_by must be described columns, but 'no' is not one of the columns",
        ),
        (
            GOOD.replace('["id"]', '["id"]\norder_by = "no"'),
            "key and order_by must be described columns, but 'no' is not one of the columns",
        ),
        (GOOD.replace('["id"]', '["id"]\ndelimiter = ";;"'), "[visits.delimiter]"),
        (GOOD.replace('["id"]', '["id"]\ndelimiter = "\\""'), "the delimiter and the quote are both '\"'; change one"),
        (GOOD.replace('["id"]', '["id"]\ndelimiter = "\\r"'), "[visits.delimiter]: the delimiter cannot be a line end"),
        (GOOD.replace('["id"]', '["id"]\nkeys = "id"'), "[visits.keys]: Extra inputs"),
        (
            GOOD.replace('["id"]', '["id"]\nhistory = true') + '\nis_first = { type = "boolean" }',
            "the column name is_first is reserved in a table with history; rename the column",
        ),
        (
            GOOD.replace('["id"]', '["id"]\nhistory = true') + GOOD.replace("visits", "visits_history"),
            "[visits_history]: the history of [visits] is written to a table of the same name. Rename this table",
        ),
        (GOOD.replace('"integer"', '"int"'), "[visits.columns.id.type]: 'int' is not a valid type"),
        (GOOD + 'n = { type = "integer", min = "x" }', "[visits.columns.n]: min has 'x', which is not a valid integer"),
        (GOOD + 'd = { type = "date", max = "2026-02-30" }', "max has '2026-02-30', which is not a valid date"),
        (
            GOOD + 'n = { type = "decimal(4,2)", allowed = [1, 100] }',
            "allowed has 100, which is not a valid decimal(4,2)",
        ),
        (GOOD + 'ID = { type = "text" }', "two columns have the same name"),
        (GOOD + '_own = { type = "text" }', "'_own' is not a valid name"),
        (GOOD + '"a b" = { type = "text" }', "'a b' is not a valid name"),
        (GOOD.replace("visits", '"vis its"'), "'vis its' is not a valid name"),
    ],
)
def test_sources_invalid(text, message, tmp_path):
    """An invalid description is refused with the file, the entry and what is wrong with it."""
    with pytest.raises(DescriptionError) as error:
        described(tmp_path, text)
    assert message in str(error.value)
    assert "sources.toml" in str(error.value)


def test_sources_missing_file(tmp_path):
    """A file that does not exist, or is a folder, is refused."""
    with pytest.raises(
        DescriptionError,
        match=r"Could not read the source descriptions .*: No such file or directory\. Check --sources\.",
    ):
        sources.load(tmp_path / "none.toml")
    with pytest.raises(DescriptionError, match="Could not read the source descriptions"):
        sources.load(tmp_path)


def test_column_type_of_a_decimal():
    """A decimal has a precision and a scale; the other types have neither."""
    decimal = sources.ColumnType.parse("decimal(10, 2)")
    assert (decimal.name, decimal.precision, decimal.scale) == ("decimal", 10, 2)
    assert sources.ColumnType.parse("date") == sources.ColumnType("date", None, None)


def test_sources_invalid_entry(tmp_path):
    """The error has the TOML path of the invalid entry."""
    with pytest.raises(DescriptionError) as error:
        described(tmp_path, GOOD.replace('"integer"', '"int"'))
    assert error.value.entry == "visits.columns.id.type"


def test_load_does_not_import_pandas():
    """Loading descriptions with rules does not import pandas, which would delay each start of the job by a second."""
    code = "import sys; from lakehouse_utils.pipeline import sources; sources.load(); print('pandas' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"
