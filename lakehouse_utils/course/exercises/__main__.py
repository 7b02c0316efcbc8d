"""`make progress`: which exercises of the course are solved."""

import pkgutil

from rich.console import Console
from rich.table import Table

from lakehouse_utils import settings
from lakehouse_utils.course import exercises


def main() -> None:
    """Print a table with one row per notebook: its exercises, and a mark for those ever solved in this checkout."""
    solved = exercises.progress()
    numbers = sorted(module.name[2:] for module in pkgutil.iter_modules(exercises.__path__) if module.name[:2] == "nb")
    table = Table("notebook", "solved", "exercises", title="Your progress in the course")
    total = 0
    for number in numbers:
        ids = list(exercises.of_notebook(number))
        total += len(ids)
        solved_here = [id for id in ids if id in solved]
        marks = " ".join(f"{'✔' if id in solved else '○'} {id}" for id in ids)
        name = next((path.stem for path in (settings.CHECKOUT / "notebooks").glob(f"{number}_*.ipynb")), number)
        table.add_row(name, f"{len(solved_here)} of {len(ids)}", marks)
    table.caption = f"{sum(id[:2] in numbers for id in solved)} of {total} exercises solved"
    Console().print(table)


if __name__ == "__main__":
    main()
