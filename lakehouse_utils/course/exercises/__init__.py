"""`check("02.1", answer)` says whether an exercise is solved, and `summary("02")` which of a notebook's are.

The exercises of notebook 02 are in `exercises/nb02.py`, found by that name; each is a function that looks at an answer:

    @exercise("02.1", "Load the brands", hint="write_deltalake takes a DataFrame.", expects=DeltaTable)
    def brands(answer, lake):
        if answer.version() != 0:
            return Wrong(f"The table is at version {answer.version()}: write it in one commit.")
        return Right("Nine brands, in one commit.")

`lake` is the lake that `course.start` gave to this kernel. A check looks, and never does the learner's work for them.
`Wrong` may be returned or raised. What an answer doesn't have (a column, a method) needs no care: the learner is told.
"""

import json
import os
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from importlib import import_module
from pathlib import Path

from filelock import FileLock

from lakehouse_utils import settings
from lakehouse_utils.course import lessons


class Wrong(Exception):
    """Not right yet: a hint that fits the mistake, in a full sentence."""


@dataclass(frozen=True)
class Right:
    """Solved: what was right about it, in a full sentence."""

    text: str


@dataclass(frozen=True)
class Exercise:
    """One exercise: `look(answer, lake)` returns Right, or returns or raises Wrong."""

    id: str
    title: str
    hint: str
    expects: type | tuple[type, ...]
    look: Callable


@dataclass(frozen=True)
class Verdict:
    """What `check` says; a notebook shows it."""

    id: str
    state: str  # "solved", "open" or "wrong"
    text: str

    _SAID = {"solved": ("✔", "solved."), "open": ("○", "not solved yet."), "wrong": ("✘", "not yet right.")}

    @property
    def solved(self) -> bool:
        return self.state == "solved"

    def __repr__(self) -> str:
        mark, words = self._SAID[self.state]
        return f"{mark} {self.id} {words} {self.text}"

    def _repr_markdown_(self) -> str:
        mark, words = self._SAID[self.state]
        return f"{mark} **{self.id} {words}** {self.text}"


_registry: dict[str, Exercise] = {}
_verdicts: dict[str, Verdict] = {}  # of this kernel


def exercise(id: str, title: str, *, hint: str, expects: type | tuple[type, ...] = object) -> Callable:
    """Register a function `(answer, lake) -> Right | Wrong` as the check of exercise `id`, such as "02.1".

    `title` stands in the notebook's heading as well. `hint` is shown while there is no answer. An answer that is no
    `expects` is wrong without a look at it.
    """

    def register(look: Callable) -> Callable:
        _registry[id] = Exercise(id, title, hint, expects, look)
        return look

    return register


def of_notebook(number: str) -> dict[str, Exercise]:
    """The exercises of notebook `number`, such as "02", by id; empty when it has none."""
    if not re.fullmatch(r"\d\d", number):
        return {}
    module = f"{__name__}.nb{number}"
    try:
        import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
    return {id: found for id, found in sorted(_registry.items()) if id.startswith(f"{number}.")}


def check(id: str, answer: object) -> Verdict:
    """Whether `answer` solves exercise `id`, and if not, a hint that fits. Never raises.

    `...`, also as a part of a list or dict, and None mean that there is no answer yet.
    """
    verdict = _judge(id, answer)
    _verdicts[id] = verdict
    if verdict.solved:
        with suppress(Exception):  # a folder that can't be written is no reason to spoil it
            _remember(id)
    return verdict


def _judge(id: str, answer: object) -> Verdict:
    number = id.partition(".")[0]
    try:
        there = of_notebook(number)
        if id not in there:
            return Verdict(
                id, "wrong", f"There is no such exercise; notebook {number} has {', '.join(there) or 'none'}."
            )
        task = there[id]
        if _is_open(answer):
            return Verdict(id, "open", task.hint)
        if not isinstance(answer, task.expects):
            kinds = task.expects if isinstance(task.expects, tuple) else (task.expects,)
            wanted = " or ".join(kind.__name__ for kind in kinds)
            return Verdict(id, "wrong", f"The answer should be of the type {wanted}; it is of {type(answer).__name__}.")
        said = task.look(answer, lessons.current())
    except Wrong as wrong:
        said = wrong
    except Exception as error:
        said = Wrong(f"Your answer could not be looked at: {type(error).__name__}: {_first_line(error)}")
    if isinstance(said, Right):
        return Verdict(id, "solved", said.text)
    return Verdict(id, "wrong", str(said))


def _is_open(answer: object) -> bool:
    if isinstance(answer, dict):
        answer = list(answer.values())
    if isinstance(answer, list | tuple):
        return any(part is ... for part in answer)
    return answer is ... or answer is None


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[0][:200]


# -- what is solved


class Summary:
    """The exercises of one notebook, and what `check` last said of each in this kernel."""

    def __init__(self, number: str) -> None:
        self.rows = [(task, _verdicts.get(task.id)) for task in of_notebook(number).values()]

    def _lines(self) -> list[tuple[str, str, str]]:
        marks = {"solved": "✔", "wrong": "✘"}
        return [(marks.get(said.state, "○") if said else "○", task.id, task.title) for task, said in self.rows]

    def _total(self) -> str:
        solved = sum(1 for _, said in self.rows if said and said.solved)
        return f"{solved} of {len(self.rows)} exercises solved."

    def __repr__(self) -> str:
        return "\n".join([*(f"{mark} {id} {title}" for mark, id, title in self._lines()), self._total()])

    def _repr_markdown_(self) -> str:
        rows = [f"| {mark} | {id} | {title} |" for mark, id, title in self._lines()]
        return "\n".join(["| | exercise | |", "|---|---|---|", *rows, "", self._total()])


def summary(number: str) -> Summary:
    """Which exercises of notebook `number` are solved, as far as this kernel has seen; the last cell of a notebook.

    So it is the same for everybody who runs the notebook as it came. What was solved on other days: `make progress`.
    """
    return Summary(number)


def progress() -> dict[str, str]:
    """The exercises ever solved in this checkout, with the day on which each was solved first."""
    try:
        return json.loads(_progress_file().read_text("utf-8"))
    except (OSError, ValueError):
        return {}


def _progress_file() -> Path:
    return settings.load().state_dir / "progress.json"


def _remember(id: str) -> None:
    file = _progress_file()
    file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{file}.lock", timeout=5):
        solved = progress()
        if id in solved:
            return
        solved[id] = date.today().isoformat()
        written = file.with_name(f"{file.name}.new")
        written.write_text(json.dumps(dict(sorted(solved.items())), indent=1) + "\n", encoding="utf-8")
        os.replace(written, file)
