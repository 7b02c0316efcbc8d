"""Wrong answers that a learner may well give. `nb02.py` holds those of notebook 02:

    WRONG_ANSWERS = [
        ("02.1", "answer = 7", "Nine brands came"),
    ]

Each is (exercise, code in place of the stub, text that the verdict must contain). The code runs in the notebook's
kernel after all solutions did; a last line `check("02.1", answer)` is added where it has none. At least two an
exercise.
"""

import runpy
from pathlib import Path


def of_notebook(number: str) -> list[tuple[str, str, str]]:
    """The wrong answers of notebook `number`; none where there is no such file."""
    file = Path(__file__).with_name(f"nb{number}.py")
    return runpy.run_path(str(file))["WRONG_ANSWERS"] if file.is_file() else []
