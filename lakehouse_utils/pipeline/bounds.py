"""The values of `min`, `max` and `allowed`, as exact values of the column's type.

A bound may have more digits than the column's type has: `max = 9.5` for an integer. It is not rounded to the nearest
value of the type, which would change the rule, but to the greatest value that meets it (9). So comparing values of the
type gives exactly the same result as comparing with the bound that was written.
"""

import datetime as dt
import math
from collections.abc import Callable
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal, InvalidOperation
from fractions import Fraction

from lakehouse_utils.pipeline.column_types import ColumnType

_CONTEXT = Context(prec=400)
_INTEGER_LIMIT = 2**63
_BOOLEANS = {"true": True, "t": True, "yes": True, "y": True, "1": True} | {
    "false": False,
    "f": False,
    "no": False,
    "n": False,
    "0": False,
}

Value = Decimal | float | bool | dt.date | dt.datetime | str


def parse(value: object, type_: ColumnType) -> Value:
    """The exact value that a rule of a column of this type gives. Raises ValueError if it is not such a value."""
    return _PARSERS[type_.name](value)


def _number(value: object) -> Decimal:
    if isinstance(value, bool):
        raise ValueError  # noqa: TRY004  as for all other values
    try:
        number = _CONTEXT.create_decimal(str(value).strip())
    except InvalidOperation:
        raise ValueError from None
    if not number.is_finite() or abs(number.adjusted()) > _CONTEXT.prec - 40:
        raise ValueError
    return number


def _boolean(value: object) -> bool:
    try:
        return _BOOLEANS[str(value).strip().lower()]
    except KeyError:
        raise ValueError from None


def _date(value: object) -> dt.date:
    if isinstance(value, dt.datetime):
        raise ValueError  # noqa: TRY004  as for all other values
    return dt.date.fromisoformat(str(value).strip())


def _timestamp(value: object) -> dt.datetime:
    moment = dt.datetime.fromisoformat(str(value).strip())
    return (moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)).astimezone(dt.UTC)


_PARSERS: dict[str, Callable[[object], Value]] = {
    "integer": _number,
    "decimal": _number,
    "double": _number,
    "boolean": _boolean,
    "date": _date,
    "timestamp": _timestamp,
    "text": str,
}


def is_below(value: Value, other: object, type_: ColumnType) -> bool:
    """Whether a parsed value is below `other`, which a rule of the same column gives."""
    return value < parse(other, type_)  # type: ignore[operator]  # both are of the type


def at_least(value: object, type_: ColumnType) -> Value | None:
    """The smallest value of the type that is not below `value`; None if every value of the type is below it."""
    return _nearest(value, type_, ROUND_CEILING)


def at_most(value: object, type_: ColumnType) -> Value | None:
    """The greatest value of the type that is not above `value`; None if every value of the type is above it."""
    return _nearest(value, type_, ROUND_FLOOR)


def exactly(value: object, type_: ColumnType) -> Value | None:
    """`value`, if the type has it, otherwise None."""
    nearest = at_most(value, type_)
    return nearest if nearest is not None and nearest == at_least(value, type_) else None


def _nearest(value: object, type_: ColumnType, rounding: str) -> Value | None:
    exact = parse(value, type_)
    if not isinstance(exact, Decimal):
        return exact
    if type_.name == "double":
        return _nearest_double(exact, rounding)
    scale = type_.scale or 0
    smallest, greatest = (
        (Decimal(-_INTEGER_LIMIT), Decimal(_INTEGER_LIMIT - 1))
        if type_.name == "integer"
        else (Decimal(sign * (10 ** (type_.precision or 0) - 1)).scaleb(-scale, _CONTEXT) for sign in (-1, 1))
    )
    number = exact.quantize(Decimal(1).scaleb(-scale), rounding, _CONTEXT)
    if rounding == ROUND_CEILING:
        return None if number > greatest else max(number, smallest)
    return None if number < smallest else min(number, greatest)


def _nearest_double(exact: Decimal, rounding: str) -> float | None:
    number = float(exact)
    direction = math.inf if rounding == ROUND_CEILING else -math.inf
    if math.isinf(number):
        return None if number == direction else math.copysign(float.fromhex("0x1.fffffffffffffp+1023"), number)
    is_beyond = Fraction(number) < Fraction(exact) if rounding == ROUND_CEILING else Fraction(number) > Fraction(exact)
    return math.nextafter(number, direction) if is_beyond else number


def as_text(value: Value) -> str:
    """The value as the SQL of every engine casts it from a text."""
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, dt.datetime):
        return value.strftime("%Y-%m-%d %H:%M:%S.%f+00:00") if value.year > 999 else value.isoformat(sep=" ")
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
