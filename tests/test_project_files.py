"""pyproject.toml, the lock that is compiled from it, and the other files that install from the lock or run the tests."""

import os
import re
import tomllib

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

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


def test_lock_holds_the_tools_that_install():
    """The set-up needs nothing from an index that has no hash: not to build the package, and not to install uv."""
    needed = {*PROJECT["build-system"]["requires"], "uv"}
    declared = PROJECT["project"]["optional-dependencies"]["test"]
    assert all(any(entry.startswith(name) for entry in declared) for name in needed)
    assert len(pinned()["uv"]) == 1 and pinned()["uv"][0].marker is None, "every system installs the same uv"


@pytest.mark.parametrize("path", ["environment.yml", ".binder/environment.yml"])
def test_conda_takes_the_lock(path):
    """Conda brings Python and pip in the range of pyproject.toml; everything else comes from the lock."""
    file = CHECKOUT / path
    environment = yaml.safe_load(file.read_text())
    python, pip, from_pip = environment["dependencies"]
    assert python == f"python {PROJECT['project']['requires-python']}" and pip == "pip"
    (line,) = from_pip["pip"]
    assert line.startswith("-r ") and (file.parent / line.removeprefix("-r ")).resolve() == CHECKOUT / "requirements.txt"


def test_conda_environment_has_the_name_in_the_readme():
    """README.md activates the environment by its name."""
    environment = yaml.safe_load((CHECKOUT / "environment.yml").read_text())
    assert f"conda activate {environment['name']}" in (CHECKOUT / "README.md").read_text(encoding="utf-8")


def test_ci_runs_all_tests():
    """.ci/run is a program, and ends with all tests."""
    script = CHECKOUT / ".ci" / "run"
    assert os.name == "nt" or os.access(script, os.X_OK)
    assert script.read_text().rstrip().endswith('make test-all ARGS="$*" </dev/null')


def test_workflows_run_what_the_project_runs():
    """Each command of a workflow that runs tests is .ci/run, a target of the Makefile, or a script of this repository."""
    makefile = (CHECKOUT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):.*## ", makefile, re.MULTILINE))
    for path in sorted((CHECKOUT / ".github" / "workflows").glob("*.yml")):
        text = path.read_text()
        assert set(re.findall(r"\bmake ([a-z-]+)", text)) <= targets
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
