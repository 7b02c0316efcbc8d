"""Every guard turns red: on a copy of the first notebook with one thing wrong, and on outputs that aren't true."""

import json
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_output

from notebooks import guards
from notebooks.books import FOLDER, PATHS, Book, compare, masked, strip
from notebooks.test_answers import with_check

GOOD = PATHS[0]


class Plant:
    """Changes to the good notebook, that each should be found."""

    def __init__(self, notebook: NotebookNode) -> None:
        self.notebook, self.cells = notebook, notebook.cells

    def markdown(self, text: str) -> NotebookNode:
        """The first cell of text that contains `text`."""
        return next(cell for cell in self.cells if cell.cell_type == "markdown" and text in cell.source)

    def tagged(self, tag: str) -> NotebookNode:
        return next(cell for cell in self.cells if tag in cell.metadata.get("tags", []))

    def shown(self, kind: str) -> tuple[NotebookNode, NotebookNode]:
        """The first cell with an output of a kind, and that output."""
        return next(
            (cell, output)
            for cell in self.cells
            for output in cell.get("outputs", [])
            if kind in output.get("data", {}) or kind == output.get("name")
        )

    def say(self, text: str, replacement: str) -> None:
        cell = self.markdown(text)
        cell.source = cell.source.replace(text, replacement)

    def code(self, text: str, replacement: str) -> None:
        cell = next(cell for cell in self.cells if cell.cell_type == "code" and text in cell.source)
        cell.source = cell.source.replace(text, replacement)

    def print(self, text: str, name: str = "stdout") -> None:
        self.shown("stdout")[0].outputs.append(new_output("stream", name=name, text=text))

    def end(self, text: str) -> None:
        self.cells[-1].source += f"\n{text}\n"


def ignore_everything(plant: Plant) -> None:
    for cell in plant.cells:
        if cell.get("outputs"):
            cell.metadata.tags = [*cell.metadata.get("tags", []), "nbval-ignore-output"]


def raise_an_error(plant: Plant) -> None:
    output = new_output("error", ename="ValueError", evalue="no", traceback=["no"])
    plant.shown("stdout")[0].outputs.append(output)


def grow(plant: Plant) -> None:
    plant.shown("image/png")[1].data["image/png"] = "A" * 100_000


BAD: dict[str, tuple[str, Callable[[Plant], object]]] = {
    "another number": ("has_its_title", lambda p: p.say("# 00 · Start", "# 01 · Start")),
    "a second H1": ("has_its_title", lambda p: p.end("# Again")),
    "no picture": ("has_its_title", lambda p: p.say("![", "[")),
    "no summary": ("has_its_headings", lambda p: p.say("## Summary", "### Summary")),
    "another order": ("has_its_headings", lambda p: p.cells.append(p.cells.pop(1))),
    "a step left out": ("has_its_headings", lambda p: p.say("## 2 · ", "## 7 · ")),
    "too little to learn": ("says_what_it_takes", lambda p: p.say("\n- ", "\n")),
    "no time": ("says_what_it_takes", lambda p: p.say("**Time**: 15 minutes", "**Time**: long")),
    "no concepts": ("says_what_it_takes", lambda p: p.say("| concept |", "| thing |")),
    "no parameters": ("is_set_up_in_two_cells", lambda p: p.tagged("parameters").metadata.pop("tags")),
    "another default": ("is_set_up_in_two_cells", lambda p: p.code("SCALE = 1 ", "SCALE = 2 ")),
    "another parameter": ("is_set_up_in_two_cells", lambda p: p.code('LAKE = ""', 'LAKES = ""')),
    "another's lake": ("is_set_up_in_two_cells", lambda p: p.code('start("00"', 'start("01"')),
    "an import in the middle": ("is_set_up_in_two_cells", lambda p: p.code("free_gb =", "import os\n\nfree_gb =")),
    "a step without a check": ("checks_every_step", lambda p: p.code("assert", "# assert")),
    "too many cells": ("is_short", lambda p: p.cells.extend(new_markdown_cell("More.") for _ in range(60))),
    "too many lines": ("is_short", lambda p: p.code("free_gb =", "a = 1\n" * 20 + "free_gb =")),
    "too long a line": ("is_short", lambda p: p.code("free_gb =", f"# {'x' * 100}\nfree_gb =")),
    "too long a solution": ("is_short", lambda p: p.say("```python\n", "```python\n" + "a = 1\n" * 20)),
    "too large a file": ("is_short", lambda p: p.print("x" * 500_000)),
    "an empty cell": ("has_clean_cells", lambda p: p.cells.append(new_code_cell("", execution_count=1))),
    "papermill's traces": ("has_clean_cells", lambda p: p.cells[4].metadata.update(papermill={"duration": 1.2})),
    "widgets": ("has_clean_cells", lambda p: p.notebook.metadata.update(widgets={})),
    "another kernel": ("has_clean_cells", lambda p: p.notebook.metadata.kernelspec.update(name="conda")),
    "an attachment": ("has_clean_cells", lambda p: p.cells[0].update(attachments={})),
    "not run": ("was_run_from_top_to_bottom", lambda p: p.tagged("exercise").update(execution_count=None)),
    "run out of order": ("was_run_from_top_to_bottom", lambda p: p.tagged("exercise").update(execution_count=99)),
    "an error": ("shows_no_trouble", raise_an_error),
    "a warning": ("shows_no_trouble", lambda p: p.print("DeprecationWarning", "stderr")),
    "a home folder": ("keeps_quiet_about_the_machine", lambda p: p.print("/home/maria/course/data.csv")),
    "a Windows folder": ("keeps_quiet_about_the_machine", lambda p: p.print("C:\\Users\\maria")),
    "this checkout": ("keeps_quiet_about_the_machine", lambda p: p.end(f"See {FOLDER}.")),
    "a traceback": ("keeps_quiet_about_the_machine", lambda p: p.print("lib/site-packages/deltalake/table.py")),
    "a port": ("keeps_quiet_about_the_machine", lambda p: p.print("http://127.0.0.1:15999")),
    "a key": ("keeps_quiet_about_the_machine", lambda p: p.print("AKIA" + "I5TQ3X7WJZ4N6K2M")),
    "the server's key": ("keeps_quiet_about_the_machine", lambda p: p.print("LAKE" + "0123456789ABCDEF")),
    "a secret": ("keeps_quiet_about_the_machine", lambda p: p.print("'AWS_SECRET_ACCESS_KEY': '" + "aB3/" * 10 + "'")),
    "no alternative text": ("describes_its_pictures", lambda p: p.end("![](images/layers.svg)")),
    "none in HTML either": ("describes_its_pictures", lambda p: p.end('<img src="images/layers.svg" alt="">')),
    "a plot without it": ("describes_its_pictures", lambda p: p.shown("image/png")[1].metadata.clear()),
    "a heavy plot": ("describes_its_pictures", grow),
    "nothing compared": ("compares_most_outputs", ignore_everything),
    "a dead link": ("links_to_what_is_there", lambda p: p.end("[more](99_nowhere.ipynb)")),
    "a dead picture": ("links_to_what_is_there", lambda p: p.end("![more](images/nowhere.png)")),
    "a dead link in HTML": ("links_to_what_is_there", lambda p: p.end('<a href="99_nowhere.ipynb">more</a>')),
    "a dead anchor": ("links_to_what_is_there", lambda p: p.end("[more](#Nowhere)")),
    "a dead anchor elsewhere": ("links_to_what_is_there", lambda p: p.end("[more](../README.md#nowhere)")),
    "plain http": ("links_to_what_is_there", lambda p: p.end("[more](http://example.org)")),
    "too few exercises": ("has_exercises", lambda p: p.say("### Exercise 00.3 · ", "### ")),
    "a wrong number": ("has_exercises", lambda p: p.say("### Exercise 00.3 · ", "### Exercise 00.4 · ")),
    "another title": ("has_exercises", lambda p: p.say("· Count the orders", "· Count the cows")),
    "no stub": ("has_exercises", lambda p: p.tagged("exercise").metadata.pop("tags")),
    "an answer in the stub": ("has_exercises", lambda p: p.code("answer = ...  #", "answer = 7  #")),
    "no check": ("has_exercises", lambda p: p.tagged("exercise").update(source="answer = ...")),
    "no hint": ("has_exercises", lambda p: p.say("<summary>Hint", "<summary>Help")),
    "no solution": ("has_exercises", lambda p: p.say("<summary>Solution", "<summary>Help")),
    "no check in the solution": ("has_exercises", lambda p: p.say('check("00.1", answer)\n```', "```")),
    "no end": ("has_exercises", lambda p: p.code('summary("00")', 'summary("01")')),
}  # fmt: skip


def planted(tmp_path: Path, change: Callable[[Plant], object], name: str = GOOD.name) -> Book:
    """A copy of the good notebook, beside the pictures and files that it links to, with `change` made to it."""
    (tmp_path / "README.md").write_text((FOLDER.parent / "README.md").read_text("utf-8"), "utf-8")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "README.md").touch()
    folder = tmp_path / "notebooks"
    (folder / "images").mkdir(parents=True)
    for picture in (FOLDER / "images").iterdir():
        (folder / "images" / picture.name).touch()
    notebook = nbformat.read(GOOD, as_version=4)
    change(Plant(notebook))
    (folder / name).write_text(json.dumps(notebook), encoding="utf-8")
    return Book(folder / name)


def test_the_good_one_is_good(tmp_path: Path) -> None:
    assert not guards.problems(planted(tmp_path, lambda plant: None))


@pytest.mark.parametrize("what", BAD)
def test_is_found(what: str, tmp_path: Path) -> None:
    guard, change = BAD[what]
    found = guards.problems(planted(tmp_path, change))
    assert any(problem.startswith(f"{guard}: ") for problem in found), found


def test_a_notebook_that_is_on_no_map_is_found(tmp_path: Path) -> None:
    found = guards.problems(planted(tmp_path, lambda plant: None, "00_elsewhere.ipynb"))
    assert [problem.partition(":")[0] for problem in found] == ["is_on_the_map"]


def test_exercises_without_check_or_wrong_answers_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guards.exercises, "of_notebook", lambda number: {})
    monkeypatch.setattr(guards, "wrong_answers_of", lambda number: [("00.1", "answer = 1", "")])
    found = "\n".join(guards.problems(planted(tmp_path, lambda plant: None)))
    assert "00.1: no check is registered" in found
    assert "00.1: 1 wrong answers" in found
    assert "00.2: 0 wrong answers" in found


def test_every_guard_has_its_plant() -> None:
    assert {guard.__name__ for guard in guards.GUARDS} == {guard for guard, _ in BAD.values()} | {"is_on_the_map"}


# -- the comparison


def fresh_with(change: Callable[[Plant], object]) -> NotebookNode:
    notebook = nbformat.read(GOOD, as_version=4)
    change(Plant(notebook))
    return notebook


def add_html(plant: Plant) -> None:
    plant.shown("text/html")[1].data["text/html"] += "<p>"


def change_plain(plant: Plant) -> None:
    plant.shown("text/plain")[1].data["text/plain"] = "another"


def change_markdown(plant: Plant) -> None:
    plant.shown("text/markdown")[1].data["text/markdown"] = "another"


def change_picture(plant: Plant) -> None:
    plant.shown("image/png")[1].data["image/png"] = "AAAA"


@pytest.mark.parametrize(
    "change",
    [
        lambda plant: plant.print("more"),
        lambda plant: plant.print("more", "stderr"),
        lambda plant: plant.shown("stdout")[0].outputs.clear(),
        lambda plant: plant.shown("image/png")[0].outputs.clear(),
        lambda plant: plant.cells.remove(plant.tagged("exercise")),
        lambda plant: plant.code("free_gb", "free"),
        add_html,
        change_plain,
        change_markdown,
        raise_an_error,
    ],
)
def test_another_output_is_a_difference(change: Callable[[Plant], object]) -> None:
    assert compare(Book(GOOD), fresh_with(change)).differences


def test_what_cannot_repeat_is_no_difference() -> None:
    found = compare(Book(GOOD), fresh_with(change_picture))
    assert not found.differences
    assert found.compared >= guards.LEAST_COMPARED


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (
            "part-00000-76aa8fb8-d4bf-4169-8837-e360787b59d7-c000",
            "part-00000-00000000-d4bf-4169-8837-e360787b59d7-c000",
        ),
        ("2026-11-23 14:06:01.342587+00:00", "2027-01-01T00:00:00.1Z"),
        ('"timestamp": 1795442759776', '"timestamp": 1999999999999'),
        ('"execution_time_ms": 26,', '"execution_time_ms": 1026,'),
        ("delta-rs:py-1.6.6", "delta-rs:py-1.7.0"),
        ("s3://lakehouse/notebooks/00-76aa8fb8/x", "s3://lakehouse/notebooks/00-00000000/x"),
    ],
)
def test_masks(one: str, other: str) -> None:
    assert masked(one) == masked(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("2026-01-03T16:40:05Z", "2026-01-03T16:40:06Z"),  # the shop's own times
        ("rows: 1,630 written", "rows: 1,631 written"),
        ("version 3", "version 4"),
        ("part 1", "part 2"),
        ("638153083312285058", "638153083312285059"),  # a surrogate key
    ],
)
def test_masks_no_more_than_that(one: str, other: str) -> None:
    assert masked(one) != masked(other)


def test_strips_what_papermill_leaves() -> None:
    notebook = nbformat.read(GOOD, as_version=4)
    before = json.dumps(notebook)
    notebook.metadata.papermill = {"duration": 3.2}
    notebook.metadata.language_info = {"name": "python", "version": "3.11.9"}
    for cell in notebook.cells:
        cell.metadata.papermill = {"start_time": "now"}
        cell.metadata.setdefault("tags", [])
    strip(notebook)
    assert json.dumps(notebook, sort_keys=True) == json.dumps(json.loads(before), sort_keys=True)


def test_a_check_is_added_once() -> None:
    assert with_check("00.1", "answer = 1") == 'answer = 1\ncheck("00.1", answer)'
    assert with_check("00.1", 'check("00.1", answer)') == 'check("00.1", answer)'
