"""The rules on the values of a source table, and the reasons that quarantine gives for values that break them.

Bronze holds text. `Rules` has the SQL for the rules of one table: `notation.py` reads a column's text as a value, and
`checks` are the rules on one column in the order in which they are reported: a condition in SQL that a valid value
meets, and SQL for the reason that quarantine stores otherwise. To change a rule or its wording, change `checks`; both
engines run the same SQL.
"""

from collections.abc import Iterator
from typing import NamedTuple

from lakehouse_utils.pipeline import bounds, patterns
from lakehouse_utils.pipeline.notation import Reader
from lakehouse_utils.pipeline.sources import Source
from lakehouse_utils.pipeline.sql import literal, quoted

_QUOTED_CHARACTERS = 100  # of an invalid value, in the reason


class Check(NamedTuple):
    """One rule on one column, in SQL: a condition that is never NULL, and the reason for values that fail it."""

    condition: str
    problem: str


def typed_value(source: Source, name: str) -> str:
    """SQL for a column's value in its type; NULL if it is missing or if the text is not valid for the type.

    It reads the rows of bronze with the columns that `prepared_columns` adds.
    """
    return Reader(source, name).value()


def prepared_columns(source: Source) -> list[str]:
    """The columns, in SQL, that the rows of bronze need for the other SQL of this module; none for default settings."""
    return [column for name in source.columns for column in Reader(source, name).prepared_columns()]


def checks(source: Source, name: str) -> Iterator[Check]:
    """The rules on one column, in the order in which their problems are reported."""
    column, reader = source.columns[name], Reader(source, name)
    text, value = reader.text, reader.value()

    def problem(words: str) -> str:
        return f"concat('{name}: ''', left({quoted(name)}, {_QUOTED_CHARACTERS}), ''' ', {literal(words)})"

    def problem_of_value(words: str) -> str:
        # An invalid text is no value, although a cast may make one of it: DuckDB reads 0x1F as 31, Spark does not.
        return problem(words) if column.type == "text" else f"CASE WHEN {reader.is_valid()} THEN {problem(words)} END"

    def constant(bound: bounds.Value) -> str:
        return f"CAST({literal(bounds.as_text(bound))} AS {column.sql_type})"

    def compared(operator: str, bound: bounds.Value | None) -> str:
        # `coalesce` and not `value IS NULL OR ...`: DuckDB would cast the text twice.
        return f"coalesce({value} {operator} {constant(bound)}, true)" if bound is not None else f"{value} IS NULL"

    if source.is_required(name):
        yield Check(f"{text} IS NOT NULL", f"'{name}: missing'")
    if column.type != "text":
        yield Check(f"({text} IS NULL OR {reader.is_valid()})", problem(f"is not a valid {column.type}"))
    if column.max_length is not None:
        is_short = f"({text} IS NULL OR length({text}) <= {column.max_length})"
        yield Check(is_short, problem(f"is longer than {column.max_length} characters"))
    if column.pattern is not None:
        pattern = literal(patterns.portable(column.pattern))
        matches = f"({text} IS NULL OR regexp_full_match({text}, {pattern}))"
        yield Check(matches, problem(f"does not match {column.pattern}"))
    if column.min is not None:
        at_least = bounds.at_least(column.min, column.data_type)
        yield Check(compared(">=", at_least), problem_of_value(f"is below {column.min}"))
    if column.max is not None:
        at_most = bounds.at_most(column.max, column.data_type)
        yield Check(compared("<=", at_most), problem_of_value(f"is above {column.max}"))
    if column.allowed is not None:
        constants = ", ".join(constant(bounds.parse(allowed, column.data_type)) for allowed in column.allowed)
        yield Check(
            f"coalesce({value} IN ({constants}), true)",
            problem_of_value(f"is not one of {', '.join(map(str, column.allowed))}"),
        )


def all_conditions(source: Source) -> str:
    """SQL for a row that meets every rule of its table; never NULL."""
    return "\n    AND ".join(condition for name in source.columns for condition in _conditions(source, name))


def all_problems(source: Source) -> str:
    """SQL for the problems of a row, one expression per rule, separated by commas; NULL for a rule that is met."""
    return ", ".join(f"CASE WHEN NOT ({check.condition}) THEN {check.problem} END" for check in _all_checks(source))


def _conditions(source: Source, name: str) -> list[str]:
    """The conditions of the rules on one column, without those that follow from others: an engine computes each."""
    conditions = [check.condition for check in checks(source, name)]
    if source.is_required(name) and source.columns[name].type != "text":
        conditions[:2] = [Reader(source, name).is_valid()]  # which is false where the value is missing
    return conditions


def _all_checks(source: Source) -> Iterator[Check]:
    for name in source.columns:
        yield from checks(source, name)
