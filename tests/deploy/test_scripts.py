"""The scripts for SageMaker Studio, as far as a machine without SageMaker shows it."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest

from lakehouse_utils.processes import wait_until
from lakehouse_utils.settings import CHECKOUT

DEPLOY = CHECKOUT / "deploy"
pytestmark = pytest.mark.skipif(os.name == "nt" or not shutil.which("flock"), reason="the scripts are for Linux")


@pytest.mark.parametrize("path", sorted(DEPLOY.glob("*.sh")), ids=lambda path: path.name)
def test_script_has_no_syntax_error(path):
    """bash can read each script, and it is executable."""
    done = subprocess.run(["bash", "-n", path], capture_output=True, text=True)
    assert done.returncode == 0 and os.access(path, os.X_OK), done.stderr


def start_space(home: Path, **variables: str) -> tuple[str, float]:
    """Run the lifecycle script, and return what it prints and how long it took."""
    began = time.monotonic()
    environment = {**os.environ, "HOME": str(home), "CHECKOUT": str(home / "clone"), **variables}
    done = subprocess.run([DEPLOY / "sagemaker_lifecycle.sh"], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout, time.monotonic() - began


@pytest.fixture
def home(tmp_path) -> Path:
    """A home folder with a clone whose lock names a package that does not exist."""
    (tmp_path / "clone" / "deploy").mkdir(parents=True)
    shutil.copy(DEPLOY / "install_kernel.sh", tmp_path / "clone" / "deploy")
    (tmp_path / "clone" / "requirements.txt").write_text(f"no-such-package==1 --hash=sha256:{'0' * 64}\n")
    return tmp_path


@pytest.mark.slow
def test_lifecycle_script_returns_at_once_and_tries_again(home):
    """It starts the set-up in the background. If that fails, the environment is not marked as complete."""
    (home / "wheels").mkdir()
    log = home / ".lakehouse-setup.log"
    for _ in range(2):
        text, seconds = start_space(home, WHEELS=str(home / "wheels"))
        assert "is being set up" in text and seconds < 30
        assert wait_until(lambda: "no-such-package" in log.read_text(), 240)
        subprocess.run(
            ["flock", home / ".lakehouse-setup.lock", "true"], check=True
        )  # waits for the background process
        log.unlink()
        assert not (home / "envs" / "lakehouse" / ".complete").exists()


def test_lifecycle_script_does_nothing_when_the_environment_is_complete(home):
    """A second start of the space changes nothing, until the lock changes."""
    lock = home / "clone" / "requirements.txt"
    marker = home / "envs" / "lakehouse" / ".complete"
    marker.parent.mkdir(parents=True)
    marker.write_text(subprocess.run(["cksum"], stdin=lock.open(), capture_output=True, text=True).stdout)
    assert "is complete" in start_space(home)[0]
    assert not (home / ".lakehouse-setup.log").exists()


def test_start_up_script_of_a_notebook_job_does_not_end_its_shell(home):
    """If the installation fails, the shell that sources the script goes on, and can see that it failed."""
    (home / "wheels").mkdir()
    command = f"source {DEPLOY / 'notebook_job_init.sh'} || echo failed with $?"
    environment = {**os.environ, "HOME": str(home), "WHEELS": str(home / "wheels")}
    done = subprocess.run(["bash", "-c", command], cwd=home / "clone", env=environment, capture_output=True, text=True)
    assert "failed with 1" in done.stdout and "no-such-package" in done.stderr
    assert (home / "envs" / "lakehouse-job").is_dir()


@pytest.mark.slow
def test_notebook_runs_as_a_notebook_job(tmp_path, s3_state_dir):
    """The program that runs Notebook Jobs runs notebook 00 with a parameter, and writes the result."""
    notebook = tmp_path / "job" / "00_start_here.ipynb"
    shutil.copytree(CHECKOUT / "notebooks", notebook.parent)
    parameters, output = tmp_path / "hyperparameters.json", tmp_path / "output.ipynb"
    parameters.write_text(json.dumps({"SCALE": 1}))
    environment = {
        "SM_PAPERMILL_INPUT": notebook,
        "SM_PAPERMILL_OUTPUT": output,
        "SM_PAPERMILL_PARAMS_PATH": parameters,
        "SM_PAPERMILL_FAILURE_FILE": tmp_path / "failure",
        "SM_KERNEL_NAME": "python3",
        "LAKEHOUSE_STATE_DIR": s3_state_dir,
    }
    done = subprocess.run(
        [sys.executable, "-m", "sagemaker_headless_execution_driver.notebookrunner"],
        env={**os.environ, **{name: str(value) for name, value in environment.items()}},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    cells = nbformat.read(output, 4).cells
    assert any("injected-parameters" in cell.metadata.get("tags", []) for cell in cells)
    assert all(cell.execution_count for cell in cells if cell.cell_type == "code")
