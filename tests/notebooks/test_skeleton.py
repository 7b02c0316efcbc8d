"""Every notebook follows the rules that can be checked without a kernel."""

from pathlib import Path

import pytest

from notebooks.books import FOLDER, PATHS, Book
from notebooks.guards import findings


def test_the_course_has_notebooks() -> None:
    """The tests find every notebook of the course by its name, NN_name.ipynb."""
    assert PATHS, f"There is no notebook in {FOLDER}, so no notebook would be tested."
    others = sorted(path.name for path in set(FOLDER.glob("*.ipynb")) - set(PATHS))
    assert not others, f"The name of a notebook must begin with two digits and an underscore: {', '.join(others)}"


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_notebook_follows_the_rules(path: Path) -> None:
    """No guard has a finding; if one has, all findings are printed in full."""
    if problems := findings(Book(path)):
        pytest.fail(f"{path.name} breaks {len(problems)} rules:\n" + "\n".join(problems), pytrace=False)
