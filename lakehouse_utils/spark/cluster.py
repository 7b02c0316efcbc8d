"""A small Apache Spark cluster on this machine: a master, two workers and a Spark Connect server.

Each is a process. The Connect server sends a session's work to the two workers, which run it in separate processes, as
on a cluster of machines. The cluster reads and writes the Delta tables of the lake. It listens on the loopback only,
and refuses every request without the secrets of this checkout.

Its files are in `<state_dir>/spark/`: `software/` (Spark from PyPI, the jars of Delta and S3 from Maven Central),
`conf/`, `log/`, `work/` (what the workers run, with its output), `secrets.json`, `ports.json`, `cluster.json`, `pids`.
It needs Java 17 or newer, and Maven for the first start, which downloads half a gigabyte.

The cluster keeps the settings and the keys that it was started with. If they change, run `start` again.
"""

import base64
import hashlib
import hmac
import http.client
import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from lakehouse_utils import processes, settings
from lakehouse_utils.errors import LocalServerError
from lakehouse_utils.lake import Lake
from lakehouse_utils.processes import HOST, Ports, PortTakenError, StateFolder
from lakehouse_utils.spark import configuration, software
from lakehouse_utils.spark.configuration import WORKERS

_START_TIMEOUT_S = 180  # for a busy machine; usually about 15 seconds
_STOP_TIMEOUT_S = 20
_LOG_PROBLEM = r" (ERROR|WARN) |Exception|Error:"


@dataclass(frozen=True)
class Cluster:
    """A running cluster. `remote` is its address, sc://host:port; sessions also need `token`, see `with_token`."""

    remote: str
    token: str = field(repr=False)
    pids: tuple[int, ...]
    workers: int = WORKERS
    version: str = software.SPARK_VERSION


def start(
    config: settings.Settings | None = None,
    *,
    software_path: Path | None = None,
    notify: Callable[[str], None] = print,
) -> Cluster:
    """Return the cluster of `config.state_dir`, for the lake that the settings name. Starts it if necessary.

    A cluster that runs with other settings is restarted. Missing software is downloaded into `software_path`, by
    default a folder in the state folder; `notify` is called with a sentence before each download.

    Raises LocalServerError if Java or Maven is missing, a download fails, or a process does not start; StorageError if
    the server of the lake cannot be reached.
    """
    config = config or settings.load()
    lake = Lake.open(config=config)
    folder = _folder(config.state_dir)
    with _locked(folder):
        installed = software.install(software_path or folder.path / "software", notify)
        is_embedded = config.lakehouse_uri is None
        options = configuration.spark_options(folder, installed, lake, is_embedded=is_embedded)
        environment = configuration.environment(folder, installed, config.state_dir)
        fingerprint = _fingerprint(options, environment)
        if (cluster := _find(folder)) and _recorded_fingerprint(folder) == fingerprint:
            return cluster
        _stop(folder)

        def start_on(ports: Ports) -> Cluster:
            all_options = options | configuration.address_options(ports)
            pids = _start(folder, installed.spark_path, all_options, environment, ports)
            folder.write_json("cluster.json", {"pids": pids, "fingerprint": fingerprint})
            folder.write_text("pids", "\n".join(map(str, pids)) + "\n")  # for `make clean`
            return _cluster(pids, ports, options["spark.connect.authenticate.token"])

        return processes.start_on_free_ports(folder, _pick_ports, start_on, lambda: _stop(folder))


def status(state_dir: Path) -> Cluster | None:
    """Return the running cluster of `state_dir`, or None. Starts nothing."""
    return _find(_folder(state_dir))


def stop(state_dir: Path) -> bool:
    """Stop the cluster of `state_dir`, executors included. Returns whether one was running. Its software is kept.

    Raises LocalServerError if the folder cannot be written, or another program has been starting or stopping the
    cluster for six minutes.
    """
    folder = _folder(state_dir)
    if not folder.path.is_dir():
        return False
    with _locked(folder):
        return _stop(folder)


def with_token(remote: str, state_dir: Path) -> str:
    """Return `remote`, with the token appended if it is the address of the cluster of `state_dir`.

    Pass the result only to SparkSession.builder.remote(): it must not appear in a command line, a log or an output.
    """
    cluster = status(state_dir)
    address = urlsplit(remote)
    if cluster is None or address.port != urlsplit(cluster.remote).port or address.hostname not in ("localhost", HOST):
        return remote
    return f"{cluster.remote}/;token={cluster.token}"


def running_processes(state_dir: Path) -> list[psutil.Process]:
    """All processes of the cluster of `state_dir`: daemons, executors, and Python processes that run functions."""
    return _running(_folder(state_dir))


def _folder(state_dir: Path) -> StateFolder:
    advice = "Remove its folder `software` and start it again."
    return StateFolder(Path(state_dir).absolute() / "spark", "The Spark cluster", advice)


@contextmanager
def _locked(folder: StateFolder) -> Iterator[None]:
    with folder.locked("conf", timeout_s=2 * _START_TIMEOUT_S):
        yield


# Finding a running cluster


def _find(folder: StateFolder) -> Cluster | None:
    secrets, ports, record = (folder.read_json(name) for name in ("secrets.json", "ports.json", "cluster.json"))
    if not (secrets and ports and record):
        return None
    pids = record["pids"]
    if not all(_is_ours(pid, folder) for pid in pids):
        return None
    if (HOST, ports["connect"]) not in processes.listening_addresses(pids[-1]):
        return None
    return _cluster(pids, ports, secrets["token"])


def _cluster(pids: list[int], ports: Ports, token: str) -> Cluster:
    # Not 127.0.0.1: without TLS, the client sends a token only to localhost.
    return Cluster(f"sc://localhost:{ports['connect']}", token, tuple(pids))


def _is_ours(pid: int, folder: StateFolder) -> bool:
    try:
        return _runs_in(folder, psutil.Process(pid))
    except psutil.NoSuchProcess:
        return False


def _runs_in(folder: StateFolder, process: psutil.Process) -> bool:
    try:
        command = " ".join(process.cmdline())
    except psutil.Error:
        return False
    return ("org.apache.spark." in command or "pyspark.daemon" in command) and folder.contains(process)


def _running(folder: StateFolder) -> list[psutil.Process]:
    return processes.find_processes(lambda process: _runs_in(folder, process))


# Starting


def _pick_ports() -> Ports | None:
    # Below the range that Linux uses for outgoing connections.
    free = (port for port in processes.sample_ports(range(25_000, 32_000)) if processes.is_free(port))
    names = ("connect", "master", "pages")
    ports = dict(zip(names, free, strict=False))
    return ports if len(ports) == len(names) else None


def _start(
    folder: StateFolder, spark: Path, options: dict[str, str], environment: dict[str, str], ports: Ports
) -> list[int]:
    """Start the processes and wait until they work. Returns their pids; the last is that of the Connect server."""
    defaults = "".join(f"{name} {value}\n" for name, value in options.items())
    folder.write_text("conf/spark-defaults.conf", defaults)
    folder.write_text("conf/log4j2.properties", configuration.LOGGING_PATH.read_text(encoding="utf-8"))
    folder.rotate_log()
    for name in ("work", "local"):
        shutil.rmtree(folder.path / name, ignore_errors=True)
        (folder.path / name).mkdir(mode=0o700)
    started = {
        name: processes.spawn([str(spark / "bin" / "spark-class"), *arguments], folder, f"{name}.log", environment)
        for name, arguments in _commands(ports).items()
    }
    _wait_until_up(started, folder, ports)
    return [process.pid for process in started.values()]


def _commands(ports: Ports) -> dict[str, list[str]]:
    """The arguments of spark-class for each process, by its name."""
    deploy, master = "org.apache.spark.deploy", f"spark://{HOST}:{ports['master']}"
    addresses = ["--host", HOST, "--port", str(ports["master"]), "--webui-port", str(ports["pages"])]
    resources = ["--cores", "1", "--memory", configuration.WORKER_MEMORY]
    any_port = ["--host", HOST, "--port", "0", "--webui-port", "0"]
    server = ["--class", "org.apache.spark.sql.connect.service.SparkConnectServer", "spark-internal"]
    worker = [f"{deploy}.worker.Worker", *resources, *any_port, master]
    return {
        "master": [f"{deploy}.master.Master", *addresses],
        **{f"worker-{number}": worker for number in range(1, WORKERS + 1)},
        "connect": [f"{deploy}.SparkSubmit", "--master", master, *server],
    }


def _wait_until_up(started: dict[str, subprocess.Popen[bytes]], folder: StateFolder, ports: Ports) -> None:
    """Wait until the Connect server listens and each worker runs an executor for it, all on the loopback only."""

    def is_up() -> bool:
        listening = processes.listening_addresses(started["connect"].pid)
        if (HOST, ports["connect"]) in listening and _executor_cores(folder, ports["pages"]) == WORKERS:
            return True
        for name, process in started.items():
            if process.poll() is not None:
                log = (folder.log_path / f"{name}.log").read_text("utf-8", "replace")
                if "BindException" in log or "Address already in use" in log:
                    raise PortTakenError
                raise LocalServerError(
                    f"The process {name!r} of the Spark cluster ended while it was starting. {_log_text(folder, name)}"
                )
        return False

    if not processes.wait_until(is_up, _START_TIMEOUT_S, interval_s=0.2):
        raise LocalServerError(
            f"The Spark cluster did not start within {_START_TIMEOUT_S} seconds. {_log_text(folder, 'connect')}"
        )
    listening = {address for process in _running(folder) for address in processes.listening_addresses(process.pid)}
    processes.refuse_addresses(folder, {address for address in listening if address[0] != HOST})


def _executor_cores(folder: StateFolder, port: int) -> int:
    """How many cores work for the Connect server, according to the master's page: one for each executor."""
    connection = http.client.HTTPConnection(HOST, port, timeout=5)
    try:
        key = configuration.cluster_secrets(folder)["pages"]
        connection.request("GET", "/json/", headers={"Authorization": f"Bearer {_json_web_token(key)}"})
        state = json.loads(connection.getresponse().read())
        return sum(application["cores"] for application in state["activeapps"])
    except (OSError, ValueError, http.client.HTTPException):
        return 0
    finally:
        connection.close()


def _json_web_token(key: str) -> str:
    """A JSON web token signed with `key`, which Spark's pages require."""

    def encode(part: bytes) -> str:
        return base64.urlsafe_b64encode(part).rstrip(b"=").decode()

    claim = ".".join(encode(json.dumps(part).encode()) for part in ({"alg": "HS256", "typ": "JWT"}, {"sub": "us"}))
    return f"{claim}.{encode(hmac.digest(base64.urlsafe_b64decode(key), claim.encode(), hashlib.sha256))}"


def _log_text(folder: StateFolder, name: str) -> str:
    path = folder.log_path / f"{name}.log"
    return f"Its log, {path}, says:\n{processes.log_excerpt([path], _LOG_PROBLEM)}"


def _fingerprint(options: dict[str, str], environment: dict[str, str]) -> str:
    """A hash of what a cluster is started with, keys included."""
    prefixes = ("AWS_", "LAKEHOUSE_", "PYSPARK_", "SPARK_")
    variables = {name: value for name, value in environment.items() if name.startswith(prefixes)}
    return hashlib.sha256(json.dumps([options, variables], sort_keys=True).encode()).hexdigest()


def _recorded_fingerprint(folder: StateFolder) -> str | None:
    fingerprint: str | None = (folder.read_json("cluster.json") or {}).get("fingerprint")
    return fingerprint


# Stopping


def _stop(folder: StateFolder) -> bool:
    """Stop every process of the cluster, recorded or not. Returns whether there was one."""
    stopped = processes.stop_processes(lambda: _running(folder), _STOP_TIMEOUT_S)
    for name in ("cluster.json", "pids"):
        (folder.path / name).unlink(missing_ok=True)
    return bool(stopped)
