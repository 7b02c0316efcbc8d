"""Dates and timestamps in other notations than ISO 8601, described with the directives of `strptime`.

A format becomes regular expressions that the whole text must match, each with a replacement that writes it in ISO 8601.
Both engines run that as the same portable SQL, and a text that does not fit the format is refused, not guessed.
"""

import re
from functools import cache
from typing import NamedTuple

ISO = "iso"  # the default notation, as an entry in a list of formats

_DATE_DIRECTIVES = ("%d", "%m", "%Y", "%y")
# Directive -> its regular expression. Digits are [0-9], because \d means any script's digits to some engines.
_PATTERNS = {
    "%d": "0?[1-9]|[12][0-9]|3[01]",
    "%m": "0?[1-9]|1[0-2]",
    "%Y": "[0-9]{4}",
    "%y": "[0-9]{2}",
    "%H": "[01]?[0-9]|2[0-3]",
    "%I": "0?[1-9]|1[0-2]",
    "%M": "[0-5][0-9]",
    "%S": "[0-5][0-9]",
    "%f": "[0-9]{1,6}",
    "%p": "[AaPp][Mm]",
    "%z": "Z|[+-][0-9]{2}:?[0-9]{2}",
}
# As in strptime, two digits mean the years 1969 to 2068.
_CENTURIES = {"20": "[0-5][0-9]|6[0-8]", "19": "69|[7-9][0-9]"}
_AM, _PM = "[Aa][Mm]", "[Pp][Mm]"
# Hour of the day, or None for the digits in the text -> the digits of %I, the letters of %p.
_HOURS: dict[str | None, list[tuple[str, str]]] = {
    None: [("0?[1-9]|1[01]", _AM), ("12", _PM)],
    "00": [("12", _AM)],
    **{str(hour + 12): [(f"0?{hour}" if hour < 10 else str(hour), _PM)] for hour in range(1, 12)},
}
_SPECIAL = re.compile(r"[\\.^$*+?()\[\]{}|]")


class Rewrite(NamedTuple):
    r"""A regular expression for a whole text, and the text in ISO 8601, where `\1` is the expression's first group."""

    pattern: str
    replacement: str


@cache
def rewrites(text: str, *, has_time: bool) -> tuple[Rewrite, ...]:
    """The rewrites of the format `text` to ISO 8601, of which at most one matches a text; none for the format ISO.

    `has_time` is true for the format of timestamps. Raises ValueError for an invalid format.
    """
    if text.lower() == ISO:
        return ()
    parts = re.findall(r"%.?|[^%]+", text, flags=re.DOTALL)
    directives = [part for part in parts if part in _PATTERNS]
    _check(text, [part for part in parts if part.startswith("%") and part != "%%"], has_time)
    return tuple(
        _rewrite(parts, directives, {"%y": years, "%I": hours, "%p": half}, century, hour)
        for century, years in (_CENTURIES.items() if "%y" in directives else [("", "")])
        for hour, variants in (_HOURS.items() if "%I" in directives else [(None, [("", "")])])
        for hours, half in variants
    )


def _check(text: str, directives: list[str], has_time: bool) -> None:
    """Raise ValueError unless the directives are supported and make a complete date or timestamp."""
    supported = [name for name in _PATTERNS if has_time or name in _DATE_DIRECTIVES]
    for directive in directives:
        if directive not in supported:
            raise ValueError(
                f"{text!r} has the directive {directive!r}, which is not supported; use {' '.join(supported)}, or"
                f" {ISO!r}"
            )
        if directives.count(directive) > 1:
            raise ValueError(f"{text!r} has the directive {directive!r} twice; remove one of them")
    if ("%Y" in directives) == ("%y" in directives) or not {"%d", "%m"} <= set(directives):
        raise ValueError(f"{text!r} is not a complete date; use %d, %m, and %Y or %y, or only {ISO!r} for ISO 8601")
    if "%H" in directives and "%I" in directives:
        raise ValueError(f"{text!r} has %H and %I; use %H for 24 hours, or %I with %p for 12 hours")
    hour = "%I" if "%I" in directives or "%p" in directives else "%H"
    for directive, needed in (("%I", "%p"), ("%p", "%I"), ("%M", hour), ("%S", "%M"), ("%f", "%S"), ("%z", hour)):
        if directive in directives and needed not in directives:
            raise ValueError(f"{text!r} has {directive} without {needed}; add {needed}")


def _rewrite(
    parts: list[str], directives: list[str], narrowed: dict[str, str], century: str, hour: str | None
) -> Rewrite:
    patterns = _PATTERNS | {name: pattern for name, pattern in narrowed.items() if pattern}
    pattern = ""
    for part, previous, following in zip(parts, ["", *parts], [*parts[1:], ""], strict=False):
        if part in _PATTERNS:
            digits = patterns[part]
            if previous in _PATTERNS or following in _PATTERNS:  # nothing shows where 1012026 would have to be split
                digits = digits.replace("0?", "0").replace("[01]?", "[01]")
            pattern += f"({digits})"
        else:
            pattern += _SPECIAL.sub(r"\\\g<0>", "%" if part == "%%" else part)
    group = {directive: f"\\{number}" for number, directive in enumerate(directives, start=1)}
    iso = f"{century}{group.get('%Y', group.get('%y'))}-{group['%m']}-{group['%d']}"
    if "%H" in group or "%I" in group:
        hours = hour or group.get("%H", group.get("%I", ""))
        fraction = f".{group['%f']}" if "%f" in group else ""
        iso += f" {hours}:{group.get('%M', '00')}:{group.get('%S', '00')}{fraction}{group.get('%z', '')}"
    return Rewrite(pattern, iso)
