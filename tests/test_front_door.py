"""What a newcomer meets first: README.md tells the truth, `make` sets up by itself, the lock is what was asked for."""

import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from lakehouse_utils import embedded_s3
from lakehouse_utils.sample_data.__main__ import main as sample_data_command
from lakehouse_utils.settings import CHECKOUT, VARIABLES

README = (CHECKOUT / "README.md").read_text(encoding="utf-8")
PORTUGUESE = (CHECKOUT / "README.pt-BR.md").read_text(encoding="utf-8")
MAKEFILE = (CHECKOUT / "Makefile").read_text(encoding="utf-8")
PROJECT = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))
LOCK = (CHECKOUT / "requirements.txt").read_text(encoding="utf-8")

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
    """All files of the checkout but those that .gitignore names."""
    ignored = [line.rstrip("/") for line in (CHECKOUT / ".gitignore").read_text().split()]
    found = []
    for folder, folders, names in os.walk(CHECKOUT):
        folders[:] = [n for n in folders if n != ".git" and not any(fnmatch(n, i) for i in ignored)]
        names = [n for n in names if n != ".git" and not any(fnmatch(n, i) for i in ignored)]
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
    assert options and options <= {name for option in sample_data_command.params for name in option.opts}


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
    settings = {name for variable in VARIABLES.values() for name in variable.names}
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


# The lock and its doors


def pinned() -> dict[str, list[Requirement]]:
    found: dict[str, list[Requirement]] = {}
    for entry in re.split(r"\n(?=\S)", LOCK.strip()):
        assert re.match(r"[a-z0-9][a-z0-9._-]*(\[[\w,-]+\])?==", entry), f"not a pinned package: {entry[:80]}"
        assert "--hash=sha256:" in entry, f"no hash: {entry[:80]}"
        requirement = Requirement(entry.split("\\")[0].strip())
        found.setdefault(canonicalize_name(requirement.name), []).append(requirement)
    return found


def test_the_lock_holds_what_is_declared():
    declared = [*PROJECT["project"]["dependencies"], *PROJECT["project"]["optional-dependencies"]["test"]]
    lock = pinned()
    for requirement in map(Requirement, declared):
        pins = lock.get(canonicalize_name(requirement.name), [])
        assert pins, f"{requirement.name} is not in requirements.txt: make lock"
        for pin in pins:
            version = next(iter(pin.specifier)).version
            assert requirement.specifier.contains(version, prereleases=True), f"{pin} is not {requirement}: make lock"
    assert not re.search(r"https?://|^--|^ +--(?!hash=)", LOCK, re.MULTILINE), "the lock names an index"


def test_the_way_to_install_the_package_needs_no_index():
    build = PROJECT["build-system"]["requires"]
    assert set(build) <= set(PROJECT["project"]["optional-dependencies"]["test"])


def test_conda_takes_the_lock_and_repeats_no_version():
    environment = yaml.safe_load((CHECKOUT / "environment.yml").read_text())
    python, pip, from_pip = environment["dependencies"]
    assert python == f"python {PROJECT['project']['requires-python']}" and pip == "pip"
    assert from_pip == {"pip": ["-r requirements.txt"]}
    assert f"conda activate {environment['name']}" in README


def test_the_range_of_pythons_is_the_same_everywhere():
    least, below = map(int, re.fullmatch(r">=3\.(\d+),<3\.(\d+)", PROJECT["project"]["requires-python"]).groups())
    assert f"IN_RANGE = (3, {least}) <= sys.version_info < (3, {below})" in MAKEFILE
    assert f":->=3.{least},<3.{below}}}" in MAKEFILE and f"--python-version 3.{least} " in MAKEFILE
    *others, last = [f"3.{minor}" for minor in range(least, below)]
    named = f"Python {', '.join(others)} or {last}"
    assert f"WANTED = {named}\n" in MAKEFILE and f"{named}, " in README and f"`{named} is needed`" in README
    names = [f"python3.{minor}" for minor in reversed(range(least, below))]
    assert f"CANDIDATES = python3 {' '.join(names)} python\n" in MAKEFILE


def test_ci_runs_the_tests():
    script = CHECKOUT / ".ci" / "run"
    assert os.name == "nt" or os.access(script, os.X_OK)
    assert script.read_text().rstrip().endswith('make test ARGS="$*" </dev/null')


# make sets up by itself. A stand-in plays Python, pip and uv where only the order of steps is looked at.

needs_make = pytest.mark.skipif(not shutil.which("make") or os.name == "nt", reason="there is no make")

STAND_IN = """
import os, pathlib, shutil, sys, time
name, version, itself, *arguments = sys.argv[1:]
with open(os.environ["LOG"], "a") as log:
    if arguments[0] != "-c" and arguments[:3] not in (["-m", "pip", "config"], ["-m", "pip", "--version"]):
        print(name, *arguments, file=log)
sys.version, sys._base_executable = version, itself
sys.version_info = tuple(map(int, version.split(".")))
match arguments:
    case ["-c", code]: exec(code)
    case ["-m", "venv", folder] | ["venv", *_, folder]:
        python = pathlib.Path(folder, "bin", "python")
        python.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(itself if name != "uv" else pathlib.Path(itself).with_name("python3"), python)
    case ["-m", "pip", "config", *_]: print(os.environ.get("PIP_SAYS", ""))
    case ["-m", "pip", "install", *_] | ["pip", "install", *_]:
        time.sleep(float(os.environ.get("PIP_TAKES", 0)))
        sys.exit(int(os.environ.get("PIP_FAILS", 0)))
    case ["ingestion_processor.py", *rest]: print("ran", *rest)
"""


class Checkout:
    """A checkout with a space in its name, a stand-in for Python on the PATH, and `make` in it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.folder = home / "a checkout"
        self.folder.mkdir(parents=True)
        shutil.copy(CHECKOUT / "Makefile", self.folder)
        for name in ("requirements.txt", "pyproject.toml", "ingestion_processor.py"):
            (self.folder / name).touch()
        (home / "stand_in.py").write_text(STAND_IN)
        dropped = ("PYTHON", "UV", "ARGS", "OPTS", "MAKE", "MFLAGS", "PIP_", "VIRTUAL_ENV")
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
        self.environment["PATH"] = f"{home / 'bin'}{os.pathsep}{os.environ['PATH']}"
        self.environment["LOG"] = str(home / "log")

    def stand_in(self, version: str, *names: str) -> None:
        (self.home / "bin").mkdir(exist_ok=True)
        for name in names:
            command = [sys.executable, str(self.home / "stand_in.py"), re.sub(r"[\d.]", "", name), version]
            path = self.home / "bin" / name
            path.write_text(f'#!/bin/sh\nexec {shlex.join(command)} "$0" "$@"\n')
            path.chmod(0o755)

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen:
        command, environment = ["make", *arguments], self.environment | environment
        streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(command, cwd=self.folder, env=environment, **streams)

    def make(self, *arguments: str, **environment: str) -> tuple[int, str, str]:
        process = self.start(*arguments, **environment)
        output, errors = process.communicate(timeout=100)
        return process.returncode, output, errors

    def steps(self) -> list[str]:
        """What was called since the last look."""
        log = self.home / "log"
        lines = log.read_text().splitlines() if log.exists() else []
        log.write_text("")
        return lines


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    found = Checkout(tmp_path)
    found.stand_in("3.12.1", "python3")
    return found


WITH_PIP = [
    "python -m venv .venv",
    "python -m pip install --quiet --no-user --disable-pip-version-check --require-hashes -r requirements.txt",
    "python -m pip install --quiet --no-user --disable-pip-version-check --no-deps --no-build-isolation -e .",
]


def ran(checkout: Checkout, *arguments: str, **environment: str) -> list[str]:
    """The steps of `make run`, without the run itself."""
    code, output, errors = checkout.make("run", "UV=", *arguments, **environment)
    assert (code, errors) == (0, "") and output.endswith("ran\n"), errors
    *steps, last = checkout.steps()
    assert last == "python ingestion_processor.py"
    return steps


@needs_make
def test_the_first_run_sets_up_and_the_second_does_not(checkout):
    code, output, errors = checkout.make("run", "UV=", 'ARGS=--lake "s3://a b"')
    assert (code, errors) == (0, "")
    assert output == "Setting up .venv with pip: a few minutes ...\nran --lake s3://a b\n"
    assert checkout.steps() == [*WITH_PIP, "python ingestion_processor.py --lake s3://a b"]
    assert checkout.make("run", "UV=") == (0, "ran\n", "")
    assert checkout.steps() == ["python ingestion_processor.py"]


@needs_make
def test_a_newer_lock_brings_the_environment_up_to_date(checkout):
    ran(checkout)
    os.utime(checkout.folder / ".venv" / ".ready", (0, 0))
    assert ran(checkout) == WITH_PIP[1:]


@needs_make
def test_an_interrupted_set_up_is_begun_anew(checkout):
    code, _, errors = checkout.make("run", "UV=", PIP_FAILS="1")
    assert code and "Error 1" in errors
    (checkout.folder / ".venv" / "half a package").touch()
    checkout.steps()
    assert ran(checkout) == WITH_PIP
    assert not (checkout.folder / ".venv" / "half a package").exists()

    (checkout.folder / ".venv" / "bin" / "python").unlink()
    (checkout.folder / ".venv" / ".ready").unlink()
    assert ran(checkout) == WITH_PIP


@needs_make
def test_a_second_make_waits_for_the_first(checkout):
    both = [checkout.start("run", "UV=", PIP_TAKES="0.5") for _ in range(2)]
    assert [process.communicate(timeout=60)[1] for process in both] == ["", ""]
    assert [process.returncode for process in both] == [0, 0]
    assert sorted(checkout.steps()) == sorted([*WITH_PIP, *["python ingestion_processor.py"] * 2])


@needs_make
def test_a_moved_checkout_and_another_python_are_set_up_anew(checkout):
    ran(checkout)
    checkout.folder = checkout.folder.rename(checkout.home / "another place")
    assert ran(checkout) == WITH_PIP

    checkout.stand_in("3.13.0", "python3.13")
    assert ran(checkout, "PYTHON=python3.13") == WITH_PIP
    assert ran(checkout, "PYTHON=python3.13") == ran(checkout) == []


@needs_make
def test_a_python_out_of_range_is_refused_in_one_sentence(checkout):
    checkout.stand_in("3.9.2", "python3", "python3.11", "python3.12", "python3.13", "python")
    code, output, errors = checkout.make("run", "UV=")
    assert code and output == "" and "Python 3.11, 3.12 or 3.13 is needed; python3 is 3.9.2: install" in errors
    checkout.stand_in("3.14.0", "python3.14")
    _, _, errors = checkout.make("run", "PYTHON=python3.14")
    assert "is needed; python3.14 is 3.14.0: choose another with PYTHON=" in errors and len(errors.splitlines()) == 2
    assert "is needed; there is no python4: choose" in checkout.make("run", "PYTHON=python4")[2]
    assert checkout.steps() == [] and not (checkout.folder / ".venv").exists()


@needs_make
def test_uv_is_taken_unless_pip_has_an_index_of_its_own(checkout):
    checkout.stand_in("3.12.1", "uv")
    code, _, errors = checkout.make("run")
    assert (code, errors) == (0, "")
    assert [step.split(" --quiet")[0] for step in checkout.steps()[1:-1]] == ["uv venv", *["uv pip install"] * 2]
    shutil.rmtree(checkout.folder / ".venv")
    assert checkout.make("run", PIP_SAYS="global.index-url='https://pypi.example.org/simple'")[0] == 0
    assert [step for step in checkout.steps() if not step.startswith("uv --version")][:-1] == WITH_PIP


@needs_make
def test_clean_stops_a_server_that_is_ours_and_works_on_a_broken_environment(checkout):
    def process(*words: str) -> subprocess.Popen:
        return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", *words])

    state = checkout.folder / ".lakehouse" / "s3"
    with process("weed", "-s3.port=21000") as server, process("weed", "-s3.port=210001") as another:
        try:
            for running in (another, server):
                (checkout.folder / ".venv" / "bin").mkdir(parents=True)
                (checkout.folder / ".venv" / ".unfinished").touch()
                (checkout.folder / "lakehouse_utils" / "__pycache__").mkdir(parents=True)
                state.mkdir(parents=True)
                (state / "pid").write_text(str(running.pid))
                (state / "ports.json").write_text(json.dumps({"s3.port": 21000, "s3.port.grpc": 31000}, indent=1))
                assert checkout.make("clean") == (0, "", "")
            assert another.poll() is None and server.wait(timeout=10) == -15
        finally:
            another.kill()
            server.kill()
    assert not any((checkout.folder / name).exists() for name in (".venv", ".lakehouse", "lakehouse_utils/__pycache__"))
    assert checkout.make("clean") == (0, "", "")


@needs_make
def test_clean_stops_a_spark_cluster_that_is_ours_on_a_broken_environment(checkout):
    def process(folder: Path) -> subprocess.Popen:
        words = (f"{folder.resolve()}/.lakehouse/spark/conf/", "org.apache.spark.deploy.master.Master")
        return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", *words])

    with process(checkout.folder) as ours, process(checkout.folder / "another") as another:
        try:
            pids = checkout.folder / ".lakehouse" / "spark" / "pids"
            pids.parent.mkdir(parents=True)
            pids.write_text(f"{ours.pid}\n{another.pid}\n")
            assert checkout.make("clean") == (0, "", "")
            assert another.poll() is None and ours.wait(timeout=10) == -15
        finally:
            another.kill()
            ours.kill()
    assert not (checkout.folder / ".lakehouse").exists()


@needs_make
def test_help_comes_first_and_sets_nothing_up(checkout):
    code, output, _ = checkout.make()
    assert code == 0 and all(f"make {name} " in output for name in ("run", "lab", "test", "bench", "lock", "clean"))
    assert not (checkout.folder / ".venv").exists() and checkout.steps() == []


@pytest.fixture
def flit(tmp_path: Path) -> Iterator[str]:
    """A folder with nothing but flit-core, for packages that are empty of requirements."""
    folder = tmp_path / "build"
    folder.mkdir()
    (folder / "flit_core").symlink_to(Path(importlib.util.find_spec("flit_core").origin).parent)
    yield str(folder)


@needs_make
@pytest.mark.parametrize("tool", ["pip", "uv"])
def test_a_real_set_up(tmp_path, flit, tool):
    if tool == "uv" and subprocess.run(["uv", "--version"], capture_output=True).returncode:
        pytest.skip("there is no uv")
    checkout = Checkout(tmp_path)
    (checkout.folder / "lakehouse_utils").mkdir()
    (checkout.folder / "lakehouse_utils" / "__init__.py").write_text('"""Stands in for the package."""\n')
    (checkout.folder / "README.md").write_text("A stand-in.\n")
    (checkout.folder / "pyproject.toml").write_text((CHECKOUT / "pyproject.toml").read_text())
    (checkout.folder / "requirements.txt").write_text("")
    job = "import os, sys\nos.chdir('/')\nsys.path.pop(0)\nimport lakehouse_utils\nprint(lakehouse_utils.__file__)\n"
    (checkout.folder / "ingestion_processor.py").write_text(job)
    chosen = [f"PYTHON={sys.executable}", *(["UV="] if tool == "pip" else [])]

    code, output, errors = checkout.make("run", *chosen, PYTHONPATH=flit)
    assert code == 0, errors
    imported = str(checkout.folder.resolve() / "lakehouse_utils" / "__init__.py")
    assert output.splitlines() == [output.splitlines()[0], imported] and f"with {tool}" in output
    assert checkout.make("run", *chosen) == (0, f"{imported}\n", "")
