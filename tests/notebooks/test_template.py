"""A notebook that is created from the template follows all rules, and its exercises work."""

from pathlib import Path

import pytest

from lakehouse_utils.course import exercises
from notebooks import guards, test_exercise_checks
from notebooks.books import Book, run_in_place
from notebooks.new_notebook import create
from notebooks.wrong_answers import read_wrong_answers

FOLDERS = ("notebooks", "lakehouse_utils/course/exercises", "tests/notebooks/wrong_answers")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with the folders of a notebook's files, and nothing else."""
    for folder in FOLDERS:
        (tmp_path / "checkout" / folder).mkdir(parents=True)
    return tmp_path / "checkout"


def test_new_notebook_follows_the_rules(
    checkout: Path, tmp_path: Path, kernel_environment: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The only finding is the missing row in README.md; stubs, wrong answers and solutions get the right verdicts."""
    notebook_path, checks_path, wrong_answers_path = create("98_new", checkout)
    checks = checks_path.read_text("utf-8")
    startup_folder = tmp_path / "ipython" / "profile_default" / "startup"
    startup_folder.mkdir(parents=True)
    (startup_folder / "checks.py").write_text(checks, "utf-8")  # registers the checks in every kernel
    monkeypatch.setattr(exercises, "_registry", dict(exercises._registry))
    exec(compile(checks, checks_path, "exec"), {})
    for module in (guards, test_exercise_checks):
        monkeypatch.setattr(module, "wrong_answers_of", lambda number: read_wrong_answers(wrong_answers_path))

    run_in_place(notebook_path)
    book = Book(notebook_path)

    findings = guards.findings(book)
    assert [finding.partition(":")[0] for finding in findings] == ["is_listed_in_readme"], "\n".join(findings)
    assert test_exercise_checks.wrong_verdicts(book) == []


def test_new_notebook_does_not_overwrite_files(checkout: Path) -> None:
    """If one of the files exists, create raises FileExistsError and writes nothing."""
    existing = checkout / "tests/notebooks/wrong_answers/nb98.py"
    existing.write_text("WRONG_ANSWERS = []\n")
    with pytest.raises(FileExistsError, match=r"nb98\.py already exists"):
        create("98_new", checkout)
    assert [path for path in checkout.rglob("*") if path.is_file()] == [existing]


@pytest.mark.parametrize("name", ["7_new", "new", "07-new", "07_New", "../07_new"])
def test_new_notebook_needs_a_valid_name(name: str, checkout: Path) -> None:
    """A name that the tests would not find raises ValueError."""
    with pytest.raises(ValueError, match="is not a valid name"):
        create(name, checkout)
