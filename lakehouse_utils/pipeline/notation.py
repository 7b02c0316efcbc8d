r"""Reads the text of a field as a value, in the notation that the description gives for the file or the column.

A text is first written in the standard notation (1234.56, 2026-01-31, true), if the description says that the files use
another one, and then cast. The standard notation is the default, and for it no SQL is added.

All SQL here runs on both engines, so regular expressions use only what RE2, Java and Rust understand alike: [0-9] and
not \d, which means the digits of every script to Rust.
"""

from collections.abc import Callable, Iterator

from lakehouse_utils.pipeline import date_formats, lineage, patterns
from lakehouse_utils.pipeline.formats import NULL_VALUES, Format, ValueSettings
from lakehouse_utils.pipeline.sources import Column, Source
from lakehouse_utils.pipeline.sql import literal, quoted

# The accepted spellings of values in the standard notation, as regular expressions.
_DAY = r"\d{4}-\d{1,2}-\d{1,2}"
_WITH_EXPONENT = r"[+-]?(\d+\.?\d*|\.\d+)[eE][+-]?\d+"
_WITH_SHORT_EXPONENT = r"[+-]?(\d+\.?\d*|\.\d+)[eE][+-]?0*\d{1,2}"
_DECIMAL = r"[+-]?\d*(\.\d{{0,{scale}}}0*)?"
_UTC_OFFSET = r"[+-](0\d|1[0-3])(:?[0-5]\d)?|[+-]14(:?00)?"  # the offsets in use on Earth; engines differ on others
_PATTERNS = {
    "integer": r"[+-]?\d+(\.0*)?",
    "double": rf"[+-]?(\d+\.?\d*|\.\d+)|{_WITH_EXPONENT}",
    "boolean": "(?i:true|t|yes|y|1|false|f|no|n|0)",
    "date": rf"{_DAY}([T ]00:00(:00(\.0+)?)?(Z|[+-]00(:?00)?)?)?",
    # More than microseconds cannot be kept, so further digits must be zeros.
    "timestamp": rf"{_DAY}([T ]([01]?\d|2[0-3]):\d{{2}}(:\d{{2}}(\.\d{{1,6}}0*)?)?(Z| ?UTC|{_UTC_OFFSET})?)?",
}
_EXACT_DIGITS = 15  # two numbers of at most this many digits are never the same double
_HAS_OFFSET = r".*:[0-9]{2}(\.[0-9]+)?(Z| ?UTC|[+-].*)"

_STANDARD = ValueSettings.model_validate({})
_WHITE_SPACE = " \t\n\v\f\r\u00a0\u2007\u202f\u3000\ufeff"
# The characters that a description's thousands separator stands for: offices type one, programs write the other.
_THOUSANDS = {".": r"\.", ",": ",", "'": "['\u2019]", " ": "[ \u00a0\u202f]"}


class Reader:
    """The SQL that reads one column of a source from the rows of bronze."""

    def __init__(self, source: Source, name: str) -> None:
        self.name = name
        self.column: Column = source.columns[name]
        self._column_type = self.column.data_type.name
        self._default = source.format.override(self.column)
        self._by_file = [(entry.files, source.format.override(entry).override(self.column)) for entry in source.formats]
        relevant = _relevant_settings(self._column_type)
        if all(_same(settings, self._default, relevant) for _, settings in self._by_file):
            self._by_file = []
        is_standard = not self._by_file and _same(self._default, _STANDARD, relevant)
        # SQL for the text; NULL if there is no value.
        self.text = _null_if(quoted(name), NULL_VALUES) if is_standard else quoted(f"_text_{name}")
        # SQL for the text in the standard notation; NULL if the text is not in the notation of its file.
        self._standard = self.text if is_standard or self._column_type == "text" else quoted(f"_standard_{name}")
        self.is_standard = is_standard

    def prepared_columns(self) -> Iterator[str]:
        """The columns that the rows need, besides those of bronze, for the SQL of this reader; none by default."""
        if self.is_standard:
            return
        yield f"{self._for_file(lambda settings: _text(self.name, settings))} AS {self.text}"
        if self._standard != self.text:
            standard = self._for_file(
                lambda settings: _standard(_text(self.name, settings), self._column_type, settings)
            )
            yield f"{standard} AS {self._standard}"

    def value(self) -> str:
        """SQL for the value in the column's type; NULL if it is missing or if the text is not valid for the type."""
        if self._column_type == "text":
            return self.text
        trimmed = f"trim({self._standard}, ' ')"
        sql_type = self.column.sql_type
        # `trim` takes longer than the cast, which ignores spaces in most cases: then the second part is not computed.
        value = f"coalesce(TRY_CAST({self._standard} AS {sql_type}), TRY_CAST({trimmed} AS {sql_type}))"
        if self._column_type == "double":
            # -0 equals 0, but engines treat them as two values in GROUP BY: keep only one zero.
            return f"CASE WHEN {value} = 0 THEN CAST(0 AS DOUBLE) ELSE {value} END"
        if self._column_type == "timestamp":
            # DuckDB reads neither 18:30Z nor 18:30:00UTC, which ISO 8601 and the pattern above allow.
            with_seconds = (
                rf"regexp_replace({trimmed}, '([T ][0-9]{{1,2}}:[0-9]{{2}})(Z| ?UTC|[+-][0-9:]+)$', '\1:00\2')"
            )
            value = f"coalesce({value}, TRY_CAST(regexp_replace({with_seconds}, ' ?UTC$', 'Z') AS {sql_type}))"
            return self._for_file(lambda settings: self._in_time_zone(value, settings.time_zone))
        return value

    def is_valid(self) -> str:
        """SQL for whether the text is a valid value of the column's type; never NULL."""
        value = self.value()
        in_range = f"coalesce({_is_in_range(value, self.column)}, false)"
        otherwise = f"coalesce({self._is_exact_with_exponent(value)}, false) AND {in_range}"
        # CASE, because DuckDB evaluates all operands of AND and OR, also where the first one decides.
        return f"CASE WHEN {self._is_written_plainly()} THEN {in_range} ELSE {otherwise} END"

    def _for_file(self, sql: Callable[[Format], str]) -> str:
        """The SQL for the settings of the row's file."""
        if not self._by_file:
            return sql(self._default)
        path = quoted(lineage.SOURCE_FILE)
        cases = (
            f"WHEN regexp_full_match({path}, {literal(patterns.of_files(files))}) THEN {sql(settings)}"
            for files, settings in self._by_file
        )
        return f"CASE {' '.join(cases)} ELSE {sql(self._default)} END"

    def _in_time_zone(self, value: str, zone: str) -> str:
        """SQL for a timestamp whose text, if it has no offset, is in a time zone and not in UTC as `value` assumes.

        When clocks are set back, a time occurs twice: it is the first of the two. When they are set forward, a time
        does not occur at all: it is NULL. Engines differ on both, so that is computed here: by the offset of the day
        before, which is the one of the first of two equal times.
        """
        if zone == "UTC":
            return value
        name = literal(zone)
        by_day_before = f"(utc_of_local({value} - INTERVAL 1 DAY, {name}) + INTERVAL 1 DAY)"
        by_engine = f"utc_of_local({value}, {name})"
        return (
            f"CASE WHEN regexp_full_match(trim({self._standard}, ' '), '{_HAS_OFFSET}') THEN {value}"
            f" WHEN local_of_utc({by_day_before}, {name}) = {value} THEN {by_day_before}"
            f" WHEN local_of_utc({by_engine}, {name}) = {value} THEN {by_engine} END"
        )

    def _is_written_plainly(self) -> str:
        """SQL for whether the text is written in one of the accepted ways for the type.

        A cast accepts more: it rounds 1.239, cuts the time off a date, and reads 0x1F, 1_000 and 2026-01-31 (BC).
        """
        kind, scale = self._column_type, self.column.data_type.scale or 0
        pattern = _DECIMAL.format(scale=scale) if kind == "decimal" else _PATTERNS[kind]
        return f"regexp_full_match({self._standard}, ' *(?:{pattern}) *')"

    def _is_exact_with_exponent(self, value: str) -> str:
        """SQL for whether the text is an integer or decimal with an exponent that every engine reads as `value`.

        Some engines read a number with an exponent as a double, so it is accepted only if a double is exact.
        """
        if self._column_type not in ("decimal", "integer"):
            return "false"
        trimmed = f"trim({self._standard}, ' ')"
        as_double = f"TRY_CAST({trimmed} AS DOUBLE)"
        limit = f"CAST({10**_EXACT_DIGITS / 10 ** (self.column.data_type.scale or 0)!r} AS DOUBLE)"
        digits = f"length(regexp_replace({trimmed}, '[-+.]|[eE].*', '', 'g'))"
        return (
            f"(regexp_full_match({trimmed}, '{_WITH_SHORT_EXPONENT}') AND {digits} <= {_EXACT_DIGITS}"
            f" AND CAST({value} AS DOUBLE) = {as_double} AND abs({as_double}) < {limit})"
        )


def _relevant_settings(column_type: str) -> list[str]:
    """The value settings that matter for a column of this type."""
    number = ["decimal", "thousands"]
    of_type = {
        "integer": number,
        "decimal": number,
        "double": number,
        "boolean": ["true_values", "false_values"],
        "date": ["date_format"],
        "timestamp": ["timestamp_format", "time_zone"],
    }
    return ["null_values", "trim", *of_type.get(column_type, [])]


def _same(one: ValueSettings, other: ValueSettings, names: list[str]) -> bool:
    return all(getattr(one, name) == getattr(other, name) for name in names)


def _text(name: str, settings: Format) -> str:
    """SQL for the text of a column; NULL for the texts that mean that there is no value."""
    text = quoted(name)
    if settings.trim:
        text = f"trim({text}, {literal(_WHITE_SPACE)})"
    return _null_if(text, settings.null_values)


def _null_if(text: str, null_values: tuple[str, ...] | list[str]) -> str:
    for null_value in null_values:
        text = f"nullif({text}, {literal(null_value)})"
    return text


def _standard(text: str, column_type: str, settings: Format) -> str:
    """SQL for a text in the standard notation; NULL if it is not in the notation of the settings."""
    trimmed = f"trim({text}, ' ')"
    if column_type in ("integer", "decimal", "double"):
        return _standard_number(text, trimmed, settings.decimal, settings.thousands)
    if column_type == "boolean":
        words = {"true": settings.true_values, "false": settings.false_values}
        cases = (
            f"WHEN lower({trimmed}) IN ({', '.join(literal(word.strip().lower()) for word in spelled)}) THEN '{value}'"
            for value, spelled in words.items()
        )
        return f"CASE {' '.join(cases)} END"
    written = settings.date_format if column_type == "date" else settings.timestamp_format
    return _standard_time(text, trimmed, written, has_time=column_type == "timestamp")


def _standard_number(text: str, trimmed: str, decimal: str, thousands: str) -> str:
    if decimal == "." and not thousands:
        return text
    escaped = _THOUSANDS[decimal]
    other = "" if decimal == "." else r"\."  # a point is then neither before the decimals nor, here, between digits
    if not thousands:
        plain = f"[^{other}]*"
        return f"CASE WHEN regexp_full_match({trimmed}, '{plain}') THEN replace({trimmed}, '{decimal}', '.') END"
    separator = _THOUSANDS[thousands]
    plain = f"[+-]?[0-9]*({escaped}[0-9]*)?([eE][+-]?[0-9]+)?"
    grouped = f"[+-]?[0-9]{{1,3}}({separator}[0-9]{{3}})+({escaped}[0-9]*)?"
    pattern = literal(f"{plain}|{grouped}")
    digits = f"regexp_replace({trimmed}, {literal(separator)}, '', 'g')"
    return f"CASE WHEN regexp_full_match({trimmed}, {pattern}) THEN replace({digits}, '{decimal}', '.') END"


def _standard_time(text: str, trimmed: str, formats: list[str], *, has_time: bool) -> str:
    if not formats:
        return text
    cases = []
    for format_ in formats:
        for pattern, replacement in date_formats.rewrites(format_, has_time=has_time):
            rewritten = f"regexp_replace({trimmed}, {literal(f'^(?:{pattern})$')}, {literal(replacement)})"
            cases.append(f"WHEN regexp_full_match({trimmed}, {literal(pattern)}) THEN {rewritten}")
    accepts_iso = any(format_.lower() == date_formats.ISO for format_ in formats)
    if not cases:
        return text
    return f"CASE {' '.join(cases)} ELSE {text if accepts_iso else 'NULL'} END"


def _is_in_range(value: str, column: Column) -> str:
    """SQL for whether the value is in the range that every reader of the table supports."""
    return {
        "double": f"isfinite({value})",
        "date": f"{value} BETWEEN DATE '0001-01-01' AND DATE '9999-12-31'",
        "timestamp": f"{value} BETWEEN TIMESTAMPTZ '0001-01-01 00:00:00+00'"
        " AND TIMESTAMPTZ '9999-12-31 23:59:59.999999+00'",
    }.get(column.type, f"{value} IS NOT NULL")
