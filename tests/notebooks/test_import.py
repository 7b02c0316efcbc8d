"""Notebooks import the package: installed or not, in the checkout or in a copy, also where nothing can be written."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lakehouse_utils import embedded_s3
from lakehouse_utils.settings import CHECKOUT

CODE = "import lakehouse_utils, lakehouse_utils.settings as s; print(lakehouse_utils.__file__, s.__file__, sep='\\n')"
SKIPPED = shutil.ignore_patterns(".*", "venv", "__pycache__", "tests", "docs", "benchmarks")
NOTEBOOK = "notebooks/03_merge_and_update.ipynb"


def run(*command: object, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHONPATH", "VIRTUAL_"))}
    environment |= {"IPYTHONDIR": str(cwd / "ipython"), "JUPYTER_RUNTIME_DIR": str(cwd / "runtime")}
    return subprocess.run(
        [str(part) for part in command], cwd=cwd, env=environment | variables, capture_output=True, text=True
    )


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """A copy of the checkout, with what a user runs."""
    return Path(shutil.copytree(CHECKOUT, tmp_path / "copy", ignore=SKIPPED))


def test_import_in_the_checkout(copied):
    """A notebook imports the package beside its folder, and not another one that is installed."""
    done = run(sys.executable, "-c", CODE, cwd=copied / "notebooks")
    package = copied.resolve() / "lakehouse_utils"
    assert done.stdout.splitlines() == [f"{package / '__init__.py'}", f"{package / 'settings.py'}"], done.stderr


def test_import_in_a_copied_folder(copied):
    """A notebook that was copied elsewhere imports the package that is installed."""
    shutil.rmtree(copied / "lakehouse_utils")
    done = run(sys.executable, "-c", CODE, cwd=copied / "notebooks")
    package = CHECKOUT / "lakehouse_utils"
    assert done.stdout.splitlines() == [f"{package / '__init__.py'}", f"{package / 'settings.py'}"], done.stderr


def test_import_without_the_package(copied):
    """Where the package is neither beside the folder nor installed, the error says how to install it."""
    shutil.rmtree(copied / "lakehouse_utils")
    done = run(sys.executable, "-S", "-c", CODE, cwd=copied / "notebooks")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "ModuleNotFoundError: The package lakehouse_utils was not found beside this folder, and it is not installed. "
        "Install it from a clone of the repository: pip install --no-deps --no-build-isolation -e ."
    )


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions")
def test_notebook_in_a_read_only_checkout(copied, s3_server, prefix, tmp_path):
    """With LAKEHOUSE_URI set, a notebook runs in a checkout in which its user can write nothing."""
    as_user = []
    if os.geteuid() == 0:
        setpriv = shutil.which("setpriv")
        if not setpriv:
            pytest.skip("setpriv is missing, and root can write anywhere")
        # Still user 0, who can read this Python, but without the right to write where permissions forbid it.
        as_user = [setpriv, "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all"]
    for path in (copied, *copied.rglob("*")):
        path.chmod(path.stat().st_mode & ~0o222)
    probe = run(*as_user, sys.executable, "-c", "open('probe', 'w')", cwd=copied)
    assert "PermissionError" in probe.stderr
    variables = {
        "AWS_ENDPOINT_URL": s3_server.endpoint,
        "AWS_ACCESS_KEY_ID": s3_server.access_key,
        "AWS_SECRET_ACCESS_KEY": s3_server.secret_key,
        "LAKEHOUSE_URI": prefix,
        "IPYTHONDIR": str(tmp_path / "ipython"),
        "JUPYTER_RUNTIME_DIR": str(tmp_path / "runtime"),
    }
    try:
        out = tmp_path / "out.ipynb"
        papermill = [sys.executable, "-m", "papermill", "--no-progress-bar", "--cwd", copied / "notebooks"]
        done = run(*as_user, *papermill, copied / NOTEBOOK, out, cwd=copied, **variables)
        assert done.returncode == 0, done.stderr[-3000:]
    finally:
        for folder in [path for path in (copied, *copied.rglob("*")) if path.is_dir()]:
            folder.chmod(0o755)


@pytest.mark.nightly
@pytest.mark.timeout(900)
@pytest.mark.skipif(os.name == "nt", reason="paths as on POSIX")
def test_plain_start(copied, tmp_path):
    """venv, pip, the job and a notebook, without make and without installing the package; needs a package index."""
    python = copied / "venv" / "bin" / "python"
    steps = [
        (sys.executable, "-m", "venv", "venv"),
        (python, "-m", "pip", "install", "--quiet", "-r", "requirements.txt"),
        (python, "ingestion_processor.py"),
        (python, "-m", "papermill", "--no-progress-bar", NOTEBOOK, tmp_path / "from the checkout.ipynb"),
        (python, "-m", "papermill", "--no-progress-bar", "--cwd", "notebooks", NOTEBOOK, tmp_path / "out.ipynb"),
    ]
    # Compiling all packages takes pip longer than installing them; Python compiles what it imports.
    variables = {"LAKEHOUSE_STATE_DIR": str(tmp_path / "state"), "PIP_NO_COMPILE": "1"}
    try:
        for number, command in enumerate(steps):
            done = run(*command, cwd=copied, **variables)
            assert done.returncode == 0, f"{command}: {done.stderr[-3000:]}"
            if number == 0 and not reaches_an_index(python, tmp_path):
                pytest.skip("no package index can be reached")
    finally:
        embedded_s3.stop(tmp_path / "state")


def reaches_an_index(python: Path, folder: Path) -> bool:
    options = ["--quiet", "--no-deps", "--retries", "0", "--timeout", "5", "--dest", folder / "probe"]
    return run(python, "-m", "pip", "download", *options, "flit-core", cwd=folder).returncode == 0
