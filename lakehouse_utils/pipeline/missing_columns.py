"""Described columns that a new file lacks, and what the supplier may call them instead.

Without a note, a supplier that renames a column would cause missing values that no one notices.
"""

import json
import unicodedata
from collections.abc import Collection
from difflib import get_close_matches

from lakehouse_utils.pipeline.sources import Source

_SIMILARITY = 0.75  # from 0 to 1, see difflib; phone and phone_no are similar, first_name and last_name are not
_MIN_LETTERS = 3  # of a name that counts as similar because the other one contains it


def describe(source: Source, path: str, columns: Collection[str]) -> str | None:
    """A sentence about the described columns that the file at `path`, which has `columns`, lacks; None if it has all.

    A column that files may lack counts only if the file has an undescribed column whose name has the same letters.
    """
    undescribed = {_letters(name): name for name in columns if name not in source.columns}
    missing: list[str] = []
    similar: dict[str, str] = {}
    for name, column in source.columns.items():
        letters = _letters(name)
        if name in columns or (column.optional and letters not in undescribed):
            continue
        missing.append(name)
        if nearest := _nearest(letters, undescribed):
            similar[name] = undescribed[nearest]
    if not missing:
        return None
    sentence = f"{path} has no column {', '.join(missing)}, so its rows have no value there"
    if similar:
        pairs = "; ".join(f"{name} may be {other!r}, which is not described" for name, other in similar.items())
        name, other = next(iter(similar.items()))
        header = json.dumps(other, ensure_ascii=False)
        return f"{sentence}: {pairs}. If so, add from = {header} to the description of {name}"
    return f"{sentence}. If that is expected, add optional = true to the description of {', '.join(missing)}"


def _nearest(name: str, others: Collection[str]) -> str | None:
    """The one of `others` that is most similar to `name`, or contains it, or is contained in it."""
    if close := get_close_matches(name, others, 1, _SIMILARITY):
        return close[0]
    contained = (other for other in others if min(len(name), len(other)) >= _MIN_LETTERS)
    return next((other for other in contained if name in other or other in name), None)


def _letters(name: str) -> str:
    """The letters and digits of a name, without accents, in lower case."""
    plain = unicodedata.normalize("NFKD", name.casefold())
    return "".join(character for character in plain if character.isalnum())
