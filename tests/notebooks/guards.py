"""What holds for every notebook, without running it. A guard yields a sentence for each thing that is off."""

import ast
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from lakehouse_utils import settings
from lakehouse_utils.course import exercises
from notebooks.books import Book, Task, tags, without_code
from notebooks.wrong_answers import of_notebook as wrong_answers_of

MOST_CELLS, MOST_LINES, LONGEST_LINE = 60, 20, 100
MOST_BYTES, MOST_BYTES_OF_PICTURE = 500_000, 40_000
LEAST_EXERCISES, LEAST_WRONG_ANSWERS = 3, 2
LEAST_COMPARED, LARGEST_IGNORED_SHARE = 6, 0.25  # of the code cells with output

_FIRST = ["What you'll do", "What you'll learn", "What you'll need", "Set-up"]
_LAST = ["Exercises", "In practice", "Summary", "What's next", "Resources"]
_PARAMETERS = {"LAKE": "", "SCALE": 1}
_PICTURE = re.compile(r"!\[([^\]]*)\]\(([^)\s]+)[^)]*\)|<img\b([^>]*)>")
_MACHINE = re.compile(
    r"/(?:home|Users)/(?!sagemaker-user)\w+|/root/|/private/var/|\B/tmp/|[A-Z]:\\\\?\w|site-packages"
    rf"|{re.escape(str(settings.CHECKOUT))}|{re.escape(str(Path.home()))}/|{re.escape(sys.prefix)}"
)
_PORT = re.compile(r"(?:127\.0\.0\.1|localhost):\d{4,}")
_SECRET = re.compile(
    r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b|\bLAKE[0-9A-F]{16}\b|AWS4-HMAC|X-Amz-Signature=|-----BEGIN|\beyJ[\w-]{20,}"
    r"|(?i:secret\w*|password|session_token)['\"]?\s*[:=]\s*['\"][\w/+=-]{16,}"
)

GUARDS: list[Callable[[Book], Iterator[str]]] = []


def guard(function: Callable[[Book], Iterator[str]]) -> Callable[[Book], Iterator[str]]:
    GUARDS.append(function)
    return function


def problems(book: Book) -> list[str]:
    """All that is off with a notebook."""
    return [f"{found.__name__}: {problem}" for found in GUARDS for problem in found(book)]


# -- the skeleton


@guard
def has_its_title(book: Book) -> Iterator[str]:
    titles = [(place, text) for place, level, text in book.headings() if level == 1]
    if len(titles) != 1 or titles[0][0] != 0:
        yield f"one H1, in the first cell, is wanted; there are {len(titles)}"
    elif not re.fullmatch(rf"{book.number} · [A-Z]\w+.*", titles[0][1]):
        yield f"the title is {titles[0][1]!r}; wanted is '{book.number} · Verb ...'"
    first = book.cells[0].source if book.cells else ""
    if not (_PICTURE.search(first) or re.search(r"^\|[ :|-]+\|$", first, re.M)):
        yield "the first cell has no picture and no table"


@guard
def has_its_headings(book: Book) -> Iterator[str]:
    found = [text for _, level, text in book.headings() if level == 2]
    steps = [text for text in found if re.match(r"\d+ · ", text)]
    wanted = [*_FIRST, *steps, *_LAST]
    if found != wanted:
        yield f"the H2 headings are {found}; wanted are {wanted}"
    if [int(step.split(" ")[0]) for step in steps] != list(range(1, len(steps) + 1)) or len(steps) < 2:
        yield f"the steps are not numbered 1, 2, ...: {steps}"


@guard
def says_what_it_takes(book: Book) -> Iterator[str]:
    cells = {text: book.cells[place].source for place, level, text in book.headings() if level == 2}
    learn = cells.get("What you'll learn", "").partition("## What you'll learn")[2]
    bullets = re.findall(r"^[-*] +(\w+)", learn, re.M)
    if not 3 <= len(bullets) <= 5:
        yield f"{len(bullets)} bullets under What you'll learn; wanted are 3 to 5"
    need = cells.get("What you'll need", "")
    if not re.search(r"^\| *concept *\| *why *\| *where *\|$", need, re.M):
        yield "no table | concept | why | where | under What you'll need"
    if not re.search(r"^\*\*Time\*\*: \d+ minutes$", need, re.M):
        yield "no line '**Time**: n minutes' under What you'll need"


@guard
def is_set_up_in_two_cells(book: Book) -> Iterator[str]:
    places = [place for place, cell in enumerate(book.cells) if "parameters" in tags(cell)]
    set_up = [place for place, level, text in book.headings() if (level, text) == (2, "Set-up")]
    if len(places) != 1 or not set_up or places[0] != set_up[0] + 1 or places[0] + 1 >= len(book.cells):
        yield "wanted is one cell tagged parameters, right below Set-up, and a code cell below it"
        return
    cell, following = book.cells[places[0]], book.cells[places[0] + 1]
    try:
        found = {node.targets[0].id: ast.literal_eval(node.value) for node in ast.parse(cell.source).body}
    except (AttributeError, SyntaxError, ValueError):
        found = None
    if found != _PARAMETERS:
        yield f"the parameters are {found}; wanted are {_PARAMETERS}"
    if following.cell_type != "code" or f'lessons.start("{book.number}", LAKE, SCALE' not in following.source:
        yield f'the cell below the parameters has no lessons.start("{book.number}", LAKE, SCALE ...'
    for later in book.cells[places[0] + 2 :]:
        if later.cell_type == "code" and re.search(r"^(import|from) ", later.source, re.M):
            yield f"an import outside of the set-up cell: {later.source.splitlines()[0]!r}"


@guard
def checks_every_step(book: Book) -> Iterator[str]:
    places = [(place, text) for place, level, text in book.headings() if level == 2]
    for (begin, text), (end, _) in zip(places, places[1:], strict=False):
        if re.match(r"\d+ · ", text):
            code = [cell.source for cell in book.cells[begin:end] if cell.cell_type == "code"]
            if not any(re.search(r"^\s*(assert\b|except\b)", source, re.M) for source in code):
                yield f"the step {text!r} checks nothing: no assert, no expected error"


@guard
def is_short(book: Book) -> Iterator[str]:
    if len(book.cells) > MOST_CELLS:
        yield f"{len(book.cells)} cells; at most {MOST_CELLS}"
    blocks = [cell.source for cell in book.code] + [task.solution or "" for task in book.tasks()]
    for source in blocks:
        lines = source.splitlines()
        if len(lines) > MOST_LINES:
            yield f"{len(lines)} lines in the cell that begins {lines[0]!r}; at most {MOST_LINES}"
        yield from (f"a line of {len(line)} characters: {line!r}" for line in lines if len(line) > LONGEST_LINE)
    if len(book.text.encode()) > MOST_BYTES:
        yield f"the file has {len(book.text.encode()):,} bytes; at most {MOST_BYTES:,}"


# -- cells and outputs


@guard
def has_clean_cells(book: Book) -> Iterator[str]:
    for place, cell in enumerate(book.cells):
        if not cell.source.strip():
            yield f"cell {place} is empty"
        if other := cell.metadata.keys() - {"tags"}:
            yield f"cell {place} has the metadata {', '.join(sorted(other))}: `make notebooks` removes it"
        if "attachments" in cell:
            yield f"cell {place} has an attachment: put the picture beside the notebook"
    if other := book.notebook.metadata.keys() - {"kernelspec", "language_info"}:
        yield f"the notebook has the metadata {', '.join(sorted(other))}"
    if book.notebook.metadata.get("kernelspec", {}).get("name") != "python3":
        yield "the kernel is not python3"


@guard
def was_run_from_top_to_bottom(book: Book) -> Iterator[str]:
    counts = [cell.execution_count for cell in book.code]
    if counts != list(range(1, len(counts) + 1)):
        yield f"the execution counts are {counts}: run `make notebooks`"


@guard
def shows_no_trouble(book: Book) -> Iterator[str]:
    for cell in book.code:
        for output in cell.outputs:
            if output.output_type == "error" and "raises-exception" not in tags(cell):
                yield f"an error in the output: {output.ename}: {output.evalue}"
            if output.output_type == "stream" and output.name == "stderr":
                yield f"stderr in the output: {output.text.strip().splitlines()[:1]}"


@guard
def keeps_quiet_about_the_machine(book: Book) -> Iterator[str]:
    for where, text in _texts(book):
        for pattern, what in ((_MACHINE, "a path of a machine"), (_SECRET, "a secret")):
            yield from (f"{what} in {where}: {found[0][:12]!r}..." for found in pattern.finditer(text))
        if where == "an output":
            yield from (f"a port of the server in an output: {found[0]}" for found in _PORT.finditer(text))


def _texts(book: Book) -> Iterator[tuple[str, str]]:
    for cell in book.cells:
        yield "a cell", cell.source
        for output in cell.get("outputs", []):
            yield "an output", "".join(output.get("text", "")) + "\n".join(output.get("traceback", []))
            for kind, value in output.get("data", {}).items():
                if not kind.startswith("image/"):
                    yield "an output", str(value)


@guard
def describes_its_pictures(book: Book) -> Iterator[str]:
    for cell in book.cells:
        if cell.cell_type == "markdown":
            for found in _PICTURE.finditer(without_code(cell.source)):
                has_alt = found[1].strip() if found[3] is None else re.search(r"""\balt=(["']).*?\w.*?\1""", found[3])
                if not has_alt:
                    yield f"a picture without alternative text: {found[0]}"
        for output in cell.get("outputs", []):
            if picture := output.get("data", {}).get("image/png"):
                if not output.metadata.get("image/png", {}).get("alt"):
                    yield "a plot without alternative text: figures.use_style() gives it one, from its titles and labels"
                if len(picture) * 3 // 4 > MOST_BYTES_OF_PICTURE:
                    yield f"a picture of {len(picture) * 3 // 4:,} bytes; at most {MOST_BYTES_OF_PICTURE:,}"


@guard
def compares_most_outputs(book: Book) -> Iterator[str]:
    shown = [cell for cell in book.code if cell.outputs]
    ignored = [cell for cell in shown if "nbval-ignore-output" in tags(cell)]
    if len(shown) - len(ignored) < LEAST_COMPARED:
        yield f"only {len(shown) - len(ignored)} cells whose output is compared; at least {LEAST_COMPARED}"
    if len(ignored) > LARGEST_IGNORED_SHARE * len(shown):
        yield f"{len(ignored)} of {len(shown)} outputs are ignored; at most {LARGEST_IGNORED_SHARE:.0%}"


# -- links


@guard
def links_to_what_is_there(book: Book) -> Iterator[str]:
    for cell in book.cells:
        if cell.cell_type != "markdown":
            continue
        text = re.sub(r"`[^`\n]*`", "", without_code(cell.source))
        targets = [found[1] for found in re.finditer(r"\]\(([^)\s]+)[^)]*\)", text)]
        targets += re.findall(r"""\b(?:src|href)=["']([^"']+)["']""", text)
        for target in targets:
            if not re.match(r"https://|mailto:", target) and (problem := _dangling(book, target)):
                yield problem


def _dangling(book: Book, target: str) -> str | None:
    path, _, anchor = target.partition("#")
    file = (book.path.parent / path) if path else book.path
    if re.match(r"[a-z]+:", target):
        return f"the link {target} is not https"
    if not file.exists():
        return f"the link {target} leads nowhere"
    if anchor and file.suffix == ".ipynb" and anchor not in {_anchor(text) for _, _, text in Book(file).headings()}:
        return f"the link {target} names no heading; JupyterLab's anchors are headings with - for each space"
    if anchor and file.suffix == ".md" and anchor not in _anchors_on_github(file.read_text("utf-8")):
        return f"the link {target} names no heading of that file"
    return None


def _anchor(heading: str) -> str:
    return heading.replace(" ", "-")


def _anchors_on_github(markdown: str) -> set[str]:
    headings = re.findall(r"^#+ +(.*\S)", without_code(markdown), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@guard
def is_on_the_map(book: Book) -> Iterator[str]:
    readme = (settings.CHECKOUT / "README.md").read_text("utf-8")
    if not re.search(rf"^\| \[?`{re.escape(book.path.stem)}`", readme, re.M):
        yield f"README.md's table of the course has no `{book.path.stem}`"


# -- exercises


@guard
def has_exercises(book: Book) -> Iterator[str]:
    tasks = list(book.tasks())
    if [task.id for task in tasks] != [f"{book.number}.{n}" for n in range(1, len(tasks) + 1)]:
        yield f"the exercises are not numbered {book.number}.1, {book.number}.2, ...: {[task.id for task in tasks]}"
    if len(tasks) < LEAST_EXERCISES:
        yield f"{len(tasks)} exercises; at least {LEAST_EXERCISES}"
    for task in tasks:
        yield from (f"exercise {task.id}: {problem}" for problem in _problems_of(book, task))
    last = [cell.source.strip() for cell in book.code][-1:]
    if last != [f'summary("{book.number}")']:
        yield f'the last code cell is {last}; wanted is summary("{book.number}")'
    stubs = sum("exercise" in tags(cell) for cell in book.cells)
    if stubs != len(tasks):
        yield f"{stubs} cells tagged exercise, and {len(tasks)} headings of exercises"


def _problems_of(book: Book, task: Task) -> Iterator[str]:
    cell = book.cells[task.stub] if task.stub < len(book.cells) else None
    if cell is None or cell.cell_type != "code" or "exercise" not in tags(cell):
        yield "no code cell tagged exercise below its heading"
        return
    ending = f'check("{task.id}", answer)'
    if not re.search(r"^answer = \.\.\.", cell.source, re.M) or cell.source.rstrip().splitlines()[-1] != ending:
        yield f"the stub has no line 'answer = ...', or doesn't end with {ending}"
    if not re.search(r"<details>\s*<summary>Hint</summary>.*?\w.*?</details>", task.folded, re.S):
        yield "no folded hint below the stub"
    if not task.solution or task.solution.splitlines()[-1] != ending:
        yield f"no folded solution below the stub, or one that doesn't end with {ending}"
    known = exercises.of_notebook(book.number).get(task.id)
    if not known:
        yield f"no check is registered in exercises/nb{book.number}.py"
    elif known.title != task.title:
        yield f"its title is {task.title!r} here, and {known.title!r} in exercises/nb{book.number}.py"
    wrong = [answer for answer in wrong_answers_of(book.number) if answer[0] == task.id]
    if len(wrong) < LEAST_WRONG_ANSWERS:
        yield f"{len(wrong)} wrong answers in wrong_answers/nb{book.number}.py; at least {LEAST_WRONG_ANSWERS}"
