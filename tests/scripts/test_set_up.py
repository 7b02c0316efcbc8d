"""`make` sets .venv up by itself, whatever the machine has: Python only, uv only, both, or the wrong Python."""

import ast
import base64
import functools
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from support.selected import slow_but

from lakehouse_utils.settings import CHECKOUT

pytestmark = pytest.mark.skipif(not shutil.which("make") or os.name == "nt", reason="make is missing")

WITH_PIP = [
    "python -m venv .venv",
    "python -m pip install --quiet --no-user --disable-pip-version-check --require-hashes -r requirements.txt",
    "python -m pip install --quiet --no-user --disable-pip-version-check --no-deps --no-build-isolation -e .",
]
WITH_UV = [
    "uv venv --quiet --allow-existing --python python3 .venv",
    "uv pip install --quiet --compile-bytecode --python .venv/bin/python --require-hashes -r requirements.txt",
    "uv pip install --quiet --compile-bytecode --python .venv/bin/python --no-deps --no-build-isolation -e .",
]
STEPS = ["Install the packages of requirements.txt", "Install the package of this checkout"]
INSTALL_UV = "Install uv, which installs the rest"
OWN_UV = str(Path(sys.executable).with_name("uv"))


def calls(checkout) -> list[str]:
    """How the stand-ins were called since this was last asked, with paths as seen from the checkout."""
    short = {f"{checkout.folder}/": "", f"{checkout.home}/bin/": ""}
    lines = checkout.calls()
    for path, shorter in short.items():
        lines = [line.replace(path, shorter) for line in lines]
    return lines


def steps_of_run(checkout, *arguments: str, **variables: str) -> list[str]:
    """The calls of `make run`, without the run itself."""
    code, output, errors = checkout.make("run", "UV=", *arguments, **variables)
    assert (code, errors) == (0, "") and output.endswith("ran\n"), errors
    *steps, last = calls(checkout)
    assert last == "python ingestion_processor.py"
    return steps


def printed_steps(output: str) -> list[str]:
    """The titles of the numbered steps in the output of a set-up, which must be followed by the job's line."""
    first, *lines, ready, job = output.splitlines()
    assert first == "Setting up .venv. This happens once." and re.fullmatch(r"\.venv is ready after \d+ s\.", ready)
    assert job == "ran"
    steps = [re.fullmatch(r"(\d+)\. (.+) \.\.\. \d+\.\d s", line) for line in lines]
    assert all(steps), output
    assert [int(step[1]) for step in steps] == list(range(1, len(steps) + 1))
    return [step[2] for step in steps]


# -- the order of the steps, with programs that only log how they are called


def test_run_sets_up_the_first_time_only(checkout):
    """The first run sets up .venv and prints each step with its seconds; the second prints only what the job prints."""
    code, output, errors = checkout.make("run", "UV=", 'ARGS=--lake "s3://a b"')
    assert (code, errors) == (0, ""), output + errors
    seconds = r" \.\.\. \d+\.\d s\n"
    title = "".join(f"{number}. {title}{seconds}" for number, title in enumerate(STEPS, start=2))
    text = rf"Setting up \.venv\. This happens once\.\n1\. Create it with Python 3\.12\.1{seconds}{title}"
    assert re.fullmatch(text + r"\.venv is ready after \d+ s\.\nran --lake s3://a b\n", output), output
    assert calls(checkout) == [*WITH_PIP, "python ingestion_processor.py --lake s3://a b"]
    assert checkout.make("run", "UV=") == (0, "ran\n", "")
    assert calls(checkout) == ["python ingestion_processor.py"]


@pytest.mark.parametrize("name", ["requirements.txt", "pyproject.toml"])
def test_set_up_with_another_lock(checkout, name):
    """A changed lock or project file brings .venv up to date; a file that only has a new date does not."""
    steps_of_run(checkout)
    (checkout.folder / name).touch()
    assert steps_of_run(checkout) == []
    (checkout.folder / name).write_text("# another\n")
    assert steps_of_run(checkout) == WITH_PIP[1:]
    assert steps_of_run(checkout) == []


def test_set_up_after_a_failed_one(checkout):
    """A set-up that failed shows what pip printed, without passwords, and starts over in an empty .venv."""
    code, output, errors = checkout.make("run", "UV=", PIP_FAILS="1")
    assert "Looking in https://***@index.example.org/simple\n" in errors and "s3cr3t" not in output + errors
    assert code and "2. Install the packages of requirements.txt failed after" in output
    assert "The set-up failed at step 2. The same command tries it again." in errors
    (checkout.folder / ".venv" / "half a package").touch()
    calls(checkout)
    assert steps_of_run(checkout) == WITH_PIP
    assert not (checkout.folder / ".venv" / "half a package").exists()

    (checkout.folder / ".venv" / "bin" / "python").unlink()
    assert steps_of_run(checkout) == WITH_PIP


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_set_up_after_an_interrupted_one(checkout, number):
    """A set-up that was stopped by Ctrl+C, or killed, starts over in an empty .venv."""
    process = checkout.start("run", "UV=", INSTALL_TAKES="60")
    wait_for(checkout.home / "log.installing")
    os.killpg(process.pid, number)
    _, errors = process.communicate(timeout=30)
    assert process.returncode
    if number == signal.SIGINT:
        assert "The set-up was interrupted. The same command starts it again." in errors
    assert "Traceback" not in errors
    (checkout.folder / ".venv" / "half a package").touch()
    calls(checkout)
    assert steps_of_run(checkout) == WITH_PIP
    assert not (checkout.folder / ".venv" / "half a package").exists()


def test_set_up_while_another_is_running(checkout):
    """A second `make` waits for the set-up of the first one, says so, and sets up nothing itself."""
    first = checkout.start("run", "UV=", INSTALL_TAKES="1")
    wait_for(checkout.home / "log.installing")
    second = checkout.start("run", "UV=")
    outputs = [process.communicate(timeout=60) for process in (first, second)]
    assert [errors for _, errors in outputs] == ["", ""] and [first.returncode, second.returncode] == [0, 0]
    assert outputs[1][0] == "Another set-up of .venv is running. Waiting for it ...\nran\n"
    assert sorted(calls(checkout)) == sorted([*WITH_PIP, *["python ingestion_processor.py"] * 2])


def test_set_up_after_the_other_one_was_killed(checkout):
    """A second `make` that waits for a set-up starts over when that one is killed."""
    first = checkout.start("run", "UV=", INSTALL_TAKES="60")
    wait_for(checkout.home / "log.installing")
    second = checkout.start("run", "UV=")
    assert second.stdout.readline() == "Another set-up of .venv is running. Waiting for it ...\n"
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate(timeout=30)
    output, errors = second.communicate(timeout=60)
    assert (second.returncode, errors) == (0, "") and output.endswith("ran\n")
    assert calls(checkout) == [*WITH_PIP[:2], *WITH_PIP, "python ingestion_processor.py"]


def test_set_up_in_a_moved_checkout_and_with_another_python(checkout):
    """A checkout that was moved and another Python than that of .venv each start over; without PYTHON= it stays."""
    steps_of_run(checkout)
    checkout.folder = checkout.folder.rename(checkout.home / "another place")
    assert steps_of_run(checkout) == WITH_PIP

    checkout.add_stand_in("3.13.0", "python3.13")
    assert steps_of_run(checkout, "PYTHON=python3.13") == WITH_PIP
    assert steps_of_run(checkout, "PYTHON=python3.13") == steps_of_run(checkout) == []


def test_set_up_keeps_an_environment_that_was_made_by_hand(checkout):
    """A .venv that `python -m venv` made is filled, and not made again."""
    environment = checkout.environment
    subprocess.run(["python3", "-m", "venv", ".venv"], cwd=checkout.folder, env=environment, check=True)
    (checkout.folder / ".venv" / "my package").touch()
    calls(checkout)
    assert steps_of_run(checkout) == WITH_PIP[1:]
    assert (checkout.folder / ".venv" / "my package").exists()


def test_set_up_with_an_unsupported_python(checkout):
    """A Python out of range is refused with one sentence that names its version, and nothing is set up."""
    checkout.add_stand_in("3.9.2", "python3", "python3.11", "python3.12", "python3.13", "python")
    code, output, errors = checkout.make("run", "UV=")
    assert code and output == "" and len(errors.splitlines()) == 2
    assert "Python 3.11, 3.12 or 3.13 is needed; python3 is 3.9.2. Install one, or uv, or name one: PYTHON=" in errors
    checkout.add_stand_in("3.14.0", "python3.14")
    _, _, errors = checkout.make("run", "PYTHON=python3.14")
    assert "is needed; python3.14 is 3.14.0. Choose another one: PYTHON=" in errors and len(errors.splitlines()) == 2
    assert "is needed; python4 was not found. Choose" in checkout.make("run", "PYTHON=python4")[2]
    assert calls(checkout) == [] and not (checkout.folder / ".venv").exists()


@pytest.mark.parametrize("has_uv", [False, True])
def test_set_up_without_a_python(checkout, has_uv):
    """Where there is no Python, uv brings one; where uv is missing as well, one sentence says what to install."""
    (checkout.home / "bin").rename(checkout.home / "hidden")
    (checkout.home / "bin").mkdir()
    for program in ("sh", "make", "dirname"):
        (checkout.home / "bin" / program).symlink_to(shutil.which(program))
    checkout.environment["PATH"] = str(checkout.home / "bin")
    if has_uv:
        uv = checkout.home / "bin" / "uv"
        uv.write_text(
            "#!/bin/sh\n"
            'echo uv "$@" >>"$LOG"\n'
            'if [ "$1" = run ]; then\n'
            '  while [ "${1#scripts}" = "$1" ]; do shift; done\n'
            f'  exec {sys.executable} "$@"\n'
            "fi\n"
            'if [ "$1" = venv ]; then echo "no download" >&2; exit 2; fi\n'
        )
        uv.chmod(0o755)
    code, _, errors = checkout.make("run")
    assert code
    if has_uv:
        launched, asked, made = calls(checkout)
        assert launched.startswith("uv run --quiet --no-project --no-config --python >=3.11,<3.14 scripts/set_up.py")
        assert asked == "uv --version" and made.endswith("--python >=3.11,<3.14 .venv")
        assert "Python 3.11, 3.12 or 3.13 is needed, and uv could not bring one. Install one." in errors
        assert "no download" in errors
    else:
        assert "Python 3.11, 3.12 or 3.13 is needed, and no Python was found. Install one, or uv, or set" in errors


def test_set_up_where_pip_has_settings(checkout):
    """uv gets the index, the certificates and the other settings of pip; those made for uv itself stay."""
    checkout.add_stand_in("3.12.1", "uv")
    says = [
        "global.cert='/etc/ca.pem'",
        "global.extra-index-url='\\nhttps://one.example.org\\nhttps://two.example.org'",
        "global.find-links='/wheels /more'",
        "global.index-url='https://global.example.org/simple'",
        "global.timeout='180'",
        "install.index-url='https://user:secret@install.example.org/simple'",
        "install.trusted-host='install.example.org'",
    ]
    code, output, errors = checkout.make("run", PIP_SAYS="\n".join(says), PIP_PROXY="http://proxy:3128")
    assert (code, errors) == (0, "") and "secret" not in output
    assert calls(checkout)[:-1] == WITH_UV
    given = ast.literal_eval((checkout.home / "log.uv").read_text())
    assert {name: given[name] for name in given.keys() - {"UV_SYSTEM_CERTS", "UV_NATIVE_TLS"}} == {
        "ALL_PROXY": "http://proxy:3128",
        "SSL_CERT_FILE": "/etc/ca.pem",
        "UV_DEFAULT_INDEX": "https://user:secret@install.example.org/simple",
        "UV_FIND_LINKS": "/wheels,/more",
        "UV_HTTP_TIMEOUT": "180",
        "UV_INDEX": "https://one.example.org https://two.example.org",
        "UV_INDEX_STRATEGY": "unsafe-best-match",
        "UV_INSECURE_HOST": "install.example.org",
    }

    (checkout.folder / "requirements.txt").write_text("# another\n")
    variables = {"PIP_INDEX_URL": "https://env.example.org", "SSL_CERT_FILE": "/etc/own.pem"}
    checkout.make("run", PIP_SAYS="\n".join(says), **variables)
    given = ast.literal_eval((checkout.home / "log.uv").read_text())
    assert (given["UV_DEFAULT_INDEX"], given["SSL_CERT_FILE"]) == ("https://env.example.org", "/etc/own.pem")

    (checkout.folder / "requirements.txt").write_text("# and another\n")
    checkout.make("run", PIP_SAYS="\n".join(says), UV_INDEX_URL="https://uv.example.org")
    given = ast.literal_eval((checkout.home / "log.uv").read_text())
    assert given["UV_INDEX_URL"] == "https://uv.example.org"
    assert not {"UV_DEFAULT_INDEX", "UV_INDEX", "UV_INDEX_STRATEGY"} & given.keys()


def test_set_up_where_uv_fails(checkout):
    """Where uv fails, pip installs everything, and the output says so."""
    checkout.add_stand_in("3.12.1", "uv")
    code, output, _ = checkout.make("run", UV_FAILS="2")
    assert code == 0 and output.endswith("ran\n")
    assert "uv does not work here. Installing with pip, which takes a few minutes.\n" in output
    assert calls(checkout)[:-1] == [*WITH_UV[:2], *WITH_PIP[1:]]


def test_set_up_in_a_folder_that_cannot_be_written(checkout):
    """Where .venv cannot be written, one sentence says so."""
    (checkout.folder / ".venv").write_text("a file\n")
    code, output, errors = checkout.make("run", "UV=")
    assert code and output == "" and len(errors.splitlines()) == 2
    assert f"Cannot write to {checkout.folder}/.venv: File exists. " in errors


def test_help_sets_up_nothing(checkout):
    """`make` alone lists the targets, and sets up nothing."""
    code, output, _ = checkout.make()
    names = ("run", "lab", "test", "test-all", "lint", "bench", "lock", "clean", "set-up")
    assert code == 0 and all(f"make {name} " in output for name in names)
    assert not (checkout.folder / ".venv").exists() and calls(checkout) == []


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.02)


# -- the whole set-up, with a small lock


@pytest.mark.parametrize("installer", slow_but(["uv"], ["pip", "uv", "uv that pip installs"], slow=["pip"]))
def test_real_set_up(real_checkout, installer):
    """With pip, with the uv of the machine, or with a uv that pip installs, the job can import what was locked."""
    uv = {"pip": "", "uv": OWN_UV, "uv that pip installs": "no-such-uv"}[installer]
    chosen = [f"PYTHON={sys.executable}", f"UV={uv}"]
    code, output, errors = real_checkout.make("run", *chosen)
    assert (code, errors) == (0, ""), output + errors
    version = ".".join(map(str, sys.version_info[:3]))
    before = [INSTALL_UV] if installer == "uv that pip installs" else []
    assert printed_steps(output) == [f"Create it with Python {version}", *before, *STEPS]
    assert installed(real_checkout, "bell") == "1.0"
    assert (real_checkout.folder / ".venv" / "bin" / "uv").exists()
    assert real_checkout.make("run", *chosen) == (0, "ran\n", "")


@pytest.mark.slow
@pytest.mark.parametrize("uv", ["", OWN_UV], ids=["pip", "uv"])
def test_real_set_up_of_the_spark_engine(real_checkout, uv):
    """The Spark engine is added once, leaves the locked versions as they are, and stays when the lock changes."""
    chosen = [f"PYTHON={sys.executable}", f"UV={uv}"]
    assert real_checkout.make("run", *chosen)[0] == 0
    code, output, errors = real_checkout.make("run", "ENGINE=spark", *chosen)
    assert (code, errors) == (0, "") and output.endswith("ran --engine spark\n"), errors
    assert "Install the Spark engine ... " in output
    assert (installed(real_checkout, "tandem"), installed(real_checkout, "bell")) == ("1.0", "1.0")
    assert real_checkout.make("run", "ENGINE=spark", *chosen) == (0, "ran --engine spark\n", "")
    with (real_checkout.folder / "requirements.txt").open("a") as lock:
        lock.write("# another\n")
    assert "Install the Spark engine ... " in real_checkout.make("run", *chosen)[1]


@pytest.mark.nightly
@pytest.mark.parametrize("uv", ["", OWN_UV], ids=["pip", "uv"])
def test_real_set_up_of_a_spark_engine_that_needs_other_versions(real_checkout, uv):
    """Where the Spark engine needs another version than the locked one, the set-up fails, and that version stays."""
    project = real_checkout.folder / "pyproject.toml"
    project.write_text(project.read_text().replace("tandem==1.0", "tandem==2.0"))
    code, output, _ = real_checkout.make("run", "ENGINE=spark", f"PYTHON={sys.executable}", f"UV={uv}")
    assert code and "Install the Spark engine failed after" in output
    assert (installed(real_checkout, "tandem"), installed(real_checkout, "bell")) == (None, "1.0")


@pytest.mark.nightly
@pytest.mark.parametrize("uv", ["", OWN_UV], ids=["pip", "uv"])
def test_real_set_up_with_a_wrong_hash(real_checkout, uv):
    """A package whose hash is not the one in requirements.txt is not installed."""
    lock = real_checkout.folder / "requirements.txt"
    lock.write_text(re.sub(r"(bell==1.0 \\\n    --hash=sha256:)\w{8}", r"\g<1>00000000", lock.read_text()))
    code, _, errors = real_checkout.make("run", f"PYTHON={sys.executable}", f"UV={uv}")
    assert code and re.search(r"(?i)hash", errors) and "The set-up failed at step " in errors
    assert installed(real_checkout, "bell") is None


class Index(SimpleHTTPRequestHandler):
    """A package index that asks for a password: /simple/<name>/ links to the wheels in the folder."""

    names: list[tuple[str, bool]]

    def do_GET(self) -> None:
        given = self.headers.get("Authorization", "")
        allowed = given == "Basic " + base64.b64encode(b"reader:s3cr3t").decode()
        self.names.append((self.headers.get("User-Agent", "").split("/")[0], allowed))
        if not allowed:
            self.send_response(401)
            self.send_header("WWW-Authenticate", "Basic")
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif match := re.fullmatch(r"/simple/([\w-]+)/", self.path):
            files = sorted(Path(self.directory).glob(f"{match[1].replace('-', '_')}-*.whl"))
            page = "".join(f'<a href="/{file.name}">{file.name}</a><br>\n' for file in files).encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(page)))
            self.end_headers()
            self.wfile.write(page)
        else:
            super().do_GET()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def index(wheels: Path) -> Iterator[ThreadingHTTPServer]:
    handler = type("Handler", (Index,), {"names": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(handler, directory=str(wheels))) as server:
        server.names = handler.names
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.slow
@pytest.mark.parametrize("password", ["s3cr3t", "wr0ng"])
def test_real_set_up_from_an_index_with_a_password(real_checkout, index, password):
    """pip and uv both read the index that pip is configured for, and its password is never printed."""
    for name in ("PIP_FIND_LINKS", "PIP_NO_INDEX", "UV_OFFLINE"):
        del real_checkout.environment[name]
    settings = real_checkout.home / "pip.conf"
    address = f"http://reader:{password}@127.0.0.1:{index.server_port}/simple"
    settings.write_text(f"[global]\nindex-url = {address}\nretries = 0\n")
    variables = {"PIP_CONFIG_FILE": str(settings), "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
    code, output, errors = real_checkout.make("run", f"PYTHON={sys.executable}", "UV=no-such-uv", **variables)
    assert password not in output + errors
    if password == "s3cr3t":
        assert (code, errors) == (0, "") and INSTALL_UV in printed_steps(output)
        assert {name for name, allowed in index.names if allowed} == {"pip", "uv"}
    else:
        assert code and "uv does not work here. Installing with pip" in output
        assert "127.0.0.1" in errors and "The set-up failed at step 3." in errors


def installed(checkout, name: str) -> str | None:
    """The version of a package in .venv."""
    (folder,) = (checkout.folder / ".venv" / "lib").glob("python*/site-packages")
    versions = [path.name.split("-")[1].removesuffix(".dist") for path in folder.glob(f"{name}-*.dist-info")]
    return versions[0] if versions else None


# -- the script itself


def old_pythons() -> list[Path]:
    """Pythons on this machine that can run the script, but not the package."""
    found = [shutil.which(f"python3.{minor}") for minor in (8, 9, 10)]
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"), "versions")
    found += [str(path) for minor in (8, 9, 10) for path in pyenv.glob(f"3.{minor}.*/bin/python")]
    return [Path(path) for path in found if path and runs(path)]


def runs(python: str) -> bool:
    return subprocess.run([python, "-c", ""], capture_output=True).returncode == 0


def test_script_on_an_old_python(checkout):
    """An old Python runs the script as far as the sentence that asks for a newer one."""
    pythons = old_pythons()
    if not pythons:
        pytest.skip("Python 3.8, 3.9 and 3.10 are missing")
    for python in pythons:
        code, output, errors = checkout.make("run", f"PYTHON={python}")
        assert code and output == "" and len(errors.splitlines()) == 2, errors
        assert re.search(rf"is needed; {re.escape(str(python))} is 3\.(8|9|10)\.\d+\. Choose another one", errors)


def test_script_names_the_pythons_of_the_project():
    """The range in scripts/set_up.py, in scripts/run and in the Makefile is `requires-python` of pyproject.toml."""
    project = (CHECKOUT / "pyproject.toml").read_text(encoding="utf-8")
    names = ("scripts/set_up.py", "scripts/run", "Makefile", "README.md", "docs/troubleshooting.md")
    script, launcher, makefile, readme, trouble = ((CHECKOUT / name).read_text(encoding="utf-8") for name in names)
    least, below = map(int, re.search(r'requires-python = ">=3\.(\d+),<3\.(\d+)"', project).groups())
    assert f"MIN_PYTHON, MAX_PYTHON = (3, {least}), (3, {below - 1})" in script
    assert f'PYTHON_RANGE = ">=3.{least},<3.{below}"' in script and f"--python '>=3.{least},<3.{below}'" in launcher
    assert f"--python-version 3.{least} " in makefile
    *others, last = [f"3.{minor}" for minor in range(least, below)]
    needed = f"Python {', '.join(others)} or {last}"
    assert f'NEEDED = "{needed} is needed"' in script and f"{needed} is needed, and no Python" in launcher
    assert f"{needed}, " in readme and f"`{needed} is needed`" in trouble
    names = [f"python3.{minor}" for minor in reversed(range(least, below))]
    assert f" python3 {' '.join(names)} python; do" in launcher
    assert "CANDIDATES = [" + ", ".join(f'"{name}"' for name in ["python3", *names, "python"]) + "]" in script
