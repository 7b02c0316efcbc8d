"""The description of each source table: its key, types and rules, and the column that orders the versions of a row.

`data/sources.toml` describes the bicycle shop and explains the format. `--sources FILE` names a file of your own.
"""

import re
import tomllib
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import duckdb
from pydantic import ConfigDict, Field, ValidationError, field_validator, model_validator

from lakehouse_utils import settings
from lakehouse_utils.errors import DescriptionError
from lakehouse_utils.pipeline import bounds, patterns
from lakehouse_utils.pipeline.column_types import ColumnType
from lakehouse_utils.pipeline.formats import FileFormat, Format, Texts, ValueSettings
from lakehouse_utils.pipeline.sql import literal

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

SHOP = settings.CHECKOUT / "data" / "sources.toml"
HISTORY_COLUMNS = ("valid_from", "valid_to", "is_first", "is_current")  # added in `<table>_history`

_ADVICE = {
    "date": "; write it as 2026-01-31",
    "timestamp": "; write it as 2026-01-31 18:30:00",
    "boolean": "; write true or false",
}
# Kinds of pydantic's errors.
_EXPECTED = {
    "bool_type": "true or false",
    "string_type": "a text in quotes",
    "int_type": "a whole number",
    "list_type": "a list",
    "dict_type": "a section with settings",
    "model_type": "a section with settings",
    "model_attributes_type": "a section with settings",
}


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
        description='What the files call the column, if not by its name: a header such as "Nº Sócio", or a list.',
    )
    optional: bool = Field(False, description="Whether files may lack the column without a note.")
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

    @field_validator("pattern")
    @classmethod
    def _check_pattern(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                _run_pattern(patterns.portable(value))
            except (ValueError, duckdb.Error) as error:
                reason = str(error).removeprefix("Invalid Input Error: ")
                raise ValueError(f"{value!r} is not a supported regular expression: {reason}") from None
        return value

    @model_validator(mode="after")
    def _check_values(self) -> Self:
        for rule, value in self._values_of_rules():
            try:
                exact = bounds.parse(value, self.data_type)
                if rule == "allowed" and bounds.exactly(value, self.data_type) is None:
                    raise ValueError
            except ValueError:
                advice = _ADVICE.get(self.data_type.name, "")
                raise ValueError(f"{rule}: {_as_written(value)} is not a valid {self.type}{advice}") from None
            if rule == "max" and self.min is not None and bounds.is_below(exact, self.min, self.data_type):
                raise ValueError(
                    f"min ({_as_written(self.min)}) is greater than max ({_as_written(self.max)}); change one of them"
                )
        if self.allowed is not None and not self.allowed:
            raise ValueError("allowed is an empty list; list the valid values, or remove it")
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
    def _check_combinations(self) -> Self:
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
        entry = next((entry for entry in self.formats if re.fullmatch(patterns.of_files(entry.files), path)), None)
        return self.format.override(entry) if entry else self.format

    def is_required(self, column: str) -> bool:
        """Whether a row without a value in `column` is quarantined. Key columns are always required."""
        return column in self.key or self.columns[column].required


@cache
def _database() -> duckdb.DuckDBPyConnection:
    return duckdb.connect()  # its own, because the default connection is the user's


def _run_pattern(pattern: str) -> None:
    """Raise duckdb.Error if DuckDB cannot run the regular expression."""
    # Not as a parameter: DuckDB imports pandas, if it can, to bind one, and that takes a second.
    _database().cursor().execute(f"SELECT regexp_full_match('', {literal(pattern)})").fetchone()


def _as_written(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return repr(value) if isinstance(value, str) else str(value)


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
    def invalid(location: Iterable[object], reason: str) -> DescriptionError:
        entry = ".".join([name, *map(str, location)])
        return DescriptionError(
            f"{path}: [{entry}]: {reason}. The comment at the top of data/sources.toml explains the format.",
            entry=entry,
        )

    if not isinstance(section, dict):
        raise invalid([], f"it must be a section with settings, not {_as_written(section)}")
    if "name" in section:
        raise invalid(["name"], "there is no setting 'name' here; remove it: the section's name is the table's name")
    try:
        return Source.model_validate({"name": name, **section})
    except ValidationError as error:
        problem = error.errors()[0]
        raise invalid(problem["loc"], _reason(problem)) from None


def _reason(problem: "ErrorDetails") -> str:
    """What is wrong with an entry, and what is allowed there."""
    location, written = problem["loc"], problem["input"]
    context = problem.get("ctx", {})
    match problem["type"]:
        case "extra_forbidden":
            names = _settings_at(location)
            nearest = get_close_matches(str(location[-1]), names, 1)
            hint = f"did you mean {nearest[0]}?" if nearest else f"the settings are {', '.join(names)}"
            return f"there is no setting {str(location[-1])!r} here; {hint}".rstrip("?") + ("?" if nearest else "")
        case "missing":
            return f"the setting {location[-1]} is missing; add it"
        case "too_short":
            return "it must have at least one entry"
        case "string_too_short" | "string_too_long" if "delimiter" in location or "quote" in location:
            return f"it must be one character, not {written!r}"
        case "string_too_short":
            return "it cannot be empty"
        case "greater_than_equal":
            return f"it must be at least {context['ge']}, not {written}"
        case kind if kind in _EXPECTED:
            return f"it must be {_EXPECTED[kind]}, not {_as_written(written)}"
    return problem["msg"].removeprefix("Value error, ")


def _settings_at(location: tuple[int | str, ...]) -> list[str]:
    """The names of the settings that the description may have where an unknown one is."""
    models: dict[str, type[ValueSettings]] = {"columns": Column, "formats": FileFormat}
    model = models.get(str(location[0]), Source)
    names = [field.alias or name for name, field in model.model_fields.items()]
    return [name for name in names if model is not Source or name != "name"]
