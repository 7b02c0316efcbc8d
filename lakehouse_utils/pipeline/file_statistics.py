"""The statistics of a data file in the log, by which readers skip files.

https://github.com/delta-io/delta/blob/master/PROTOCOL.md#per-file-statistics

Wrong statistics would hide rows from queries. So a file gets no minimum and maximum if readers could disagree about the
order of a column. And either all columns have them, except those with only NULLs, or none has: if only some have them,
delta-rs 1.6.6 tells pyarrow that no row meets a condition on a column that lacks them.
"""

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Context, Decimal
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

_MAX_TEXT_LENGTH = 64  # characters; longer texts would make the log slower to read, and skip few more files
_LAST_CHARACTER, _FIRST_SURROGATE = "\U0010ffff", 0xD800  # surrogates are not characters
_LAST_MILLISECOND = datetime(9999, 12, 31, 23, 59, 59, 999_000, tzinfo=UTC)

Bounds = dict[str, tuple[Any, Any]]  # minimum and maximum, by column


def of_rows(rows: pa.Table) -> str:
    """The statistics of a file with these rows, as JSON: numbers of rows and NULLs, minimum and maximum by column."""
    nulls = {name: rows[name].null_count for name in rows.column_names}
    bounds = {name: _bounds(rows[name]) for name, count in nulls.items() if count < len(rows)}
    complete = {name: both for name, both in bounds.items() if both is not None}
    return _document(len(rows), nulls, complete if len(complete) == len(bounds) else {})


def with_some_bounds(schema: pa.Schema, rows: int, nulls: Mapping[str, int], bounds: Bounds) -> str:
    """The statistics of a file of which only some bounds are known, as JSON.

    `nulls` has the number of missing values by column. The other columns get bounds that no value of their type is
    outside of. Without any known bounds, or with a type that has no such range, there are none.
    """
    ranges = {field.name: _range_of_type(field.type) for field in schema}
    complete = {name: both for name, both in ranges.items() if both is not None} | bounds
    is_useful = bounds and len(complete) == len(ranges)
    as_json = {name: (_as_json(low), _as_json(high)) for name, (low, high) in complete.items()}
    return _document(rows, nulls, as_json if is_useful else {}, tight=not is_useful)


def _document(rows: int, nulls: Mapping[str, int], bounds: Mapping[str, tuple[str, str]], *, tight: bool = True) -> str:
    """`bounds` are JSON. `tight` says that they are values of the file, and not lower or higher."""
    stats = f'"numRecords": {rows}, "nullCount": {_json_object(nulls)}'
    if bounds:
        minimum = {name: low for name, (low, _) in bounds.items()}
        maximum = {name: high for name, (_, high) in bounds.items()}
        stats += f', "minValues": {_json_object(minimum)}, "maxValues": {_json_object(maximum)}'
    if not tight:
        stats += ', "tightBounds": false'
    return f"{{{stats}}}"


def _json_object(values: Mapping[str, object]) -> str:
    return f"{{{', '.join(f'{_quoted(name)}: {value}' for name, value in values.items())}}}"


def _as_json(value: Any) -> str:  # noqa: ANN401 - any value of a column
    return f"{value:f}" if isinstance(value, Decimal) else json.dumps(value, default=str, ensure_ascii=False)


def _range_of_type(data_type: pa.DataType) -> tuple[Any, Any] | None:
    types = pa.types
    if types.is_dictionary(data_type):
        return _range_of_type(data_type.value_type)
    if types.is_string(data_type) or types.is_large_string(data_type):
        return "", "\U0010ffff"
    if types.is_integer(data_type):
        return -(1 << data_type.bit_width - 1), (1 << data_type.bit_width - 1) - 1
    if types.is_decimal(data_type):
        limit = Decimal(10**data_type.precision - 1).scaleb(-data_type.scale, Context(prec=data_type.precision))
        return limit.copy_negate(), limit
    if types.is_boolean(data_type):
        return False, True
    if types.is_date(data_type):
        return "0001-01-01", "9999-12-31"
    if types.is_timestamp(data_type):
        return "0001-01-01T00:00:00.000Z", "9999-12-31T23:59:59.999Z"
    return None


def _bounds(column: "pa.ChunkedArray[Any]") -> tuple[str, str] | None:
    """The minimum and maximum as JSON; None if a reader could skip rows by mistake, or for types without an order."""
    to_json = _to_json(column.type)
    if to_json is None or has_unordered_values(column):
        return None
    both: Any = pc.min_max(column)
    return to_json(both["min"].as_py(), both["max"].as_py())


def has_unordered_values(column: "pa.ChunkedArray[Any]") -> bool:
    """Whether there is NaN, about whose order readers disagree, or an infinity, which JSON does not have."""
    return pa.types.is_floating(column.type) and pc.all(pc.is_finite(column)).as_py() is False


def _to_json(data_type: pa.DataType) -> Callable[[Any, Any], tuple[str, str] | None] | None:
    types = pa.types
    if types.is_integer(data_type):
        return lambda low, high: (str(low), str(high))
    if types.is_date(data_type):
        return lambda low, high: (f'"{low.isoformat()}"', f'"{high.isoformat()}"')
    if types.is_timestamp(data_type) and data_type.tz == "UTC":
        return _timestamps_to_json
    if types.is_decimal(data_type):
        return lambda low, high: (f"{low:f}", f"{high:f}")
    if types.is_boolean(data_type):
        return lambda low, high: (json.dumps(low), json.dumps(high))
    if types.is_floating(data_type):
        # 0 and -0 are equal, but some readers sort them.
        return lambda low, high: (json.dumps(low or -0.0), json.dumps(high or 0.0))
    if types.is_string(data_type):
        return _texts_to_json
    return None


def _timestamps_to_json(low: datetime, high: datetime) -> tuple[str, str]:
    """In whole milliseconds, because some readers ignore the rest."""
    low = low.replace(microsecond=low.microsecond // 1000 * 1000)
    if high < _LAST_MILLISECOND:
        high += timedelta(microseconds=-high.microsecond % 1000)
    minimum, maximum = (moment.isoformat(timespec="microseconds").replace("+00:00", "Z") for moment in (low, high))
    return f'"{minimum}"', f'"{maximum}"'


def _texts_to_json(low: str, high: str) -> tuple[str, str] | None:
    """Long texts are cut off; the maximum is then a short text that sorts after them."""
    if len(high) > _MAX_TEXT_LENGTH:
        start = high[:_MAX_TEXT_LENGTH].rstrip(_LAST_CHARACTER)
        if not start:
            return None
        following = ord(start[-1]) + 1
        high = start[:-1] + ("\ue000" if following == _FIRST_SURROGATE else chr(following))
    return _quoted(low[:_MAX_TEXT_LENGTH]), _quoted(high)


def _quoted(text: str) -> str:
    """As JSON, without escape sequences: delta-rs 1.6.6 reads that of U+10FFFD as another character."""
    return json.dumps(text, ensure_ascii=False)
