"""The description of source tables: what it may contain, and what is reported about an invalid one."""

import pickle
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
        ("visits = 1", "[visits]: it must be a section with settings, not 1."),
        (GOOD.replace('key = ["id"]', ""), "[visits.key]: the setting key is missing; add it."),
        (GOOD.replace('["id"]', "[]"), "[visits.key]: it must have at least one entry."),
        (
            GOOD.replace('["id"]', '["no"]'),
            "key and order_by must be described columns, but 'no' is not one of the columns",
        ),
        (
            GOOD.replace('["id"]', '["id"]\norder_by = "no"'),
            "key and order_by must be described columns, but 'no' is not one of the columns",
        ),
        (GOOD.replace('["id"]', '["id"]\ndelimiter = ";;"'), "[visits.delimiter]: it must be one character, not ';;'."),
        (GOOD.replace('["id"]', '["id"]\ndelimiter = "\\""'), "the delimiter and the quote are both '\"'; change one"),
        (GOOD.replace('["id"]', '["id"]\ndelimiter = "\\r"'), "[visits.delimiter]: the delimiter cannot be a line end"),
        (
            GOOD.replace('["id"]', '["id"]\nkeys = "id"'),
            "[visits.keys]: there is no setting 'keys' here; did you mean key?",
        ),
        (
            GOOD.replace('["id"]', '["id"]\nhistory = true') + '\nis_first = { type = "boolean" }',
            "the column name is_first is reserved in a table with history; rename the column",
        ),
        (
            GOOD.replace('["id"]', '["id"]\nhistory = true') + GOOD.replace("visits", "visits_history"),
            "[visits_history]: the history of [visits] is written to a table of the same name. Rename this table",
        ),
        (GOOD.replace('"integer"', '"int"'), "[visits.columns.id.type]: 'int' is not a valid type"),
        (GOOD + 'n = { type = "integer", min = "x" }', "[visits.columns.n]: min: 'x' is not a valid integer"),
        (GOOD + 'd = { type = "date", max = "2026-02-30" }', "max: '2026-02-30' is not a valid date"),
        (
            GOOD + 'n = { type = "decimal(4,2)", allowed = [1, 100] }',
            "allowed: 100 is not a valid decimal(4,2)",
        ),
        # unknown and misspelt settings
        (GOOD.replace("type", "typ", 1), "[visits.columns.id.type]: the setting type is missing; add it."),
        (
            GOOD + 'n = { type = "text", require = true }',
            "[visits.columns.n.require]: there is no setting 'require' here; did you mean required?",
        ),
        (
            GOOD + 'n = { type = "text", skip_rows = 1 }',
            "[visits.columns.n.skip_rows]: there is no setting 'skip_rows'",
        ),
        (
            GOOD.replace('["id"]', '["id"]\nxyz = 1'),
            "[visits.xyz]: there is no setting 'xyz' here; the settings are decimal, thousands, ",
        ),
        (GOOD.replace('["id"]', '["id"]\nname = "x"'), "[visits.name]: there is no setting 'name' here; remove it"),
        # wrong types
        (GOOD.replace('["id"]', '"id"'), "[visits.key]: it must be a list, not 'id'."),
        (GOOD.replace('["id"]', "[1]"), "[visits.key.0]: it must be a text in quotes, not 1."),
        (
            GOOD.replace('["id"]', '["id"]\nhistory = "yes"'),
            "[visits.history]: it must be true or false, not 'yes'.",
        ),
        (
            GOOD.replace('["id"]', '["id"]\nskip_rows = "2"'),
            "[visits.skip_rows]: it must be a whole number, not '2'.",
        ),
        (GOOD.replace('["id"]', '["id"]\nskip_rows = -1'), "[visits.skip_rows]: it must be at least 0, not -1."),
        (GOOD + "n = 1", "[visits.columns.n]: it must be a section with settings, not 1."),
        (
            GOOD + 'n = { type = "text", max_length = 0 }',
            "[visits.columns.n.max_length]: it must be at least 1, not 0.",
        ),
        # values of settings
        (
            GOOD.replace('["id"]', '["id"]\nencoding = "utf-9"'),
            "[visits.encoding]: 'utf-9' is not a supported encoding; use utf-8, windows-1252, latin-1, iso-8859-15, ",
        ),
        (
            GOOD.replace('["id"]', '["id"]\nencoding = "shift-jis"'),
            "[visits.encoding]: 'shift-jis' is not a supported encoding; use utf-8, ",
        ),
        (
            GOOD.replace('["id"]', '["id"]\ntime_zone = "Brasilia"'),
            "[visits.time_zone]: 'Brasilia' is not a valid time zone; use an IANA name such as \"America/Sao_Paulo\".",
        ),
        (
            GOOD.replace('["id"]', '["id"]\ndate_format = "%d/%b/%Y"'),
            "[visits.date_format]: '%d/%b/%Y' has the directive '%b', which is not supported; use %d %m %Y %y, or",
        ),
        (
            GOOD.replace('["id"]', '["id"]\ndate_format = ["%d/%m/%Y", "%d/%m"]'),
            "'%d/%m' is not a complete date; use %d, %m, and %Y or %y",
        ),
        (GOOD.replace('["id"]', '["id"]\ndate_format = "dd/mm/yyyy"'), "'dd/mm/yyyy' is not a complete date"),
        (
            GOOD.replace('["id"]', '["id"]\ntimestamp_format = "%d/%m/%Y %I:%M"'),
            "[visits.timestamp_format]: '%d/%m/%Y %I:%M' has %I without %p; add %p.",
        ),
        (GOOD.replace('["id"]', '["id"]\ntimestamp_format = "%d/%m/%Y %d"'), "has the directive '%d' twice"),
        (
            GOOD.replace('["id"]', '["id"]\ndecimal = ","\nthousands = ","'),
            "[visits]: decimal and thousands are both ','; change one of them.",
        ),
        (GOOD.replace('["id"]', '["id"]\nthousands = "."'), "[visits]: decimal and thousands are both '.'"),
        (
            GOOD.replace('["id"]', '["id"]\ndecimal = ","') + 'n = { type = "double", thousands = "," }',
            "[visits]: columns.n: decimal and thousands are both ','",
        ),
        (
            GOOD + '[[visits.formats]]\nfiles = "*/a.csv"\nthousands = "."',
            "[visits]: entry 1 of formats ('*/a.csv'): decimal and thousands are both '.'",
        ),
        (GOOD.replace('["id"]', '["id"]\ndecimal = ";"'), "[visits.decimal]: ';' is not a valid decimal character"),
        (
            GOOD.replace('["id"]', '["id"]\nthousands = "_"'),
            "[visits.thousands]: '_' is not a valid thousands separator",
        ),
        (GOOD.replace('["id"]', '["id"]\nquote = "\'\'"'), "[visits.quote]: it must be one character, not \"''\"."),
        (
            GOOD.replace('["id"]', '["id"]\nquote = "é"'),
            "[visits.quote]: 'é' is not a valid quote; use an ASCII character",
        ),
        (
            GOOD.replace('["id"]', '["id"]\ntrue_values = ["Sim", "S"]\nfalse_values = ["s"]'),
            "[visits]: 's' is in true_values and in false_values; remove it from one of them.",
        ),
        (GOOD.replace('["id"]', '["id"]\ntrue_values = []'), "[visits.true_values]: it must have at least one entry."),
        (
            GOOD + '[[visits.formats]]\ndelimiter = ";"',
            "[visits.formats.0.files]: the setting files is missing; add it.",
        ),
        (
            GOOD + '[[visits.formats]]\nfiles = "*"\nhistory = true',
            "[visits.formats.0.history]: there is no setting 'history' here; the settings are decimal, ",
        ),
        # headers
        (
            GOOD + 'a = { type = "text", from = "Nº" }\nb = { type = "text", from = ["x", "nº "] }',
            "[visits]: the header 'nº ' belongs to the columns a and b; remove one of them.",
        ),
        (GOOD + 'a = { type = "text", from = "ID" }', "[visits]: the header 'ID' belongs to the columns id and a"),
        # patterns
        (
            GOOD + 'a = { type = "text", pattern = "[a-z" }',
            "[visits.columns.a.pattern]: '[a-z' is not a supported regular expression: a [ is not closed; add a ],",
        ),
        (
            GOOD + 'a = { type = "text", pattern = "a**" }',
            "'a**' is not a supported regular expression: bad repetition",
        ),
        (
            GOOD + 'a = { type = "text", pattern = "(?i)a" }',
            "(?i is not supported, because engines interpret it differently",
        ),
        (GOOD + 'a = { type = "text", pattern = "(?=a)b" }', "(?= is not supported"),
        (
            GOOD + "a = { type = \"text\", pattern = '\\bx' }",
            "\\b is not supported, because engines interpret it differently",
        ),
        (
            GOOD + "a = { type = \"text\", pattern = '(x)\\1' }",
            "\\1 is not supported, because engines interpret it differently",
        ),
        # rules that do not fit the type
        (
            GOOD + 'n = { type = "integer", min = "ten" }',
            "[visits.columns.n]: min: 'ten' is not a valid integer.",
        ),
        (
            GOOD + 'd = { type = "date", min = "01/01/2020" }',
            "[visits.columns.d]: min: '01/01/2020' is not a valid date; write it as 2026-01-31.",
        ),
        (
            GOOD + 't = { type = "text", allowed = [] }',
            "[visits.columns.t]: allowed is an empty list; list the valid values",
        ),
        (
            GOOD + 'n = { type = "integer", allowed = [1, 1.5] }',
            "[visits.columns.n]: allowed: 1.5 is not a valid",
        ),
        (
            GOOD + 'n = { type = "decimal(4,2)", allowed = [0.105] }',
            "allowed: 0.105 is not a valid decimal(4,2)",
        ),
        (
            GOOD + 'n = { type = "integer", min = true }',
            "[visits.columns.n]: min: true is not a valid integer.",
        ),
        (GOOD + 'n = { type = "double", max = nan }', "[visits.columns.n]: max: nan is not a valid double."),
        (GOOD + 'n = { type = "integer", min = 5, max = 4 }', "min (5) is greater than max (4); change one of them."),
        (
            GOOD + 'd = { type = "date", min = 2020-01-01T10:00:00 }',
            "min: 2020-01-01 10:00:00 is not a valid date",
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


def test_a_wide_or_exact_bound_is_accepted(tmp_path):
    """A bound may have more digits than the type, and may be a date or time of TOML."""
    text = GOOD + 'n = { type = "decimal(4,2)", max = 1000 }\nm = { type = "integer", max = 9.5 }\n'
    text += "d = { type = \"date\", min = 2020-01-01, max = '2021-01-01' }\n"
    text += 't = { type = "timestamp", min = 2020-01-01T00:00:00Z }'
    assert len(described(tmp_path, text)["visits"].columns) == 6


def test_headers_and_formats_of_files(tmp_path):
    """`from` is one header or a list; an entry of formats overrides settings for the files that it matches first."""
    text = GOOD.replace('["id"]', '["id"]\nencoding = "cp1252"\ndecimal = ","').replace(
        '"integer" }', '"integer", from = "Nº" }'
    )
    text += 'n = { type = "double", from = ["a", "b"] }\n'
    text += '[[visits.formats]]\nfiles = "2026-*/lisbon.csv"\ndelimiter = ";"\nencoding = "UTF8"\n'
    text += '[[visits.formats]]\nfiles = "*/l*.csv"\ndelimiter = "|"\n'
    visits = described(tmp_path, text)["visits"]
    assert [column.headers for column in visits.columns.values()] == [["Nº"], [], ["a", "b"]]
    assert (visits.format.encoding, visits.format.decimal, visits.format.delimiter) == ("windows-1252", ",", ",")
    first, second, other = (visits.format_of(path) for path in ("2026-1/lisbon.csv", "2025/lima.csv", "x/porto.csv"))
    assert (first.delimiter, first.encoding, first.decimal) == (";", "utf-8", ",")
    assert (second.delimiter, second.encoding) == ("|", "windows-1252")
    assert other == visits.format


def test_sources_can_be_sent_to_a_worker(tmp_path):
    """A description keeps which settings were given when it is pickled for another process."""
    text = GOOD + '[[visits.formats]]\nfiles = "a"\ndelimiter = ";"\n'
    visits = pickle.loads(pickle.dumps(described(tmp_path, text)["visits"]))
    assert visits.format_of("a").delimiter == ";"
    assert visits.format_of("a").encoding == "utf-8"
