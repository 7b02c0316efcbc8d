"""The SQL of silver and gold: one file per table or step, with several statements headed by `-- name:` lines."""

import re
from importlib.resources import files

FOLDER = files(__name__)


def text(file: str) -> str:
    """The text of `sql/<file>.sql`."""
    return (FOLDER / f"{file}.sql").read_text(encoding="utf-8")


def statements(file: str) -> dict[str, str]:
    """All statements of `sql/<file>.sql` by name, with their {placeholders}."""
    parts = re.split(r"^-- name: (\w+)\n", text(file), flags=re.MULTILINE)[1:]
    return {name: body.strip() for name, body in zip(parts[::2], parts[1::2], strict=True)}


def statement(file: str, name: str, **values: object) -> str:
    """The statement `name` of `sql/<file>.sql`, with `values` in place of its {placeholders}."""
    return statements(file)[name].format(**values)


def quoted(name: str) -> str:
    """A name as a quoted SQL identifier, which keeps upper and lower case and may be a reserved word."""
    return '"' + name.replace('"', '""') + '"'


def literal(value: object) -> str:
    """A value as an SQL literal: a number as it is, anything else as text in quotes."""
    return str(value) if isinstance(value, int) else "'" + str(value).replace("'", "''") + "'"
