"""How a source's files are written: the settings that a description may give for a table, for some files or a column.

Reading settings (delimiter, quote, encoding, skip_rows) say how a file is split into fields. Value settings (decimal,
date_format, time_zone, ...) say how the text of a field is read as a value. Bronze keeps the text as it is in the file,
so value settings take effect in silver.
"""

import codecs
import zoneinfo
from typing import Annotated, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator

from lakehouse_utils.pipeline import date_formats

# Python's name of a codec -> the name that descriptions use.
_ENCODINGS = {
    "utf-8": "utf-8",
    "utf-8-sig": "utf-8",
    "ascii": "utf-8",
    "cp1252": "windows-1252",
    "iso8859-1": "latin-1",
    "iso8859-15": "iso-8859-15",
    "utf-16": "utf-16",
    "utf-16-le": "utf-16-le",
    "utf-16-be": "utf-16-be",
}
ENCODINGS = tuple(dict.fromkeys(_ENCODINGS.values()))
READING_SETTINGS = ("delimiter", "quote", "encoding", "skip_rows")  # the other settings are about values
NULL_VALUES = ("", "NULL")
TRUE_VALUES = ("true", "t", "yes", "y", "1")
FALSE_VALUES = ("false", "f", "no", "n", "0")


def _folded(word: str) -> str:
    return word.strip().casefold()


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


# One text or a list of texts.
Texts = Annotated[list[str], BeforeValidator(_as_list, json_schema_input_type=str | list[str])]


class ValueSettings(BaseModel):
    """How the texts of a table, of some of its files or of one column are read as values."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    decimal: str = Field(
        ".",
        json_schema_extra={"enum": [".", ","]},
        description='The character before the decimals of a number: "." or ",".',
    )
    thousands: str = Field(
        "",
        json_schema_extra={"enum": ["", ".", ",", "'", " "]},
        description='The character between groups of three digits: ".", ",", "\'" or " "; "" for none.',
    )
    date_format: Texts = Field(
        [],
        description='How dates are written, such as "%d/%m/%Y"; the first format that fits counts. Default: ISO 8601.',
    )
    timestamp_format: Texts = Field(
        [],
        description='How timestamps are written, such as "%d/%m/%Y %H:%M"; the first format that fits counts. Default: '
        "ISO 8601.",
    )
    time_zone: str = Field("UTC", description='The time zone of times without an offset, such as "America/Sao_Paulo".')
    null_values: list[str] = Field(
        list(NULL_VALUES), description="The texts that mean that there is no value. They replace the default."
    )
    true_values: list[str] = Field(
        list(TRUE_VALUES),
        min_length=1,
        description='The words for true, such as ["Sim"], in place of the default; upper and lower case make no'
        " difference.",
    )
    false_values: list[str] = Field(
        list(FALSE_VALUES),
        min_length=1,
        description='The words for false, such as ["Não"], in place of the default; upper and lower case make no'
        " difference.",
    )
    trim: bool = Field(
        False,
        description="Whether white space around text values is removed. It is always ignored around other values.",
    )

    @field_validator("decimal")
    @classmethod
    def _check_decimal(cls, value: str) -> str:
        if value not in (".", ","):
            raise ValueError(f'{value!r} is not a valid decimal character; use "." or ","')
        return value

    @field_validator("thousands")
    @classmethod
    def _check_thousands(cls, value: str) -> str:
        if value not in ("", ".", ",", "'", " "):
            raise ValueError(
                f'{value!r} is not a valid thousands separator; use ".", ",", "\'", " ", or "" if there is none'
            )
        return value

    @field_validator("date_format", "timestamp_format")
    @classmethod
    def _check_formats(cls, value: list[str], info: object) -> list[str]:
        for text in value:
            date_formats.rewrites(text, has_time=getattr(info, "field_name", "") == "timestamp_format")
        return value

    @field_validator("time_zone")
    @classmethod
    def _check_time_zone(cls, value: str) -> str:
        if value != "UTC" and value not in zoneinfo.available_timezones():
            raise ValueError(f'{value!r} is not a valid time zone; use an IANA name such as "America/Sao_Paulo"')
        return value

    @field_validator("true_values", "false_values")
    @classmethod
    def _check_words(cls, value: list[str]) -> list[str]:
        if any(not word.strip() for word in value):
            raise ValueError("a word for true or false cannot be empty")
        return value

    def check(self) -> None:
        """Raise ValueError if two settings do not fit together. Not a validator: a column may give only one of them."""
        if self.decimal == self.thousands:
            raise ValueError(f"decimal and thousands are both {self.decimal!r}; change one of them")
        words = set(map(_folded, self.true_values))
        if both := [word for word in self.false_values if _folded(word) in words]:
            raise ValueError(f"{both[0]!r} is in true_values and in false_values; remove it from one of them")

    def override(self, other: "ValueSettings") -> Self:
        """These settings, with those that `other` gives explicitly in place of them."""
        given = {name: getattr(other, name) for name in other.model_fields_set if name in type(self).model_fields}
        return self.model_copy(update=given) if given else self


class Format(ValueSettings):
    """How a file is written: how it is split into fields, and how the fields are read as values."""

    delimiter: str = Field(
        ",", min_length=1, max_length=1, description='The character between the fields of a CSV file, such as ";".'
    )
    quote: str = Field(
        '"',
        max_length=1,
        description='The character around a field of a CSV file that contains delimiters; "" for none.',
    )
    encoding: str = Field("utf-8", description=f"The encoding of a CSV or JSON lines file: {', '.join(ENCODINGS)}.")
    skip_rows: int = Field(0, ge=0, description="The number of lines before the header of a CSV file.")

    @field_validator("delimiter")
    @classmethod
    def _check_delimiter(cls, value: str) -> str:
        if value in "\r\n\0":
            raise ValueError("the delimiter cannot be a line end or a NUL character")
        return value

    @field_validator("quote")
    @classmethod
    def _check_quote(cls, value: str) -> str:
        if value and (not value.isascii() or value.isalnum() or value in "\r\n\0 \t"):
            raise ValueError(f'{value!r} is not a valid quote; use an ASCII character such as "\'", or "" for none')
        return value

    @field_validator("encoding")
    @classmethod
    def _check_encoding(cls, value: str) -> str:
        try:
            return _ENCODINGS[codecs.lookup(value).name]
        except (LookupError, ValueError):
            raise ValueError(f"{value!r} is not a supported encoding; use {', '.join(ENCODINGS)}") from None

    def check(self) -> None:
        """See ValueSettings."""
        super().check()
        if self.delimiter == self.quote:
            raise ValueError(f"the delimiter and the quote are both {self.quote!r}; change one of them")


class FileFormat(Format):
    """The settings for the files whose path below the landing folder matches a pattern; they override the table's."""

    files: str = Field(
        min_length=1,
        description='The files, by a pattern for their path below the landing folder, such as "lisbon-*/*"; * matches'
        " any characters, ? one, and [ab] one of these. The first entry that matches a file counts.",
    )
