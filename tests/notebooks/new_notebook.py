"""Create a notebook with three exercises from the template.

`python tests/notebooks/new_notebook.py 07_schema_and_quality` writes the notebook, the module with its checks, and the
module with the wrong answers. The second cell of the new notebook says what remains to do.
"""

import re
import sys
from pathlib import Path

from lakehouse_utils import settings

TEMPLATE_FOLDER = Path(__file__).with_name("template")
_TEMPLATE_NAME, _TEMPLATE_NUMBER = "99_template", "99"  # the template's files contain this number nowhere else


def create(name: str, checkout: Path = settings.CHECKOUT) -> list[Path]:
    """Create the files of notebook `name`, such as "07_schema_and_quality", and return their paths.

    Raises ValueError if the name is invalid, and FileExistsError if one of the files exists; then nothing is written.
    """
    if not re.fullmatch(r"\d\d_[a-z0-9_]+", name):
        raise ValueError(
            f"{name!r} is not a valid name. Use two digits, an underscore and a name: 07_schema_and_quality"
        )
    number = name[:2]
    targets = {
        checkout / "notebooks" / f"{name}.ipynb": "notebook.ipynb",
        checkout / "lakehouse_utils" / "course" / "exercises" / f"nb{number}.py": "exercises.py",
        checkout / "tests" / "notebooks" / "wrong_answers" / f"nb{number}.py": "wrong_answers.py",
    }
    if existing := [path.relative_to(checkout) for path in targets if path.exists()]:
        raise FileExistsError(f"{', '.join(map(str, existing))} already exists. Choose another number.")
    for path, template in targets.items():
        text = (TEMPLATE_FOLDER / template).read_text("utf-8")
        path.write_text(text.replace(_TEMPLATE_NAME, name).replace(_TEMPLATE_NUMBER, number), "utf-8")
    return list(targets)


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit("usage: python tests/notebooks/new_notebook.py NN_name")
    try:
        paths = create(sys.argv[1])
    except (ValueError, FileExistsError) as error:
        sys.exit(str(error))
    print("Created:", *(f"  {path.relative_to(settings.CHECKOUT)}" for path in paths), sep="\n")
    print("Next: read the second cell of the notebook.")


if __name__ == "__main__":
    main()
