"""Every notebook runs from top to bottom, and its committed outputs are still true."""

from pathlib import Path

import pytest

from notebooks.books import PATHS, Book, compare, run
from notebooks.guards import LEAST_COMPARED

LARGER = {"02": 3, "05": 2, "06": 2}  # scales


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_outputs_are_still_true(path: Path, kernels: None, tmp_path: Path) -> None:
    fresh = run(path, tmp_path / path.name)
    found = compare(Book(path), fresh)
    assert not found.differences, "\n".join(["run `make notebooks` if this is right:", *found.differences])
    assert found.compared >= LEAST_COMPARED


@pytest.mark.parametrize("path", [path for path in PATHS if path.name[:2] in LARGER], ids=lambda path: path.stem)
def test_runs_with_more_data(path: Path, kernels: None, tmp_path: Path) -> None:
    run(path, tmp_path / path.name, SCALE=LARGER[path.name[:2]])


def test_refuses_a_parameter_that_the_notebook_lacks(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no parameter SCAEL, but LAKE, SCALE"):
        run(PATHS[0], tmp_path / "out.ipynb", SCAEL=3)
