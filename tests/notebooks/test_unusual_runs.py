"""Notebooks are run in unusual ways: in reverse, twice, from another folder, in parallel, while the server stops.

One notebook is enough for most of these runs, because what is tested is in the package. Nightly, two more run in
reverse and twice.
"""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.selected import slow_but

from lakehouse_utils import embedded_s3
from notebooks.books import PATHS, Book, compare, differences_in_new_kernel, errors, execute, plain_text, start_kernel

QUICK_PATHS = [path for path in PATHS if path.name[:2] in ("00", "01", "03")]


@pytest.mark.parametrize("path", slow_but([], QUICK_PATHS, slow=QUICK_PATHS[:1]), ids=lambda path: path.stem)
def test_run_in_reverse_then_twice_in_order(path: Path, kernel_environment: None) -> None:
    """In reverse order only NameErrors occur, and after that two runs in order give the committed outputs."""
    book = Book(path)
    with start_kernel() as kernel:
        reverse_errors = kernel.run_all_in_reverse(book)
        assert reverse_errors
        assert {error.partition(":")[0] for error in reverse_errors} == {"NameError"}
        for _ in range(2):
            assert not compare(book, kernel.run_all(book)).differences


@pytest.mark.slow
def test_run_from_another_folder(kernel_environment: None, tmp_path: Path) -> None:
    """A notebook gives the same outputs in any working directory."""
    executed = execute(QUICK_PATHS[0], tmp_path / "out.ipynb", cwd=tmp_path)
    assert not compare(Book(QUICK_PATHS[0]), executed).differences


def test_kernel_opens_no_ports(kernel_environment: None) -> None:
    """Kernels of tests listen on Unix sockets, so that no test running beside them can take their ports."""
    with start_kernel() as kernel:
        kernel.run("import json, ipykernel\nkernel = json.loads(ipykernel.get_connection_info())")
        transport, path = plain_text(kernel.run("print(kernel['transport'], kernel['ip'] + '-1')")).split()
        assert transport == "ipc"
        assert Path(path).is_socket()
    assert not Path(path).parent.exists()


@pytest.mark.slow
def test_run_in_two_kernels_at_once(kernel_environment: None) -> None:
    """Two runs of the same notebook do not disturb each other."""
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(differences_in_new_kernel, [Book(QUICK_PATHS[0])] * 2)) == [[], []]


@pytest.mark.slow
def test_run_while_the_server_stops(kernel_environment: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the server stops in the middle, the cells fail with connection errors, and Run All starts it again."""
    monkeypatch.setenv("LAKEHOUSE_STATE_DIR", str(tmp_path / "state"))
    book = Book(QUICK_PATHS[0])
    middle = len(book.code_cells) // 2
    try:
        with start_kernel() as kernel:
            for cell in book.code_cells[:middle]:
                assert not errors(kernel.run(cell.source))
            assert embedded_s3.stop(tmp_path / "state")
            failures = (errors(kernel.run(cell.source)) for cell in book.code_cells[middle:])
            first_failure = next((failure for failure in failures if failure), [])
            assert all("error sending request" in error or "connect" in error for error in first_failure), first_failure
            assert not compare(book, kernel.run_all(book)).differences
    finally:
        embedded_s3.stop(tmp_path / "state")
