"""README.md says what is true: its commands, options, paths, links and outputs; README.pt-BR.md says the same."""

import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
from fnmatch import fnmatch
from pathlib import Path

import pytest
from click.testing import CliRunner

from lakehouse_utils import embedded_s3
from lakehouse_utils.sample_data import sample_data
from lakehouse_utils.settings import CHECKOUT, Settings

README = (CHECKOUT / "README.md").read_text(encoding="utf-8")
PORTUGUESE = (CHECKOUT / "README.pt-BR.md").read_text(encoding="utf-8")
MAKEFILE = (CHECKOUT / "Makefile").read_text(encoding="utf-8")

BLOCK = re.compile(r"(?:<!-- ([\w ]+) -->\n\n)?```(\w*)\n(.*?)```", re.DOTALL)
CODE = [text for _, _, text in BLOCK.findall(README)]
SPANS = re.findall(r"`([^`\n]+)`", BLOCK.sub("", README))
COMMANDS = [line for language in ("bash", "powershell") for _, kind, text in BLOCK.findall(README)
            if kind == language for line in text.splitlines()] + SPANS  # fmt: skip


def block(mark: str, readme: str = README) -> str:
    return next(text for name, _, text in BLOCK.findall(readme) if name == mark)


def table(title: str) -> dict[str, str]:
    """A table of README.md by its header's first cell: the first cell of each row, and the second."""
    lines = README.partition(f"| {title} |")[2].split("\n\n")[0].splitlines()[2:]
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    return {row[0].strip("|` "): row[1].strip() for row in cells}


def links(readme: str) -> list[str]:
    return re.findall(r"\]\(([^)]+)\)", BLOCK.sub("", readme))


def anchors(readme: str) -> list[str]:
    """What GitHub calls each heading in a link."""
    headings = re.findall(r"^#+ (.*)", BLOCK.sub("", readme), re.MULTILINE)
    return [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]


def mapped(readme: str) -> list[str]:
    """The paths on the map of the repository."""
    paths, folders = [], []
    for line in block("map", readme).splitlines():
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


# README.md: what it names is there


def test_every_target_is_explained_and_every_explained_one_exists():
    targets = set(re.findall(r"^([a-z-]+):.*## ", MAKEFILE, re.MULTILINE))
    assert {command.removeprefix("make ") for command in table("command")} == targets
    said = {word for text in [*CODE, *SPANS] for word in re.findall(r"\bmake ([a-z-]+)\b", text)}
    assert said <= targets
    variables = {word for text in [*CODE, *SPANS] for word in re.findall(r"\bmake [a-z-]+ ([A-Z]+)=", text)}
    assert variables == {"ARGS", "ENGINE", "OPTS", "PYTHON", "UV"} and all(
        f"{name} ?=" in MAKEFILE for name in variables
    )


def test_every_module_that_a_command_runs_exists():
    modules = {name for line in COMMANDS for name in re.findall(r"python[\d.]* -m ([\w.]+)", line)}
    assert {"venv", "pip", "jupyterlab", "lakehouse_utils.embedded_s3", "lakehouse_utils.sample_data"} <= modules
    assert [name for name in modules - {"pip"} if importlib.util.find_spec(name) is None] == []  # uv leaves out pip
    spoken = {name for line in COMMANDS for name in re.findall(r"lakehouse_utils\.embedded_s3 (\w+)", line)}
    assert spoken and spoken <= embedded_s3.main.commands.keys()
    options = {name for line in COMMANDS for name in re.findall(r"(--\w+)", line.partition(".sample_data")[2])}
    assert options and options <= {name for option in sample_data.main.params for name in option.opts}


def test_every_option_of_the_main_job_is_explained():
    job = load_job()
    options = {name for option in job.main.params for name in option.opts} | {"--help"}
    assert table("option").keys() == options
    said = [line.partition("ingestion_processor.py")[2] for line in COMMANDS] + list(table("option").values())
    said += re.findall(r'make run (?:ENGINE=spark )?ARGS="([^"]*)"', README)
    assert {name for line in said for name in re.findall(r"--[a-z][\w-]*", line)} <= options
    assert table("exit code").keys() == {"0", "1", "2", str(job.ROWS_WERE_QUARANTINED), "130"}


def load_job():
    spec = importlib.util.spec_from_file_location("ingestion_processor", CHECKOUT / "ingestion_processor.py")
    job = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(job)
    return job


def test_every_setting_is_explained():
    settings = {"LAKEHOUSE_URI"}
    for name, about in Settings.model_fields.items():
        alias = about.validation_alias or name.upper()
        settings |= {alias} if isinstance(alias, str) else set(alias.choices)
    assert set(re.findall(r"LAKEHOUSE_[A-Z_]+", README)) == {name for name in settings if name.startswith("LAKE")}
    assert table("setting").keys() - {"AWS_PROFILE"} <= settings
    assert {"AWS_PROFILE", "AWS_REGION", "AWS_ENDPOINT_URL", "LAKEHOUSE_URI"} <= table("setting").keys()


def test_every_path_exists():
    tops = "|".join({re.escape(name.split("/")[0]) for name in FILES})
    words = {word for line in COMMANDS for word in re.findall(r"[^\s\"'=()]+", line)}
    paths = {word for word in words if re.match(rf"({tops})(/|$)", word)}
    assert {"requirements.txt", "data/README.md", "lakehouse_utils/pipeline/sql/"} <= paths
    assert [path for path in paths if not (CHECKOUT / path).exists()] == []


@pytest.mark.parametrize("readme", [README, PORTUGUESE], ids=["English", "Portuguese"])
def test_links_lead_somewhere(readme):
    local = [link for link in links(readme) if not link.startswith("https://")]
    assert local
    for link in local:
        path, _, anchor = link.partition("#")
        assert (CHECKOUT / path).exists() and path != link.removesuffix(path) or not path, link
        assert not anchor or path or anchor in anchors(readme), link


def test_the_course_links_the_notebooks_that_exist():
    there = {Path(name).stem for name in FILES if re.fullmatch(r"notebooks/\d\d_\w+\.ipynb", name)}
    linked, named = set(), set()
    for row in table("notebook"):
        name = re.search(r"\d\d_\w+", row)[0]
        named.add(name)
        if "](" in row:
            assert f"[`{name}`](notebooks/{name}.ipynb)" in README
            linked.add(name)
    assert linked == there, "the course table links the notebooks that exist: [`name`](notebooks/name.ipynb)"
    assert linked <= named
    assert [name[:2] for name in sorted(named)] == [f"{number:02}" for number in range(12)]
    assert ("Notebooks without a link are not written yet." in README) == (linked != named)


def test_the_map_shows_the_repository():
    shown = set(mapped(README))
    assert [path for path in shown if not (CHECKOUT / path).exists()] == []
    tops = {name if "/" not in name else name.split("/")[0] + "/" for name in FILES} - {".ci/"} | {".ci/run"}
    modules = {name for name in FILES if re.fullmatch(r"lakehouse_utils/(.*/)?(?!__|nb\d\d)\w+\.py", name)}
    packages = {name.removesuffix("__init__.py") for name in FILES if re.fullmatch(r"lakehouse.*__init__.py", name)}
    assert (tops | modules | packages) - shown == set(), "missing in README's map"


def test_the_policy_is_the_least_that_is_needed():
    lists, objects = json.loads(next(text for _, kind, text in BLOCK.findall(README) if kind == "json"))["Statement"]
    assert lists["Action"] == "s3:ListBucket" and objects["Resource"] == lists["Resource"] + "/lakehouse/*"
    assert lists["Condition"] == {"StringLike": {"s3:prefix": ["lakehouse", "lakehouse/*"]}}
    names = {"GetObject", "PutObject", "DeleteObject", "AbortMultipartUpload"}
    assert set(objects["Action"]) == {f"s3:{name}" for name in names}


def test_the_run_the_query_and_the_own_data_are_as_shown(s3_server, prefix, tmp_path, monkeypatch, capfd):
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
        done = CliRunner().invoke(load_job().main, arguments)
        assert done.exit_code == 0, done.output
        return re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", done.output).replace(prefix, "s3://lakehouse").splitlines()

    output = run()
    shown = block("excerpt of a run").splitlines()
    printed = "\n".join(line for line in output if line[:1] in "┃│" or "quarantine" in line[:30])
    assert [line for line in output if line in shown] == shown, f"README's excerpt is not what a run prints:\n{printed}"

    exec(block("a query"), {})
    assert "2026-01-01" in capfd.readouterr().out

    landing = tmp_path / "shop" / "2026-03-01"
    landing.mkdir(parents=True)
    (landing / "visits.csv").write_text("visit_id,page,seconds\n1,home,2.5\n2,,3\n")
    (tmp_path / "shop" / "sources.toml").write_text(block("sources of your own"))
    command = next(line for line in COMMANDS if "--landing shop" in line).replace("s3://lakehouse", prefix)
    output = run(*shlex.split(command.partition(".py")[2]))
    assert any(re.match(r"│ silver\.visits +│ +2 │ +1 │ +0 │ +1 │", line) for line in output), "\n".join(output)


# README.pt-BR.md says the same in Portuguese


def structure(readme: str) -> dict[str, list]:
    """What a translation leaves as it is. An anchor counts as the place of its heading."""
    blocks, prose = BLOCK.findall(readme), BLOCK.sub("", readme)
    rows = [line.split(" | ") for line in prose.splitlines() if line.startswith("|")]
    places = {f"#{anchor}": place for place, anchor in enumerate(anchors(readme))}
    return {
        "levels of headings": re.findall(r"^#+ ", prose, re.MULTILINE),
        "code": [found for found in blocks if found[0] != "map" and found[1] != "mermaid"],
        "map": mapped(readme),
        "picture": [re.sub(r'"[^"]*"', "", text) for _, kind, text in blocks if kind == "mermaid"],
        "tables": [(len(row), re.findall(r"`[^`]+`|\d+", row[0])) for row in rows],
        "paragraphs and lists": [len(re.findall("^- ", part, re.MULTILINE)) for part in prose.split("\n\n")],
        "links": [places.get(link, link) for link in links(readme)[1:]],
        "names and numbers": [set(re.findall(r"`[^`\n]+`|\b\d+", part)) for part in re.split(r"\n#+ ", prose)],
    }


@pytest.mark.parametrize("part", structure(README))
def test_the_portuguese_readme_is_built_as_the_english_one(part):
    assert structure(PORTUGUESE)[part] == structure(README)[part]


def test_each_readme_leads_to_the_other():
    assert README.splitlines()[2] == "[Português](README.pt-BR.md)"
    assert PORTUGUESE.splitlines()[2] == "[English](README.md)"
