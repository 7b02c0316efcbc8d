"""What people do to notebooks: cells in any order, twice, from elsewhere, in two windows, while the server goes away.

On notebooks that are quick to run; what is tried lies in the course kit, which all share.
"""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lakehouse_utils import embedded_s3
from notebooks.books import (
    PATHS,
    Book,
    compare,
    differences_when_played,
    errors,
    kernel,
    play,
    played_backwards,
    run,
)

QUICK = [path for path in PATHS if path.name[:2] in ("00", "01", "03")]
quick = pytest.mark.parametrize("path", QUICK, ids=lambda path: path.stem)


@quick
def test_in_reverse_and_then_twice_in_order(path: Path, kernels: None) -> None:
    book = Book(path)
    with kernel() as running:
        trouble = played_backwards(running, book)
        assert trouble
        assert {error.partition(":")[0] for error in trouble} == {"NameError"}
        for _ in range(2):
            assert not compare(book, play(running, book)).differences


def test_from_another_folder(kernels: None, tmp_path: Path) -> None:
    fresh = run(QUICK[0], tmp_path / "out.ipynb", cwd=tmp_path)
    assert not compare(Book(QUICK[0]), fresh).differences


def test_in_two_windows_at_once(kernels: None) -> None:
    with ThreadPoolExecutor(2) as windows:
        assert list(windows.map(differences_when_played, [Book(QUICK[0])] * 2)) == [[], []]


def test_while_the_server_goes_away(kernels: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAKEHOUSE_STATE_DIR", str(tmp_path / "state"))
    book = Book(QUICK[0])
    middle = len(book.code) // 2
    try:
        with kernel() as running:
            for cell in book.code[:middle]:
                assert not errors(running.run(cell.source))
            assert embedded_s3.stop(tmp_path / "state")
            trouble = next((found for cell in book.code[middle:] if (found := errors(running.run(cell.source)))), [])
            assert all("error sending request" in error or "connect" in error for error in trouble), trouble
            assert not compare(book, play(running, book)).differences  # Run All mends it, the server included
    finally:
        embedded_s3.stop(tmp_path / "state")
