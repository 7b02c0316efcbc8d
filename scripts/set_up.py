"""Set up .venv: a Python environment with the packages of requirements.txt and the package of this checkout.

    python3 scripts/set_up.py            what `make run` calls first
    python3 scripts/set_up.py --spark    with the packages of the Spark engine as well

When .venv is up to date, nothing happens and nothing is printed. Otherwise each step is printed with its seconds.

uv installs the packages, because pip takes five times as long. Where uv is missing, pip installs it into .venv first.
Where that fails, or uv itself fails, pip installs everything. Every package of requirements.txt is checked against its
hash. What pip is configured with (index, certificates, proxy) is passed to uv.

Only the standard library is used, and any Python from 3.8 on can run this file. It looks for the Python that .venv
needs by itself.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

CHECKOUT = Path(__file__).resolve().parent.parent
PACKAGES = CHECKOUT / "requirements.txt"
VENV = CHECKOUT / ".venv"
VENV_PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
VENV_UV = VENV_PYTHON.with_name("uv" + VENV_PYTHON.suffix)
LOCK_FILE = VENV / ".set-up.lock"  # held by the set-up that is running
STATE_FILE = (
    VENV / ".set-up.json"
)  # what .venv was set up for; {} while a set-up is running or after it was interrupted

MIN_PYTHON, MAX_PYTHON = (3, 11), (3, 13)  # as `requires-python` in pyproject.toml
PYTHON_RANGE = ">=3.11,<3.14"
NEEDED = "Python 3.11, 3.12 or 3.13 is needed"
CANDIDATES = ["python3", "python3.13", "python3.12", "python3.11", "python"]

PIP_INSTALL = ["-m", "pip", "install", "--quiet", "--no-user", "--disable-pip-version-check"]


class SetUpError(Exception):
    """The set-up cannot go on. The text says why, and what to do."""


class StepError(SetUpError):
    """A program ended with an error. Its output has been printed."""


class Python(NamedTuple):
    """A Python on this machine. `path` is the one that virtual environments are made with."""

    path: str
    version: str  # the whole of sys.version: it tells two builds of one version apart
    number: tuple[int, int, int]

    @property
    def is_supported(self) -> bool:
        return MIN_PYTHON <= self.number[:2] <= MAX_PYTHON

    @property
    def name(self) -> str:
        return ".".join(map(str, self.number))


def main() -> None:
    parser = argparse.ArgumentParser(description="Set up .venv, unless it is up to date.")
    parser.add_argument("--python", default="", help="make .venv with this Python; default: the first supported one")
    parser.add_argument("--uv", default="uv", help="install with this uv; empty: install with pip")
    parser.add_argument("--spark", action="store_true", help="install the packages of the Spark engine as well")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("The set-up was stopped. The same command starts it again."))
    try:
        ensure_environment(options.python, options.uv, options.spark)
    except SetUpError as error:
        sys.exit(str(error))
    except OSError as error:  # the disk is full, for example
        sys.exit(f"The set-up failed: {error}. The same command tries it again.")
    except KeyboardInterrupt:
        sys.exit("The set-up was interrupted. The same command starts it again.")


def ensure_environment(python: str, uv: str, spark: bool) -> None:
    """Bring .venv up to date. Only one set-up runs at a time; another one waits for it.

    `python` and `uv` are names or paths of programs. An empty `python` is chosen here; an empty `uv` means pip.
    Raises SetUpError.
    """
    asked_for = inspect(python) if python else None
    if is_up_to_date(read_state(), asked_for, spark):
        return
    system_uv = uv if uv and succeeds([uv, "--version"]) else None
    chosen = choose_python(python, system_uv)
    with exclusive_lock():
        state = read_state()
        if is_up_to_date(state, asked_for, spark):
            return
        if must_start_over(state, asked_for):
            empty_environment()
        spark = spark or bool(state and state.get("spark"))
        write_state({})
        steps = Steps()
        set_up(steps, chosen, system_uv, spark, with_uv=bool(uv))
        write_state(describe_environment(spark))
        print(f".venv is ready after {steps.seconds():.0f} s.", flush=True)


# -- what .venv was set up for


def read_state() -> dict[str, Any] | None:
    """What .venv was set up for; {} after an interrupted set-up; None where .venv wasn't made by this script."""
    try:
        return json.loads(STATE_FILE.read_text(encoding="utf-8"))
    except OSError:
        return None
    except ValueError:
        return {}


def write_state(state: dict[str, Any]) -> None:
    draft = STATE_FILE.with_suffix(".draft")
    draft.write_text(json.dumps(state, indent=1), encoding="utf-8")
    draft.replace(STATE_FILE)


def describe_environment(spark: bool) -> dict[str, Any]:
    python = inspect(str(VENV_PYTHON))
    version = python.version if python else None
    return {"checkout": str(CHECKOUT), "packages": packages_digest(), "python": version, "spark": spark}


def packages_digest() -> str:
    files = (PACKAGES, CHECKOUT / "pyproject.toml")
    return hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()


def is_up_to_date(state: dict[str, Any] | None, asked_for: Python | None, spark: bool) -> bool:
    return (
        bool(state)
        and state["checkout"] == str(CHECKOUT)
        and state["packages"] == packages_digest()
        and (asked_for is None or state["python"] == asked_for.version)
        and (state["spark"] or not spark)
        and VENV_PYTHON.exists()
    )


def must_start_over(state: dict[str, Any] | None, asked_for: Python | None) -> bool:
    """Whether what is in .venv is unusable: an interrupted set-up, or one for another folder or another Python."""
    if state == {} or (state and state["checkout"] != str(CHECKOUT)):
        return True
    python = inspect(str(VENV_PYTHON))
    if python is None or not python.is_supported:
        return True
    return asked_for is not None and asked_for.version != python.version


def empty_environment() -> None:
    for path in VENV.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path != LOCK_FILE:
            path.unlink()


@contextmanager
def exclusive_lock() -> Iterator[None]:
    """Wait until no other set-up of this .venv is running. A process that is killed loses the lock."""
    try:
        VENV.mkdir(exist_ok=True)
        file = LOCK_FILE.open("a")
    except OSError as error:
        raise SetUpError(f"Cannot write to {VENV}: {error.strerror}. Change its owner or its permissions.") from None
    with file:
        if not try_lock(file.fileno()):
            print("Another set-up of .venv is running. Waiting for it ...", flush=True)
            while not try_lock(file.fileno()):
                time.sleep(0.1)
        yield


def try_lock(file_descriptor: int) -> bool:
    try:
        if os.name == "nt":
            import msvcrt

            msvcrt.locking(file_descriptor, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file_descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except PermissionError:  # what Windows says of a file that is locked
        return False
    return True


# -- which Python


def choose_python(asked_for: str, uv: str | None) -> Python | None:
    """The Python to make .venv with; None where uv has to bring one. Raises SetUpError where there is none."""
    unsupported = ""
    for candidate in [asked_for] if asked_for else CANDIDATES:
        python = inspect(candidate)
        if python and python.is_supported:
            return python
        if python and not unsupported:
            unsupported = f"; {candidate} is {python.name}"
    if asked_for:
        reason = unsupported or f"; {asked_for} was not found"
        raise SetUpError(f"{NEEDED}{reason}. Choose another one: PYTHON=/path/to/python3.12")
    if not uv:
        raise SetUpError(f"{NEEDED}{unsupported}. Install one, or uv, or name one: PYTHON=/path/to/python3.12")
    return None


def inspect(python: str) -> Python | None:
    """What the program `python` is; None where it isn't a Python that runs."""
    code = "import json, sys; print(json.dumps([sys._base_executable, sys.version, sys.version_info[:3]]))"
    try:
        path, version, number = json.loads(output_of([python, "-c", code]))
    except (OSError, ValueError, subprocess.CalledProcessError):
        return None
    return Python(path, version, tuple(number))


# -- the steps


class Steps:
    """Runs programs one after the other, and prints a numbered line with the seconds of each."""

    def __init__(self) -> None:
        self._count = 0
        self._started = time.monotonic()
        self._is_terminal = sys.stdout.isatty()
        print("Setting up .venv. This happens once.", flush=True)

    def run(self, title: str, command: list[str], variables: dict[str, str] | None = None) -> None:
        """Run `command`, with `variables` added to the environment.

        Raises StepError, after the output was printed without the passwords in it.
        """
        self._count += 1
        line = f"{self._count}. {title}"
        self._print(f"{line} ...")
        started = time.monotonic()
        with tempfile.TemporaryFile() as output:
            try:
                process = subprocess.Popen(
                    command,
                    cwd=CHECKOUT,
                    env={**os.environ, **(variables or {})},
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                )
                while is_running(process):
                    self._print(f"{line} ... {time.monotonic() - started:.0f} s")
                failed = process.returncode != 0
            except OSError as error:
                output.write(str(error).encode())
                failed = True
            verdict = "failed after" if failed else "..."
            self._print(f"{line} {verdict} {time.monotonic() - started:.1f} s", is_final=True)
            if failed:
                output.seek(0)
                print(without_passwords(output.read().decode(errors="replace").rstrip()), file=sys.stderr, flush=True)
                raise StepError(f"The set-up failed at step {self._count}. The same command tries it again.")

    def seconds(self) -> float:
        return time.monotonic() - self._started

    def _print(self, text: str, is_final: bool = False) -> None:
        """Print a line; a terminal shows it while the step runs, too."""
        if self._is_terminal:
            print(f"\r{text}", end="\n" if is_final else "", flush=True)
        elif is_final:
            print(text, flush=True)


def is_running(process: subprocess.Popen[bytes]) -> bool:
    """Wait for up to a second; whether `process` still runs then. It ends with this program."""
    try:
        process.wait(timeout=1)
    except subprocess.TimeoutExpired:
        return True
    except BaseException:  # Ctrl+C, or SIGTERM
        process.terminate()
        process.wait()
        raise
    return False


def set_up(steps: Steps, python: Python | None, system_uv: str | None, spark: bool, with_uv: bool) -> None:
    """Make .venv where it is missing, and install everything: with uv, or with pip where uv isn't wanted or fails."""
    if not system_uv:
        create_with_venv(steps, python)
    if with_uv:
        try:
            set_up_with_uv(steps, python, system_uv, spark)
            return
        except StepError:
            if python is None and not VENV_PYTHON.exists():
                raise SetUpError(f"{NEEDED}, and uv could not bring one. Install one.") from None
            print("uv does not work here. Installing with pip, which takes a few minutes.", flush=True)
            create_with_venv(steps, python)
    ensure_pip(steps)
    install_packages(steps, [str(VENV_PYTHON), *PIP_INSTALL], spark, {})


def create_with_venv(steps: Steps, python: Python | None) -> None:
    if python and not VENV_PYTHON.exists():
        steps.run(f"Create it with Python {python.name}", [python.path, "-m", "venv", str(VENV)])


def set_up_with_uv(steps: Steps, python: Python | None, system_uv: str | None, spark: bool) -> None:
    uv = system_uv or install_uv(steps)
    settings = read_pip_settings(python)
    variables = uv_variables(settings)
    if not VENV_PYTHON.exists():
        title = f"Create it with Python {python.name}" if python else "Create it with a Python that uv brings"
        command = [uv, "venv", "--quiet", "--allow-existing", "--python", python.path if python else PYTHON_RANGE]
        steps.run(title, [*command, str(VENV)], variables)
    install = [uv, "pip", "install", "--quiet", "--compile-bytecode", "--python", str(VENV_PYTHON)]
    if settings.get("no-index") in ("1", "true", "yes", "on"):
        install.append("--no-index")
    install_packages(steps, install, spark, variables)


def install_uv(steps: Steps) -> str:
    """The uv in .venv. Where it is missing, pip installs the one that requirements.txt names."""
    if not succeeds([str(VENV_UV), "--version"]):
        ensure_pip(steps)
        entries = [entry for entry in locked_packages() if entry.startswith("uv==")]
        with text_file(entries) as requirements:
            command = [str(VENV_PYTHON), *PIP_INSTALL, "--no-deps", "--require-hashes", "-r", requirements]
            steps.run("Install uv, which installs the rest", command)
    return str(VENV_UV)


def ensure_pip(steps: Steps) -> None:
    if not succeeds([str(VENV_PYTHON), "-m", "pip", "--version"]):
        steps.run("Add pip", [str(VENV_PYTHON), "-m", "ensurepip"])


def install_packages(steps: Steps, command: list[str], spark: bool, variables: dict[str, str]) -> None:
    packages = [*command, "--require-hashes", "-r", str(PACKAGES)]
    steps.run("Install the packages of requirements.txt", packages, variables)
    checkout = [*command, "--no-deps", "--no-build-isolation", "-e", "."]
    steps.run("Install the package of this checkout", checkout, variables)
    if spark:  # not in requirements.txt; what is in there keeps its version
        with text_file(re.split(r" \\\n", entry)[0] for entry in locked_packages()) as constraints:
            steps.run("Install the Spark engine", [*command, "-c", constraints, *spark_packages()], variables)


def spark_packages() -> list[str]:
    """The extra `spark` of pyproject.toml. A list of strings in TOML is one in Python, too; tomllib came with 3.11."""
    project = (CHECKOUT / "pyproject.toml").read_text(encoding="utf-8")
    match = re.search(r"^spark = (\[.*?^\])", project, re.DOTALL | re.MULTILINE)
    if match is None:
        raise SetUpError("pyproject.toml has no list of packages called spark.")
    return ast.literal_eval(match[1])


def locked_packages() -> list[str]:
    """The entries of requirements.txt: name, version, marker and hashes."""
    entries = re.split(r"\n(?=\S)", PACKAGES.read_text(encoding="utf-8").strip())
    return [entry for entry in entries if "==" in entry]


@contextmanager
def text_file(lines: Iterator[str] | list[str]) -> Iterator[str]:
    """The path of a file that holds `lines`, for as long as the block runs."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "requirements.txt")
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        yield str(path)


# -- pip's configuration, for uv


def read_pip_settings(python: Python | None) -> dict[str, str]:
    """pip's settings by name, such as "index-url". PIP_... variables come first, then [install], then [global]."""
    lines: list[str] = []
    for program in [str(VENV_PYTHON), *([python.path] if python else [])]:
        try:
            lines = output_of([program, "-m", "pip", "config", "list"]).splitlines()
            break
        except (OSError, subprocess.CalledProcessError):
            pass  # there is no pip in a .venv that uv made
    settings = {}
    for section in ("global.", "install."):
        for line in lines:
            if line.startswith(section):
                name, _, value = line[len(section) :].partition("=")
                settings[name] = str(ast.literal_eval(value))
    for name, value in os.environ.items():
        if name.startswith("PIP_") and value:
            settings[name[len("PIP_") :].lower().replace("_", "-")] = value
    return settings


def uv_variables(pip: dict[str, str]) -> dict[str, str]:
    """The variables that give uv the settings of pip. What the user has set for uv stays."""
    given = os.environ
    extra_indexes = " ".join(pip.get("extra-index-url", "").split())
    variables = {
        "UV_FIND_LINKS": ",".join(pip.get("find-links", "").split()),
        "UV_INSECURE_HOST": " ".join(pip.get("trusted-host", "").split()),
        "UV_HTTP_TIMEOUT": pip.get("timeout") or pip.get("default-timeout"),
        "ALL_PROXY": pip.get("proxy"),
        "SSL_CERT_FILE": pip.get("cert") or given.get("REQUESTS_CA_BUNDLE") or given.get("CURL_CA_BUNDLE"),
        "SSL_CLIENT_CERT": pip.get("client-cert"),
        "UV_SYSTEM_CERTS": "true",  # the certificates that this machine trusts, as pip does since 24.2
        "UV_NATIVE_TLS": "true",  # the same, for a uv from before that name
    }
    if not given.keys() & {"UV_DEFAULT_INDEX", "UV_INDEX", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL"}:
        variables["UV_DEFAULT_INDEX"] = pip.get("index-url")
        variables["UV_INDEX"] = extra_indexes
        if extra_indexes:  # as pip does: any index may have the file; its hash says whether it is the right one
            variables["UV_INDEX_STRATEGY"] = "unsafe-best-match"
    return {name: value for name, value in variables.items() if value and not given.get(name)}


# -- programs


def succeeds(command: list[str]) -> bool:
    try:
        output_of(command)
    except (OSError, subprocess.CalledProcessError):
        return False
    return True


def output_of(command: list[str]) -> str:
    """What `command` prints. Raises OSError where it doesn't exist, CalledProcessError where it fails."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=True)
    return done.stdout.decode(errors="replace")


def without_passwords(text: str) -> str:
    return re.sub(r"//[^/\s@]+@", "//***@", text)


if __name__ == "__main__":
    main()
