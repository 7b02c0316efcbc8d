"""pyproject.toml, the lock that is compiled from it, and the files that install the lock or run the tests."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from importlib import metadata

import pytest
import yaml
from _pytest.mark.expression import Expression
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

import lakehouse_utils
from lakehouse_utils.settings import CHECKOUT

PROJECT = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))
LOCK = (CHECKOUT / "requirements.txt").read_text(encoding="utf-8")


def pinned() -> dict[str, list[Requirement]]:
    found: dict[str, list[Requirement]] = {}
    for entry in re.split(r"\n(?=\S)", LOCK.strip()):
        assert re.match(r"[a-z0-9][a-z0-9._-]*(\[[\w,-]+\])?==", entry), f"not a pinned package: {entry[:80]}"
        assert "--hash=sha256:" in entry, f"no hash: {entry[:80]}"
        requirement = Requirement(entry.split("\\")[0].strip())
        found.setdefault(canonicalize_name(requirement.name), []).append(requirement)
    return found


def test_lock_holds_what_is_declared():
    """Each dependency of the package and of its tests is locked in a version that it allows, and no index is named."""
    declared = [*PROJECT["project"]["dependencies"], *PROJECT["project"]["optional-dependencies"]["test"]]
    lock = pinned()
    for requirement in map(Requirement, declared):
        pins = lock.get(canonicalize_name(requirement.name), [])
        assert pins, f"{requirement.name} is not in requirements.txt: make lock"
        for pin in pins:
            version = next(iter(pin.specifier)).version
            assert requirement.specifier.contains(version, prereleases=True), f"{pin} is not {requirement}: make lock"
    assert not re.search(r"https?://|^--|^ +--(?!hash=)", LOCK, re.MULTILINE), "the lock names an index"


def test_lock_holds_nothing_that_is_no_longer_declared():
    """A package that the lock holds for the sake of pyproject.toml is declared there."""
    declared = [*PROJECT["project"]["dependencies"], *PROJECT["project"]["optional-dependencies"]["test"]]
    names = {canonicalize_name(Requirement(entry).name) for entry in declared}
    entries = re.split(r"\n(?=\S)", LOCK.strip())
    direct = {entry.split("==")[0].split("[")[0] for entry in entries if "lakehouse-utils (pyproject.toml)" in entry}
    assert direct - names == set(), "run `make lock`"


def test_lock_holds_the_tools_that_install():
    """The set-up needs nothing from an index that has no hash: not to build the package, and not to install uv."""
    needed = {*PROJECT["build-system"]["requires"], "uv"}
    declared = PROJECT["project"]["optional-dependencies"]["test"]
    assert all(any(entry.startswith(name) for entry in declared) for name in needed)
    assert len(pinned()["uv"]) == 1 and pinned()["uv"][0].marker is None, "every system installs the same uv"


def test_version_is_declared_once():
    """The installed package, the citation and the code that runs without being installed name the same version."""
    citation = yaml.safe_load((CHECKOUT / "CITATION.cff").read_text(encoding="utf-8"))
    assert lakehouse_utils.__version__ == citation["version"] == metadata.version("lakehouse-utils")


def test_conda_takes_the_lock():
    """Conda brings Python and pip in the range of pyproject.toml; everything else comes from the lock."""
    environment = yaml.safe_load((CHECKOUT / "environment.yml").read_text())
    python, pip, from_pip = environment["dependencies"]
    assert python == f"python {PROJECT['project']['requires-python']}" and pip == "pip"
    assert from_pip == {"pip": ["-r requirements.txt"]}
    pages = "".join(path.read_text(encoding="utf-8") for path in (CHECKOUT / "docs").glob("*.md"))
    assert f"conda activate {environment['name']}" in pages


def test_binder_takes_the_lock():
    """Binder installs the lock with a Python that is supported."""
    binder = CHECKOUT / ".binder"
    lines = [line for line in (binder / "requirements.txt").read_text().splitlines() if not line.startswith("#")]
    assert lines == ["-r ../requirements.txt"]
    version = (binder / "runtime.txt").read_text().strip().removeprefix("python-")
    assert SpecifierSet(PROJECT["project"]["requires-python"]).contains(version)
    assert os.name == "nt" or os.access(binder / "postBuild", os.X_OK)


def test_ci_runs_make_test_all():
    """.ci/run is a program, and ends with `make test-all`."""
    script = CHECKOUT / ".ci" / "run"
    assert os.name == "nt" or os.access(script, os.X_OK)
    assert script.read_text().rstrip().endswith('make test-all ARGS="$*" </dev/null')


@pytest.mark.skipif(shutil.which("make") is None, reason="asks make for its commands")
def test_every_test_is_in_one_of_the_three_sets():
    """Of unmarked, slow and nightly tests, `make test-all` and then `make test-nightly` run each once."""
    dropped = ("ARGS", "MAKE", "MFLAGS", "GNUMAKEFLAGS")  # `make test ARGS=...` passes them on
    environment = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    command = ["make", "-n", "test-all", "test-nightly"]
    printed = subprocess.run(command, cwd=CHECKOUT, env=environment, capture_output=True, text=True, check=True).stdout
    selections = [shlex.split(line)[-1] for line in printed.splitlines() if " -m pytest " in line]
    assert selections == ["not slow", "slow and not nightly", "nightly"]
    for marks in (set(), {"slow"}, {"slow", "nightly"}):
        assert sum(Expression.compile(text).evaluate(marks.__contains__) for text in selections) == 1
    collect = [sys.executable, "-m", "pytest", "--collect-only", "-q", "tests/notebooks/test_import.py"]
    quick = subprocess.run(
        [*collect, "-m", "not slow"], cwd=CHECKOUT, capture_output=True, text=True, check=True
    ).stdout
    assert "test_import_in_the_checkout" in quick
    assert "test_plain_start" not in quick, "a nightly test counts as a slow one, too"


def test_workflows_run_what_the_project_runs():
    """The targets of `make` and the scripts that a workflow runs exist, and every action is pinned by its commit."""
    makefile = (CHECKOUT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):.*## ", makefile, re.MULTILINE))
    for path in sorted((CHECKOUT / ".github" / "workflows").glob("*.yml")):
        text = path.read_text()
        assert set(re.findall(r"run: make ([a-z-]+)", text)) <= targets
        assert all(re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", action) for action in re.findall(r"uses: (\S+)", text))
        for name in re.findall(r"(?:\./)?((?:\.ci|scripts|tests)/[\w./]+)", text):
            assert (CHECKOUT / name).exists(), f"{path.name} names {name}"


def test_pre_commit_runs_the_checks_of_lint():
    """The hooks of pre-commit are the checks of `make lint`, run by the same script."""
    from importlib.util import module_from_spec, spec_from_file_location

    spec = spec_from_file_location("lint", CHECKOUT / "scripts" / "lint.py")
    lint = module_from_spec(spec)
    spec.loader.exec_module(lint)
    (repo,) = yaml.safe_load((CHECKOUT / ".pre-commit-config.yaml").read_text())["repos"]
    assert repo["repo"] == "local" and [hook["id"] for hook in repo["hooks"]] == list(lint.CHECKS)
    for hook in repo["hooks"]:
        assert hook["entry"] == f"make lint ARGS={hook['id']}" and hook["language"] == "system"
