"""Notebooks as the tests see them: read, run, compared. `python tests/notebooks/books.py` runs them all in place."""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import nbformat
import papermill
from nbclient import NotebookClient
from nbformat import NotebookNode
from nbval.plugin import coalesce_streams, get_sanitize_patterns

from lakehouse_utils import settings

FOLDER = settings.CHECKOUT / "notebooks"
PATHS = sorted(FOLDER.glob("[0-9][0-9]_*.ipynb"))
_MASKS = get_sanitize_patterns(Path(__file__).with_name("sanitize.cfg").read_text("utf-8"))
_CELL_SECONDS = 120
_PICTURES = ("image/png", "image/jpeg")
_KEPT_OF_CELL, _KEPT_OF_NOTEBOOK = {"tags"}, {"kernelspec", "language_info"}


@dataclass(frozen=True)
class Task:
    """An exercise as it stands in a notebook; `stub` is the place of its cell, `folded` the text of the cell below."""

    id: str
    title: str
    stub: int
    folded: str

    @property
    def solution(self) -> str | None:
        """The code in the folded solution: the whole replacement of the stub."""
        found = re.search(r"<details>\s*<summary>Solution</summary>(.*?)</details>", self.folded, re.S)
        code = re.search(r"```python\n(.*?)```", found[1], re.S) if found else None
        return code[1].rstrip() if code else None


class Book:
    """One notebook file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.number = path.name[:2]
        self.text = path.read_text("utf-8")
        self.notebook: NotebookNode = nbformat.reads(self.text, as_version=4)

    @cached_property
    def cells(self) -> list[NotebookNode]:
        return self.notebook.cells

    @property
    def code(self) -> list[NotebookNode]:
        return [cell for cell in self.cells if cell.cell_type == "code"]

    def headings(self) -> Iterator[tuple[int, int, str]]:
        """(place of the cell, level, text) of each heading, those in fenced code left out."""
        for place, cell in enumerate(self.cells):
            if cell.cell_type == "markdown":
                for line in without_code(cell.source).splitlines():
                    if found := re.match(r"(#{1,6}) +(.*\S)", line):
                        yield place, len(found[1]), found[2]

    def tasks(self) -> Iterator[Task]:
        """The exercises, by their headings."""
        for place, _, text in self.headings():
            if found := re.fullmatch(r"Exercise (\d\d\.\d+) · (.+)", text):
                folded = self.cells[place + 2] if place + 2 < len(self.cells) else None
                yield Task(found[1], found[2], place + 1, folded.source if folded else "")


def tags(cell: NotebookNode) -> list[str]:
    return cell.metadata.get("tags", [])


def without_code(markdown: str) -> str:
    """The text without its fenced blocks."""
    return re.sub(r"^(```|~~~).*?^\1", "", markdown, flags=re.S | re.M)


# -- running


def run(path: Path, out: Path, cwd: Path = FOLDER, **parameters: object) -> NotebookNode:
    """Run a notebook with papermill into the file `out`; raises where a cell does.

    Names that the parameters cell doesn't have are refused; papermill would set them and only warn.
    """
    known = papermill.inspect_notebook(str(path)).keys()
    if unknown := parameters.keys() - known:
        raise ValueError(f"{path.name} has no parameter {', '.join(sorted(unknown))}, but {', '.join(known) or 'none'}")
    return papermill.execute_notebook(
        str(path),
        str(out),
        parameters,
        kernel_name="python3",
        progress_bar=False,
        cwd=str(cwd),
        execution_timeout=_CELL_SECONDS,
    )


class Kernel:
    """A kernel in which cells are run one by one, and errors are outputs."""

    def __init__(self, client: NotebookClient) -> None:
        self._client = client

    def run(self, code: str) -> list[NotebookNode]:
        """The outputs of `code`."""
        cell = nbformat.v4.new_code_cell(code)
        self._client.nb.cells.append(cell)
        self._client.execute_cell(cell, len(self._client.nb.cells) - 1)
        return cell.outputs


@contextmanager
def kernel(cwd: Path = FOLDER) -> Iterator[Kernel]:
    """A fresh kernel, as a notebook in the folder `cwd` would get it."""
    client = NotebookClient(
        nbformat.v4.new_notebook(),
        timeout=_CELL_SECONDS,
        kernel_name="python3",
        allow_errors=True,
        resources={"metadata": {"path": str(cwd)}},
    )
    with client.setup_kernel():
        yield Kernel(client)


def play(kernel: Kernel, book: Book) -> NotebookNode:
    """Run all cells in their order; the notebook with its new outputs."""
    fresh = deepcopy(book.notebook)
    for cell in fresh.cells:
        if cell.cell_type == "code":
            cell.outputs = kernel.run(cell.source)
    return fresh


def played_backwards(kernel: Kernel, book: Book) -> list[str]:
    """The errors of all cells, run from the last to the first."""
    return [error for cell in reversed(book.code) for error in errors(kernel.run(cell.source))]


def errors(outputs: list[NotebookNode]) -> list[str]:
    return [f"{output.ename}: {output.evalue}" for output in outputs if output.output_type == "error"]


def said(outputs: list[NotebookNode]) -> str:
    """All text of the outputs."""
    return "\n".join(
        "".join(output.get("text", "")) + "".join(output.get("data", {}).get("text/plain", "")) for output in outputs
    )


# -- comparing


@dataclass(frozen=True)
class Comparison:
    compared: int
    ignored: int
    differences: list[str]


def compare(committed: Book, fresh: NotebookNode) -> Comparison:
    """Hold the outputs of `fresh` against the committed ones, cell by cell, as strictly as nbval does.

    Every text is compared, stderr and HTML too; pictures, what `sanitize.cfg` masks, and cells tagged
    `nbval-ignore-output` are not. A cell without any output on both sides is no comparison.
    """
    fresh_code = [c for c in fresh.cells if c.cell_type == "code" and "injected-parameters" not in tags(c)]
    differences, compared, ignored = [], 0, 0
    if [cell.source for cell in committed.code] != [cell.source for cell in fresh_code]:
        return Comparison(0, 0, ["not the same cells"])
    for number, (cell, again) in enumerate(zip(committed.code, fresh_code, strict=True), start=1):
        if "nbval-ignore-output" in tags(cell):
            ignored += bool(cell.outputs)
            continue
        old, new = (comparable(outputs) for outputs in (cell.outputs, again.outputs))
        compared += bool(old or new)
        if old != new:
            differences.append(f"code cell {number}, {cell.source.splitlines()[-1]!r}:\n{_unlike(old, new)}")
    return Comparison(compared, ignored, differences)


def comparable(outputs: list[NotebookNode]) -> list[tuple[str, str]]:
    """(kind, masked text) of all that is text in the outputs, and the mere kind of a picture."""
    found = []
    for output in coalesce_streams([NotebookNode(output) for output in outputs]):
        if output.output_type == "stream":
            found.append((output.name, masked(output.text)))
        elif output.output_type == "error":
            found.append((output.ename, masked(output.evalue)))
        else:
            data = sorted(output.data.items())
            found += [(kind, "" if kind in _PICTURES else masked(str(value))) for kind, value in data]
    return found


def masked(text: str) -> str:
    for regex, replacement in _MASKS:
        text = re.sub(regex, replacement, text)
    return text


def _unlike(old: list, new: list) -> str:
    pairs = [(was, now) for was, now in zip(old, new, strict=False) if was != now] or [(old, new)]
    was, now = pairs[0]
    return f"  committed: {was}\n  now:       {now}"


def differences_when_played(book: Book) -> list[str]:
    """What differs from the committed outputs in a fresh kernel."""
    with kernel() as running:
        return compare(book, play(running, book)).differences


# -- in place


def refresh(path: Path) -> None:
    """Run a notebook in place, and leave in the file nothing but cells, outputs and tags."""
    draft = path.with_name(f".running-{path.name}")
    try:
        notebook = run(path, draft)
    finally:
        draft.unlink(missing_ok=True)
    strip(notebook)
    nbformat.validate(notebook)
    nbformat.write(notebook, path)


def strip(notebook: NotebookNode) -> None:
    """Remove times and whatever else papermill and JupyterLab leave in the metadata; what was printed is one piece."""
    notebook.metadata = NotebookNode({k: v for k, v in notebook.metadata.items() if k in _KEPT_OF_NOTEBOOK})
    notebook.metadata.kernelspec = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
    notebook.metadata.language_info = {"name": "python"}
    for cell in notebook.cells:
        kept = {key: value for key, value in cell.metadata.items() if key in _KEPT_OF_CELL and value}
        cell.metadata = NotebookNode(kept)
        if cell.cell_type == "code":
            cell.outputs = coalesce_streams(cell.outputs)


def main() -> None:
    wanted = sys.argv[1:]
    chosen = [path for path in PATHS if not wanted or path.name[:2] in wanted or path.stem in wanted]
    if not chosen:
        sys.exit(f"No notebook is called {', '.join(wanted) or 'NN_name.ipynb'}.")
    for path in chosen:
        print(path.relative_to(settings.CHECKOUT), flush=True)
        refresh(path)


if __name__ == "__main__":
    main()
