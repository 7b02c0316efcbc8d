"""Every notebook runs from top to bottom and reproduces its committed outputs."""

from pathlib import Path

import pytest
from support.selected import slow_but

from notebooks.books import PATHS, Book, compare, execute
from notebooks.guards import MIN_COMPARED

QUICK_PATHS = [path for path in PATHS if path.name[:2] in ("00", "03", "04")]
LARGER_SCALES = {"02": 3, "03": 2, "05": 2, "06": 2}


@pytest.mark.parametrize("path", slow_but(QUICK_PATHS, PATHS), ids=lambda path: path.stem)
def test_notebook_reproduces_its_outputs(path: Path, kernel_environment: None, tmp_path: Path) -> None:
    """A run under papermill gives the committed outputs, and enough of them are compared."""
    comparison = compare(Book(path), execute(path, tmp_path / path.name))
    if comparison.differences:
        advice = f"{path.name} has other outputs. If they are right, run `make notebooks ARGS={path.name[:2]}`."
        pytest.fail("\n".join([advice, *comparison.differences]), pytrace=False)
    assert comparison.compared >= MIN_COMPARED


@pytest.mark.slow
@pytest.mark.parametrize("path", [path for path in PATHS if path.name[:2] in LARGER_SCALES], ids=lambda path: path.stem)
def test_notebook_runs_at_a_larger_scale(path: Path, kernel_environment: None, tmp_path: Path) -> None:
    """The notebook runs without an error on two or three times the data."""
    execute(path, tmp_path / path.name, SCALE=LARGER_SCALES[path.name[:2]])


def test_unknown_parameter_is_refused(tmp_path: Path) -> None:
    """A misspelled parameter raises ValueError with the names of the parameters that exist."""
    with pytest.raises(ValueError, match=r"no parameter SCAEL\. It has: LAKE, SCALE"):
        execute(PATHS[0], tmp_path / "out.ipynb", SCAEL=3)
