"""Every guard finds its mistake in a copy of the first notebook, and the comparison finds changed outputs."""

import json
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_output

from notebooks import guards
from notebooks.books import FOLDER, PATHS, Book, compare, mask, strip_metadata
from notebooks.test_exercise_checks import with_check

GOOD_PATH = PATHS[0]


class Draft:
    """A copy of the good notebook, with methods that change one thing in it."""

    def __init__(self, notebook: NotebookNode) -> None:
        self.notebook, self.cells = notebook, notebook.cells

    def markdown(self, text: str) -> NotebookNode:
        """Return the first Markdown cell that contains `text`."""
        return next(cell for cell in self.cells if cell.cell_type == "markdown" and text in cell.source)

    def tagged(self, tag: str) -> NotebookNode:
        return next(cell for cell in self.cells if tag in cell.metadata.get("tags", []))

    def output(self, kind: str) -> tuple[NotebookNode, NotebookNode]:
        """Return the first cell with an output of a kind (a MIME type or a stream's name), and that output."""
        return next(
            (cell, output)
            for cell in self.cells
            for output in cell.get("outputs", [])
            if kind in output.get("data", {}) or kind == output.get("name")
        )

    def replace_text(self, text: str, replacement: str) -> None:
        cell = self.markdown(text)
        cell.source = cell.source.replace(text, replacement)

    def replace_code(self, text: str, replacement: str) -> None:
        cell = next(cell for cell in self.cells if cell.cell_type == "code" and text in cell.source)
        cell.source = cell.source.replace(text, replacement)

    def add_output(self, text: str, name: str = "stdout") -> None:
        self.output("stdout")[0].outputs.append(new_output("stream", name=name, text=text))

    def append(self, text: str) -> None:
        self.cells[-1].source += f"\n{text}\n"


def ignore_everything(draft: Draft) -> None:
    for cell in draft.cells:
        if cell.get("outputs"):
            cell.metadata.tags = [*cell.metadata.get("tags", []), "nbval-ignore-output"]


def uncheck_a_step(draft: Draft) -> None:
    """Remove the outputs and the asserts of the first step."""
    begin, end = (draft.cells.index(draft.markdown(f"## {number} · ")) for number in (1, 2))
    for cell in draft.cells[begin:end]:
        if cell.cell_type == "code":
            cell.outputs, cell.source = [], cell.source.replace("assert", "# assert")


def raise_an_error(draft: Draft) -> None:
    output = new_output("error", ename="ValueError", evalue="no", traceback=["no"])
    draft.output("stdout")[0].outputs.append(output)


def enlarge_picture(draft: Draft) -> None:
    draft.output("image/png")[1].data["image/png"] = "A" * 100_000


MISTAKES: dict[str, tuple[str, Callable[[Draft], object]]] = {
    "wrong notebook number": ("has_title", lambda nb: nb.replace_text("# 00 · Start", "# 01 · Start")),
    "second H1": ("has_title", lambda nb: nb.append("# Again")),
    "no picture": ("has_title", lambda nb: nb.replace_text("![", "[")),
    "no summary": ("has_headings", lambda nb: nb.replace_text("## Summary", "### Summary")),
    "sections in another order": ("has_headings", lambda nb: nb.cells.append(nb.cells.pop(1))),
    "skipped step number": ("has_headings", lambda nb: nb.replace_text("## 2 · ", "## 7 · ")),
    "too few goals": ("states_goals_and_time", lambda nb: nb.replace_text("\n- ", "\n")),
    "no time": ("states_goals_and_time", lambda nb: nb.replace_text("**Time**: 50 minutes", "**Time**: long")),
    "too long": ("takes_an_hour", lambda nb: nb.append("word " * 3000)),
    "other time than counted": (
        "takes_an_hour",
        lambda nb: nb.replace_text("**Time**: 50 minutes", "**Time**: 15 minutes"),
    ),
    "no table of concepts": ("states_goals_and_time", lambda nb: nb.replace_text("| concept |", "| thing |")),
    "no parameters tag": ("has_setup_cells", lambda nb: nb.tagged("parameters").metadata.pop("tags")),
    "other default": ("has_setup_cells", lambda nb: nb.replace_code("SCALE = 1 ", "SCALE = 2 ")),
    "other parameter": ("has_setup_cells", lambda nb: nb.replace_code('LAKE = ""', 'LAKES = ""')),
    "lake of another notebook": ("has_setup_cells", lambda nb: nb.replace_code('start("00"', 'start("01"')),
    "import below the set-up": ("has_setup_cells", lambda nb: nb.replace_code("free_gb =", "import os\n\nfree_gb =")),
    "step whose results are not compared": ("checks_every_step", uncheck_a_step),
    "too many cells": ("is_short", lambda nb: nb.cells.extend(new_markdown_cell("More.") for _ in range(60))),
    "too many lines": ("is_short", lambda nb: nb.replace_code("free_gb =", "a = 1\n" * 20 + "free_gb =")),
    "line too long": ("is_short", lambda nb: nb.replace_code("free_gb =", f"# {'x' * 100}\nfree_gb =")),
    "solution too long": ("is_short", lambda nb: nb.replace_text("```python\n", "```python\n" + "a = 1\n" * 20)),
    "file too large": ("is_short", lambda nb: nb.add_output("x" * 500_000)),
    "empty cell": ("has_clean_cells", lambda nb: nb.cells.append(new_code_cell("", execution_count=1))),
    "metadata of papermill": ("has_clean_cells", lambda nb: nb.cells[4].metadata.update(papermill={"duration": 1.2})),
    "metadata of widgets": ("has_clean_cells", lambda nb: nb.notebook.metadata.update(widgets={})),
    "other kernel": ("has_clean_cells", lambda nb: nb.notebook.metadata.kernelspec.update(name="conda")),
    "attachment": ("has_clean_cells", lambda nb: nb.cells[0].update(attachments={})),
    "not run": ("was_run_from_top_to_bottom", lambda nb: nb.tagged("exercise").update(execution_count=None)),
    "run out of order": ("was_run_from_top_to_bottom", lambda nb: nb.tagged("exercise").update(execution_count=99)),
    "error in an output": ("has_no_errors_in_outputs", raise_an_error),
    "warning in an output": ("has_no_errors_in_outputs", lambda nb: nb.add_output("DeprecationWarning", "stderr")),
    "home folder": ("hides_machine_and_secrets", lambda nb: nb.add_output("/home/maria/course/data.csv")),
    "Windows folder": ("hides_machine_and_secrets", lambda nb: nb.add_output("C:\\Users\\maria")),
    "path of this checkout": ("hides_machine_and_secrets", lambda nb: nb.append(f"See {FOLDER}.")),
    "traceback": ("hides_machine_and_secrets", lambda nb: nb.add_output("lib/site-packages/deltalake/table.py")),
    "port": ("hides_machine_and_secrets", lambda nb: nb.add_output("http://127.0.0.1:15999")),
    "AWS access key": ("hides_machine_and_secrets", lambda nb: nb.add_output("AKIA" + "I5TQ3X7WJZ4N6K2M")),
    "access key of the embedded server": (
        "hides_machine_and_secrets",
        lambda nb: nb.add_output("LAKE" + "0123456789ABCDEF"),
    ),
    "secret key": (
        "hides_machine_and_secrets",
        lambda nb: nb.add_output("'AWS_SECRET_ACCESS_KEY': '" + "aB3/" * 10 + "'"),
    ),
    "no alternative text": ("describes_pictures", lambda nb: nb.append("![](images/layers.svg)")),
    "no alternative text in HTML": ("describes_pictures", lambda nb: nb.append('<img src="images/layers.svg" alt="">')),
    "plot without alternative text": ("describes_pictures", lambda nb: nb.output("image/png")[1].metadata.clear()),
    "plot too large": ("describes_pictures", enlarge_picture),
    "nothing compared": ("compares_most_outputs", ignore_everything),
    "broken link": ("has_working_links", lambda nb: nb.append("[more](99_nowhere.ipynb)")),
    "broken picture": ("has_working_links", lambda nb: nb.append("![more](images/nowhere.png)")),
    "broken link in HTML": ("has_working_links", lambda nb: nb.append('<a href="99_nowhere.ipynb">more</a>')),
    "broken anchor": ("has_working_links", lambda nb: nb.append("[more](#Nowhere)")),
    "broken anchor in another file": ("has_working_links", lambda nb: nb.append("[more](../README.md#nowhere)")),
    "plain http": ("has_working_links", lambda nb: nb.append("[more](http://example.org)")),
    "too few exercises": ("has_exercises", lambda nb: nb.replace_text("### Exercise 00.3 · ", "### ")),
    "wrong exercise number": (
        "has_exercises",
        lambda nb: nb.replace_text("### Exercise 00.3 · ", "### Exercise 00.4 · "),
    ),
    "other exercise title": ("has_exercises", lambda nb: nb.replace_text("· Count the orders", "· Count the cows")),
    "no stub": ("has_exercises", lambda nb: nb.tagged("exercise").metadata.pop("tags")),
    "answer in the stub": ("has_exercises", lambda nb: nb.replace_code("answer = ...  #", "answer = 7  #")),
    "no check": ("has_exercises", lambda nb: nb.tagged("exercise").update(source="answer = ...")),
    "no hint": ("has_exercises", lambda nb: nb.replace_text("<summary>Hint", "<summary>Help")),
    "no solution": ("has_exercises", lambda nb: nb.replace_text("<summary>Solution", "<summary>Help")),
    "no check in the solution": ("has_exercises", lambda nb: nb.replace_text('check("00.1", answer)\n```', "```")),
    "no summary cell": ("has_exercises", lambda nb: nb.replace_code('summary("00")', 'summary("01")')),
}


def write_draft(tmp_path: Path, change: Callable[[Draft], object], name: str = GOOD_PATH.name) -> Book:
    """Write a copy of the good notebook with `change` made to it, next to the pictures and files that it links to."""
    (tmp_path / "README.md").write_text((FOLDER.parent / "README.md").read_text("utf-8"), "utf-8")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "README.md").touch()
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "settings.md").touch()
    folder = tmp_path / "notebooks"
    (folder / "images").mkdir(parents=True)
    for picture in (FOLDER / "images").iterdir():
        (folder / "images" / picture.name).touch()
    notebook = nbformat.read(GOOD_PATH, as_version=4)
    change(Draft(notebook))
    (folder / name).write_text(json.dumps(notebook), encoding="utf-8")
    return Book(folder / name)


def test_good_notebook_has_no_findings(tmp_path: Path) -> None:
    """The unchanged notebook follows all rules, so that each finding below comes from the mistake."""
    assert not guards.findings(write_draft(tmp_path, lambda draft: None))


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake_is_found(mistake: str, tmp_path: Path) -> None:
    """The guard that is meant for the mistake finds it."""
    guard, change = MISTAKES[mistake]
    found = guards.findings(write_draft(tmp_path, change))
    assert any(finding.startswith(f"{guard}: ") for finding in found), found


def test_limit_holds_with_the_counted_time_stated(tmp_path: Path) -> None:
    """A notebook may take an hour; stating a longer time truly does not help."""

    def lengthen(draft: Draft) -> None:
        draft.append("word " * 3000)
        draft.replace_text("**Time**: 50 minutes", "**Time**: 65 minutes")

    (finding,) = guards.takes_an_hour(write_draft(tmp_path, lengthen))
    assert finding.endswith("at most 60 are allowed")


def test_notebook_missing_in_readme_is_found(tmp_path: Path) -> None:
    """A notebook without a linked row in the course table of the READMEs has exactly that one finding."""
    found = guards.findings(write_draft(tmp_path, lambda draft: None, "00_elsewhere.ipynb"))
    assert [finding.partition(":")[0] for finding in found] == ["is_listed_in_readme"]


def test_exercise_without_check_or_wrong_answers_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each exercise without a registered check, or with fewer than two wrong answers, is a finding."""
    monkeypatch.setattr(guards.exercises, "of_notebook", lambda number: {})
    monkeypatch.setattr(guards, "wrong_answers_of", lambda number: [("00.1", "answer = 1", "")])
    found = "\n".join(guards.findings(write_draft(tmp_path, lambda draft: None)))
    assert "00.1: there is no check in" in found
    assert "00.1: there are 1 wrong answers" in found
    assert "00.2: there are 0 wrong answers" in found


def test_every_guard_has_a_mistake() -> None:
    """Each guard is tested by at least one mistake."""
    assert {guard.__name__ for guard in guards.GUARDS} == {guard for guard, _ in MISTAKES.values()} | {
        "is_listed_in_readme"
    }


# -- the comparison


def changed_notebook(change: Callable[[Draft], object]) -> NotebookNode:
    notebook = nbformat.read(GOOD_PATH, as_version=4)
    change(Draft(notebook))
    return notebook


def add_html(draft: Draft) -> None:
    draft.output("text/html")[1].data["text/html"] += "<p>"


def change_plain(draft: Draft) -> None:
    draft.output("text/plain")[1].data["text/plain"] = "another"


def change_markdown(draft: Draft) -> None:
    draft.output("text/markdown")[1].data["text/markdown"] = "another"


def change_picture(draft: Draft) -> None:
    draft.output("image/png")[1].data["image/png"] = "AAAA"


@pytest.mark.parametrize(
    "change",
    [
        lambda nb: nb.add_output("more"),
        lambda nb: nb.add_output("more", "stderr"),
        lambda nb: nb.output("stdout")[0].outputs.clear(),
        lambda nb: nb.output("image/png")[0].outputs.clear(),
        lambda nb: nb.cells.remove(nb.tagged("exercise")),
        lambda nb: nb.replace_code("free_gb", "free"),
        add_html,
        change_plain,
        change_markdown,
        raise_an_error,
    ],
)
def test_changed_output_or_code_is_a_difference(change: Callable[[Draft], object]) -> None:
    """Any change of an output's text, of the outputs or of the code is a difference."""
    assert compare(Book(GOOD_PATH), changed_notebook(change)).differences


def test_changed_picture_is_no_difference() -> None:
    """Pictures are not compared, and enough other outputs are."""
    comparison = compare(Book(GOOD_PATH), changed_notebook(change_picture))
    assert not comparison.differences
    assert comparison.compared >= guards.MIN_COMPARED


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
def test_varying_text_is_masked(one: str, other: str) -> None:
    """File names, commit times, durations, versions and random prefixes are equal after masking."""
    assert mask(one) == mask(other)


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
def test_other_text_is_not_masked(one: str, other: str) -> None:
    """Results of the lesson still differ after masking."""
    assert mask(one) != mask(other)


def test_strip_metadata_removes_traces_of_a_run() -> None:
    """What papermill and the kernel add to the metadata is removed, and nothing else."""
    notebook = nbformat.read(GOOD_PATH, as_version=4)
    before = json.dumps(notebook)
    notebook.metadata.papermill = {"duration": 3.2}
    notebook.metadata.language_info = {"name": "python", "version": "3.11.9"}
    for cell in notebook.cells:
        cell.metadata.papermill = {"start_time": "now"}
        cell.metadata.setdefault("tags", [])
    strip_metadata(notebook)
    assert json.dumps(notebook, sort_keys=True) == json.dumps(json.loads(before), sort_keys=True)


def test_with_check_adds_the_call_once() -> None:
    """The call of check is added only to code that does not end with it."""
    assert with_check("00.1", "answer = 1") == 'answer = 1\ncheck("00.1", answer)'
    assert with_check("00.1", 'check("00.1", answer)') == 'check("00.1", answer)'
