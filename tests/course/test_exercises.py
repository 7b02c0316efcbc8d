"""Verdicts, the registry of exercises, and the record of what was solved."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest

from lakehouse_utils import settings
from lakehouse_utils.course import exercises, lessons
from lakehouse_utils.course.exercises import Right, Wrong, check, exercise, summary


@pytest.fixture(autouse=True)
def state_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LAKEHOUSE_STATE_DIR", str(tmp_path / "state"))
    return tmp_path / "state"


@pytest.fixture(autouse=True)
def two_exercises(monkeypatch: pytest.MonkeyPatch) -> None:
    """Register notebook 98 with two exercises: find the number seven, and name the lake."""
    monkeypatch.setattr(exercises, "_registry", {})
    monkeypatch.setattr(exercises, "_verdicts", {})

    @exercise("98.1", "Find seven", expects=int)
    def check_seven(answer: int, lake: object) -> Right:
        if answer == 7:
            return Right("Seven is right.")
        raise Wrong("Too small." if answer < 7 else "Too large.")

    @exercise("98.2", "Name it")
    def check_name(answer: dict[str, object], lake: object) -> Right:
        if answer["name"] != lake:
            raise Wrong("That is another name.")
        return Right("That is its name.")


def test_verdict_has_one_of_three_states() -> None:
    """No answer gives only "not solved yet", without a hint; a wrong answer gets its hint, a right one its reason."""
    verdicts = [check("98.1", answer) for answer in (..., 5, 7)]
    assert [verdict.state for verdict in verdicts] == ["unsolved", "wrong", "solved"]
    assert [repr(verdict) for verdict in verdicts] == [
        "○ 98.1 not solved yet.",
        "✘ 98.1 not correct yet. Too small.",
        "✔ 98.1 solved. Seven is right.",
    ]
    assert [verdict._repr_markdown_() for verdict in verdicts] == [
        "○ **98.1 not solved yet.**",
        "✘ **98.1 not correct yet.** Too small.",
        "✔ **98.1 solved.** Seven is right.",
    ]


@pytest.mark.parametrize("answer", [..., None, [...], (1, ...), {"name": ...}])
def test_dots_are_unsolved(answer: object) -> None:
    """Dots, None, and a collection that contains dots mean that there is no answer yet."""
    assert check("98.2", answer).state == "unsolved"


def test_check_gets_the_lake_of_this_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """The check function gets the lake that the notebook has started."""
    monkeypatch.setattr(lessons, "_current", "the lake")
    assert check("98.2", {"name": "the lake"}).solved


@pytest.mark.parametrize(
    ("id", "answer", "hint"),
    [
        ("98.1", "seven", "must be of type int, but it is of type str"),
        ("98.2", {"name": "x"}, "That is another name."),
        ("98.2", {}, "The check could not read your answer: KeyError: 'name'"),
        ("98.2", 3, "TypeError"),
        ("98.3", 1, "There is no exercise 98.3. Notebook 98 has 98.1, 98.2."),
        ("97.1", 1, "Notebook 97 has none"),
        ("seven", 1, "There is no exercise seven"),
    ],
)
def test_check_never_raises(id: str, answer: object, hint: str) -> None:
    """An answer of another type, an answer that raises in the check, and an unknown id give a wrong verdict."""
    verdict = check(id, answer)
    assert verdict.state == "wrong"
    assert hint in verdict.text


@pytest.mark.parametrize(
    ("expects", "kind"),
    [
        ((int, np.integer), "be a whole number"),
        ((int, float, Decimal), "be a number"),
        ((tuple, list), "be of type tuple or list"),
        (int, "be of type int"),
    ],
)
def test_answer_of_another_type(expects: type | tuple[type, ...], kind: str) -> None:
    """The message says which type is expected; several types of numbers are "a number"."""
    exercise("98.1", "Find seven", expects=expects)(lambda answer, lake: Right("Any."))
    assert f"The answer must {kind}, but it is of type str." in check("98.1", "seven").text


@pytest.mark.parametrize(
    ("function", "hint"),
    [
        (lambda text: text["no"], "Your function raised TypeError: string indices must be integers"),
        (lambda text: int(f"{text}b"), "Your function raised ValueError: invalid literal for int() with base 10: 'ab'"),
        (lambda: 1, "The check could not use your function: TypeError"),
        (lambda text: text, "The check could not use your function: TypeError: can only concatenate"),
        (int, "The check could not use your function: ValueError"),
    ],
)
def test_error_in_the_answers_function(function: Callable[..., int], hint: str) -> None:
    """An error that the learner's function raises is said to be its own; one in the check's use of it is not."""

    @exercise("98.3", "Write a function")
    def check_function(answer: Callable[[str], int], lake: object) -> Right:
        return Right(str(answer("a") + 1))

    verdict = check("98.3", function)
    assert verdict.state == "wrong"
    assert verdict.text.startswith(hint)


def test_progress_has_the_first_date(state_dir: Path) -> None:
    """Progress has the day on which an exercise was first solved; later verdicts do not change it."""
    check("98.1", 5)
    assert exercises.progress() == {}
    check("98.1", 7)
    assert list(exercises.progress()) == ["98.1"]
    (state_dir / "progress.json").write_text(json.dumps({"98.1": "2020-01-01"}))
    check("98.1", 7)
    check("98.1", 5)
    assert exercises.progress() == {"98.1": "2020-01-01"}


def test_progress_of_parallel_kernels_is_kept() -> None:
    """No exercise is lost if several kernels record progress at the same time."""
    ids = [f"01.{n}" for n in range(20)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(exercises._remember, ids))
    assert sorted(exercises.progress()) == sorted(ids)


@pytest.mark.parametrize("text", ["", "{", "\ud800"])
def test_damaged_progress_file_is_replaced(text: str, state_dir: Path) -> None:
    """A progress file that is not JSON counts as empty, and the next solved exercise replaces it."""
    state_dir.mkdir()
    (state_dir / "progress.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    assert check("98.1", 7).solved
    assert list(exercises.progress()) == ["98.1"]


def test_unwritable_state_folder_does_not_change_the_verdict(state_dir: Path) -> None:
    """If progress cannot be recorded, the verdict is still solved."""
    state_dir.touch()
    assert check("98.1", 7).solved


def test_summary_shows_only_this_kernel() -> None:
    """The summary shows the last verdicts of this kernel and nothing that was solved earlier."""
    exercises._remember("98.2")  # solved on another day
    check("98.1", 7)
    assert repr(summary("98")) == "✔ 98.1 Find seven\n○ 98.2 Name it\n1 of 2 exercises solved."
    assert "| ✔ | 98.1 | Find seven |" in summary("98")._repr_markdown_()
    check("98.1", 5)
    assert "✘ 98.1" in repr(summary("98"))


@pytest.fixture
def nb00_not_imported() -> Iterator[None]:
    """The checks of notebook 00 are not imported yet, and are imported again when they are needed after the test."""
    name = "lakehouse_utils.course.exercises.nb00"
    sys.modules.pop(name, None)
    yield
    sys.modules.pop(name, None)  # what the test has imported is in its own registry only


@pytest.mark.usefixtures("nb00_not_imported")
def test_exercises_of_a_notebook_are_found_by_its_number() -> None:
    """The module of a notebook's exercises is imported by its number; without a module there are none."""
    assert list(exercises.of_notebook("00")) == ["00.1", "00.2", "00.3"]
    assert exercises.of_notebook("97") == {}


def test_import_error_in_the_checks_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    """A module of exercises that imports a missing library raises; it is not taken as a notebook without any."""

    def import_with_error(name: str) -> None:
        raise ModuleNotFoundError("no module named 'nampy'", name="nampy")

    monkeypatch.setattr(exercises, "import_module", import_with_error)
    with pytest.raises(ModuleNotFoundError):
        exercises.of_notebook("98")


def test_progress_command_prints_each_notebook(state_dir: Path) -> None:
    """`make progress` prints a row for each notebook with its solved and unsolved exercises."""
    exercises._remember("00.2")
    command = [sys.executable, "-m", "lakehouse_utils.course.exercises"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, cwd=settings.CHECKOUT).stdout
    assert "00_start_here" in printed
    assert "1 of 3" in printed
    assert "✔ 00.2" in printed
    assert "○ 00.1" in printed
