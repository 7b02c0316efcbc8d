"""The checks of `make lint` pass. They are part of the tests, so that `make test` runs them as well."""

import importlib.util
import subprocess
import sys

import pytest

from lakehouse_utils.settings import CHECKOUT

SCRIPT = CHECKOUT / "scripts" / "lint.py"
spec = importlib.util.spec_from_file_location("lint", SCRIPT)
lint = importlib.util.module_from_spec(spec)
spec.loader.exec_module(lint)


@pytest.mark.parametrize("name", lint.CHECKS)
def test_lint_passes(name):
    """The check passes for the whole repository."""
    if name == "types":
        pytest.importorskip("pyspark", reason="the Spark engine is missing: `make test` installs it")
    done = subprocess.run([sys.executable, SCRIPT, name], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout


def test_lint_refuses_an_unknown_check():
    """A misspelled check is an error that names the checks."""
    done = subprocess.run([sys.executable, SCRIPT, "typos"], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == "Unknown check: typos. The checks are style, format, types, imports, spelling.\n"
