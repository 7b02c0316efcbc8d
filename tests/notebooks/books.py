"""Read, run and compare the course's notebooks.

`python tests/notebooks/books.py 02 05` runs notebooks 02 and 05 and saves them with their new outputs; without
numbers, it does so for all notebooks.
"""

import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

import nbformat
import papermill
from nbclient import NotebookClient
from nbformat import NotebookNode
from nbval.plugin import coalesce_streams, get_sanitize_patterns
from traitlets.config import Config

from lakehouse_utils import settings

FOLDER = settings.CHECKOUT / "notebooks"
PATHS = sorted(FOLDER.glob("[0-9][0-9]_*.ipynb"))
CELL_TIMEOUT_S = 120
WORDS_PER_MINUTE, LINES_PER_MINUTE, MINUTES_PER_EXERCISE = 200, 10, 10
_MASKS = get_sanitize_patterns(Path(__file__).with_name("sanitize.cfg").read_text("utf-8"))
_PICTURES = ("image/png", "image/jpeg")
_KEPT_CELL_METADATA, _KEPT_NOTEBOOK_METADATA = {"tags"}, {"kernelspec", "language_info"}


@dataclass(frozen=True)
class NotebookExercise:
    """An exercise in a notebook: its heading, the index of its stub cell, and the folded text below the stub."""

    id: str
    title: str
    stub_index: int
    folded_text: str

    @property
    def solution(self) -> str | None:
        """The code of the folded solution, which replaces the whole stub; None if there is none."""
        details = re.search(r"<details>\s*<summary>Solution</summary>(.*?)</details>", self.folded_text, re.DOTALL)
        code = re.search(r"```python\n(.*?)```", details[1], re.DOTALL) if details else None
        return code[1].rstrip() if code else None


class Book:
    """One notebook file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.number = path.name[:2]
        self.text = path.read_text("utf-8")
        self.notebook: NotebookNode = nbformat.reads(self.text, as_version=4)

    @classmethod
    def of_number(cls, number: str) -> Self:
        """Return the notebook of the course with this number, such as "05"."""
        (path,) = (path for path in PATHS if path.name.startswith(f"{number}_"))
        return cls(path)

    @cached_property
    def cells(self) -> list[NotebookNode]:
        return self.notebook.cells

    @property
    def code_cells(self) -> list[NotebookNode]:
        return [cell for cell in self.cells if cell.cell_type == "code"]

    def code_from(self, text: str, cells: int = 1) -> str:
        """Return the source of the only code cell that contains `text`, and of those after it: `cells` in all."""
        sources = [cell.source for cell in self.code_cells]
        (first,) = [index for index, source in enumerate(sources) if text in source]
        return "\n".join(sources[first : first + cells])

    def headings(self) -> Iterator[tuple[int, int, str]]:
        """Yield (index of the cell, level, text) of each heading outside fenced code."""
        for index, cell in enumerate(self.cells):
            if cell.cell_type == "markdown":
                for line in without_fenced_code(cell.source).splitlines():
                    if match := re.match(r"(#{1,6}) +(.*\S)", line):
                        yield index, len(match[1]), match[2]

    def minutes(self) -> float:
        """Return how long the notebook takes: what is folded away is not counted, and neither is code in prose."""
        prose = (without_fenced_code(cell.source) for cell in self.cells if cell.cell_type == "markdown")
        words = sum(len(re.sub(r"<details>.*?</details>", "", text, flags=re.DOTALL).split()) for text in prose)
        lines = sum(len(cell.source.splitlines()) for cell in self.code_cells)
        exercises = len(list(self.exercises()))
        return words / WORDS_PER_MINUTE + lines / LINES_PER_MINUTE + exercises * MINUTES_PER_EXERCISE

    def exercises(self) -> Iterator[NotebookExercise]:
        """Yield the exercises, found by their headings."""
        for index, _, text in self.headings():
            if match := re.fullmatch(r"Exercise (\d\d\.\d+) · (.+)", text):
                folded = self.cells[index + 2].source if index + 2 < len(self.cells) else ""
                yield NotebookExercise(match[1], match[2], index + 1, folded)


def tags(cell: NotebookNode) -> list[str]:
    return cell.metadata.get("tags", [])


def without_fenced_code(markdown: str) -> str:
    return re.sub(r"^(```|~~~).*?^\1", "", markdown, flags=re.DOTALL | re.MULTILINE)


# -- running


def execute(path: Path, output_path: Path, cwd: Path = FOLDER, **parameters: object) -> NotebookNode:
    """Run a notebook with papermill and write the result to `output_path`.

    Raises ValueError for a parameter that the parameters cell does not have (papermill would only warn), and
    PapermillExecutionError if a cell fails.
    """
    available = papermill.inspect_notebook(str(path)).keys()
    if unknown := parameters.keys() - available:
        names = ", ".join(available) or "none"
        raise ValueError(f"{path.name} has no parameter {', '.join(sorted(unknown))}. It has: {names}")
    with unix_sockets() as config:
        return papermill.execute_notebook(
            str(path),
            str(output_path),
            parameters,
            kernel_name="python3",
            progress_bar=False,
            cwd=str(cwd),
            execution_timeout=CELL_TIMEOUT_S,
            config=config,
        )


@contextmanager
def unix_sockets() -> Iterator[Config]:
    """Yield a Jupyter configuration in which a kernel listens on Unix sockets, in a folder that is deleted at the end.

    By default, Jupyter picks free TCP ports and the kernel opens them a second later. Meanwhile, a test that runs
    beside it can take one of them for a connection to S3; the kernel then never answers.
    """
    with tempfile.TemporaryDirectory(prefix="kernel-") as folder:  # pytest's tmp_path is too long for a socket's name
        yield Config({"KernelManager": {"transport": "ipc", "ip": f"{folder}/socket"}})


class Kernel:
    """A running kernel in which cells are run one by one. An error is an output, not an exception."""

    def __init__(self, client: NotebookClient) -> None:
        self._client = client

    def run(self, code: str) -> list[NotebookNode]:
        """Run `code` and return its outputs."""
        cell = nbformat.v4.new_code_cell(code)
        self._client.nb.cells.append(cell)
        self._client.execute_cell(cell, len(self._client.nb.cells) - 1)
        return cell.outputs

    def run_all(self, book: Book) -> NotebookNode:
        """Run all cells in order and return the notebook with its new outputs."""
        notebook = deepcopy(book.notebook)
        for cell in notebook.cells:
            if cell.cell_type == "code":
                cell.outputs = self.run(cell.source)
        return notebook

    def run_all_in_reverse(self, book: Book) -> list[str]:
        """Run all cells from the last to the first and return the errors."""
        return [error for cell in reversed(book.code_cells) for error in errors(self.run(cell.source))]


@contextmanager
def start_kernel(cwd: Path = FOLDER) -> Iterator[Kernel]:
    """Start the kernel that a notebook in the folder `cwd` would get, and shut it down at the end."""
    with unix_sockets() as config:
        client = NotebookClient(
            nbformat.v4.new_notebook(),
            timeout=CELL_TIMEOUT_S,
            kernel_name="python3",
            allow_errors=True,
            resources={"metadata": {"path": str(cwd)}},
            config=config,
        )
        with client.setup_kernel():
            yield Kernel(client)


def errors(outputs: list[NotebookNode]) -> list[str]:
    return [f"{output.ename}: {output.evalue}" for output in outputs if output.output_type == "error"]


def plain_text(outputs: list[NotebookNode]) -> str:
    """Return the printed text and the text representations of the outputs."""
    return "\n".join(
        "".join(output.get("text", "")) + "".join(output.get("data", {}).get("text/plain", "")) for output in outputs
    )


# -- comparing


@dataclass(frozen=True)
class Comparison:
    """The number of cells whose outputs were compared and ignored, and a description of each difference."""

    compared: int
    ignored: int
    differences: list[str]


def compare(committed: Book, executed: NotebookNode) -> Comparison:
    """Compare the outputs of an executed notebook with the committed ones, cell by cell, as strictly as nbval does.

    All text is compared, including stderr and HTML. Pictures, what `sanitize.cfg` masks, and cells tagged
    `nbval-ignore-output` are not. A cell without output on both sides does not count as compared.
    """
    executed_code = [c for c in executed.cells if c.cell_type == "code" and "injected-parameters" not in tags(c)]
    if [cell.source for cell in committed.code_cells] != [cell.source for cell in executed_code]:
        return Comparison(0, 0, ["the notebooks do not have the same code cells"])
    differences, compared, ignored = [], 0, 0
    for number, (cell, executed_cell) in enumerate(zip(committed.code_cells, executed_code, strict=True), start=1):
        if "nbval-ignore-output" in tags(cell):
            ignored += bool(cell.outputs)
            continue
        old, new = comparable(cell.outputs), comparable(executed_cell.outputs)
        compared += bool(old or new)
        if old != new:
            differences.append(f"code cell {number}, {cell.source.splitlines()[-1]!r}:\n{_first_difference(old, new)}")
    return Comparison(compared, ignored, differences)


def comparable(outputs: list[NotebookNode]) -> list[tuple[str, str]]:
    """Return (kind, masked text) of each output; for a picture, only its kind."""
    parts = []
    for output in coalesce_streams([NotebookNode(output) for output in outputs]):
        if output.output_type == "stream":
            parts.append((output.name, mask(output.text)))
        elif output.output_type == "error":
            parts.append((output.ename, mask(output.evalue)))
        else:
            data = sorted(output.data.items())
            parts += [(kind, "" if kind in _PICTURES else mask(str(value))) for kind, value in data]
    return parts


def mask(text: str) -> str:
    """Replace what differs from run to run, as `sanitize.cfg` describes it."""
    for regex, replacement in _MASKS:
        text = re.sub(regex, replacement, text)
    return text


def _first_difference(old: list[tuple[str, str]], new: list[tuple[str, str]]) -> str:
    pairs = [(committed, now) for committed, now in zip(old, new, strict=False) if committed != now] or [(old, new)]
    committed, now = pairs[0]
    return f"  committed: {committed}\n  now:       {now}"


def differences_in_new_kernel(book: Book) -> list[str]:
    """Run a notebook in a new kernel and return the differences from its committed outputs."""
    with start_kernel() as kernel:
        return compare(book, kernel.run_all(book)).differences


# -- saving with new outputs


def run_in_place(path: Path) -> None:
    """Run a notebook and save it with its new outputs and without other traces of the run."""
    draft_path = path.with_name(f".running-{path.name}")
    try:
        notebook = execute(path, draft_path)
    finally:
        draft_path.unlink(missing_ok=True)
    strip_metadata(notebook)
    nbformat.validate(notebook)
    nbformat.write(notebook, path)


def strip_metadata(notebook: NotebookNode) -> None:
    """Remove the metadata that papermill and JupyterLab add, and join consecutive pieces of printed text."""
    notebook.metadata = NotebookNode({k: v for k, v in notebook.metadata.items() if k in _KEPT_NOTEBOOK_METADATA})
    notebook.metadata.kernelspec = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
    notebook.metadata.language_info = {"name": "python"}
    for cell in notebook.cells:
        kept = {key: value for key, value in cell.metadata.items() if key in _KEPT_CELL_METADATA and value}
        cell.metadata = NotebookNode(kept)
        if cell.cell_type == "code":
            cell.outputs = coalesce_streams(cell.outputs)


def main() -> None:
    names = sys.argv[1:]
    paths = [path for path in PATHS if not names or path.name[:2] in names or path.stem in names]
    if not paths:
        sys.exit(f"No notebook is called {', '.join(names) or 'NN_name.ipynb'}.")
    for path in paths:
        print(path.relative_to(settings.CHECKOUT), flush=True)
        run_in_place(path)


if __name__ == "__main__":
    main()
