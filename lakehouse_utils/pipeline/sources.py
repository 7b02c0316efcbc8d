"""The description of each source table: its key, types and rules, and the column that orders the versions of a row.

`data/sources.toml` describes the bicycle shop and explains the format. `--sources FILE` names a file of your own.
"""

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any, Self

import duckdb
from pydantic import ConfigDict, Field, ValidationError, field_validator, model_validator

from lakehouse_utils import settings
from lakehouse_utils.errors import DescriptionError
from lakehouse_utils.pipeline.formats import FileFormat, Format, Texts, ValueSettings
from lakehouse_utils.pipeline.sql import literal

SHOP = settings.CHECKOUT / "data" / "sources.toml"
HISTORY_COLUMNS = ("valid_from", "valid_to", "is_first", "is_current")  # added in `<table>_history`

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


class Column(ValueSettings):
    """One column: its type as the description writes it, and the rules that a value must meet to get into silver.

    A value setting that is given here overrides that of the table and of the file.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, populate_by_name=True)

    type: str = Field(
        description="integer (64 bits), decimal(precision,scale), double, boolean, date, timestamp or text."
    )
    description: str = Field("", description="What the values mean, for readers; the pipeline does not use it.")
    headers: Texts = Field(
        [],
        alias="from",
        description='What the column is called in the files, if not by its name: one header such as "Nº Sócio", or a list.',
    )
    required: bool = Field(False, description="Whether a row without a value here is quarantined.")
    min: Any = Field(None, description="The smallest valid value.")
    max: Any = Field(None, description="The largest valid value.")
    allowed: list[Any] | None = Field(None, description="The only valid values.")
    pattern: str | None = Field(None, description="A regular expression that the whole text must match.")
    max_length: int | None = Field(None, ge=1, description="The largest valid number of characters.")
    references: str | None = Field(None, description="The table.column that the value refers to, for readers.")

    @field_validator("type")
    @classmethod
    def _check_type(cls, value: str) -> str:
        ColumnType.parse(value)
        return value

    @model_validator(mode="after")
    def _check_values(self) -> Self:
        for rule, value in self._values_of_rules():
            if not _is_value(str(value), self.sql_type):
                raise ValueError(f"{rule} has {value!r}, which is not a valid {self.type}")
        return self

    def _values_of_rules(self) -> Iterator[tuple[str, Any]]:
        for rule in ("min", "max"):
            if (value := getattr(self, rule)) is not None:
                yield rule, value
        for value in self.allowed or ():
            yield "allowed", value

    @property
    def data_type(self) -> ColumnType:
        """The column's type, parsed."""
        return ColumnType.parse(self.type)

    @property
    def sql_type(self) -> str:
        """The column's type in DuckDB's SQL."""
        return self.data_type.sql

    @property
    def is_temporal(self) -> bool:
        """Whether the column holds dates or timestamps."""
        return self.data_type.name in ("date", "timestamp")


class Source(Format):
    """One source table. The settings of `Format` apply to all its files, except where `formats` overrides them."""

    name: str
    description: str = Field("", description="What a row is, for readers; the pipeline does not use it.")
    key: list[str] = Field(min_length=1, description="The columns that identify a row.")
    order_by: str | None = Field(
        None, description="The column that orders the versions of a row: silver keeps the one with the greatest value."
    )
    history: bool = Field(False, description="Whether silver also keeps every version of a row in <table>_history.")
    formats: list[FileFormat] = Field([], description="Files with other settings than the table's.")
    columns: dict[str, Column] = Field(min_length=1, description="All columns, in the order of silver's columns.")

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        for name in (self.name, *self.columns):
            if not name.isidentifier() or name.startswith("_"):
                raise ValueError(
                    f"{name!r} is not a valid name; use only letters, digits and _, and do not start with _ or a digit"
                )
        lowered = [name.casefold() for name in self.columns]
        if len(set(lowered)) < len(lowered):
            raise ValueError("two columns have the same name; upper and lower case make no difference")
        for name in [*self.key, *([self.order_by] if self.order_by else [])]:
            if name not in self.columns:
                raise ValueError(f"key and order_by must be described columns, but {name!r} is not one of the columns")
        if self.history and (reserved := sorted(set(HISTORY_COLUMNS).intersection(lowered))):
            raise ValueError(f"the column name {reserved[0]} is reserved in a table with history; rename the column")
        return self

    @model_validator(mode="after")
    def _check_headers(self) -> Self:
        owners: dict[str, str] = {name.casefold(): name for name in self.columns}
        for name, column in self.columns.items():
            for header in column.headers:
                if owners.setdefault(header.strip().casefold(), name) != name:
                    raise ValueError(
                        f"the header {header!r} belongs to the columns {owners[header.strip().casefold()]} and {name};"
                        " remove one of them"
                    )
        return self

    @model_validator(mode="after")
    def _check_formats(self) -> Self:
        for number, format_ in enumerate([self.format, *map(self.format.override, self.formats)]):
            where = f"entry {number} of formats ({self.formats[number - 1].files!r}): " if number else ""
            try:
                format_.check()
                for name, column in self.columns.items():
                    where = f"columns.{name}: "
                    format_.override(column).check()
            except ValueError as error:
                raise ValueError(f"{where}{error}") from None
        return self

    @property
    def format(self) -> Format:
        """The settings of files that no entry of `formats` matches."""
        return Format.model_construct(
            self.model_fields_set & Format.model_fields.keys(),
            **{name: getattr(self, name) for name in Format.model_fields},
        )

    def format_of(self, path: str) -> Format:
        """The settings of the file at `path`, relative to the landing folder."""
        entry = next((entry for entry in self.formats if fnmatchcase(path, entry.files)), None)
        return self.format.override(entry) if entry else self.format

    def is_required(self, column: str) -> bool:
        """Whether a row without a value in `column` is quarantined. Key columns are always required."""
        return column in self.key or self.columns[column].required


@cache
def _database() -> duckdb.DuckDBPyConnection:
    return duckdb.connect()  # its own, because the default connection is the user's


@cache
def _is_value(text: str, sql_type: str) -> bool:
    """Whether the SQL of a rule can compare values of the type with `text`."""
    # Not as a parameter: DuckDB imports pandas, if it can, to bind one, and that takes a second.
    casted = _database().cursor().execute(f"SELECT TRY_CAST({literal(text)} AS {sql_type}) IS NOT NULL")
    return casted.fetchone() == (True,)


def load(path: Path | str = SHOP) -> dict[str, Source]:
    """The source tables that the file at `path` describes, by name, in the file's order.

    Raises DescriptionError, whose message names the file and the table, line or entry that is invalid.
    """
    try:
        sections = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise DescriptionError(
            f"Could not read the source descriptions {path}: {error.strerror}. Check --sources."
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DescriptionError(f"{path} is not valid TOML: {error}. Fix the file, or check --sources.") from None
    if not sections:
        raise DescriptionError(f"{path} does not describe any table. See data/sources.toml for an example.")
    sources = {name: _load_source(path, name, section) for name, section in sections.items()}
    for name, source in sources.items():
        if source.history and f"{name}_history" in sources:
            raise DescriptionError(
                f"{path}: [{name}_history]: the history of [{name}] is written to a table of the same name. Rename this"
                f" table, or remove history = true from [{name}].",
                entry=f"{name}_history",
            )
    return sources


def _load_source(path: Path | str, name: str, section: object) -> Source:
    try:
        return Source.model_validate({"name": name, **section} if isinstance(section, dict) else section)
    except ValidationError as error:
        problem = error.errors()[0]
        entry = ".".join([name, *(str(part) for part in problem["loc"])])
        reason = problem["msg"].removeprefix("Value error, ")
        raise DescriptionError(
            f"{path}: [{entry}]: {reason}. The comment at the top of data/sources.toml explains the format.",
            entry=entry,
        ) from None
