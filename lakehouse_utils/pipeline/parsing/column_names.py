"""Turns the column names in a raw file into the names of bronze's columns."""

import unicodedata
from collections.abc import Callable, Iterable, Sized
from typing import NamedTuple

from lakehouse_utils.errors import UnreadableFileError
from lakehouse_utils.pipeline.parsing import limits
from lakehouse_utils.pipeline.sources import Source

_SHOWN_CHARACTERS = 100  # of a header, in an error message
# Characters that Delta or Parquet do not accept in names.
_REPLACEMENTS = str.maketrans(dict.fromkeys([*map(chr, range(32)), *" ,;{}()=\x7f"], "_"))


class _Match(NamedTuple):
    """The described column that a written name means. The closer the two are, the smaller is `distance`."""

    column: str
    distance: int


class ColumnNames:
    """The names of bronze's columns for the names that the files of a table use.

    A written name matches a described column, from the closest match to the loosest, if it is

    1. a header that the column gives with `from`, apart from upper and lower case;
    2. the column's name, apart from upper and lower case and characters that Delta does not accept;
    3. one of these headers, if invisible characters and different forms of a character make no difference either;
    4. the column's name, if every character other than a letter, a digit or `_` also counts as `_`.

    If two names in a file match the same column, the closer one counts; if they are equally close, the file is
    ambiguous. All other names are kept, in lower case and as Delta accepts them.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        columns = source.columns
        # What is compared, from the closest comparison on, and the described column by it.
        self._comparisons: tuple[tuple[Callable[[str, int], str], dict[str, str]], ...] = (
            (_folded, {_folded(header, 0): name for name, column in columns.items() for header in column.headers}),
            (_acceptable, {name.lower(): name for name in columns}),
            (_visible, {_visible(header, 0): name for name, column in columns.items() for header in column.headers}),
            (_identifier, {_identifier(name, 0): name for name in columns}),
        )
        self._single: dict[str, str] = {}

    def of_header(self, written: list[str], delimiter: str | None = None) -> list[str]:
        """The names of a file's columns, in the file's order; a repeated name gets its position as a suffix.

        `delimiter` is that of a CSV file. Raises UnreadableFileError if two names mean the same described column, if no
        column is described, or if there are too many columns.
        """
        refuse_too_many_columns(written)
        described = self._source.columns
        unique: dict[str, None] = {}
        for position, name in enumerate(self._assigned(written), start=1):
            if name in described and name in unique:
                raise UnreadableFileError(
                    f"the column {name!r} appears twice in the file; rename or remove one of them"
                )
            if name in unique:
                while name in unique or name in described:
                    name += f"_{position}"
            unique[name] = None
        if not described.keys() & unique.keys():
            shown = f"none of its columns ({', '.join(written)[:_SHOWN_CHARACTERS]!r}) is described for the table"
            raise UnreadableFileError(f"{shown} {self._source.name}{_advice(written, delimiter)}")
        return list(unique)

    def of_object(self, written: list[str]) -> list[str]:
        """The names for the keys of a JSON object; two of them are the same if the object is ambiguous."""
        single = self._single
        names = [single[key] if key in single else self._of_single(key) for key in written]
        return names if len(set(names)) == len(names) else self._assigned(written)

    def _of_single(self, written: str) -> str:
        match = self._match(written, 0)
        self._single[written] = name = match.column if match else _acceptable(written, 0)
        return name

    def _assigned(self, written: list[str]) -> list[str]:
        matches = [self._match(name, position) for position, name in enumerate(written, start=1)]
        closest: dict[str, int] = {}
        for match in filter(None, matches):
            closest[match.column] = min(match.distance, closest.get(match.column, match.distance))
        return [
            match.column if match and match.distance == closest[match.column] else _acceptable(name, position)
            for position, (name, match) in enumerate(zip(written, matches, strict=True), start=1)
        ]

    def _match(self, written: str, position: int) -> _Match | None:
        for distance, (compared, columns) in enumerate(self._comparisons):
            if column := columns.get(compared(written, position)):
                return _Match(column, distance)
        return None


def _folded(name: str, _position: int) -> str:
    return name.strip().casefold()


def _acceptable(name: str, position: int) -> str:
    """The name in lower case and as Delta accepts it.

    A name that is empty or starts with `_`, as the pipeline's own columns do, gets the prefix `column`.
    """
    accepted = name.strip().translate(_REPLACEMENTS).lower()
    return f"column{accepted or f'_{position}'}" if not accepted or accepted.startswith("_") else accepted


def _visible(name: str, _position: int) -> str:
    """The name as a reader sees it: without invisible characters, and with one form of those that look the same."""
    shown = unicodedata.normalize("NFKC", name)
    shown = "".join(character for character in shown if unicodedata.category(character) != "Cf")
    return unicodedata.normalize("NFKC", " ".join(shown.split()).casefold())


def _identifier(name: str, _position: int) -> str:
    """The name as a description can write it: `Order-ID` is `order_id`."""
    return "".join(character if f"_{character}".isidentifier() else "_" for character in _visible(name, 0))


def _advice(written: Iterable[str], delimiter: str | None) -> str:
    if delimiter is None:
        return "; compare its columns with the description"
    counts = {other: "".join(written).count(other) for other in ";\t|," if other != delimiter}
    likely = max(counts, key=lambda other: counts[other])
    shown = r"\t" if likely == "\t" else likely
    return (
        f"; check that the file has a header and that its delimiter is {delimiter!r}, or set delimiter in the table's"
        f' section, such as delimiter = "{shown}"'
    )


def refuse_too_many_columns(columns: Sized) -> None:
    """Raise UnreadableFileError for more than MAX_COLUMNS columns: each takes memory, even in a small file."""
    if len(columns) > limits.MAX_COLUMNS:
        raise UnreadableFileError(
            f"the file has more than {limits.MAX_COLUMNS:,} different columns; check whether it uses data values as"
            " column names"
        )
