"""The rules on the values of a source table, and the reasons that quarantine gives for values that break them.

Bronze holds text. `typed_value` is the SQL that reads a column's text as its type. `checks` are the rules on one column
in the order in which they are reported: a condition in SQL that a valid value meets, and SQL for the reason that
quarantine stores otherwise. To change a rule or its wording, change `checks`; both engines run the same SQL.
"""

from collections.abc import Iterator
from typing import NamedTuple

from lakehouse_utils.pipeline.sources import Column, Source
from lakehouse_utils.pipeline.sql import literal, quoted

_QUOTED_CHARACTERS = 100  # of an invalid value, in the reason

# The accepted spellings of values, as regular expressions.
_DAY = r"\d{4}-\d{1,2}-\d{1,2}"
_WITH_EXPONENT = r"[+-]?(\d+\.?\d*|\.\d+)[eE][+-]?\d+"
_DECIMAL = r"[+-]?\d*(\.\d{{0,{scale}}}0*)?"
_UTC_OFFSET = r"[+-](0\d|1[0-3])(:?[0-5]\d)?|[+-]14(:?00)?"  # the offsets in use on Earth; engines differ on others
_PATTERNS = {
    "integer": r"[+-]?\d+(\.0*)?",
    "double": rf"[+-]?(\d+\.?\d*|\.\d+)|{_WITH_EXPONENT}",
    "boolean": "(?i:true|t|yes|y|1|false|f|no|n|0)",
    "date": rf"{_DAY}([T ]00:00(:00(\.0+)?)?(Z|[+-]00(:?00)?)?)?",
    "timestamp": rf"{_DAY}([T ]([01]?\d|2[0-3]):\d{{2}}(:\d{{2}}(\.\d+)?)?(Z| ?UTC|{_UTC_OFFSET})?)?",
}
_EXACT_IN_DOUBLE = 2**53  # a double holds every whole number up to this one


class Check(NamedTuple):
    """One rule on one column, in SQL: a condition that is never NULL, and the reason for values that fail it."""

    condition: str
    problem: str


def typed_value(name: str, column: Column) -> str:
    """SQL for a column's value in its type; NULL if it is missing or if the text is not valid for the type."""
    if column.type == "text":
        return _text(name)
    value = f"TRY_CAST(trim({_text(name)}, ' ') AS {column.sql_type})"
    # -0 equals 0, but engines treat them as two values in GROUP BY: keep only one zero.
    return f"CASE WHEN {value} = 0 THEN CAST(0 AS DOUBLE) ELSE {value} END" if column.type == "double" else value


def checks(name: str, column: Column, required: bool) -> Iterator[Check]:
    """The rules on one column, in the order in which their problems are reported."""

    def problem(words: str) -> str:
        return f"concat('{name}: ''', left({quoted(name)}, {_QUOTED_CHARACTERS}), ''' ', {literal(words)})"

    def constant(value: object) -> str:
        return f"CAST({literal(str(value))} AS {column.sql_type})"

    text, value = _text(name), typed_value(name, column)
    if required:
        yield Check(f"{text} IS NOT NULL", f"'{name}: missing'")
    if column.type != "text":
        is_valid = f"coalesce({_is_written_as(text, value, column)} AND {_is_in_range(value, column)}, false)"
        yield Check(f"({text} IS NULL OR {is_valid})", problem(f"is not a valid {column.type}"))
    if column.min is not None:
        yield Check(f"({value} IS NULL OR {value} >= {constant(column.min)})", problem(f"is below {column.min}"))
    if column.max is not None:
        yield Check(f"({value} IS NULL OR {value} <= {constant(column.max)})", problem(f"is above {column.max}"))
    if column.allowed is not None:
        constants = ", ".join(map(constant, column.allowed))
        listed = ", ".join(map(str, column.allowed))
        yield Check(f"({value} IS NULL OR {value} IN ({constants}))", problem(f"is not one of {listed}"))


def all_conditions(source: Source) -> str:
    """SQL for a row that meets every rule of its table; never NULL."""
    return "\n    AND ".join(check.condition for check in _all_checks(source))


def all_problems(source: Source) -> str:
    """SQL for the problems of a row, one expression per rule, separated by commas; NULL for a rule that is met."""
    return ", ".join(f"CASE WHEN NOT ({check.condition}) THEN {check.problem} END" for check in _all_checks(source))


def _all_checks(source: Source) -> Iterator[Check]:
    for name, column in source.columns.items():
        yield from checks(name, column, source.is_required(name))


def _text(name: str) -> str:
    """The text of a column; an empty field and the word NULL are missing values."""
    return f"nullif(nullif({quoted(name)}, ''), 'NULL')"


def _is_written_as(text: str, value: str, column: Column) -> str:
    """SQL for whether the text is written in one of the accepted ways for the type.

    A cast accepts more: it rounds 1.239, cuts the time off a date, and reads 0x1F, 1_000 and 2026-01-31 (BC). Some
    engines read a number with an exponent as a double, so it is accepted only if a double is exact.
    """
    kind, scale = column.data_type.name, column.data_type.scale or 0
    pattern = _DECIMAL.format(scale=scale) if kind == "decimal" else _PATTERNS[kind]
    trimmed = f"trim({text}, ' ')"
    is_accepted = f"regexp_full_match({trimmed}, '{pattern}')"
    if kind in ("decimal", "integer"):
        as_double = f"TRY_CAST({trimmed} AS DOUBLE)"
        limit = f"CAST({_EXACT_IN_DOUBLE / 10**scale!r} AS DOUBLE)"
        is_exact = f"CAST({value} AS DOUBLE) = {as_double} AND abs({as_double}) < {limit}"
        is_accepted = f"({is_accepted} OR regexp_full_match({trimmed}, '{_WITH_EXPONENT}') AND {is_exact})"
    # The comparison is fast, and most values are written as DuckDB writes them.
    return f"CASE WHEN CAST({value} AS VARCHAR) = {text} THEN true ELSE {is_accepted} END"


def _is_in_range(value: str, column: Column) -> str:
    """SQL for whether the value is in the range that every reader of the table supports."""
    return {
        "double": f"isfinite({value})",
        "date": f"{value} BETWEEN DATE '0001-01-01' AND DATE '9999-12-31'",
        "timestamp": f"{value} BETWEEN TIMESTAMPTZ '0001-01-01 00:00:00+00'"
        " AND TIMESTAMPTZ '9999-12-31 23:59:59.999999+00'",
    }.get(column.type, f"{value} IS NOT NULL")
