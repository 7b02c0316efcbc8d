"""Every notebook keeps the rules that need no kernel."""

from pathlib import Path

import pytest

from notebooks.books import FOLDER, PATHS, Book
from notebooks.guards import problems


def test_there_are_notebooks() -> None:
    assert PATHS, f"no notebook in {FOLDER}: nothing of the course would be tested"
    assert set(PATHS) == set(FOLDER.glob("*.ipynb")), "a notebook whose name doesn't begin with two digits and _"


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_keeps_the_rules(path: Path) -> None:
    assert not problems(Book(path))
