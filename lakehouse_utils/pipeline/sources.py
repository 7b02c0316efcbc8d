"""The description of each source table: key, types, rules, and the column that orders the versions of a row.

`data/sources.toml` describes the bicycle shop and explains the format; `--sources FILE` names one of your own.
"""

import re
import tomllib
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from lakehouse_utils import settings
from lakehouse_utils.errors import LakehouseError

SHOP = settings.CHECKOUT / "data" / "sources.toml"

_SQL_TYPES = {
    "integer": "BIGINT",
    "double": "DOUBLE",
    "boolean": "BOOLEAN",
    "date": "DATE",
    "timestamp": "TIMESTAMPTZ",
    "text": "VARCHAR",
}
_DECIMAL = re.compile(r"decimal\((\d{1,2}),\s*(\d{1,2})\)")


class Column(BaseModel):
    """One column: its type and the rules that a value must keep to get into silver."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: str
    description: str = ""
    required: bool = False
    min: Any = None
    max: Any = None
    allowed: list[Any] | None = None
    references: str | None = None

    @field_validator("type")
    @classmethod
    def _known(cls, value: str) -> str:
        decimal = _DECIMAL.fullmatch(value)
        if not (value in _SQL_TYPES or decimal and int(decimal[2]) <= int(decimal[1]) <= 38 and int(decimal[1]) > 0):
            raise ValueError(f"{value!r} is not a type; there are {', '.join(_SQL_TYPES)} and decimal(precision,scale)")
        return value

    @property
    def sql_type(self) -> str:
        """The type in DuckDB's SQL; integers have 64 bits, timestamps are in UTC."""
        return _SQL_TYPES.get(self.type) or self.type.upper()

    @property
    def is_temporal(self) -> bool:
        return self.type in ("date", "timestamp")


class Source(BaseModel):
    """One source table."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    description: str = ""
    key: list[str] = Field(min_length=1)
    order_by: str | None = None
    history: bool = False
    delimiter: str = Field(",", min_length=1, max_length=1)
    columns: dict[str, Column] = Field(min_length=1)

    @model_validator(mode="after")
    def _consistent(self) -> "Source":
        for name in (self.name, *self.columns):
            if not name.isidentifier() or name.startswith("_"):
                raise ValueError(
                    f"{name!r} can't be a name: letters, digits and _ only, not starting with _ or a digit"
                )
        folded = [name.casefold() for name in self.columns]
        if len(set(folded)) < len(folded):
            raise ValueError("two columns have the same name; upper and lower case don't tell names apart")
        for name in [*self.key, *([self.order_by] if self.order_by else [])]:
            if name not in self.columns:
                raise ValueError(f"key and order_by must be among the columns; {name!r} isn't")
        of_history = {"valid_from", "valid_to", "is_first", "is_current"}
        if self.history and (taken := sorted(of_history.intersection(folded))):
            raise ValueError(f"a table with history gets a column {taken[0]} itself: call this one otherwise")
        if self.delimiter in '"\r\n':
            raise ValueError("delimiter can't be a quote or a line end")
        return self

    def is_required(self, column: str) -> bool:
        """Whether a row without a value there is quarantined; the columns of the key always are required."""
        return column in self.key or self.columns[column].required


def load(path: Path | str = SHOP) -> dict[str, Source]:
    """The source tables that the file at `path` describes, by name, in the file's order.

    Raises LakehouseError that names the file, the table and the line or entry that is off.
    """
    try:
        sections = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise LakehouseError(
            f"The source descriptions {path} can't be read: {error.strerror}. Check --sources."
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise LakehouseError(f"{path} is not TOML: {error}.") from None
    if not sections:
        raise LakehouseError(f"{path} describes no table; data/sources.toml shows how.")
    sources = {}
    for name, section in sections.items():
        try:
            sources[name] = Source.model_validate({"name": name, **section} if isinstance(section, dict) else section)
        except ValidationError as error:
            problem = error.errors()[0]
            entry = ".".join([name, *(str(part) for part in problem["loc"])])
            reason = problem["msg"].removeprefix("Value error, ")
            raise LakehouseError(
                f"{path}: [{entry}]: {reason}. The head of data/sources.toml explains the format."
            ) from None
    for name, source in sources.items():
        if source.history and f"{name}_history" in sources:
            raise LakehouseError(
                f"{path}: [{name}_history]: the history of [{name}] is written to a table of that name, too."
                f" Call this one otherwise, or leave out history = true."
            )
    return sources
