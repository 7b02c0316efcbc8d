"""README.md and the pages in docs/, in English and Portuguese, say what is true: commands, options, links, outputs."""

import importlib.util
import json
import os
import posixpath
import re
import shlex
import shutil
import subprocess
from fnmatch import fnmatch
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from support.markdown import tables

import ingestion_processor
from lakehouse_utils.embedded_s3 import __main__ as command_line
from lakehouse_utils.sample_data.__main__ import main as sample_data_command
from lakehouse_utils.settings import CHECKOUT, VARIABLES

MAKEFILE = (CHECKOUT / "Makefile").read_text(encoding="utf-8")
DOCS = CHECKOUT / "docs"
CONTRIBUTING = "CONTRIBUTING.md"  # has no translation


def read_pages(*paths: Path) -> dict[str, str]:
    """The text of each page, by its path in the repository."""
    return {path.relative_to(CHECKOUT).as_posix(): path.read_text(encoding="utf-8") for path in paths if path.exists()}


ENGLISH = read_pages(CHECKOUT / "README.md", CHECKOUT / CONTRIBUTING, *sorted(DOCS.glob("*.md")))
PORTUGUESE = read_pages(CHECKOUT / "README.pt-BR.md", *sorted((DOCS / "pt-BR").glob("*.md")))
PAGES = ENGLISH | PORTUGUESE
README = ENGLISH["README.md"]
TEXT = "\n\n".join(ENGLISH.values())
TRANSLATED = {
    name: "README.pt-BR.md" if name == "README.md" else name.replace("docs/", "docs/pt-BR/")
    for name in ENGLISH
    if name != CONTRIBUTING
}

BLOCK = re.compile(r"(?:<!-- ([\w ]+) -->\n\n)?```(\w*)\n(.*?)```", re.DOTALL)
CODE = [code for _, _, code in BLOCK.findall(TEXT)]
SPANS = re.findall(r"(?<!for example )`([^`\n]+)`", BLOCK.sub("", TEXT))
COMMANDS = [line for language in ("bash", "powershell") for _, kind, code in BLOCK.findall(TEXT)
            if kind == language for line in code.splitlines()] + SPANS  # fmt: skip


def block(mark: str) -> str:
    """The code block below the comment `<!-- mark -->` in one of the English pages."""
    blocks = [code for name, _, code in BLOCK.findall(TEXT) if name == mark]
    assert len(blocks) == 1, f"{len(blocks)} blocks are marked <!-- {mark} -->; wanted is one"
    return blocks[0]


def table(title: str) -> dict[str, str]:
    """A table in the English pages by its header's first cell: the first cell of each row, and the second."""
    rows = next(each.rows for each in tables(TEXT) if each.head[0] == title)
    return {row[0].strip("`"): row[1] for row in rows}


def links(page: str) -> list[str]:
    return re.findall(r"\]\(([^)]+)\)", BLOCK.sub("", page))


def anchors(page: str) -> list[str]:
    """What GitHub calls each heading in a link."""
    headings = re.findall(r"^#+ (.*)", BLOCK.sub("", page), re.MULTILINE)
    return [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]


def mapped() -> list[str]:
    """The paths on the map of the repository."""
    paths, folders = [], []
    for line in block("map").splitlines():
        indent, name = re.match(r"( *)(\S+) +\S", line).groups()
        folders[len(indent) // 2 :] = [name]
        paths.append("".join(folders))
    return paths


def files() -> list[str]:
    """The files of the repository: those that git tracks, or, where this isn't a clone, those that aren't ignored."""
    git = shutil.which("git")
    if git and (CHECKOUT / ".git").exists():
        done = subprocess.run([git, "-C", str(CHECKOUT), "ls-files", "-z"], capture_output=True, text=True)
        if done.returncode == 0:
            return [name for name in done.stdout.split("\0") if name and (CHECKOUT / name).exists()]
    ignored = [line.rstrip("/") for line in (CHECKOUT / ".gitignore").read_text().split()]
    found = []
    for folder, folders, names in os.walk(CHECKOUT):
        if "pyvenv.cfg" in names:
            folders.clear()
            continue
        folders[:] = [name for name in folders if name != ".git" and not any(fnmatch(name, i) for i in ignored)]
        names = [name for name in names if name != ".git" and not any(fnmatch(name, i) for i in ignored)]
        found += [Path(folder, name).relative_to(CHECKOUT).as_posix() for name in names]
    return found


FILES = files()


# -- what the pages name exists


def test_make_targets_are_those_of_the_makefile():
    """Every target is explained, every target that is named exists, and so does every variable."""
    targets = set(re.findall(r"^([a-z-]+):.*## ", MAKEFILE, re.MULTILINE))
    assert {command.removeprefix("make ") for command in table("command")} == targets
    named = {word for text in [*CODE, *SPANS] for word in re.findall(r"\bmake ([a-z-]+)\b", text)}
    assert named <= targets
    variables = {word for text in [*CODE, *SPANS] for word in re.findall(r"\bmake [a-z-]+ ([A-Z]+)=", text)}
    assert variables == {"ARGS", "ENGINE", "OPTS", "PYTHON", "UV"} and all(
        f"{name} ?=" in MAKEFILE for name in variables
    )


def test_modules_that_a_command_runs_exist():
    """Each `python -m` module, each command of the embedded server and each option of the sample data exists."""
    modules = {name for line in COMMANDS for name in re.findall(r"python[\d.]* -m ([\w.]+)", line)}
    assert {"venv", "pip", "jupyterlab", "lakehouse_utils.embedded_s3", "lakehouse_utils.sample_data"} <= modules
    assert [name for name in modules - {"pip"} if importlib.util.find_spec(name) is None] == []  # uv leaves out pip
    commands = {name for line in COMMANDS for name in re.findall(r"lakehouse_utils\.embedded_s3 (\w+)", line)}
    assert commands and commands <= command_line.main.commands.keys()
    options = {name for line in COMMANDS for name in re.findall(r"(--\w+)", line.partition(".sample_data")[2])}
    assert options and options <= {name for option in sample_data_command.params for name in option.opts}


def test_options_and_exit_codes_of_the_job_are_explained():
    """The tables hold every option and exit code of the job; no page names an option that it lacks."""
    options = {
        name for option in ingestion_processor.main.params if isinstance(option, click.Option) for name in option.opts
    } | {"--help"}
    assert table("option").keys() == options
    named = [line.partition("ingestion_processor.py")[2] for line in COMMANDS] + list(table("option").values())
    named += re.findall(r'make run (?:ENGINE=spark )?ARGS="([^"]*)"', TEXT)
    assert {name for line in named for name in re.findall(r"--[a-z][\w-]*", line)} <= options
    assert table("exit code").keys() == {
        "0",
        *(str(value) for name, value in vars(ingestion_processor).items() if name.startswith("EXIT_")),
    }


def test_settings_are_explained():
    """Every setting of the lakehouse is named, and the table holds settings that exist."""
    settings = {name for variable in VARIABLES.values() for name in variable.names}
    assert set(re.findall(r"LAKEHOUSE_[A-Z_]+", TEXT)) == {name for name in settings if name.startswith("LAKE")}
    assert table("setting").keys() - {"AWS_PROFILE"} <= settings
    assert {"AWS_PROFILE", "AWS_REGION", "AWS_ENDPOINT_URL", "LAKEHOUSE_URI"} <= table("setting").keys()


def test_paths_exist():
    """Every path of the repository that a command or a code span names exists."""
    tops = "|".join({re.escape(name.split("/")[0]) for name in FILES})
    words = {word for line in COMMANDS for word in re.findall(r"[^\s\"'=()]+", line)}
    paths = {word for word in words if re.match(rf"({tops})(/|$)", word)}
    assert {"requirements.txt", "data/README.md", "lakehouse_utils/pipeline/sql/"} <= paths
    assert [path for path in paths if "<" not in path and not (CHECKOUT / path).exists()] == []


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_to_a_file_or_a_heading(name):
    """Each link of a page leads to a file of the repository, and to a heading in it where it names one."""
    local = [link for link in links(PAGES[name]) if not link.startswith("https://")]
    for link in local:
        path, _, anchor = link.partition("#")
        target = posixpath.normpath(posixpath.join(posixpath.dirname(name), path)) if path else name
        assert (CHECKOUT / target).exists() and not target.startswith(".."), f"{link} leads nowhere"
        assert not anchor or anchor in anchors(PAGES[target]), f"{link} names no heading"


def test_every_page_is_linked_from_the_readme():
    """README.md links each page of docs/."""
    linked = {link.partition("#")[0] for link in links(README)}
    assert ENGLISH.keys() - {"README.md"} <= linked


def test_the_course_links_the_notebooks_that_exist():
    """The table of the course names twelve notebooks and links those that exist."""
    existing = {Path(name).stem for name in FILES if re.fullmatch(r"notebooks/\d\d_\w+\.ipynb", name)}
    linked, named = set(), set()
    for row in table("notebook"):
        name = re.search(r"\d\d_\w+", row)[0]
        named.add(name)
        if "](" in row:
            assert f"[`{name}`](notebooks/{name}.ipynb)" in README
            linked.add(name)
    assert linked == existing, "the course table must link the notebooks that exist (a new one counts after git add)"
    assert linked <= named
    assert [name[:2] for name in sorted(named)] == [f"{number:02}" for number in range(12)]
    assert ("Notebooks without a link are not written yet." in README) == (linked != named)


def test_the_map_shows_the_repository():
    """The map names every folder at the top and every part of the package, and nothing that is missing."""
    shown = set(mapped())
    assert [path for path in shown if not (CHECKOUT / path).exists()] == []
    tops = {name.split("/")[0] + "/" for name in FILES if "/" in name and not name.startswith(".")}
    modules = {name for name in FILES if re.fullmatch(r"lakehouse_utils/(?!__)\w+\.py", name)}
    packages = {found[0] for name in FILES if (found := re.match(r"lakehouse_utils/\w+/", name))}
    assert (tops | modules | packages | {"ingestion_processor.py"}) - shown == set(), "missing on the map"


def test_the_policy_is_the_least_that_is_needed():
    """The policy allows listing below the prefix, and reading, writing and deleting objects below it."""
    lists, objects = json.loads(next(code for _, kind, code in BLOCK.findall(TEXT) if kind == "json"))["Statement"]
    assert lists["Action"] == "s3:ListBucket" and objects["Resource"] == lists["Resource"] + "/lakehouse/*"
    assert lists["Condition"] == {"StringLike": {"s3:prefix": "lakehouse/*"}}
    names = {"GetObject", "PutObject", "DeleteObject", "AbortMultipartUpload"}
    assert set(objects["Action"]) == {f"s3:{name}" for name in names}


def test_run_query_and_own_data_are_as_shown(s3_server, prefix, tmp_path, monkeypatch, capfd):
    """The job prints what README.md shows, the query runs, and so does the description of own data."""
    settings = {
        "AWS_ENDPOINT_URL": s3_server.endpoint,
        "AWS_ACCESS_KEY_ID": s3_server.access_key,
        "AWS_SECRET_ACCESS_KEY": s3_server.secret_key,
        "LAKEHOUSE_URI": prefix,
        "FORCE_COLOR": "1",  # as in a terminal
        "COLUMNS": "120",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> list[str]:
        done = CliRunner().invoke(ingestion_processor.main, arguments)
        assert done.exit_code == 0, done.output
        return re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", done.output).replace(prefix, "s3://lakehouse").splitlines()

    output = run()
    shown = block("excerpt of a run").splitlines()
    printed = "\n".join(line for line in output if line.startswith("✓"))
    assert [line for line in output if line in shown] == shown, f"README's excerpt is not what a run prints:\n{printed}"

    exec(block("a query"), {})
    assert "2026-01-01" in capfd.readouterr().out

    landing = tmp_path / "shop" / "2026-03-01"
    landing.mkdir(parents=True)
    (landing / "visits.csv").write_text("visit_id,page,seconds\n1,home,2.5\n2,,3\n")
    (tmp_path / "shop" / "sources.toml").write_text(block("sources of your own"))
    command = next(line for line in COMMANDS if "--landing shop" in line).replace("s3://lakehouse", prefix)
    output = run(*shlex.split(command.partition(".py")[2]))
    assert any(line.startswith("✓ silver.visits ") and "2 read, 1 added, 1 quarantined" in line for line in output)


# -- the Portuguese pages say the same


def in_english(name: str, link: str) -> str:
    """A link of a page as its English page would have it: from the top of the repository, anchors by their place."""
    path, _, anchor = link.partition("#")
    if link.startswith("https://"):
        return link
    target = posixpath.normpath(posixpath.join(posixpath.dirname(name), path)) if path else name
    place = str(anchors(PAGES[target]).index(anchor)) if anchor in anchors(PAGES.get(target, "")) else anchor
    originals = {translated: original for original, translated in TRANSLATED.items()}
    return f"{originals.get(target, target)}#{place}"


def structure(name: str) -> dict[str, list]:
    """What a translation leaves as it is, without the link to the other language."""
    page = re.sub(r"\A(# .*\n\n)\[\w+\]\([^)]+\)\n\n", r"\1", PAGES[name])
    blocks, prose = BLOCK.findall(page), BLOCK.sub("", page)
    rows = [row for each in tables(prose) for row in (each.head, *each.rows)]
    return {
        "levels of headings": re.findall(r"^#+ ", prose, re.MULTILINE),
        "code": [found for found in blocks if found[1] != "mermaid"],
        "picture": [re.sub(r'"[^"]*"', "", code) for _, kind, code in blocks if kind == "mermaid"],
        "tables": [(len(row), re.findall(r"`[^`]+`|\d+", row[0])) for row in rows],
        "paragraphs and lists": [len(re.findall("^- ", part, re.MULTILINE)) for part in prose.split("\n\n")],
        "links": [in_english(name, link) for link in links(page)],
        "names and numbers": [set(re.findall(r"`[^`\n]+`|\b\d+", part)) for part in re.split(r"\n#+ ", prose)],
    }


@pytest.mark.parametrize("part", structure("README.md"))
@pytest.mark.parametrize("name", TRANSLATED)
def test_the_portuguese_page_is_built_as_the_english_one(name, part):
    """A Portuguese page has the headings, code, tables, paragraphs, links, names and numbers of the English one."""
    assert structure(TRANSLATED[name])[part] == structure(name)[part]


def test_every_page_is_translated():
    """Each English page but CONTRIBUTING.md has a Portuguese one, and no Portuguese page has lost its English one."""
    assert set(TRANSLATED.values()) == PORTUGUESE.keys()


def test_each_portuguese_page_leads_to_the_english_one():
    """README.md links its translation; every translation links its English page."""
    assert README.splitlines()[2] == "[Português](README.pt-BR.md)"
    assert PORTUGUESE["README.pt-BR.md"].splitlines()[2] == "[English](README.md)"
    for name in PORTUGUESE.keys() - {"README.pt-BR.md"}:
        assert PORTUGUESE[name].splitlines()[2] == f"[English](../{Path(name).name})"
