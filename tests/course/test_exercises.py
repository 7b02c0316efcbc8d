"""Verdicts, the registry, and what is remembered."""

import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lakehouse_utils import settings
from lakehouse_utils.course import exercises, lessons
from lakehouse_utils.course.exercises import Right, Wrong, check, exercise, summary


@pytest.fixture(autouse=True)
def state_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LAKEHOUSE_STATE_DIR", str(tmp_path / "state"))
    return tmp_path / "state"


@pytest.fixture(autouse=True)
def two_exercises(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Notebook 98: to find seven, and to name the lake."""
    monkeypatch.setattr(exercises, "_registry", {})
    monkeypatch.setattr(exercises, "_verdicts", {})

    @exercise("98.1", "Find seven", hint="It comes after six.", expects=int)
    def seven(answer, lake):
        if answer == 7:
            return Right("Seven it is.")
        return Wrong("Too few." if answer < 7 else "Too many.")

    @exercise("98.2", "Name it", hint="Look it up.")
    def name(answer, lake):
        if answer["name"] != lake:
            raise Wrong("Another name.")
        return Right("That is its name.")

    yield


def test_says_one_of_three_things() -> None:
    said = [check("98.1", answer) for answer in (..., 5, 7)]
    assert [verdict.state for verdict in said] == ["open", "wrong", "solved"]
    assert [repr(verdict) for verdict in said] == [
        "○ 98.1 not solved yet. It comes after six.",
        "✘ 98.1 not yet right. Too few.",
        "✔ 98.1 solved. Seven it is.",
    ]
    assert said[1]._repr_markdown_() == "✘ **98.1 not yet right.** Too few."


@pytest.mark.parametrize("answer", [..., None, [...], (1, ...), {"name": ...}])
def test_dots_are_no_answer(answer: object) -> None:
    assert check("98.2", answer).state == "open"


def test_gives_the_lake_of_this_kernel_to_the_check(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lessons, "_current", "the lake")
    assert check("98.2", {"name": "the lake"}).solved


@pytest.mark.parametrize(
    ("id", "answer", "hint"),
    [
        ("98.1", "seven", "should be of the type int; it is of str"),
        ("98.2", {"name": "x"}, "Another name."),
        ("98.2", {}, "could not be looked at: KeyError: 'name'"),
        ("98.2", 3, "TypeError"),
        ("98.3", 1, "There is no such exercise; notebook 98 has 98.1, 98.2."),
        ("97.1", 1, "notebook 97 has none"),
        ("seven", 1, "no such exercise"),
    ],
)
def test_never_raises(id: str, answer: object, hint: str) -> None:
    verdict = check(id, answer)
    assert verdict.state == "wrong"
    assert hint in verdict.text


def test_remembers_what_was_solved_and_when_first(state_dir: Path) -> None:
    check("98.1", 5)
    assert exercises.progress() == {}
    check("98.1", 7)
    first = exercises.progress()
    assert list(first) == ["98.1"]
    (state_dir / "progress.json").write_text(json.dumps({"98.1": "2020-01-01"}))
    check("98.1", 7)
    check("98.1", 5)
    assert exercises.progress() == {"98.1": "2020-01-01"}


def test_many_kernels_remember_at_once() -> None:
    ids = [f"01.{n}" for n in range(20)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(exercises._remember, ids))
    assert sorted(exercises.progress()) == sorted(ids)


@pytest.mark.parametrize("text", ["", "{", "\ud800"])
def test_begins_anew_where_the_memory_is_broken(text: str, state_dir: Path) -> None:
    state_dir.mkdir()
    (state_dir / "progress.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    assert check("98.1", 7).solved
    assert list(exercises.progress()) == ["98.1"]


def test_a_folder_that_cannot_be_written_spoils_nothing(state_dir: Path) -> None:
    state_dir.touch()
    assert check("98.1", 7).solved


def test_summary_tells_of_this_kernel_only() -> None:
    exercises._remember("98.2")  # another day
    check("98.1", 7)
    assert repr(summary("98")) == "✔ 98.1 Find seven\n○ 98.2 Name it\n1 of 2 exercises solved."
    assert "| ✔ | 98.1 | Find seven |" in summary("98")._repr_markdown_()
    check("98.1", 5)
    assert "✘ 98.1" in repr(summary("98"))


def test_finds_the_exercises_of_a_notebook_by_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "lakehouse_utils.course.exercises.nb00", raising=False)
    assert list(exercises.of_notebook("00")) == ["00.1", "00.2", "00.3"]
    assert exercises.of_notebook("97") == {}


def test_an_error_in_the_checks_themselves_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> None:
        raise ModuleNotFoundError("no module named 'nampy'", name="nampy")

    monkeypatch.setattr(exercises, "import_module", broken)
    with pytest.raises(ModuleNotFoundError):
        exercises.of_notebook("98")


def test_prints_the_progress_of_the_course(state_dir: Path) -> None:
    exercises._remember("00.2")
    command = [sys.executable, "-m", "lakehouse_utils.course.exercises"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, cwd=settings.CHECKOUT).stdout
    assert "00_start_here" in printed
    assert "1 of 3" in printed
    assert "✔ 00.2" in printed
    assert "○ 00.1" in printed
