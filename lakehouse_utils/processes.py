"""What the two local servers, SeaweedFS and Apache Spark, share: a private folder, ports, starting and stopping.

A server outlives the program that started it. Later programs find its processes by what is recorded in its folder, by
their command line and by the folder they run in; a process ID alone may belong to another program by then.
"""

import contextlib
import errno
import json
import os
import random
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import psutil
from filelock import FileLock, Timeout

from lakehouse_utils.errors import LocalServerError

HOST = "127.0.0.1"
RELEASE_TIMEOUT_S = 2.0  # a process that was just killed may hold its ports and locks for a moment

Address = tuple[str, int]  # host, port
Ports = dict[str, int]
T = TypeVar("T")

# Ports that are commonly used by other software: RabbitMQ, Kubernetes, Spark, Kafka, Syncthing, ...
WELL_KNOWN_PORTS = frozenset(
    {15432, 15672, 16379, 16443, 16686, 18080, 18081, 18888, 19000, 19092, 19999, 20000, 21050, 22000, 22222}
    | {23646, 24224, 25565, 25672, 26257, 26379, 27015, 27017}
)

_PORTS_FILE = "ports.json"
_ATTEMPTS_WITH_NEW_PORTS = 3
_LOG_LINES = 6
_LOG_LINE_LENGTH = 300


class PortTakenError(Exception):
    """Another process has a port that the server was about to use."""


def wait_until(condition: Callable[[], bool], timeout_s: float, interval_s: float = 0.02) -> bool:
    """Wait until `condition` returns true. Returns whether it did within `timeout_s` seconds."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(interval_s)
    return True


# The folder


@dataclass(frozen=True)
class StateFolder:
    """The folder with everything that one local server keeps. Only its owner can enter it.

    `server` is the server's name as it begins an error message, for example "The S3 server". `advice` says what to do
    if its program cannot be run.
    """

    path: Path
    server: str
    advice: str

    @property
    def log_path(self) -> Path:
        """The folder of the log files of the last start."""
        return self.path / "log"

    @contextlib.contextmanager
    def locked(self, *subfolders: str, timeout_s: float) -> Iterator[None]:
        """Hold the folder's lock, so that one process at a time starts or stops the server. Creates the folders.

        Raises LocalServerError if the lock is not free within `timeout_s` seconds, or if the folder cannot be used.
        """
        try:
            for folder in (self.path, *(self.path / name for name in subfolders)):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.path.chmod(0o700)
            with FileLock(self.path / "lock", timeout=timeout_s):
                yield
        except Timeout:
            raise LocalServerError(
                f"{self.server} in {self.path} is being started or stopped by another process, which has not finished "
                f"within {timeout_s:.0f} seconds. End that process, and try again."
            ) from None
        except OSError as error:
            raise LocalServerError(
                f"{self.server} cannot use its folder {self.path}: {error.strerror or error}. Make the folder "
                "writable, or set LAKEHOUSE_STATE_DIR to another folder."
            ) from None

    def read_json(self, name: str) -> Any:  # noqa: ANN401  whatever the file holds
        """Read the JSON file `name`. Returns None if the file is missing or invalid."""
        try:
            return json.loads((self.path / name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None

    def write_json(self, name: str, value: object) -> None:
        """Replace the JSON file `name`, see `write_text`."""
        self.write_text(name, json.dumps(value, indent=1))

    def write_text(self, name: str, text: str) -> None:
        """Replace the file `name` in one step, by a file that only its owner can read."""
        path = self.path / name
        new = path.with_name(f"{path.name}.new")
        new.unlink(missing_ok=True)
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
        new.replace(path)

    def rotate_log(self) -> None:
        """Start an empty log folder. The log of the previous start is kept in `log.old`; older ones are removed."""
        old = self.path / "log.old"
        if self.log_path.is_dir():
            shutil.rmtree(old, ignore_errors=True)
            self.log_path.rename(old)
        self.log_path.mkdir(mode=0o700)

    def contains(self, process: psutil.Process) -> bool:
        """Whether `process` runs in this folder or below it."""
        try:
            # Not os.path.samefile: the folder may have been deleted under the process.
            return _normalized(process.cwd()).is_relative_to(_normalized(self.path))
        except (psutil.Error, OSError):
            return False


def _normalized(path: str | Path) -> Path:
    return Path(os.path.normcase(os.path.realpath(path)))


# Ports


def is_free(port: int) -> bool:
    """Whether a server could listen on `port`, on any address of this machine."""
    addresses = [(socket.AF_INET, HOST), (socket.AF_INET, "0.0.0.0")]  # noqa: S104  bound, but never listened on
    if socket.has_dualstack_ipv6():
        addresses.append((socket.AF_INET6, "::"))  # SeaweedFS refuses a port that is in use on any address
    return all(_can_bind(family, host, port) for family, host in addresses)


def _can_bind(family: socket.AddressFamily, host: str, port: int) -> bool:
    with socket.socket(family) as probe:
        if sys.platform != "win32":  # on Windows this option would allow a port that is in use
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            return error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)  # IPv6 is switched off
        return True


def sample_ports(candidates: range) -> list[int]:
    """Return up to 500 of `candidates` in random order, well-known ports left out. They may be in use.

    The random numbers are the system's, so that a notebook's `random.seed()` does not choose the ports.
    """
    sample = random.SystemRandom().sample(candidates, 500)
    return [port for port in sample if port not in WELL_KNOWN_PORTS]


def start_on_free_ports(
    folder: StateFolder,
    pick_ports: Callable[[], Ports | None],
    start: Callable[[Ports], T],
    stop: Callable[[], object],
) -> T:
    """Start a server on the ports of its last start if they are free, else on new ones. Returns what `start` returns.

    Open sessions know the address, so the last ports come first. `pick_ports` chooses new ones; it returns None if too
    few are free. `start` starts the server on the ports it is given, `stop` cleans up after a start that failed. The
    ports are recorded in `folder`.

    Raises LocalServerError if no free ports are found, or `start` raises PortTakenError each time. All other
    exceptions of `start` pass through.
    """
    for ports in _port_choices(folder, pick_ports):
        try:
            folder.write_json(_PORTS_FILE, ports)
            return start(ports)
        except PortTakenError:
            stop()
        except BaseException:
            stop()
            raise
    raise LocalServerError(
        f"{folder.server} could not be started: too few ports are free on {HOST}. Stop other servers on this machine "
        "and try again."
    )


def _port_choices(folder: StateFolder, pick_ports: Callable[[], Ports | None]) -> Iterator[Ports]:
    last: Ports = folder.read_json(_PORTS_FILE) or {}
    if last and wait_until(lambda: all(map(is_free, last.values())), RELEASE_TIMEOUT_S):
        yield last
    for _ in range(_ATTEMPTS_WITH_NEW_PORTS):
        if new := pick_ports():
            yield new


def listening_addresses(pid: int) -> set[Address]:
    """The addresses on which a process listens. Empty if it has ended or belongs to another user."""
    try:
        connections = psutil.Process(pid).net_connections("tcp")
    except psutil.Error:
        return set()
    return {
        (connection.laddr.ip.removeprefix("::ffff:"), connection.laddr.port)  # Java lists IPv4 addresses as IPv6
        for connection in connections
        if connection.status == psutil.CONN_LISTEN
    }


def refuse_addresses(folder: StateFolder, unexpected: set[Address]) -> None:
    """Raise LocalServerError that lists the `unexpected` addresses on which a server listens, if there are any."""
    if unexpected:
        listed = ", ".join(f"{host}:{port}" for host, port in sorted(unexpected))
        raise LocalServerError(
            f"{folder.server} was stopped because it listens on unexpected addresses: {listed}. "
            f"Its log is in {folder.log_path}."
        )


# Processes

_started: list[subprocess.Popen[bytes]] = []  # by this program, which has to reap those that end


def spawn(
    command: Sequence[str],
    folder: StateFolder,
    log_name: str,
    environment: Mapping[str, str],
    *,
    inherited_files: tuple[int, ...] = (),
) -> subprocess.Popen[bytes]:
    """Start a process of a server in `folder`. It outlives this program and the terminal.

    Its output goes to `log_name` in the log folder. On POSIX it keeps the file descriptors `inherited_files` open, and
    only the owner can read the files it creates.

    Raises LocalServerError if the program cannot be run.
    """
    with (folder.log_path / log_name).open("wb") as log:
        try:
            if sys.platform == "win32":
                process = subprocess.Popen(
                    command,
                    cwd=folder.path,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    creationflags=subprocess.DETACHED_PROCESS | subprocess.CREATE_NEW_PROCESS_GROUP,
                )
            else:
                process = subprocess.Popen(
                    command,
                    cwd=folder.path,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    umask=0o077,
                    pass_fds=inherited_files,
                )
        except OSError as error:
            raise LocalServerError(
                f"{folder.server} could not be started: {command[0]} cannot be run ({error.strerror}). {folder.advice}"
            ) from None
    _started.append(process)
    return process


def find_processes(is_ours: Callable[[psutil.Process], bool]) -> list[psutil.Process]:
    """All processes of this machine for which `is_ours` returns true."""
    return [process for process in psutil.process_iter() if is_ours(process)]


def stop_processes(find: Callable[[], list[psutil.Process]], timeout_s: float) -> list[psutil.Process]:
    """Stop the processes that `find` returns, and return them.

    First they are asked to end. Those that still run after `timeout_s` seconds are killed, and so are those that
    started meanwhile; then this waits for at most another `timeout_s` seconds.
    """
    asked = find()
    for process in asked:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    wait_until(lambda: all(map(has_ended, asked)), timeout_s)
    killed = [process for process in {*asked, *find()} if not has_ended(process)]
    for process in killed:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    wait_until(lambda: all(map(has_ended, killed)), timeout_s)
    return list({*asked, *killed})


def has_ended(process: psutil.Process) -> bool:
    """Whether `process` has ended, so that its ports and files are free. Reaps it if this program started it."""
    for child in _started:
        child.poll()
    try:
        # A zombie may still have threads that hold ports and files.
        return not process.is_running() or (process.status() == psutil.STATUS_ZOMBIE and process.num_threads() <= 1)
    except psutil.NoSuchProcess:
        return True


# The log


def log_excerpt(paths: Iterable[Path], problem_pattern: str) -> str:
    """The last lines in the files `paths` that match `problem_pattern`, else the first lines, indented."""
    lines = [line.rstrip() for path in paths for line in path.read_text("utf-8", "replace").splitlines()]
    problems = list(dict.fromkeys(line for line in lines if re.search(problem_pattern, line)))
    shown = problems[-_LOG_LINES:] or lines[:_LOG_LINES] or ["(nothing)"]
    return "\n".join(f"  {line[:_LOG_LINE_LENGTH]}" for line in shown)
