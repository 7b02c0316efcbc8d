"""Stubs are not solved yet, wrong answers get the hint that fits, and folded solutions are accepted."""

from pathlib import Path

import pytest
from support.selected import slow_but

from notebooks.books import PATHS, Book, errors, plain_text, start_kernel
from notebooks.wrong_answers import of_notebook as wrong_answers_of

QUICK_PATHS = [path for path in PATHS if path.name[:2] == "04"]


def with_check(id: str, code: str) -> str:
    """Return `code` with the call of check as its last line."""
    ending = f'check("{id}", answer)'
    return code if code.rstrip().endswith(ending) else f"{code}\n{ending}"


def wrong_verdicts(book: Book) -> list[str]:
    """Run a notebook with all its wrong answers and solutions, and describe each verdict that is not as expected."""
    exercises = {exercise.stub_index: exercise for exercise in book.exercises()}
    wrong_answers: dict[str, list[tuple[str, str]]] = {}
    for id, code, hint in wrong_answers_of(book.number):
        wrong_answers.setdefault(id, []).append((code, hint))
    assert exercises
    assert wrong_answers
    unexpected = []
    with start_kernel() as kernel:

        def expect(code: str, *texts: str, whole_line: bool = False) -> None:
            outputs = kernel.run(code)
            text = plain_text(outputs)
            as_expected = text.splitlines()[-1:] == [*texts] if whole_line else all(part in text for part in texts)
            if errors(outputs) or not as_expected:
                verdict = " ".join([text, *errors(outputs)])
                unexpected.append(f"{code}\n  verdict:  {verdict}\n  expected: {' ... '.join(texts)}")

        for index, cell in enumerate(book.cells):
            if cell.cell_type == "markdown":
                continue
            if exercise := exercises.get(index):
                expect(cell.source, f"○ {exercise.id} not solved yet.", whole_line=True)
                for code, hint in wrong_answers.pop(exercise.id):
                    expect(with_check(exercise.id, code), f"✘ {exercise.id} not correct yet.", hint)
                expect(exercise.solution, f"✔ {exercise.id} solved.")  # no wrong try may block the solution
            elif cell.source.startswith("summary("):
                expect(cell.source, f"{len(exercises)} of {len(exercises)} exercises solved.")
            else:
                assert not errors(kernel.run(cell.source)), cell.source
    assert not wrong_answers, f"wrong answers to exercises that do not exist: {', '.join(wrong_answers)}"
    return unexpected


@pytest.mark.parametrize("path", slow_but(QUICK_PATHS, PATHS), ids=lambda path: path.stem)
def test_check_tells_right_from_wrong(path: Path, kernel_environment: None) -> None:
    """Each stub is unsolved without a hint, each wrong answer gets its hint, and each solution is accepted."""
    if unexpected := wrong_verdicts(Book(path)):
        pytest.fail("\n\n".join(unexpected), pytrace=False)
