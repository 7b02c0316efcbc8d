"""The tables of a page in Markdown."""

import re
from typing import NamedTuple


class MarkdownTable(NamedTuple):
    head: list[str]
    rows: list[list[str]]


def tables(page: str) -> list[MarkdownTable]:
    """The tables of a page, in order, with the text of their cells; bars inside a cell have no spaces around them."""
    blocks = re.findall(r"(?:^\|.*\n?)+", page, re.MULTILINE)
    lines = [[_cells(line) for line in block.splitlines()] for block in blocks]
    return [MarkdownTable(head, rows) for head, _, *rows in lines]


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split(" | ")]
