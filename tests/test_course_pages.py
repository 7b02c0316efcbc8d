"""The pages about the course agree with its notebooks, and the calls of the cheat sheet run."""

import ast
import re

import pytest
from notebooks.books import PATHS, Book
from support.markdown import tables

from lakehouse_utils.lake import Lake
from lakehouse_utils.settings import CHECKOUT

BOOKS = {path.name[:2]: Book(path) for path in PATHS}
_LINK = r"\[(\d\d)\]\(\.\./notebooks/\d\d_\w+\.ipynb\)"


def read_page(name: str) -> str:
    return (CHECKOUT / "docs" / name).read_text("utf-8")


def read_rows(name: str) -> list[list[str]]:
    """The rows of the first table of a page, without its head."""
    return tables(read_page(name))[0].rows


def read_prose(number: str) -> str:
    return "\n".join(cell.source for cell in BOOKS[number].cells if cell.cell_type == "markdown")


def requirements(number: str) -> str:
    """The section What you'll need of a notebook."""
    return read_prose(number).partition("## What you'll need")[2].partition("## Set-up")[0]


@pytest.mark.parametrize("row", read_rows("glossary.md"), ids=lambda row: row[0])
def test_glossary_term_is_in_its_notebook(row: list[str]) -> None:
    """The prose of the notebook that the glossary links for a term contains the term."""
    term, _, link = row
    match = re.fullmatch(_LINK, link)
    assert match, link
    assert re.search(rf"(?<!\w){re.escape(term)}", read_prose(match[1]), re.IGNORECASE)


def test_glossary_is_in_order() -> None:
    """The terms are unique and in alphabetical order."""
    terms = [row[0].lower() for row in read_rows("glossary.md")]
    assert terms == sorted(set(terms))


def test_course_map_agrees_with_the_notebooks() -> None:
    """The map has one row per notebook, with its minutes and with the notebooks under What you'll need."""
    rows = {re.findall(_LINK, first)[0]: (minutes, needs) for first, minutes, needs in read_rows("course-map.md")}
    assert list(rows) == list(BOOKS)
    for number, (minutes, needs) in rows.items():
        assert f"**Time**: {minutes} minutes" in requirements(number), number
        linked = set(re.findall(r"\]\((\d\d)_", requirements(number))) - {number}
        assert re.findall(_LINK, needs) == sorted(linked), number


def test_cheat_sheet_runs(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each statement of the cheat sheet runs, in the order of the page, and leaves the rows that it says."""
    assert lake.endpoint
    monkeypatch.setenv("LAKEHOUSE_URI", lake.uri())
    monkeypatch.setenv("AWS_ENDPOINT_URL", lake.endpoint)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, lake.storage_options[name])
    code = re.search(r"<!-- cheat sheet -->\n\n```python\n(.*?)```", read_page("cheat-sheet.md"), re.DOTALL)
    assert code
    names: dict[str, object] = {}
    for statement in ast.parse(code[1]).body:
        exec(compile(ast.Module([statement], []), "cheat-sheet.md", "exec"), names)
    table = lake.delta("practice", "cheat_sheet")
    assert table is not None
    assert sorted(table.to_pyarrow_table()["id"].to_pylist()) == [1, 2]
