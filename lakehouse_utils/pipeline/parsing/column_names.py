"""Turns the column names in a raw file into the names of bronze's columns."""

from collections.abc import Sized

from lakehouse_utils.errors import UnreadableFileError
from lakehouse_utils.pipeline.parsing import limits
from lakehouse_utils.pipeline.sources import Source

_SHOWN_CHARACTERS = 100  # of a header, in an error message
# Characters that Delta or Parquet do not accept in names.
_REPLACEMENTS = str.maketrans(dict.fromkeys([*map(chr, range(32)), *" ,;{}()=\x7f"], "_"))


def column_name(name: str, source: Source, position: int = 0) -> str:
    """The name in lower case and as Delta accepts it; a described column gets the description's spelling.

    A header that a described column gives with `from` is that column. A name that is empty or starts with `_`, as the
    pipeline's own columns do, gets the prefix `column`.
    """
    header = name.strip().casefold()
    for described, column in source.columns.items():
        if any(header == given.strip().casefold() for given in column.headers):
            return described
    accepted = name.strip().translate(_REPLACEMENTS).lower()
    if not accepted or accepted.startswith("_"):
        accepted = f"column{accepted or f'_{position}'}"
    return next((described for described in source.columns if described.lower() == accepted), accepted)


def column_names(names: list[str], source: Source) -> list[str]:
    """The names of a file's columns, in the file's order; a repeated name gets its position as a suffix.

    Raises UnreadableFileError if a described column appears twice, if no column is described, or if there are too many
    columns.
    """
    refuse_too_many_columns(names)
    unique: dict[str, None] = {}
    for position, written in enumerate(names, start=1):
        name = column_name(written, source, position)
        if name in source.columns and name in unique:
            raise UnreadableFileError(f"the column {name!r} appears twice in the file; rename or remove one of them")
        if name in unique:
            while name in unique or name in source.columns:
                name += f"_{position}"
        unique[name] = None
    if not source.columns.keys() & unique.keys():
        raise UnreadableFileError(
            f"none of its columns ({', '.join(names)[:_SHOWN_CHARACTERS]!r}) is described for the table {source.name};"
            f" check that the file has a header and that its delimiter is {source.delimiter!r}, or set delimiter in the"
            f" table's section, such as delimiter = {_likely_delimiter(names, source)}"
        )
    return list(unique)


def _likely_delimiter(names: list[str], source: Source) -> str:
    """The delimiter, as TOML, that the header of a file with the wrong one seems to have; otherwise an example."""
    counts = {delimiter: "".join(names).count(delimiter) for delimiter in ";\t|," if delimiter != source.delimiter}
    likely = max(counts, key=lambda delimiter: counts[delimiter])
    return '"\\t"' if likely == "\t" else f'"{likely}"'


def refuse_too_many_columns(columns: Sized) -> None:
    """Raise UnreadableFileError for more than MAX_COLUMNS columns: each takes memory, even in a small file."""
    if len(columns) > limits.MAX_COLUMNS:
        raise UnreadableFileError(
            f"the file has more than {limits.MAX_COLUMNS:,} different columns; check whether it uses data values as"
            " column names"
        )
