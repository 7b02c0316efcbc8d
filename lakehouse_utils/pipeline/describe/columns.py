"""Guesses what the texts of a column are: numbers, dates, words for true and false, and in which notation."""

import datetime as dt
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from functools import cache

from lakehouse_utils.pipeline import date_formats
from lakehouse_utils.pipeline.describe.samples import Sample
from lakehouse_utils.pipeline.formats import FALSE_VALUES, TRUE_VALUES

# Words for a missing value, if the other values of the column are then of a type other than text.
NULL_WORDS = (
    "NULL",
    "null",
    "Null",
    "-",
    "--",
    "n/a",
    "N/A",
    "NA",
    "n/d",
    "N/D",
    "nan",
    "NaN",
    "None",
    "\\N",
    "#N/A",
    "?",
)
_BOOLEAN_WORDS = [
    (("true",), ("false",)),
    (("yes",), ("no",)),
    (("sim",), ("não", "nao")),
    (("ja",), ("nein",)),
    (("oui",), ("non",)),
    (("sí", "si"), ("no",)),
    (("verdadeiro",), ("falso",)),
    (("vrai",), ("faux",)),
    (("wahr",), ("falsch",)),
    (("s",), ("n",)),
    (("y",), ("n",)),
    (("j",), ("n",)),
    (("o",), ("n",)),
    (("t",), ("f",)),
]
Notation = tuple[str, str]  # decimal, thousands
_NOTATIONS: dict[Notation, re.Pattern[str]] = {
    (".", ""): re.compile(r"[+-]?\d*(\.\d+)?([eE][+-]?\d{1,2})?"),
    (",", ""): re.compile(r"[+-]?\d*(,\d+)?"),
    (",", "."): re.compile(r"[+-]?(\d{1,3}(\.\d{3})+|\d*)(,\d+)?"),
    (".", ","): re.compile(r"[+-]?(\d{1,3}(,\d{3})+|\d*)(\.\d+)?"),
    (",", " "): re.compile(r"[+-]?(\d{1,3}([ \u00a0\u202f]\d{3})+|\d*)(,\d+)?"),
    (".", "'"): re.compile(r"[+-]?(\d{1,3}(['\u2019]\d{3})+|\d*)(\.\d+)?"),
}
_PLAIN = (".", "")
# The settings for values in the standard notation, by type.
_NUMBER: dict[str, str | list[str]] = {"decimal": ".", "thousands": ""}
_STANDARD_SETTINGS: dict[str, dict[str, str | list[str]]] = {
    "decimal": _NUMBER,
    "double": _NUMBER,
    "boolean": {"true_values": list(TRUE_VALUES), "false_values": list(FALSE_VALUES)},
    "date": {"date_format": date_formats.ISO},
    "timestamp": {"timestamp_format": date_formats.ISO},
}
_LEADING_ZERO = re.compile(r"[+-]?0\d")
_MAX_INTEGER_DIGITS = 18
_MAX_DECIMAL_DIGITS = 38
_MAX_SCALE = 10
_DATES = ("%d/%m/%Y", "%m/%d/%Y", "%d.%m.%Y", "%d-%m-%Y", "%m-%d-%Y", "%Y/%m/%d", "%d/%m/%y", "%m/%d/%y", "%d.%m.%y")
_TIMES = (" %H:%M:%S", " %H:%M", "T%H:%M:%S", " %H:%M:%S.%f", " %I:%M %p", " %I:%M:%S %p")
_ISO_DATE = re.compile(r"\d{4}-\d{1,2}-\d{1,2}")
_ISO_TIMESTAMP = re.compile(
    r"\d{4}-\d\d?-\d\d?([T ]\d{1,2}:\d{2}(:\d{2}(\.\d{1,6}0*)?)?(Z| ?UTC|[+-](0\d|1[0-3])(:?[0-5]\d)?|[+-]14(:?00)?)?)?"
)
_HAS_OFFSET = re.compile(r".*:\d\d(\.\d+)?(Z| ?UTC|[+-]\d.*)")


@dataclass
class Guess:
    """What a column seems to be. `settings` are those that the column needs, before the table's are taken out."""

    header: str
    type: str
    settings: dict[str, str | list[str]] = field(default_factory=dict)
    has_missing: bool = False
    is_unique: bool = False
    has_spaces: bool = False
    notes: list[str] = field(default_factory=list)


def guess(sample: Sample) -> list[Guess]:
    """One guess per column of the sample, in the file's order."""
    columns = [[row[index] for row in sample.rows] for index in range(len(sample.headers))]
    facts = [
        _facts(header, texts, sample.types.get(header)) for header, texts in zip(sample.headers, columns, strict=True)
    ]
    day_first = _is_day_first(sample, [values for _, values in facts])
    notation = _notation_of_table(sample, [values for about, values in facts if not about.type])
    for about, values in facts:
        if not about.type:
            _guess_type(about, values, notation, day_first)
        for name, value in _STANDARD_SETTINGS.get(about.type.partition("(")[0], {}).items():
            about.settings.setdefault(name, value)
    return [about for about, _ in facts]


def count_missing(about: Guess, texts: Iterable[str | None], null_values: Collection[str], *, trim: bool) -> None:
    """Note whether the column has missing values, and whether it is unique, with these settings of the table."""
    values = [text.strip() if text and trim else text for text in texts]
    present = [value for value in values if value is not None and value not in null_values]
    about.has_missing = len(present) < len(values)
    about.is_unique = bool(values) and len(set(present)) == len(values)


def _facts(header: str, texts: list[str | None], stored_type: str | None) -> tuple[Guess, set[str]]:
    """What is known of a column whatever its type, and its different values without spaces around them."""
    present = [text for text in texts if text not in (None, "", "NULL")]
    about = Guess(header, stored_type or "")
    about.has_spaces = any(text != text.strip() for text in present if text)
    return about, {text.strip() for text in present if text and text.strip()}


def _guess_type(about: Guess, values: set[str], notation: Notation, day_first: bool) -> None:
    if not values:
        about.type = "text"
        about.notes.append("no value in the sample: check the type")
        return
    null_words = sorted(values.intersection(NULL_WORDS))
    others = values.difference(NULL_WORDS)
    for check in (_as_boolean, _as_number, _as_time):
        if others and check(about, others, notation, day_first):
            if null_words:
                about.settings["null_values"] = ["", "NULL", *(word for word in null_words if word != "NULL")]
            return
    about.type = "text"


def _as_boolean(about: Guess, values: set[str], _notation: Notation, _day_first: bool) -> bool:
    lowered = {value.lower() for value in values}
    for true_words, false_words in _BOOLEAN_WORDS:
        one_letter = len(true_words[0]) == 1
        both = lowered.intersection(true_words) and lowered.intersection(false_words)
        if lowered <= {*true_words, *false_words} and (both or not one_letter):
            about.type = "boolean"
            if (true_words, false_words) not in (_BOOLEAN_WORDS[0], _BOOLEAN_WORDS[1]):
                about.settings["true_values"] = _spelled(values, true_words)
                about.settings["false_values"] = _spelled(values, false_words)
            if not both:
                about.notes.append("only one of the two words is in the sample: check the other one")
            return True
    return False


def _spelled(values: set[str], words: tuple[str, ...]) -> list[str]:
    """The words as the file spells them; upper and lower case make no difference."""
    by_word = {value.lower(): value for value in sorted(values)}
    return [by_word[word] for word in words if word in by_word] or [words[0]]


def _as_number(about: Guess, values: set[str], notation: Notation, _day_first: bool) -> bool:
    fitting = [each for each in (notation, *_NOTATIONS) if _is_number(values, each)]
    if not fitting or any(_LEADING_ZERO.match(value) for value in values):
        return False
    decimal, thousands = fitting[0]
    plain = [re.sub(r"[ \u00a0\u202f'\u2019]", "", value.replace(thousands or "\0", "")) for value in values]
    whole, decimals, has_exponent = 0, 0, False
    for number in plain:
        before, _, after = number.lstrip("+-").partition(decimal)
        has_exponent = has_exponent or "e" in number.lower()
        whole, decimals = max(whole, len(before)), max(decimals, len(after))
    if decimals == 0 and not has_exponent:
        if whole > _MAX_INTEGER_DIGITS:
            return False
        about.type = "integer"
    elif has_exponent or decimals > _MAX_SCALE or whole + decimals > _MAX_DECIMAL_DIGITS:
        about.type = "double"
    else:
        about.type = f"decimal({min(_MAX_DECIMAL_DIGITS, max(10, whole + 2 + decimals))},{decimals})"
    if any(re.search(r"\D", value.lstrip("+-")) for value in values):
        about.settings["decimal"], about.settings["thousands"] = decimal, thousands
        if len(set(fitting)) > 1 and all(_NOTATIONS[_PLAIN].fullmatch(value) for value in values) and thousands:
            about.notes.append("the point is assumed to separate thousands: check")
    return True


def _is_number(values: Iterable[str], notation: Notation) -> bool:
    pattern = _NOTATIONS[notation]
    return all(pattern.fullmatch(value) and value[-1].isdigit() for value in values)


def _notation_of_table(sample: Sample, columns: list[set[str]]) -> Notation:
    """The notation of numbers that fits most columns that show one; a file with ; more likely has decimal commas."""
    likely = [*_NOTATIONS]
    if sample.reading.get("delimiter") == ";":
        likely.sort(key=lambda notation: notation[0] != ",")
    votes: Counter[Notation] = Counter()
    for values in columns:
        numbers = values.difference(NULL_WORDS)
        if any(re.search(r"\D", value.lstrip("+-")) for value in numbers):
            votes.update(notation for notation in likely if _is_number(numbers, notation))
    return max(likely, key=lambda notation: votes[notation]) if votes else _PLAIN


def _as_time(about: Guess, values: set[str], _notation: Notation, day_first: bool) -> bool:
    if _all_match(values, _ISO_DATE.fullmatch):
        about.type = "date"
        return True
    if _all_match(values, _ISO_TIMESTAMP.fullmatch):
        about.type = "timestamp"
    else:
        fitting = _fitting_formats(values)
        if not fitting:
            return False
        fitting.sort(key=lambda format_: (format_.index("%d") < format_.index("%m")) != day_first)
        about.type = "timestamp" if "%H" in fitting[0] or "%I" in fitting[0] else "date"
        about.settings[f"{about.type}_format"] = fitting[0]
        if len(fitting) > 1:
            about.notes.append(f"it could also be {fitting[1]}: check")
    if about.type == "timestamp" and not all(map(_HAS_OFFSET.fullmatch, values)):
        about.notes.append('times without an offset: set time_zone if they are not in UTC, such as "America/Sao_Paulo"')
    return True


def _all_match(values: Collection[str], matches: Callable[[str], object]) -> bool:
    return all(matches(value) and _is_day(value) for value in values)


def _is_day(iso: str) -> bool:
    year, month, day = map(int, re.split(r"[-T ]", iso)[:3])
    try:
        dt.date(year, month, day)
    except ValueError:
        return False
    return True


def _fitting_formats(values: Collection[str]) -> list[str]:
    formats = [*_DATES, *(day + time for day in _DATES for time in _TIMES)]
    return [format_ for format_ in formats if all(_fits(value, format_) for value in values)]


def _fits(value: str, format_: str) -> bool:
    for pattern, replacement in _compiled(format_):
        if match := pattern.fullmatch(value):
            return _is_day(match.expand(replacement))
    return False


@cache
def _compiled(format_: str) -> list[tuple[re.Pattern[str], str]]:
    return [(re.compile(pattern), iso) for pattern, iso in date_formats.rewrites(format_, has_time=True)]


def _is_day_first(sample: Sample, columns: list[set[str]]) -> bool:
    """Whether days come before months: as in a column where only one order is possible, otherwise yes with a ;."""
    orders = set()
    for values in columns:
        if values and len(values) < len(sample.rows) + 1:
            orders |= {format_.index("%d") < format_.index("%m") for format_ in _only_order(values)}
    return True if len(orders) != 1 else orders.pop()


def _only_order(values: set[str]) -> list[str]:
    fitting = (
        _fitting_formats(values.difference(NULL_WORDS)) if any(re.search(r"[/.-]", value) for value in values) else []
    )
    return fitting if len({format_.index("%d") < format_.index("%m") for format_ in fitting}) == 1 else []
