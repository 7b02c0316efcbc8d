"""The rules for notebooks that can be checked without a kernel. Each guard yields one sentence per finding."""

import ast
import math
import re
import sys
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

from lakehouse_utils import settings
from lakehouse_utils.course import exercises
from notebooks.books import Book, NotebookExercise, tags, without_fenced_code
from notebooks.wrong_answers import of_notebook as wrong_answers_of

MAX_CELLS, MAX_LINES, MAX_LINE_LENGTH = 60, 20, 100
MAX_MINUTES, MINUTES_STEP = 60, 5
MAX_FILE_BYTES, MAX_PICTURE_BYTES = 500_000, 40_000
MIN_EXERCISES, MIN_WRONG_ANSWERS = 3, 5
MIN_COMPARED, MAX_IGNORED_SHARE = 6, 0.25  # of the code cells with output

_FIRST_HEADINGS = ["What you'll do", "What you'll learn", "What you'll need", "Set-up"]
_LAST_HEADINGS = ["Exercises", "In practice", "Summary", "What's next", "Resources"]
_PARAMETERS = {"LAKE": "", "SCALE": 1}
_PICTURE = re.compile(r"!\[([^\]]*)\]\(([^)\s]+)[^)]*\)|<img\b([^>]*)>")
_MACHINE_PATH = re.compile(
    r"/(?:home|Users)/(?!sagemaker-user)\w+|/root/|/private/var/|\B/tmp/|[A-Z]:\\\\?\w|site-packages"
    rf"|{re.escape(str(settings.CHECKOUT))}|{re.escape(str(Path.home()))}/|{re.escape(sys.prefix)}"
)
_PORT = re.compile(r"(?:127\.0\.0\.1|localhost):\d{4,}")
_SECRET = re.compile(
    r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b|\bLAKE[0-9A-F]{16}\b|AWS4-HMAC|X-Amz-Signature=|-----BEGIN|\beyJ[\w-]{20,}"
    r"|(?i:secret\w*|password|session_token)['\"]?\s*[:=]\s*['\"][\w/+=-]{16,}"
)

Guard = Callable[[Book], Iterator[str]]
GUARDS: list[Guard] = []


def guard(function: Guard) -> Guard:
    GUARDS.append(function)
    return function


def findings(book: Book) -> list[str]:
    """Return all findings of all guards, each with the guard's name."""
    return [f"{check.__name__}: {finding}" for check in GUARDS for finding in check(book)]


# -- the skeleton


@guard
def has_title(book: Book) -> Iterator[str]:
    titles = [(index, text) for index, level, text in book.headings() if level == 1]
    if len(titles) != 1 or titles[0][0] != 0:
        yield f"expected exactly one H1, in the first cell, but there are {len(titles)}"
    elif not re.fullmatch(rf"{book.number} · [A-Z]\w+.*", titles[0][1]):
        yield f"the title is {titles[0][1]!r}; expected '{book.number} · Verb ...'"
    first = book.cells[0].source if book.cells else ""
    if not (_PICTURE.search(first) or re.search(r"^\|[ :|-]+\|$", first, re.MULTILINE)):
        yield "the first cell has no picture and no table"


@guard
def has_headings(book: Book) -> Iterator[str]:
    headings = [text for _, level, text in book.headings() if level == 2]
    steps = [text for text in headings if re.match(r"\d+ · ", text)]
    expected = [*_FIRST_HEADINGS, *steps, *_LAST_HEADINGS]
    if headings != expected:
        yield f"the H2 headings are {headings}; expected {expected}"
    if [int(step.split(" ")[0]) for step in steps] != list(range(1, len(steps) + 1)) or len(steps) < 2:
        yield f"the steps must be numbered '## 1 · ', '## 2 · ', ..., and be at least two; they are {steps}"


@guard
def states_goals_and_time(book: Book) -> Iterator[str]:
    sections = {text: book.cells[index].source for index, level, text in book.headings() if level == 2}
    goals = sections.get("What you'll learn", "").partition("## What you'll learn")[2]
    bullets = re.findall(r"^[-*] +(\w+)", goals, re.MULTILINE)
    if not 3 <= len(bullets) <= 5:
        yield f"there are {len(bullets)} bullets under What you'll learn; expected 3 to 5"
    needs = sections.get("What you'll need", "")
    if not re.search(r"^\| *concept *\| *why *\| *where *\|$", needs, re.MULTILINE):
        yield "there is no table '| concept | why | where |' under What you'll need"
    if not re.search(r"^\*\*Time\*\*: \d+ minutes$", needs, re.MULTILINE):
        yield "there is no line '**Time**: n minutes' under What you'll need"


@guard
def has_setup_cells(book: Book) -> Iterator[str]:
    indexes = [index for index, cell in enumerate(book.cells) if "parameters" in tags(cell)]
    headings = [index for index, level, text in book.headings() if (level, text) == (2, "Set-up")]
    if len(indexes) != 1 or not headings or indexes[0] != headings[0] + 1 or indexes[0] + 1 >= len(book.cells):
        yield "expected one cell tagged parameters right below Set-up, and a code cell below it"
        return
    cell, setup = book.cells[indexes[0]], book.cells[indexes[0] + 1]
    try:
        parameters = {node.targets[0].id: ast.literal_eval(node.value) for node in ast.parse(cell.source).body}
    except (AttributeError, SyntaxError, ValueError):
        parameters = None
    if parameters != _PARAMETERS:
        yield f"the parameters are {parameters}; expected {_PARAMETERS}"
    if setup.cell_type != "code" or f'lessons.start("{book.number}", LAKE, SCALE' not in setup.source:
        yield f'the cell below the parameters does not contain lessons.start("{book.number}", LAKE, SCALE ...'
    for later in book.cells[indexes[0] + 2 :]:
        if later.cell_type == "code" and re.search(r"^(import|from) ", later.source, re.MULTILINE):
            yield f"an import is outside the set-up cell, in the cell that begins {later.source.splitlines()[0]!r}"


@guard
def checks_every_step(book: Book) -> Iterator[str]:
    headings = [(index, text) for index, level, text in book.headings() if level == 2]
    for (begin, text), (end, _) in pairwise(headings):
        if re.match(r"\d+ · ", text):
            code = [cell for cell in book.cells[begin:end] if cell.cell_type == "code"]
            asserts = any(re.search(r"^\s*(assert\b|except\b)", cell.source, re.MULTILINE) for cell in code)
            if not asserts and not any(cell.outputs and "nbval-ignore-output" not in tags(cell) for cell in code):
                yield f"the step {text!r} has no compared output, no assert and no expected error"


@guard
def is_short(book: Book) -> Iterator[str]:
    if len(book.cells) > MAX_CELLS:
        yield f"there are {len(book.cells)} cells; at most {MAX_CELLS} are allowed"
    sources = [cell.source for cell in book.code_cells]
    for source in [*sources, *(exercise.solution or "" for exercise in book.exercises())]:
        lines = source.splitlines()
        if len(lines) > MAX_LINES:
            yield f"the code that begins {lines[0]!r} has {len(lines)} lines; at most {MAX_LINES} are allowed"
        for line in lines:
            if len(line) > MAX_LINE_LENGTH:
                yield f"a line has {len(line)} characters; at most {MAX_LINE_LENGTH} are allowed: {line!r}"
    if (size_bytes := len(book.text.encode())) > MAX_FILE_BYTES:
        yield f"the file has {size_bytes:,} bytes; at most {MAX_FILE_BYTES:,} are allowed"


@guard
def takes_an_hour(book: Book) -> Iterator[str]:
    counted = MINUTES_STEP * math.ceil(book.minutes() / MINUTES_STEP)
    if counted > MAX_MINUTES:
        yield f"it takes {book.minutes():.1f} minutes by the count of Book.minutes(); at most {MAX_MINUTES} are allowed"
    for cell in book.cells:
        for stated in re.findall(r"^\*\*Time\*\*: (\d+) minutes$", cell.source, re.MULTILINE):
            if int(stated) != counted:
                yield f"the stated time is {stated} minutes; the counted one, in steps of {MINUTES_STEP}, is {counted}"


# -- cells and outputs


@guard
def has_clean_cells(book: Book) -> Iterator[str]:
    for index, cell in enumerate(book.cells):
        if not cell.source.strip():
            yield f"cell {index} is empty"
        if extra := cell.metadata.keys() - {"tags"}:
            yield f"cell {index} has the metadata {', '.join(sorted(extra))}; `make notebooks` removes it"
        if "attachments" in cell:
            yield f"cell {index} has an attachment; put the picture into notebooks/images"
    if extra := book.notebook.metadata.keys() - {"kernelspec", "language_info"}:
        yield f"the notebook has the metadata {', '.join(sorted(extra))}; `make notebooks` removes it"
    if book.notebook.metadata.get("kernelspec", {}).get("name") != "python3":
        yield "the kernel is not python3; `make notebooks` sets it"


@guard
def was_run_from_top_to_bottom(book: Book) -> Iterator[str]:
    counts = [cell.execution_count for cell in book.code_cells]
    if counts != list(range(1, len(counts) + 1)):
        yield f"the execution counts are {counts}; run `make notebooks ARGS={book.number}`"


@guard
def has_no_errors_in_outputs(book: Book) -> Iterator[str]:
    for cell in book.code_cells:
        for output in cell.outputs:
            if output.output_type == "error" and "raises-exception" not in tags(cell):
                yield f"an output is an error: {output.ename}: {output.evalue}"
            if output.output_type == "stream" and output.name == "stderr":
                yield f"an output has text on stderr: {output.text.strip()}"


@guard
def hides_machine_and_secrets(book: Book) -> Iterator[str]:
    for place, text in _texts(book):
        for match in _MACHINE_PATH.finditer(text):
            yield f"{place} contains a machine path: {match[0]!r}"
        for match in _SECRET.finditer(text):
            yield f"{place} contains a secret that begins {match[0][:12]!r}"  # not in full: it may be a real one
        if place == "an output":
            yield from (f"an output contains the server's port: {match[0]}" for match in _PORT.finditer(text))


def _texts(book: Book) -> Iterator[tuple[str, str]]:
    for cell in book.cells:
        yield "a cell", cell.source
        for output in cell.get("outputs", []):
            yield "an output", "".join(output.get("text", "")) + "\n".join(output.get("traceback", []))
            for kind, value in output.get("data", {}).items():
                if not kind.startswith("image/"):
                    yield "an output", str(value)


@guard
def describes_pictures(book: Book) -> Iterator[str]:
    for cell in book.cells:
        if cell.cell_type == "markdown":
            for match in _PICTURE.finditer(without_fenced_code(cell.source)):
                if match[3] is None:
                    has_text = bool(match[1].strip())
                else:
                    has_text = bool(re.search(r"""\balt=(["']).*?\w.*?\1""", match[3]))
                if not has_text:
                    yield f"a picture has no alternative text: {match[0]}"
        for output in cell.get("outputs", []):
            if picture := output.get("data", {}).get("image/png"):
                if not output.metadata.get("image/png", {}).get("alt"):
                    yield "a plot has no alternative text; figures.use_style() makes it from the titles and labels"
                if (size_bytes := len(picture) * 3 // 4) > MAX_PICTURE_BYTES:
                    yield f"a picture has {size_bytes:,} bytes; at most {MAX_PICTURE_BYTES:,} are allowed"


@guard
def compares_most_outputs(book: Book) -> Iterator[str]:
    cells = [cell for cell in book.code_cells if cell.outputs]
    ignored = [cell for cell in cells if "nbval-ignore-output" in tags(cell)]
    if (compared := len(cells) - len(ignored)) < MIN_COMPARED:
        yield f"only {compared} cells have an output that is compared; at least {MIN_COMPARED} are required"
    if len(ignored) > MAX_IGNORED_SHARE * len(cells):
        yield f"{len(ignored)} of {len(cells)} outputs are ignored; at most {MAX_IGNORED_SHARE:.0%} are allowed"


# -- links


@guard
def has_working_links(book: Book) -> Iterator[str]:
    for cell in book.cells:
        if cell.cell_type != "markdown":
            continue
        text = re.sub(r"`[^`\n]*`", "", without_fenced_code(cell.source))
        targets = [match[1] for match in re.finditer(r"\]\(([^)\s]+)[^)]*\)", text)]
        targets += re.findall(r"""\b(?:src|href)=["']([^"']+)["']""", text)
        for target in targets:
            if not re.match(r"https://|mailto:", target) and (finding := _broken_link(book, target)):
                yield finding


def _broken_link(book: Book, target: str) -> str | None:
    path, _, anchor = target.partition("#")
    file = (book.path.parent / path) if path else book.path
    if re.match(r"[a-z]+:", target):
        return f"the link {target} is not https"
    if not file.exists():
        return f"the link {target} leads to a file that does not exist"
    if anchor and file.suffix == ".ipynb" and anchor not in {_anchor(text) for _, _, text in Book(file).headings()}:
        return f"the link {target} names no heading; JupyterLab's anchor is the heading with - for each space"
    if anchor and file.suffix == ".md" and anchor not in _github_anchors(file.read_text("utf-8")):
        return f"the link {target} names no heading of that file"
    return None


def _anchor(heading: str) -> str:
    return heading.replace(" ", "-")


def _github_anchors(markdown: str) -> set[str]:
    headings = re.findall(r"^#+ +(.*\S)", without_fenced_code(markdown), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@guard
def is_listed_in_readme(book: Book) -> Iterator[str]:
    link = f"| [`{book.path.stem}`](notebooks/{book.path.stem}.ipynb) |"
    pages = ("README.md", "README.pt-BR.md")
    if missing := [page for page in pages if f"\n{link}" not in (settings.CHECKOUT / page).read_text("utf-8")]:
        yield f"the course table in {' and '.join(missing)} has no row that begins {link}"


# -- exercises


@guard
def has_exercises(book: Book) -> Iterator[str]:
    in_notebook = list(book.exercises())
    ids = [exercise.id for exercise in in_notebook]
    if ids != [f"{book.number}.{n}" for n in range(1, len(ids) + 1)]:
        yield f"the exercises must be numbered {book.number}.1, {book.number}.2, ...; they are {ids}"
    if len(ids) < MIN_EXERCISES:
        yield f"there are {len(ids)} exercises; at least {MIN_EXERCISES} are required"
    for exercise in in_notebook:
        yield from (f"exercise {exercise.id}: {finding}" for finding in _exercise_findings(book, exercise))
    last = [cell.source.strip() for cell in book.code_cells][-1:]
    if last != [f'summary("{book.number}")']:
        yield f'the last code cell must be summary("{book.number}"); it is {last}'
    stubs = sum("exercise" in tags(cell) for cell in book.cells)
    if stubs != len(ids):
        yield f"{stubs} cells are tagged exercise, but there are {len(ids)} headings of exercises"


def _exercise_findings(book: Book, exercise: NotebookExercise) -> Iterator[str]:
    cell = book.cells[exercise.stub_index] if exercise.stub_index < len(book.cells) else None
    if cell is None or cell.cell_type != "code" or "exercise" not in tags(cell):
        yield "the cell below its heading is not a code cell tagged exercise"
        return
    ending = f'check("{exercise.id}", answer)'
    if not re.search(r"^answer = \.\.\.", cell.source, re.MULTILINE) or cell.source.rstrip().splitlines()[-1] != ending:
        yield f"the stub must have a line 'answer = ...' and end with {ending}"
    if not re.search(r"<details>\s*<summary>Hint</summary>.*?\w.*?</details>", exercise.folded_text, re.DOTALL):
        yield "there is no folded hint below the stub"
    if not exercise.solution or exercise.solution.splitlines()[-1] != ending:
        yield f"there is no folded solution below the stub, or it does not end with {ending}"
    module = f"lakehouse_utils/course/exercises/nb{book.number}.py"
    registered = exercises.of_notebook(book.number).get(exercise.id)
    if not registered:
        yield f"there is no check in {module}"
    elif registered.title != exercise.title:
        yield f"its title is {exercise.title!r} in the notebook, but {registered.title!r} in {module}"
    wrong = [answer for answer in wrong_answers_of(book.number) if answer[0] == exercise.id]
    if len(wrong) < MIN_WRONG_ANSWERS:
        yield (
            f"there are {len(wrong)} wrong answers in tests/notebooks/wrong_answers/nb{book.number}.py; at least"
            f" {MIN_WRONG_ANSWERS} are required"
        )
