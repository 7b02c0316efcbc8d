"""Checkouts with nothing in them but the Makefile, the scripts and a job that prints a line."""

import base64
import hashlib
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import zipfile
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest

from lakehouse_utils.settings import CHECKOUT

STAND_IN = Path(__file__).with_name("stand_in.py")
JOB = "import os, sys\nos.chdir('/')\nsys.path.pop(0)\nimport lakehouse_utils, bell\nprint('ran', *sys.argv[1:])\n"
# A build tool that finds the wheel in the source, for a package that is published as source only, as pyspark-client is.
FORGE = """
import pathlib, shutil
def build_wheel(folder, config_settings=None, metadata_directory=None):
    wheel, = pathlib.Path(".").glob("*.whl")
    return shutil.copy(wheel, folder) and wheel.name
"""


class Checkout:
    """A checkout with a space in its name, in which `make` is run."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.folder = home / "a checkout"
        self.folder.mkdir(parents=True)
        shutil.copy(CHECKOUT / "Makefile", self.folder)
        scripts = shutil.ignore_patterns("__pycache__")
        shutil.copytree(CHECKOUT / "scripts", self.folder / "scripts", ignore=scripts)
        for name in ("requirements.txt", "pyproject.toml", "ingestion_processor.py"):
            (self.folder / name).touch()
        dropped = (
            "PYTHON",
            "UV",
            "ARGS",
            "OPTS",
            "MAKE",
            "MFLAGS",
            "PIP_",
            "VIRTUAL_ENV",
            "SSL_",
            "REQUESTS_",
            "CURL_",
        )
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
        self.environment["PATH"] = f"{home / 'bin'}{os.pathsep}{os.environ['PATH']}"
        self.environment["PIP_CONFIG_FILE"] = os.devnull
        self.environment["LOG"] = str(home / "log")

    def add_stand_in(self, version: str, *names: str) -> None:
        """Put programs on the PATH that look like Python `version`, or like uv, and only log how they are called."""
        (self.home / "bin").mkdir(exist_ok=True)
        for name in names:
            kind = re.sub(r"[\d.]", "", name)
            command = shlex.join([sys.executable, str(STAND_IN), kind, version])
            path = self.home / "bin" / name
            path.write_text(f'#!/bin/sh\nexec {command} "$0" "$@"\n')
            path.chmod(0o755)

    def start(self, *arguments: str, **variables: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["make", *arguments],
            cwd=self.folder,
            env=self.environment | variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # a test can end all that it started
        )

    def make(self, *arguments: str, **variables: str) -> tuple[int, str, str]:
        """The exit code, the output and the errors of `make`."""
        process = self.start(*arguments, **variables)
        output, errors = process.communicate(timeout=200)
        return process.returncode, output, errors

    def calls(self) -> list[str]:
        """How the stand-ins were called since this was last asked."""
        log = self.home / "log"
        lines = log.read_text().splitlines() if log.exists() else []
        log.write_text("")
        return lines


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    """A checkout on a machine whose python3 is a stand-in."""
    checkout = Checkout(tmp_path)
    checkout.add_stand_in("3.12.1", "python3")
    return checkout


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in place of an index: uv, flit-core and two packages without content, one of them as source."""
    folder = tmp_path_factory.mktemp("wheels")
    try:
        for name in ("uv", "flit-core"):
            pack_installed(name, folder)
    except PackageNotFoundError as error:
        pytest.skip(f"{error.name} is missing: pip install -r requirements.txt")
    for version in ("1.0", "2.0"):
        pack("bell", version, {"bell.py": b""}, folder)
        pack("tandem", version, {"tandem.py": b""}, folder, f"bell>={version}")
    pack("forge", "1.0", {"forge.py": FORGE.encode()}, folder)
    as_source(folder / "tandem-1.0-py3-none-any.whl")
    return folder


@pytest.fixture
def real_checkout(tmp_path: Path, wheels: Path) -> Checkout:
    """A checkout whose lock and package are small, but real. All it installs is in `wheels`."""
    checkout = Checkout(tmp_path)
    (checkout.folder / "lakehouse_utils").mkdir()
    (checkout.folder / "lakehouse_utils" / "__init__.py").write_text(
        '"""A package without content."""\n\n__version__ = "1.0"\n'
    )
    (checkout.folder / "README.md").write_text("Text.\n")
    project = (CHECKOUT / "pyproject.toml").read_text(encoding="utf-8")
    project = re.sub(r"(?s)\ndependencies = \[.*?\n\]", '\ndependencies = ["bell"]', project)
    project = re.sub(r"(?s)\nspark = \[.*?\n\]", '\nspark = [\n    "tandem==1.0",  # made for this test\n]', project)
    (checkout.folder / "pyproject.toml").write_text(project)
    locked = [("bell", "1.0"), ("flit-core", distribution("flit-core").version), ("uv", distribution("uv").version)]
    (checkout.folder / "requirements.txt").write_text("".join(locked_entry(*pin, wheels) for pin in locked))
    (checkout.folder / "ingestion_processor.py").write_text(JOB)
    checkout.environment |= {"PIP_FIND_LINKS": str(wheels), "PIP_NO_INDEX": "1", "UV_OFFLINE": "1"}
    checkout.environment["UV_CACHE_DIR"] = str(tmp_path / "cache")
    return checkout


def locked_entry(name: str, version: str, wheels: Path) -> str:
    """A package as requirements.txt names it."""
    (wheel,) = wheels.glob(f"{name.replace('-', '_')}-{version}-*.whl")
    return f"{name}=={version} \\\n    --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}\n"


def pack(name: str, version: str, files: dict[str, bytes], folder: Path, requirement: str = "") -> None:
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    if requirement:
        metadata += f"Requires-Dist: {requirement}\n"
    info = f"{name}-{version}.dist-info"
    wheel = b"Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    write_wheel(folder / f"{name}-{version}-py3-none-any.whl", info, files | {
        f"{info}/METADATA": metadata.encode(), f"{info}/WHEEL": wheel,
    })  # fmt: skip


def as_source(wheel: Path) -> None:
    """Replace a wheel by a source package that `forge` builds."""
    name = "-".join(wheel.name.split("-")[:2])
    metadata = f"Metadata-Version: 2.1\nName: {name.split('-')[0]}\nVersion: {name.split('-')[1]}\n"
    project = '[build-system]\nrequires = ["forge"]\nbuild-backend = "forge"\n'
    with tarfile.open(wheel.with_name(f"{name}.tar.gz"), "w:gz") as archive:
        for path, content in (
            ("PKG-INFO", metadata.encode()),
            ("pyproject.toml", project.encode()),
            (wheel.name, wheel.read_bytes()),
        ):
            entry = tarfile.TarInfo(f"{name}/{path}")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    wheel.unlink()


def pack_installed(name: str, folder: Path) -> None:
    """Make a wheel of a package that this environment has."""
    package = distribution(name)
    base = f"{name.replace('-', '_')}-{package.version}"
    files, tag = {}, "py3-none-any"
    for file in package.files or []:
        path = Path(str(package.locate_file(file)))
        if file.suffix == ".pyc" or file.name in ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json"):
            continue
        if file.name == "WHEEL":
            tag = re.findall(r"^Tag: (.*)", path.read_text(), re.MULTILINE)[0]
        inside = f"{base}.data/scripts/{file.name}" if ".." in file.parts else file.as_posix()
        files[inside] = path.read_bytes()
    write_wheel(folder / f"{base}-{tag}.whl", f"{base}.dist-info", files)


def write_wheel(path: Path, info: str, files: dict[str, bytes]) -> None:
    record = ""
    with zipfile.ZipFile(path, "w") as wheel:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name)
            entry.external_attr = 0o100755 << 16  # pip makes programs executable that are so in the wheel
            wheel.writestr(entry, content)
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
            record += f"{name},sha256={digest},{len(content)}\n"
        wheel.writestr(f"{info}/RECORD", record + f"{info}/RECORD,,\n")
