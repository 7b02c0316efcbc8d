"""Wrong answers that a learner may give. `nb02.py` holds those of notebook 02:

    WRONG_ANSWERS = [
        ("02.1", "answer = 7", "Nine brands were delivered"),
    ]

Each entry is (exercise, code that replaces the stub, text that the verdict must contain). The code runs in the
notebook's kernel, where the stub's cell is. `check("02.1", answer)` is appended if the code does not end with it. Each
exercise has at least two.
"""

import runpy
from pathlib import Path

WrongAnswer = tuple[str, str, str]


def of_notebook(number: str) -> list[WrongAnswer]:
    """Return the wrong answers of notebook `number`; an empty list if it has no file."""
    path = Path(__file__).with_name(f"nb{number}.py")
    return read_wrong_answers(path) if path.is_file() else []


def read_wrong_answers(path: Path) -> list[WrongAnswer]:
    """Return the list WRONG_ANSWERS of a Python file."""
    wrong_answers: list[WrongAnswer] = runpy.run_path(str(path))["WRONG_ANSWERS"]
    return wrong_answers
