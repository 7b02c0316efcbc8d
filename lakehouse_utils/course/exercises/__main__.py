"""`make progress`: which exercises of the course are solved."""

import pkgutil

from rich.console import Console
from rich.table import Table

from lakehouse_utils import settings
from lakehouse_utils.course import exercises


def main() -> None:
    """Print a row a notebook: its exercises, and a mark at those that were ever solved in this checkout."""
    solved = exercises.progress()
    numbers = sorted(module.name[2:] for module in pkgutil.iter_modules(exercises.__path__) if module.name[:2] == "nb")
    table = Table("notebook", "solved", "", title="The course so far")
    total = 0
    for number in numbers:
        there = exercises.of_notebook(number)
        total += len(there)
        done = [id for id in there if id in solved]
        marks = " ".join(("✔" if id in solved else "○") + f" {id}" for id in there)
        name = next((file.stem for file in (settings.CHECKOUT / "notebooks").glob(f"{number}_*.ipynb")), number)
        table.add_row(name, f"{len(done)} of {len(there)}", marks)
    table.caption = f"{sum(id[:2] in numbers for id in solved)} of {total} exercises solved"
    Console().print(table)


if __name__ == "__main__":
    main()
