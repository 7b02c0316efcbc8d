"""The SQL of silver and gold, one file a table; statements in a file are told apart by `-- name:` lines."""

import re
from importlib.resources import files


def statement(file: str, name: str, **fillings: object) -> str:
    """The statement `name` of `sql/<file>.sql`, with its {placeholders} filled in."""
    return statements(file)[name].format(**fillings)


def statements(file: str) -> dict[str, str]:
    """All statements of `sql/<file>.sql` by name, placeholders and all."""
    text = (files(__name__) / f"{file}.sql").read_text(encoding="utf-8")
    parts = re.split(r"^-- name: (\w+)\n", text, flags=re.MULTILINE)[1:]
    return {name: body.strip() for name, body in zip(parts[::2], parts[1::2], strict=True)}


def quoted(name: str) -> str:
    """An identifier as SQL writes it, so that case and reserved words don't matter."""
    return '"' + name.replace('"', '""') + '"'


def literal(value: object) -> str:
    """A number as it is, anything else as text in quotes."""
    return str(value) if isinstance(value, int) else "'" + str(value).replace("'", "''") + "'"
