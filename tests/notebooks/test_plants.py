"""A notebook planted to go wrong turns each way of running it red: in order, again, elsewhere, in two windows."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
import papermill
import pytest

from notebooks.books import FOLDER, Book, compare, differences_when_played, kernel, play, played_backwards, run


def planted(folder: Path, *cells: str) -> Book:
    """A notebook of these code cells, with the outputs that it had when it was run once in the course's folder."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in cells])
    path = folder / "00_planted.ipynb"
    nbformat.write(notebook, path)
    with kernel() as running:
        nbformat.write(play(running, Book(path)), path)
    return Book(path)


def test_a_cell_that_fails(kernels: None, tmp_path: Path) -> None:
    book = planted(tmp_path, "1 + 1", "assert 1 + 1 == 3, 'not so'")
    with pytest.raises(papermill.PapermillExecutionError, match="not so"):
        run(book.path, tmp_path / "out.ipynb")


def test_an_output_that_is_no_longer_true(kernels: None, tmp_path: Path) -> None:
    book = planted(tmp_path, f"from pathlib import Path\nnote = Path({str(tmp_path / 'note')!r})", "note.exists()")
    (tmp_path / "note").touch()
    assert len(compare(book, run(book.path, tmp_path / "out.ipynb")).differences) == 1


def test_another_result_when_run_again(kernels: None, tmp_path: Path) -> None:
    book = planted(tmp_path, "runs = globals().get('runs', 0) + 1", "runs")
    with kernel() as running:
        assert not compare(book, play(running, book)).differences
        assert len(compare(book, play(running, book)).differences) == 1


def test_cells_that_run_without_those_above(kernels: None, tmp_path: Path) -> None:
    book = planted(tmp_path, "import math", "def area(r):\n    return math.pi * r**2", "1 / 0")
    with kernel() as running:
        trouble = played_backwards(running, book)
    assert {error.partition(":")[0] for error in trouble} == {"ZeroDivisionError"}  # in reverse, a NameError is wanted


def test_a_path_that_holds_in_one_folder_only(kernels: None, tmp_path: Path) -> None:
    book = planted(tmp_path, "import os", "os.path.exists('images/layers.svg')")
    assert (FOLDER / "images" / "layers.svg").exists()
    assert not compare(book, run(book.path, tmp_path / "here.ipynb")).differences
    assert len(compare(book, run(book.path, tmp_path / "out.ipynb", cwd=tmp_path)).differences) == 1


def test_a_name_that_two_windows_share(kernels: None, tmp_path: Path) -> None:
    book = planted(tmp_path, "import os", f"os.makedirs({str(tmp_path / 'mine')!r})")
    (tmp_path / "mine").rmdir()
    with ThreadPoolExecutor(2) as windows:
        assert sorted(map(len, windows.map(differences_when_played, [book] * 2))) == [0, 1]
