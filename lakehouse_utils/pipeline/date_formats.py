"""Dates and timestamps in other notations than ISO 8601, described with the directives of `strptime`.

A format becomes a regular expression that the whole text must match, and a replacement that writes it in ISO 8601. So
both engines run the same portable SQL, and a text that does not fit is refused exactly.
"""

import re
from functools import cache
from typing import NamedTuple

# Directive -> its regular expression.
_DIRECTIVES = {
    "%d": r"(0?[1-9]|[12]\d|3[01])",
    "%m": r"(0?[1-9]|1[0-2])",
    "%Y": r"(\d{4})",
    "%y": r"(\d{2})",
    "%H": r"([01]?\d|2[0-3])",
    "%M": r"([0-5]\d)",
    "%S": r"([0-5]\d)",
    "%f": r"(\d{1,6})",
    "%z": r"(Z|[+-]\d{2}:?\d{2})",
}
_DATE = ("%d", "%m")


class DateFormat(NamedTuple):
    """A parsed format: its literal text and directives, in order."""

    parts: tuple[str, ...]


@cache
def parse(text: str, *, has_time: bool) -> DateFormat:
    """The format that `text` describes; `has_time` for timestamps. Raises ValueError."""
    parts = re.findall(r"%.?|[^%]+", text, flags=re.DOTALL)
    directives = [part for part in parts if part.startswith("%") and part != "%%"]
    allowed = [name for name in _DIRECTIVES if has_time or name in ("%d", "%m", "%Y", "%y")]
    for directive in directives:
        if directive not in allowed:
            raise ValueError(
                f"{text!r} has the directive {directive!r}, which is not supported; use {' '.join(allowed)}"
            )
        if directives.count(directive) > 1:
            raise ValueError(f"{text!r} has the directive {directive!r} twice; remove one of them")
    if ("%Y" in directives) == ("%y" in directives) or not set(_DATE) <= set(directives):
        raise ValueError(f"{text!r} is not a complete date; it must have %d, %m, and either %Y or %y")
    for directive, needed in (("%M", "%H"), ("%S", "%M"), ("%f", "%S"), ("%z", "%H")):
        if directive in directives and needed not in directives:
            raise ValueError(f"{text!r} has {directive} without {needed}; add {needed}")
    return DateFormat(tuple(parts))
