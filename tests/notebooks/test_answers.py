"""Stubs are "not solved yet", solutions are right, and wrong answers get the hint that fits: a kernel a notebook."""

from pathlib import Path

import pytest

from notebooks.books import PATHS, Book, errors, kernel, said
from notebooks.wrong_answers import of_notebook as wrong_answers_of


def with_check(id: str, code: str) -> str:
    ending = f'check("{id}", answer)'
    return code if code.rstrip().endswith(ending) else f"{code}\n{ending}"


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_checks_tell_right_from_wrong(path: Path, kernels: None) -> None:
    book = Book(path)
    tasks = {task.stub: task for task in book.tasks()}
    wrong: dict[str, list[tuple[str, str]]] = {}
    for id, code, hint in wrong_answers_of(book.number):
        wrong.setdefault(id, []).append((code, hint))
    assert tasks and wrong
    off = []
    with kernel() as running:

        def hold(code: str, *expected: str) -> None:
            outputs = running.run(code)
            text = said(outputs)
            if errors(outputs) or not all(part in text for part in expected):
                off.append(f"{code}\n  says: {text} {' '.join(errors(outputs))}\n  wanted: {' ... '.join(expected)}")

        for place, cell in enumerate(book.cells):
            if cell.cell_type == "markdown":
                continue
            if task := tasks.get(place):
                hold(cell.source, f"○ {task.id} not solved yet.")
                for code, hint in wrong.pop(task.id):
                    hold(with_check(task.id, code), f"✘ {task.id} not yet right.", hint)
                hold(task.solution, f"✔ {task.id} solved.")  # after all that went wrong
            elif cell.source.startswith("summary("):
                hold(cell.source, f"{len(tasks)} of {len(tasks)} exercises solved.")
            else:
                assert not errors(running.run(cell.source)), f"{cell.source}"
    assert not wrong, "exercises that the notebook lacks"
    assert not off, "\n\n".join(off)
