"""The draft of a description, as TOML."""

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import combinations, groupby
from pathlib import Path
from typing import Any

from lakehouse_utils.pipeline.date_formats import ISO
from lakehouse_utils.pipeline.describe import samples
from lakehouse_utils.pipeline.describe.columns import Guess, count_missing, guess
from lakehouse_utils.pipeline.describe.samples import Sample
from lakehouse_utils.pipeline.formats import FALSE_VALUES, NULL_VALUES, TRUE_VALUES
from lakehouse_utils.pipeline.sources import HISTORY_COLUMNS

# Settings that belong together.
_SETTINGS = (
    ("decimal", "thousands"),
    ("date_format",),
    ("timestamp_format",),
    ("true_values", "false_values"),
)
_DEFAULTS: dict[str, object] = {
    "decimal": ".",
    "thousands": "",
    "date_format": ISO,
    "timestamp_format": ISO,
    "true_values": list(TRUE_VALUES),
    "false_values": list(FALSE_VALUES),
    "null_values": list(NULL_VALUES),
    "delimiter": ",",
    "quote": '"',
    "encoding": "utf-8",
    "skip_rows": 0,
}
_LIKELY_KEY = re.compile(r"(^|_)(id|ids|key|code|cod|codigo|no|nr|num|numero|number|nummer|uuid)($|_)")
_KEY_TYPES = ("integer", "text", "date", "timestamp")
_MAX_KEY_COLUMNS = 3
_MAX_KEY_CANDIDATES = 8

HEAD = """\
# A draft, made from the files themselves. Check it, especially the lines with a comment, and then run:
#   ingestion_processor.py --landing DIR --sources THIS_FILE
# The comment at the top of data/sources.toml explains every setting."""


def draft(paths: Sequence[Path]) -> str:
    """A description of the tables in these files, one section per table. Raises UnreadableFileError."""
    by_table = sorted((samples.read(path) for path in paths), key=lambda sample: sample.table)
    sections = [_section(name, list(group)) for name, group in groupby(by_table, key=lambda sample: sample.table)]
    return "\n\n".join([HEAD, *sections]) + "\n"


def _section(table: str, of_table: list[Sample]) -> str:
    name = _identifier(table)
    merged = _merge(of_table)
    guesses = guess(merged)
    names = _names(merged.headers)
    settings = _settings_of_table(guesses)
    null_values = settings.get("null_values", NULL_VALUES)
    for index, about in enumerate(guesses):
        count_missing(about, (row[index] for row in merged.rows), null_values, trim="trim" in settings)
    key, notes = _key(merged, guesses, names)
    lines = [f"[{name}]"]
    if name != table:
        lines.insert(0, f"# The files must have the name of the table: rename {table}.* to {name}.*")
    if not merged.is_complete:
        lines.insert(0, f"# From the first {len(merged.rows):,} rows of the files.")
    lines.append(f"key = {_toml(key)}".ljust(40) + f"  # {notes}")
    for setting, value in of_table[0].reading.items():
        comment = "  # a guess" if setting in ("encoding", "skip_rows") else ""
        lines.append(f"{setting} = {_toml(value)}{comment}")
    lines += [
        f"{setting} = {_toml(value)}{'  # some texts have spaces around them' if setting == 'trim' else ''}"
        for setting, value in settings.items()
        if value != _DEFAULTS.get(setting)
    ]
    for sample in of_table[1:]:
        if sample.reading != of_table[0].reading:
            lines += ["", f"[[{name}.formats]]", f"files = {_toml(_files(sample, of_table[0]))}"]
            lines += [
                f"{setting} = {_toml(sample.reading.get(setting, _DEFAULTS[setting]))}"
                for setting in of_table[0].reading | sample.reading
            ]
    lines += ["", f"[{name}.columns]"]
    width = max(map(len, names))
    lines += [
        _column_line(column.ljust(width), column, about, settings, key)
        for column, about in zip(names, guesses, strict=True)
    ]
    return "\n".join(lines)


def _files(sample: Sample, other: Sample) -> str:
    """A pattern for the path of a file below the landing folder that does not match the `other` one."""
    path = sample.path
    return f"*{path.name}" if path.name != other.path.name else f"*{path.absolute().parent.name}/{path.name}"


def _column_line(padded: str, name: str, about: Guess, settings: dict[str, Any], key: list[str]) -> str:
    entries = [f'type = "{about.type}"']
    if about.header.lower() != name:
        entries.append(f"from = {_toml(about.header)}")
    if not about.has_missing and name not in key:
        entries.append("required = true")
    for setting, value in about.settings.items():
        if value != settings.get(setting, _DEFAULTS.get(setting)):
            entries.append(f"{setting} = {_toml(value)}")
    comment = f"  # {'; '.join(about.notes)}" if about.notes else ""
    return f"{padded} = {{ {', '.join(entries)} }}{comment}"


def _settings_of_table(guesses: list[Guess]) -> dict[str, Any]:
    """The value settings that most columns that need one have in common; the others are given at the column."""
    settings: dict[str, Any] = {}
    for names in _SETTINGS:
        values = Counter(
            json.dumps([about.settings[name] for name in names]) for about in guesses if names[0] in about.settings
        )
        if values:
            settings |= zip(names, json.loads(values.most_common(1)[0][0]), strict=True)
    words = [word for about in guesses for word in about.settings.pop("null_values", [])]
    if words:
        settings["null_values"] = list(dict.fromkeys(words))
    if any(about.has_spaces for about in guesses if about.type == "text"):
        settings["trim"] = True
    return settings


def _key(sample: Sample, guesses: list[Guess], names: list[str]) -> tuple[list[str], str]:
    """The columns that identify a row, as far as the sample shows, and a comment on them."""

    def likelihood(index: int) -> tuple[bool, bool, int]:
        is_key_type = guesses[index].type in ("integer", "text")
        return not _LIKELY_KEY.search(_identifier(names[index])), not is_key_type, index

    possible = [index for index, about in enumerate(guesses) if about.type in _KEY_TYPES]
    single = sorted((index for index in possible if guesses[index].is_unique), key=likelihood)
    if single:
        others = ", ".join(names[index] for index in single[1:5])
        note = f"a guess: unique in the sample{f'; so are {others}' if others else ''}"
        return [names[single[0]]], note
    complete = sorted((index for index in possible if not guesses[index].has_missing), key=likelihood)
    for count in range(2, _MAX_KEY_COLUMNS + 1):
        for columns in combinations(complete[:_MAX_KEY_CANDIDATES], count):
            if len({tuple(row[index] for index in columns) for row in sample.rows}) == len(sample.rows):
                return [names[index] for index in sorted(columns)], "a guess: unique together in the sample"
    return [names[complete[0] if complete else 0]], "choose the key: no column is unique and complete in the sample"


def _merge(of_table: list[Sample]) -> Sample:
    """The rows of several files of one table, with the columns of all."""
    first = of_table[0]
    if len(of_table) == 1:
        return first
    headers = list(dict.fromkeys(header for sample in of_table for header in sample.headers))
    rows = [
        [values.get(header) for header in headers]
        for sample in of_table
        for values in (dict(zip(sample.headers, row, strict=True)) for row in sample.rows)
    ]
    types = {
        header: type_
        for header, type_ in first.types.items()
        if all(sample.types.get(header, type_) == type_ for sample in of_table)
    }
    return Sample(
        first.path, first.table, headers, rows, first.reading, types, all(sample.is_complete for sample in of_table)
    )


def _names(headers: Iterable[str]) -> list[str]:
    names: list[str] = []
    for header in headers:
        name = base = _identifier(header).lower()
        number = 1
        while name.casefold() in (taken.casefold() for taken in names) or name in HISTORY_COLUMNS:
            number += 1
            name = f"{base}_{number}"
        names.append(name)
    return names


def _is_name(header: str) -> bool:
    return header.isidentifier() and header.isascii() and not header.startswith("_")


def _identifier(text: str) -> str:
    """The text as a name: lower case, without accents, with _ between words."""
    if _is_name(text):
        return text
    plain = unicodedata.normalize("NFKD", text).replace("ß", "ss").encode("ascii", "ignore").decode().lower()
    name = re.sub(r"[^a-z0-9]+", "_", plain).strip("_")
    return name if name and not name[0].isdigit() else f"column_{name}".rstrip("_")


def _toml(value: object) -> str:
    """The value as TOML, which writes texts, numbers and lists as JSON does."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
