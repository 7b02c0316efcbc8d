"""The types of columns, as descriptions write them, in DuckDB's SQL and in Delta."""

import re
from dataclasses import dataclass
from functools import cache
from typing import Self

_MAX_DECIMAL_PRECISION = 38
_DECIMAL = re.compile(r"decimal\((\d{1,2}),\s*(\d{1,2})\)")
_SQL_TYPES = {
    "integer": "BIGINT",
    "double": "DOUBLE",
    "boolean": "BOOLEAN",
    "date": "DATE",
    "timestamp": "TIMESTAMPTZ",
    "text": "VARCHAR",
}
_DELTA_TYPES = {"integer": "long", "text": "string"}  # the other types have the same name in Delta


@dataclass(frozen=True)
class ColumnType:
    """The type of a column: `name` is integer, double, boolean, date, timestamp, text or decimal.

    Integers have 64 bits, timestamps are in UTC. Only a decimal has a precision and a scale, in digits.
    """

    name: str
    precision: int | None = None
    scale: int | None = None

    @classmethod
    @cache
    def parse(cls, text: str) -> Self:
        """The type that a description calls `text`, such as `integer` or `decimal(10,2)`. Raises ValueError."""
        if text in _SQL_TYPES:
            return cls(text)
        if match := _DECIMAL.fullmatch(text):
            precision, scale = int(match[1]), int(match[2])
            if 0 < precision <= _MAX_DECIMAL_PRECISION and scale <= precision:
                return cls("decimal", precision, scale)
        raise ValueError(f"{text!r} is not a valid type; use {', '.join(_SQL_TYPES)} or decimal(precision,scale)")

    @property
    def _arguments(self) -> str:
        return "" if self.precision is None else f"({self.precision},{self.scale})"

    @property
    def sql(self) -> str:
        """The type in DuckDB's SQL."""
        return _SQL_TYPES.get(self.name, self.name.upper()) + self._arguments

    @property
    def delta(self) -> str:
        """The name of Delta's primitive type."""
        return _DELTA_TYPES.get(self.name, self.name) + self._arguments
