"""Run the job and the main tests on every other Python that is supported and that this machine has.

Each Python gets a copy of the checkout, with its own .venv and lake: a set-up, one run of the job, the main tests of
the package, and two notebooks; with `--all`, all tests of `make test`. Pythons are looked for on the PATH and among
the versions of pyenv.

If OTHER_PYTHONS_UNTIL is set, to seconds since 1970, no Python is started after that time: see `.ci/run`.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from set_up import CHECKOUT, MAX_PYTHON, MIN_PYTHON, VENV_PYTHON, Python, inspect

IGNORED = shutil.ignore_patterns(".venv", "venv", ".git", ".env", ".lakehouse", ".*_cache", "__pycache__")
PYTEST = ["-m", "pytest", "-n", "logical", "--maxprocesses", "4", "--dist", "worksteal", "-q"]
# What takes long, and depends on packages, other programs and our own SQL rather than on the version of Python.
LEFT_OUT = [
    *("tests/course", "tests/deploy", "tests/notebooks", "tests/scripts", "tests/lake/test_compatibility.py"),
    *("tests/pipeline/engines", "tests/pipeline/test_build_record.py", "tests/pipeline/test_two_programs.py"),
    *(f"tests/pipeline/test_{name}.py" for name in ("checks", "gold", "log_states", "maintenance", "messy_files")),
    *(f"tests/pipeline/test_{name}.py" for name in ("operating", "readers", "silver", "sorted_files", "status")),
    *("tests/pipeline/test_values.py", "tests/test_course_pages.py", "tests/test_documentation.py"),
    *(f"tests/test_{name}.py" for name in ("project_files", "troubleshooting")),
]
ALL_TESTS = [*PYTEST, "-m", "not slow", "tests"]
PACKAGE_TESTS = [*ALL_TESTS, *(f"--ignore={path}" for path in LEFT_OUT)]
TWO_NOTEBOOKS = [*PYTEST, "tests/notebooks/test_execution.py", "-m", "not slow", "-k", "00_ or 03_"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--all", action="store_true", help="run all tests of `make test` on each Python")
    tests = [ALL_TESTS] if parser.parse_args().all else [PACKAGE_TESTS, TWO_NOTEBOOKS]
    pythons = other_pythons()
    if not pythons:
        print("Other Pythons: none to test. Python 3.11, 3.12 and 3.13 are supported.")
    until, failed = float(os.environ.get("OTHER_PYTHONS_UNTIL", "inf")), []
    for python in reversed(pythons):  # the newest first
        if time.time() > until:
            print(f"== Python {python.name} is left out, because the tests have taken too long.", flush=True)
        elif not passes(python, tests):
            failed.append(python.name)
    if failed:
        sys.exit(f"Failed on Python {', '.join(failed)}")


def other_pythons() -> list[Python]:
    """One Python for each supported minor version but that of this process."""
    versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"), "versions")
    pythons = []
    for minor in range(MIN_PYTHON[1], MAX_PYTHON[1] + 1):
        candidates = [f"python3.{minor}", *map(str, sorted(versions.glob(f"3.{minor}.*/bin/python")))]
        usable = [python for python in map(inspect, candidates) if python and python.number[:2] == (3, minor)]
        if usable and minor != sys.version_info[1]:
            pythons.append(usable[0])
    return pythons


def passes(python: Python, tests: list[list[str]]) -> bool:
    """Whether the set-up, the job and the runs of pytest in `tests` pass on `python`, in a copy of the checkout."""
    print(f"== Python {python.name}: {python.path}", flush=True)
    with tempfile.TemporaryDirectory(prefix="lakehouse-") as folder:
        copy = shutil.copytree(CHECKOUT, Path(folder, "checkout"), ignore=IGNORED)
        own_python = copy / VENV_PYTHON.relative_to(CHECKOUT)
        own_uv = Path(sys.executable).with_name(f"uv{VENV_PYTHON.suffix}")
        set_up = [sys.executable, "scripts/set_up.py", "--python", python.path]
        commands = [
            [*set_up, *(["--uv", str(own_uv)] if own_uv.exists() else [])],
            [own_python, "ingestion_processor.py", "--quiet"],
            *([own_python, *arguments] for arguments in tests),
        ]
        try:
            results = [runs(command, copy) for command in commands]  # all of them, also after one has failed
            return all(results)
        finally:
            runs([own_python, "-m", "lakehouse_utils.embedded_s3", "stop"], copy)


def runs(command: list[str | Path], folder: Path) -> bool:
    names = ("VIRTUAL_ENV", "LAKEHOUSE_STATE_DIR", "LAKEHOUSE_URI")  # the lake is the one of the copy
    environment = {name: value for name, value in os.environ.items() if name not in names}
    try:
        return subprocess.run(command, cwd=folder, env=environment).returncode == 0
    except OSError as error:
        print(error, file=sys.stderr)
        return False


if __name__ == "__main__":
    main()
