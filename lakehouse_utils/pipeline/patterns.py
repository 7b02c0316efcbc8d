r"""Regular expressions and file patterns of a description, in the syntax that all engines understand alike.

DuckDB has RE2, Spark has Java's expressions, and Sail has Rust's. They agree on most of the syntax that people use.
What they understand differently is either rewritten (`\d`, `.`, `^`) or refused (`\b`, flags, look-around).
"""

import re
from functools import cache

_ESCAPES = {
    "d": "0-9",
    "w": "0-9A-Za-z_",
    "s": r" \t\n\f\r",
}
_CATEGORY = re.compile(r"\\[pP]\{(L|Lu|Ll|M|N|Nd|P|S|Z)\}")
_REPEAT = re.compile(r"\{\d{1,3}(,\d{0,3})?\}")
_PIECE = re.compile(r"\\[pP]\{\w+\}|\\.|\[|\]|\(\?[:<P!=a-zA-Z-]?|\{[^}]*\}?|.", re.DOTALL)


@cache
def portable(pattern: str) -> str:
    """The regular expression `pattern` for a whole text, as every engine understands it. Raises ValueError."""
    parts: list[str] = []
    position = 0
    while position < len(pattern):
        if pattern[position] == "[":
            end = _class_end(pattern, position)
            parts.append(_class(pattern[position:end]))
            position = end
            continue
        match = _PIECE.match(pattern, position)
        piece = match[0] if match else pattern[position]
        parts.append(_rewrite(piece))
        position += len(piece)
    return "".join(parts)


def _refused(what: str, advice: str) -> ValueError:
    return ValueError(f"{what} is not supported, because engines interpret it differently; {advice}")


def _rewrite(piece: str) -> str:
    """One piece of a regular expression outside of [...]."""
    if piece == ".":
        return r"[^\n]"
    if piece == "^":
        return r"\A"
    if piece == "$":
        return r"\z"
    if piece.startswith("(?"):
        if piece != "(?:":
            raise _refused(piece, "use only the groups (...) and (?:...), and [Ss]im for upper and lower case")
        return piece
    if piece.startswith("{") and not _REPEAT.fullmatch(piece):
        raise _refused(piece, r"use {n}, {n,} or {n,m} with at most three digits, and \{ for a brace")
    if piece in ("]", "}"):
        return "\\" + piece
    if piece.startswith("\\"):
        return _escape(piece, in_class=False)
    return piece


def _escape(piece: str, *, in_class: bool) -> str:
    letter = piece[1:2]
    if letter.lower() in _ESCAPES:
        characters = _ESCAPES[letter.lower()]
        if letter.islower():
            return characters if in_class else f"[{characters}]"
        if in_class:
            raise _refused(f"{piece} inside [...]", "write the characters out")
        return f"[^{characters}]"
    if (
        _CATEGORY.fullmatch(piece)
        or letter in tuple("tnfr")
        or (letter and letter.isascii() and not letter.isalnum() and letter != " ")
    ):
        return piece
    raise _refused(piece, r"use \d, \w, \s, \p{L}, \p{N}, or a backslash before a punctuation character")


def _class_end(pattern: str, start: int) -> int:
    position = start + 1
    while position < len(pattern):
        if pattern[position] == "\\":
            position += 1
        elif pattern[position] == "]" and position > start + 1:
            return position + 1
        position += 1
    raise ValueError(r"a [ is not closed; add a ], or write \[ for the character")


def _class(text: str) -> str:
    """A character class, with its brackets."""
    inner, negated = text[1:-1], ""
    if inner.startswith("^"):
        inner, negated = inner[1:], "^"
    if not inner:
        raise ValueError(f"{text} has no characters")
    for refused in ("[", "&&", "--", "~~"):
        if refused in re.sub(r"\\.", "", inner):
            raise _refused(f"{refused} inside [...]", "put a backslash before the character")
    pieces = re.findall(r"\\[pP]\{\w+\}|\\.|.", inner, re.DOTALL)
    return (
        "["
        + negated
        + "".join(_escape(piece, in_class=True) if piece.startswith("\\") else piece for piece in pieces)
        + "]"
    )


@cache
def of_files(files: str) -> str:
    """The regular expression for paths that the file pattern `files` matches, as `fnmatch` reads it.

    `*` matches any characters, `?` matches one, `[ab]` one of these and `[!ab]` any other one.
    """
    parts: list[str] = []
    position = 0
    while position < len(files):
        character = files[position]
        end = files.find("]", position + 2) + 1
        if character == "[" and end:
            inner = re.sub(r"[\\\[\]&~^]", r"\\\g<0>", files[position + 1 : end - 1].removeprefix("!"))
            parts.append(f"[{'^' if files[position + 1] == '!' else ''}{inner}]")
            position = end
            continue
        parts.append({"*": ".*", "?": "."}.get(character) or re.sub(r"[\\.^$*+?()\[\]{}|]", r"\\\g<0>", character))
        position += 1
    return "".join(parts)
