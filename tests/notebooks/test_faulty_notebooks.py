"""Each way of running a notebook detects a notebook with the fault that it is meant to detect."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
import papermill
import pytest

from notebooks.books import FOLDER, Book, compare, differences_in_new_kernel, execute, start_kernel


def write_book(folder: Path, *cells: str) -> Book:
    """Write a notebook with these code cells, and with the outputs of one run in the course's folder."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in cells])
    path = folder / "00_faulty.ipynb"
    nbformat.write(notebook, path)
    with start_kernel() as kernel:
        nbformat.write(kernel.run_all(Book(path)), path)
    return Book(path)


def test_failing_cell_is_detected(kernel_environment: None, tmp_path: Path) -> None:
    """A cell that fails makes the run raise, with the message of the cell."""
    book = write_book(tmp_path, "1 + 1", "assert 1 + 1 == 3, 'not so'")
    with pytest.raises(papermill.PapermillExecutionError, match="not so"):
        execute(book.path, tmp_path / "out.ipynb")


def test_outdated_output_is_detected(kernel_environment: None, tmp_path: Path) -> None:
    """An output that differs from the committed one is one difference."""
    book = write_book(tmp_path, f"from pathlib import Path\nnote = Path({str(tmp_path / 'note')!r})", "note.exists()")
    (tmp_path / "note").touch()
    assert len(compare(book, execute(book.path, tmp_path / "out.ipynb")).differences) == 1


def test_different_result_of_the_second_run_is_detected(kernel_environment: None, tmp_path: Path) -> None:
    """A notebook whose second run in the same kernel gives another output differs in the second run only."""
    book = write_book(tmp_path, "runs = globals().get('runs', 0) + 1", "runs")
    with start_kernel() as kernel:
        assert not compare(book, kernel.run_all(book)).differences
        assert len(compare(book, kernel.run_all(book)).differences) == 1


def test_other_error_in_reverse_order_is_detected(kernel_environment: None, tmp_path: Path) -> None:
    """In reverse order, an error other than NameError shows up."""
    book = write_book(tmp_path, "import math", "def area(r):\n    return math.pi * r**2", "1 / 0")
    with start_kernel() as kernel:
        reverse_errors = kernel.run_all_in_reverse(book)
    assert {error.partition(":")[0] for error in reverse_errors} == {"ZeroDivisionError"}


@pytest.mark.slow
def test_path_that_depends_on_the_folder_is_detected(kernel_environment: None, tmp_path: Path) -> None:
    """A relative path works in the course's folder and is a difference in another folder."""
    book = write_book(tmp_path, "import os", "os.path.exists('images/layers.svg')")
    assert (FOLDER / "images" / "layers.svg").exists()
    assert not compare(book, execute(book.path, tmp_path / "here.ipynb")).differences
    assert len(compare(book, execute(book.path, tmp_path / "out.ipynb", cwd=tmp_path)).differences) == 1


def test_name_shared_by_two_kernels_is_detected(kernel_environment: None, tmp_path: Path) -> None:
    """If two runs of a notebook use the same folder, one of them differs."""
    book = write_book(tmp_path, "import os", f"os.makedirs({str(tmp_path / 'mine')!r})")
    (tmp_path / "mine").rmdir()
    with ThreadPoolExecutor(2) as pool:
        assert sorted(map(len, pool.map(differences_in_new_kernel, [book] * 2))) == [0, 1]
