"""The exercises of the course: `check("02.1", answer)` gives a verdict, `summary("02")` lists those of a notebook.

The checks of notebook 02 are in `exercises/nb02.py`, which is imported when the first of them is needed. A check is a
function that inspects an answer:

    @exercise("02.1", "Load the brands", expects=DeltaTable)
    def check_brands(answer: DeltaTable, lake: Lake) -> Right:
        if answer.version() != 0:
            raise Wrong(f"The table is at version {answer.version()}: write it in one commit.")
        return Right("Nine brands, in one commit.")

`lake` is the lake that `lessons.start` returned in this kernel. A check only inspects; it never does the learner's
work. It need not handle a missing column or method: any other exception also becomes a "wrong" verdict.
"""

import json
import re
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from importlib import import_module
from numbers import Integral, Number
from pathlib import Path
from types import FunctionType
from typing import Any, Literal

from deltalake import DeltaTable
from filelock import FileLock

from lakehouse_utils import settings
from lakehouse_utils.course import lessons
from lakehouse_utils.lake import Lake

State = Literal["solved", "unsolved", "wrong"]
_MARKS: dict[State, str] = {"solved": "✔", "unsolved": "○", "wrong": "✘"}
_HEADLINES: dict[State, str] = {"solved": "solved.", "unsolved": "not solved yet.", "wrong": "not correct yet."}


class Wrong(Exception):  # noqa: N818 - a verdict, next to Right
    """The answer is not correct; the message is a hint that fits the mistake, in full sentences."""


@dataclass(frozen=True)
class Right:
    """The answer is correct; `text` says what is right about it, in full sentences."""

    text: str


Check = Callable[[Any, Any], Right]


@dataclass(frozen=True)
class Exercise:
    """One exercise; `check(answer, lake)` returns Right or raises Wrong."""

    id: str
    title: str
    expects: type | tuple[type, ...]
    check: Check


@dataclass(frozen=True)
class Verdict:
    """The result of `check`. A notebook displays it as Markdown."""

    id: str
    state: State
    text: str = ""

    @property
    def solved(self) -> bool:
        """Whether the exercise is solved."""
        return self.state == "solved"

    def __repr__(self) -> str:
        return f"{_MARKS[self.state]} {self.id} {_HEADLINES[self.state]} {self.text}".rstrip()

    def _repr_markdown_(self) -> str:
        return f"{_MARKS[self.state]} **{self.id} {_HEADLINES[self.state]}** {self.text}".rstrip()


_registry: dict[str, Exercise] = {}
_verdicts: dict[str, Verdict] = {}  # the last one of each exercise in this kernel


def exercise(id: str, title: str, *, expects: Any = object) -> Callable[[Check], Check]:  # noqa: ANN401 - a type form
    """Register the decorated function as the check of exercise `id`, such as "02.1".

    The notebook's heading has the same `title`. An answer that is not an instance of `expects` (a type, or a tuple of
    types) is wrong, and the check is not called.
    """

    def register(function: Check) -> Check:
        _registry[id] = Exercise(id, title, expects, function)
        return function

    return register


def open_table(lake: Lake, *names: str, version: int | None = None) -> DeltaTable:
    """Open the table at `lake.uri(*names)` for a check. Raises Wrong if it does not exist."""
    table = lake.delta(*names, version=version)
    if table is None:
        raise Wrong(f"There is no table {'/'.join(names)}. Run the cells above, or the whole exercise cell, again.")
    return table


def of_notebook(number: str) -> dict[str, Exercise]:
    """Return the exercises of notebook `number`, such as "02", by id; empty if there are none."""
    if not re.fullmatch(r"\d\d", number):
        return {}
    module = f"{__name__}.nb{number}"
    try:
        import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
    return {id: registered for id, registered in sorted(_registry.items()) if id.startswith(f"{number}.")}


def check(id: str, answer: object) -> Verdict:
    """Return whether `answer` solves exercise `id`, and if it does not, a hint that fits the mistake. Never raises.

    `...` and None mean that there is no answer yet, and so does a list, tuple or dict that contains `...`.
    """
    verdict = _judge(id, answer)
    _verdicts[id] = verdict
    if verdict.solved:
        with suppress(Exception):  # the verdict matters more than its record, which may not be writable
            _remember(id)
    return verdict


def _judge(id: str, answer: object) -> Verdict:
    number = id.partition(".")[0]
    try:
        exercises = of_notebook(number)
        if id not in exercises:
            available = ", ".join(exercises) or "none"
            return Verdict(id, "wrong", f"There is no exercise {id}. Notebook {number} has {available}.")
        if _is_unanswered(answer):
            return Verdict(id, "unsolved")
        expected = exercises[id].expects
        if not isinstance(answer, expected):
            types = expected if isinstance(expected, tuple) else (expected,)
            return Verdict(id, "wrong", f"The answer must be {_kind(types)}, but it is of type {_type_name(answer)}.")
        return Verdict(id, "solved", exercises[id].check(answer, lessons.current()).text)
    except Wrong as wrong:
        return Verdict(id, "wrong", str(wrong))
    except Exception as error:  # noqa: BLE001 - an answer may be anything
        return Verdict(id, "wrong", f"{_where(answer, error)} {type(error).__name__}: {_summary(error)}")


def _where(answer: object, error: Exception) -> str:
    """Whether the learner's own function raised the error, or the check, for example because of what it returned."""
    if not callable(answer):
        return "The check could not read your answer:"
    code = getattr(answer, "__code__", None)
    if any(frame.f_code is code for frame, _ in traceback.walk_tb(error.__traceback__)):
        return "Your function raised"
    return "The check could not use your function:"


def _is_unanswered(answer: object) -> bool:
    if isinstance(answer, dict):
        answer = list(answer.values())
    if isinstance(answer, list | tuple):
        return any(part is ... for part in answer)
    return answer is ... or answer is None


def _kind(types: tuple[type, ...]) -> str:
    if issubclass(FunctionType, types):
        return "a function"
    if len(types) > 1 and all(issubclass(each, Number) for each in types):
        return "a whole number" if all(issubclass(each, Integral) for each in types) else "a number"
    return f"of type {' or '.join(each.__name__ for each in types)}"


def _type_name(answer: object) -> str:
    return type(answer).__name__


def _summary(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[0][:200]


# -- what is solved


class Summary:
    """The exercises of one notebook, each with the last verdict of `check` in this kernel."""

    def __init__(self, number: str) -> None:
        self._rows = [(exercise, _verdicts.get(exercise.id)) for exercise in of_notebook(number).values()]

    def _lines(self) -> list[tuple[str, str, str]]:
        return [
            (_MARKS[verdict.state if verdict else "unsolved"], exercise.id, exercise.title)
            for exercise, verdict in self._rows
        ]

    def _total(self) -> str:
        solved = sum(1 for _, verdict in self._rows if verdict and verdict.solved)
        return f"{solved} of {len(self._rows)} exercises solved."

    def __repr__(self) -> str:
        return "\n".join([*(f"{mark} {id} {title}" for mark, id, title in self._lines()), self._total()])

    def _repr_markdown_(self) -> str:
        rows = [f"| {mark} | {id} | {title} |" for mark, id, title in self._lines()]
        return "\n".join(["| | exercise | |", "|---|---|---|", *rows, "", self._total()])


def summary(number: str) -> Summary:
    """Return which exercises of notebook `number` were solved in this kernel; the last cell of every notebook.

    It does not show what was solved earlier, so an unchanged notebook has the same output for everyone. `make progress`
    shows everything that was ever solved.
    """
    return Summary(number)


def progress() -> dict[str, str]:
    """Return the exercises ever solved in this checkout: id -> date (YYYY-MM-DD) of the first time."""
    try:
        solved: dict[str, str] = json.loads(_progress_path().read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return solved


def _progress_path() -> Path:
    return settings.load().state_dir / "progress.json"


def _remember(id: str) -> None:
    path = _progress_path()
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock", timeout=5):
        solved = progress()
        if id in solved:
            return
        solved[id] = datetime.now().astimezone().date().isoformat()
        new_path = path.with_name(f"{path.name}.new")
        new_path.write_text(json.dumps(dict(sorted(solved.items())), indent=1) + "\n", encoding="utf-8")
        new_path.replace(path)
