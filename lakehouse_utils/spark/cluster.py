"""A small Apache Spark cluster on this machine: a master, two workers, and a Spark Connect server, each a process.

What a session sends to the Connect server runs on the two workers, in processes of their own, as it would on a cluster
of machines; Delta tables on the lake's S3 are in place. All of it listens on the loopback only, and takes nobody who
doesn't have the secrets of this checkout.

    python -m lakehouse_utils.spark start | stop | status

All it owns lies in `<state_dir>/spark/`: `software/` (Spark from PyPI, the jars of Delta and S3 from Maven Central),
`conf/`, `log/`, `work/` (what the workers run, with its output), `secrets.json`, `ports.json`, `cluster.json`.
It needs Java 17 or newer, and Maven for the first start, which downloads half a gigabyte.

The settings, and keys in the environment, are those of the start: after a change, start it again.
"""

import base64
import hashlib
import hmac
import http.client
import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from random import SystemRandom
from urllib.parse import urlsplit
from xml.sax.saxutils import escape

import psutil
from filelock import FileLock, Timeout

from lakehouse_utils import settings
from lakehouse_utils.errors import LakehouseError
from lakehouse_utils.lake import Lake
from lakehouse_utils.processes import HOST, is_free, listens_on, read, replace_log, write

# These belong together: Delta names the Spark it is built for, Spark brings a Hadoop (see its jars), hadoop-aws must be
# of just that, the AWS SDK nearly the one of hadoop-project's pom. The client, pyspark-client, is of Spark's version.
SPARK = "4.2.0"
_SPARK_SHA256 = "5ad689d53570ee1674193fd4f9bda065f0db3be9363a27d2a3406cc457b70b61"
_JARS = (
    "io.delta:delta-spark_4.2_2.13:4.4.0",
    "org.apache.hadoop:hadoop-aws:3.5.0",
    "software.amazon.awssdk:s3:2.35.5",
    "software.amazon.awssdk:s3-transfer-manager:2.35.5",  # S3A renames by it
    "software.amazon.awssdk:sts:2.35.5",  # profiles with a role
    "software.amazon.awssdk:sso:2.35.5",  # profiles with single sign-on
    "software.amazon.awssdk:ssooidc:2.35.5",
)
# What Spark has in other versions; and `bundle`, all of AWS in 600 MB.
_LEFT_OUT = (
    *(f"org.apache.hadoop:hadoop-client-{part}" for part in ("api", "runtime")),
    *(f"com.fasterxml.jackson.core:jackson-{part}" for part in ("annotations", "core", "databind")),
    *(f"{group}:*" for group in ("io.netty", "org.apache.httpcomponents", "org.apache.logging.log4j")),
    *(f"{group}:*" for group in ("org.apache.parquet", "org.roaringbitmap", "org.scala-lang", "org.slf4j")),
    "commons-codec:commons-codec",
    "commons-logging:commons-logging",
    "com.google.code.findbugs:jsr305",
    "software.amazon.awssdk:bundle",
)
_COPY = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"
_LEAST_JAVA = 17
_LOG_STORE = Path(__file__).with_name("ConditionalLogStore.scala")

_WORKERS = 2
_WORKER_MEMORY = "1g"
_SMALL = "-XX:+UseSerialGC"
_QUICK = "-XX:TieredStopAtLevel=1"  # what runs once is not worth compiling well
_START_SECONDS = 180  # on a busy machine; else some 15
_STOP_SECONDS = 20


@dataclass(frozen=True)
class Cluster:
    """A running cluster. `remote` is its address; only with `token` does it let anybody in: see `authorized`."""

    remote: str
    token: str = field(repr=False)
    pids: tuple[int, ...]
    workers: int = _WORKERS
    version: str = SPARK


def start(
    config: settings.Settings | None = None, *, software: Path | None = None, tell: Callable[[str], None] = print
) -> Cluster:
    """The cluster of `config.state_dir`, for the lake that the settings name: the running one, or one started now.

    One that runs with other settings is started again. What is missing is downloaded into `software`, and `tell` hears
    of it. Raises LakehouseError, in one sentence, where Java, Maven or the network lack, or a process doesn't come up.
    """
    config = config or settings.load()
    lake = Lake.open(config=config)
    home = _home(config.state_dir)
    with _locked(home):
        spark, jars = _software(software or home / "software", tell)
        known = _secrets(home)
        environment = _environment(home, spark, config)
        options = _options(home, jars, lake, known, embedded=config.lakehouse_uri is None)
        made_for = _digest(options, environment)
        if (cluster := _find(home)) and _read_made_for(home) == made_for:
            return cluster
        _end(home)
        for ports in _choices_of_ports(home):
            try:
                return _run(home, spark, options | _addresses(ports), environment, ports, made_for)
            except _PortLost:
                _end(home)
            except BaseException:
                _end(home)
                raise
    raise LakehouseError("The Spark cluster found no free ports on 127.0.0.1: stop other servers on this machine.")


def status(state_dir: Path) -> Cluster | None:
    """The running cluster of `state_dir`, or None. Starts nothing."""
    return _find(_home(state_dir))


def stop(state_dir: Path) -> bool:
    """Stop the cluster of `state_dir`, executors included; whether there was one. What it downloaded stays."""
    home = _home(state_dir)
    if not home.is_dir():
        return False
    with _locked(home):
        return _end(home)


def authorized(remote: str, state_dir: Path) -> str:
    """`remote`, with the token where it is the cluster of `state_dir`; else as it is.

    For SparkSession.builder.remote() alone: not for a command line, a log or a notebook's output.
    """
    cluster = status(state_dir)
    asked = urlsplit(remote)
    if cluster is None or asked.port != urlsplit(cluster.remote).port or asked.hostname not in ("localhost", HOST):
        return remote
    return f"{cluster.remote}/;token={cluster.token}"


# Finding the one that runs


def _find(home: Path) -> Cluster | None:
    known, ports, cluster = (read(home / name) for name in ("secrets.json", "ports.json", "cluster.json"))
    if not (known and ports and cluster):
        return None
    pids = tuple(cluster["pids"])
    if not all(_is_ours(pid, home) for pid in pids) or (HOST, ports["connect"]) not in _heard(pids[-1]):
        return None
    # Not 127.0.0.1: the client gives a token to no other host without TLS.
    return Cluster(f"sc://localhost:{ports['connect']}", known["token"], pids)


def _is_ours(pid: int, home: Path) -> bool:
    try:
        return _works_below(psutil.Process(pid), home)
    except psutil.NoSuchProcess:
        return False


def _works_below(process: psutil.Process, home: Path) -> bool:
    """Whether it is of the cluster in `home`: a daemon, an executor, or the Python that runs functions for one."""
    try:
        command = " ".join(process.cmdline())
        if "org.apache.spark." not in command and "pyspark.daemon" not in command:
            return False
        return Path(os.path.realpath(process.cwd())).is_relative_to(os.path.realpath(home))
    except (psutil.Error, OSError):
        return False


def _heard(pid: int) -> set[tuple[str, int]]:
    return {(host.removeprefix("::ffff:"), port) for host, port in listens_on(pid)}


# Starting


class _PortLost(Exception):
    """Another process took one of the ports between our look and the cluster's."""


_processes: list[subprocess.Popen] = []  # those started here: one that died has to be reaped


def _run(
    home: Path, spark: Path, options: dict[str, str], environment: dict[str, str], ports: dict[str, int], made_for: str
) -> Cluster:
    write(home / "ports.json", json.dumps(ports, indent=1))
    write(home / "conf" / "spark-defaults.conf", "".join(f"{name} {value}\n" for name, value in options.items()))
    write(home / "conf" / "log4j2.properties", _LOGGING)
    replace_log(home)
    for folder in ("work", "local"):
        shutil.rmtree(home / folder, ignore_errors=True)
        (home / folder).mkdir(mode=0o700)
    program, master = str(spark / "bin" / "spark-class"), f"spark://{HOST}:{ports['master']}"
    deploy = "org.apache.spark.deploy."
    address = ["--host", HOST, "--port", str(ports["master"]), "--webui-port", str(ports["pages"])]
    processes = {"master": _spawn("master", [program, f"{deploy}master.Master", *address], home, environment)}
    for name in (f"worker-{number}" for number in range(1, _WORKERS + 1)):
        resources = ["--cores", "1", "--memory", _WORKER_MEMORY, "--host", HOST, "--port", "0", "--webui-port", "0"]
        command = [program, f"{deploy}worker.Worker", *resources, master]
        processes[name] = _spawn(name, command, home, environment)
    server = ["--class", "org.apache.spark.sql.connect.service.SparkConnectServer", "spark-internal"]
    command = [program, f"{deploy}SparkSubmit", "--master", master, *server]
    processes["connect"] = _spawn("connect", command, home, environment)
    _wait_until_up(processes, home, ports)
    pids = [process.pid for process in processes.values()]
    write(home / "cluster.json", json.dumps({"pids": pids, "made_for": made_for}, indent=1))
    write(home / "pids", "\n".join(map(str, pids)) + "\n")  # for `make clean`
    return _find(home)


def _spawn(name: str, command: list[str], home: Path, environment: dict[str, str]) -> subprocess.Popen:
    with open(home / "log" / f"{name}.log", "wb") as log:
        process = subprocess.Popen(
            command,
            cwd=home,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            umask=0o077,
        )
    _processes.append(process)
    return process


def _wait_until_up(processes: dict[str, subprocess.Popen], home: Path, ports: dict[str, int]) -> None:
    """Return when the server listens and both workers run an executor for it; all of it on the loopback only."""
    deadline = time.monotonic() + _START_SECONDS
    while not (
        (HOST, ports["connect"]) in _heard(processes["connect"].pid) and _executors(home, ports["pages"]) == _WORKERS
    ):
        for name, process in processes.items():
            if process.poll() is not None:
                text = (home / "log" / f"{name}.log").read_text("utf-8", "replace")
                if "BindException" in text or "Address already in use" in text:
                    raise _PortLost
                raise LakehouseError(f"The Spark cluster's {name} ended while it was starting. {_log(home, name)}")
        if time.monotonic() > deadline:
            raise LakehouseError(
                f"The Spark cluster was not up after {_START_SECONDS} seconds. {_log(home, 'connect')}"
            )
        time.sleep(0.2)
    open_to_all = {place for process in _running(home) for place in _heard(process.pid) if place[0] != HOST}
    if open_to_all:
        places = ", ".join(f"{host}:{port}" for host, port in sorted(open_to_all))
        raise LakehouseError(f"The Spark cluster opened {places}, unasked, and was stopped.")


def _executors(home: Path, port: int) -> int:
    """How many executors work for the Connect server, as the master's page has it."""
    connection = http.client.HTTPConnection(HOST, port, timeout=5)
    try:
        connection.request("GET", "/json/", headers={"Authorization": f"Bearer {_ticket(_secrets(home)['pages'])}"})
        return sum(app["cores"] for app in json.loads(connection.getresponse().read())["activeapps"])
    except (OSError, ValueError, http.client.HTTPException):
        return 0
    finally:
        connection.close()


def _ticket(key: str) -> str:
    """A JSON web token by `key`: what Spark's pages want to see."""

    def encode(part: bytes) -> str:
        return base64.urlsafe_b64encode(part).rstrip(b"=").decode()

    claim = ".".join(encode(json.dumps(part).encode()) for part in ({"alg": "HS256", "typ": "JWT"}, {"sub": "us"}))
    return f"{claim}.{encode(hmac.digest(base64.urlsafe_b64decode(key), claim.encode(), hashlib.sha256))}"


def _log(home: Path, name: str) -> str:
    path = home / "log" / f"{name}.log"
    lines = path.read_text("utf-8", "replace").splitlines()
    complaints = [line for line in lines if re.search(r" (ERROR|WARN) |Exception|Error:", line)]
    said = complaints[-6:] or lines[-6:] or ["(nothing)"]
    return f"Its log, {path}, says:\n" + "\n".join(f"  {line[:300]}" for line in said)


# Ending


def _end(home: Path) -> bool:
    """End every process of the cluster, recorded or not; whether there was one."""
    running = _running(home)
    for process in running:
        with suppress(psutil.NoSuchProcess):
            process.terminate()
    _, alive = psutil.wait_procs(running, timeout=_STOP_SECONDS)
    rest = {*alive, *_running(home)}  # an executor that was just coming up
    for process in rest:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(rest, timeout=_STOP_SECONDS)
    for process in _processes:
        process.poll()
    for name in ("cluster.json", "pids"):
        (home / name).unlink(missing_ok=True)
    return bool(running)


def _running(home: Path) -> list[psutil.Process]:
    return [process for process in psutil.process_iter() if _works_below(process, home)]


# Its settings


_LOGGING = """
rootLogger.level = warn
rootLogger.appenderRef.console.ref = console
appender.console.type = Console
appender.console.name = console
appender.console.target = SYSTEM_ERR
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d{yyyy-MM-dd HH:mm:ss} %p %c{1}: %m%n%ex
logger.deploy.name = org.apache.spark.deploy
logger.deploy.level = info
logger.native.name = org.apache.hadoop.util.NativeCodeLoader
logger.native.level = error
# It writes down each command with all its classes; the others warn of a commit that came second, and of long plans.
logger.launch.name = org.apache.spark.deploy.worker.ExecutorRunner
logger.launch.level = warn
logger.block.name = org.apache.hadoop.fs.s3a.S3ABlockOutputStream
logger.block.level = error
logger.statistics.name = org.apache.hadoop.fs.s3a.S3AInstrumentation
logger.statistics.level = error
logger.plan.name = org.apache.spark.util.SparkStringUtils
logger.plan.level = error
"""


def _options(home: Path, jars: Path, lake: Lake, known: dict[str, str], *, embedded: bool) -> dict[str, str]:
    """Spark's settings but for its ports. They hold secrets: they go to a file of ours, to no command line."""
    options = {
        # Nobody gets in without a secret: the processes among themselves, sessions, the pages of master and workers.
        "spark.authenticate": "true",
        "spark.authenticate.secret": known["cluster"],
        "spark.network.crypto.enabled": "true",
        "spark.io.encryption.enabled": "true",  # blocks that go to the disk hold the lake's keys, too
        "spark.connect.authenticate.token": known["token"],
        "spark.ui.filters": "org.apache.spark.ui.JWSFilter",
        "spark.org.apache.spark.ui.JWSFilter.param.secretKey": known["pages"],
        "spark.ui.enabled": "false",  # it shows queries, with the values in them
        "spark.master.rest.enabled": "false",
        "spark.port.maxRetries": "0",  # else it silently takes the next
        # Two executors, one on each worker, both there before the first job.
        "spark.executor.cores": "1",
        "spark.executor.memory": "1g",
        "spark.cores.max": str(_WORKERS),
        "spark.scheduler.minRegisteredResourcesRatio": "1.0",
        "spark.driver.memory": "1g",
        "spark.driver.extraJavaOptions": f"{_SMALL} {_QUICK}",  # it plans, and computes little
        "spark.executor.extraJavaOptions": _SMALL,
        "spark.driver.extraClassPath": f"{jars}/*",
        "spark.executor.extraClassPath": f"{jars}/*",
        "spark.worker.cleanup.enabled": "true",
        "spark.sql.warehouse.dir": str(home / "warehouse"),
        # Small data: partitions cost more than they bring.
        "spark.sql.shuffle.partitions": "4",
        "spark.databricks.delta.snapshotPartitions": "2",
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",  # Spark's own would be INT96
        "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
        "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
        **{f"spark.delta.logStore.{scheme}.impl": "lakehouse.ConditionalLogStore" for scheme in ("s3", "s3a")},
    }
    s3 = {
        "fs.s3.impl": "org.apache.hadoop.fs.s3a.S3AFileSystem",
        "fs.AbstractFileSystem.s3.impl": "org.apache.hadoop.fs.s3a.S3A",
        "fs.s3a.create.conditional.enabled": "true",  # what ConditionalLogStore asks for
        "fs.s3a.buffer.dir": str(home / "local"),
        # The default reads ahead by the SDK's other client, which is made for an older Netty than Spark's.
        "fs.s3a.input.stream.type": "classic",
        "fs.s3a.endpoint.region": lake.region,
    }
    if lake.server_name != "AWS S3":
        endpoint = lake.endpoint
        s3 |= {
            "fs.s3a.endpoint": endpoint,
            "fs.s3a.path.style.access": "true",
            "fs.s3a.connection.ssl.enabled": str(endpoint.startswith("https:")).lower(),
        }
    if embedded:
        keys = lake.credentials()
        s3 |= {
            "fs.s3a.aws.credentials.provider": "org.apache.hadoop.fs.s3a.SimpleAWSCredentialsProvider",
            "fs.s3a.access.key": keys.access_key,
            "fs.s3a.secret.key": keys.secret_key,
        }
    else:  # the whole chain; S3A's own knows no profile
        s3["fs.s3a.aws.credentials.provider"] = "software.amazon.awssdk.auth.credentials.DefaultCredentialsProvider"
    return options | {f"spark.hadoop.{name}": value for name, value in s3.items()}


def _addresses(ports: dict[str, int]) -> dict[str, str]:
    return {
        "spark.driver.host": HOST,
        "spark.driver.bindAddress": HOST,
        "spark.connect.grpc.binding.address": HOST,
        "spark.connect.grpc.binding.port": str(ports["connect"]),
    }


def _environment(home: Path, spark: Path, config: settings.Settings) -> dict[str, str]:
    """The caller's environment, the lake's settings and credentials included: functions run in it on the workers."""
    foreign = ("SPARK_", "PYSPARK_", "PYTHON", "HADOOP_", "JDK_JAVA_OPTIONS", "JAVA_TOOL_OPTIONS")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    return environment | {
        "LAKEHOUSE_STATE_DIR": str(config.state_dir),
        "PYSPARK_PYTHON": sys.executable,  # the client's Python and packages
        "SPARK_HOME": str(spark),
        "SPARK_CONF_DIR": str(home / "conf"),
        "SPARK_LOCAL_IP": HOST,
        "SPARK_LOCAL_DIRS": str(home / "local"),
        "SPARK_WORKER_DIR": str(home / "work"),
        "SPARK_DAEMON_MEMORY": "512m",
        "SPARK_DAEMON_JAVA_OPTS": f"{_SMALL} {_QUICK}",
    }


def _digest(options: dict[str, str], environment: dict[str, str]) -> str:
    """What a cluster was started for, keys included but not readable."""
    ours = ("AWS_", "LAKEHOUSE_", "PYSPARK_", "SPARK_")
    lasting = {name: value for name, value in environment.items() if name.startswith(ours)}
    return hashlib.sha256(json.dumps([options, lasting], sort_keys=True).encode()).hexdigest()


def _read_made_for(home: Path) -> str | None:
    return (read(home / "cluster.json") or {}).get("made_for")


def _secrets(home: Path) -> dict[str, str]:
    known = read(home / "secrets.json")
    if not known:
        known = {"cluster": secrets.token_hex(32), "token": secrets.token_hex(32)}
        known["pages"] = base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()
        write(home / "secrets.json", json.dumps(known, indent=1))
    return known


def _choices_of_ports(home: Path) -> Iterator[dict[str, int]]:
    if (ports := read(home / "ports.json")) and all(map(is_free, ports.values())):  # open sessions know the address
        yield ports
    for _ in range(3):
        # Below Linux's range for outgoing connections, whose numbers come and go.
        free = (port for port in SystemRandom().sample(range(25_000, 32_000), 500) if is_free(port))
        yield {name: next(free) for name in ("connect", "master", "pages")}


# Its folder and its software


def _home(state_dir: Path) -> Path:
    return Path(state_dir).absolute() / "spark"


@contextmanager
def _locked(home: Path) -> Iterator[None]:
    """One starter or stopper at a time, in a folder that nobody else may enter."""
    try:
        for folder in (home, home / "conf"):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        home.chmod(0o700)
        with FileLock(home / "lock", timeout=2 * _START_SECONDS):
            yield
    except Timeout:
        raise LakehouseError(
            f"Another process has been starting or stopping the Spark cluster of {home} for {2 * _START_SECONDS} "
            "seconds. End it and try again."
        ) from None
    except OSError as error:
        raise LakehouseError(
            f"The Spark cluster can't use its folder {home}: {error.strerror or error}. Make it writable, or set "
            "LAKEHOUSE_STATE_DIR to another folder."
        ) from None


def _software(folder: Path, tell: Callable[[str], None]) -> tuple[Path, Path]:
    """SPARK_HOME and the folder of the other jars; downloaded where they lack, or are of other versions."""
    if sys.platform == "win32":
        raise LakehouseError("The Spark cluster runs on Linux and macOS; on Windows use it inside WSL.")
    _check_java()
    folder.mkdir(parents=True, exist_ok=True)
    ours = hashlib.sha256(_pom().encode() + _LOG_STORE.read_bytes()).hexdigest()
    spark, jars = folder / f"spark-{SPARK}", folder / f"jars-{ours[:12]}"
    with FileLock(folder / "lock"):
        if not jars.is_dir() and not shutil.which("mvn"):
            raise LakehouseError(
                "The Spark cluster needs Maven (mvn) to fetch the jars of Delta Lake and S3, and there is none: "
                "install it from your system's packages, or from https://maven.apache.org."
            )
        if not spark.is_dir():
            tell(f"Downloading Apache Spark {SPARK} from PyPI: 450 MB ...")
            _made(spark, _install_spark)
        if not jars.is_dir():
            tell("Downloading the jars of Delta Lake and S3 with Maven: 30 MB, and some more for Maven itself ...")
            _made(jars, lambda folder: _fetch_jars(folder, spark))
    return spark / "pyspark", jars


def _java() -> str:
    home = os.environ.get("JAVA_HOME")  # goes first in Spark's own scripts
    return os.path.join(home, "bin", "java") if home else "java"


def _check_java() -> None:
    java = _java()
    try:
        says = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=60).stderr
    except OSError:
        says = ""
    version = re.search(r'version "(\d+)', says)
    if not version or int(version[1]) < _LEAST_JAVA:
        found = f"{java} is Java {version[1]}" if version else f"there is no working {java}"
        raise LakehouseError(
            f"The Spark cluster needs Java {_LEAST_JAVA} or newer, and {found}: install one, and set JAVA_HOME to it "
            "unless it is the first on PATH."
        )


def _made(target: Path, make: Callable[[Path], None]) -> None:
    """Fill `target` by `make`, all or nothing."""
    new = target.with_name(f"{target.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir()
    try:
        make(new)
        new.rename(target)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _install_spark(folder: Path) -> None:
    wanted = folder / "requirements.txt"
    wanted.write_text(f"pyspark=={SPARK} --hash=sha256:{_SPARK_SHA256}\n")
    # As .venv was made: uv puts no pip into it.
    pip = [sys.executable, "-m", "pip"] if find_spec("pip") else ["uv", "pip"]
    command = [*pip, "install", "--no-deps", "--require-hashes", "--target", str(folder), "-r", str(wanted)]
    try:
        done = subprocess.run([*command, *(["--python", sys.executable] if pip[0] == "uv" else [])])
    except OSError as error:
        raise LakehouseError(f"Apache Spark can't be installed: {pip[0]} can't be run: {error.strerror}.") from None
    if done.returncode:
        raise LakehouseError(
            f"pip could not install pyspark {SPARK}; what it said stands above. It downloads 450 MB from the package "
            "index that it is configured for, and needs 2 GB of free disk meanwhile."
        )


def _copy_jars(folder: Path) -> None:
    (folder / "pom.xml").write_text(_pom())
    command = ["mvn", "--batch-mode", "--strict-checksums", "--file", str(folder / "pom.xml"), _COPY]
    done = subprocess.run(
        [*command, f"-DoutputDirectory={folder}", "-DincludeScope=runtime", "-Dstyle.color=never"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        complaints = [line for line in done.stdout.splitlines() if "ERROR" in line] or done.stdout.splitlines()
        said = "\n".join(f"  {line[:300]}" for line in complaints[:3])
        raise LakehouseError(f"Maven could not fetch the jars of Delta Lake and S3. It said:\n{said}")


def _fetch_jars(folder: Path, spark: Path) -> None:
    _copy_jars(folder)
    _compile_log_store(folder, spark)


def _compile_log_store(jars: Path, spark: Path) -> None:
    # By the compiler that Spark brings for its shell: so Java alone will do, without a JDK.
    classes = f"{spark}/pyspark/jars/*{os.pathsep}{jars}/*"
    command = [_java(), "-cp", classes, "scala.tools.nsc.Main", "-usejavacp", "-d", str(jars / "log-store.jar")]
    done = subprocess.run([*command, str(_LOG_STORE)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise LakehouseError(f"{_LOG_STORE} could not be compiled: {done.stdout.strip()[:600]}")


def _pom() -> str:
    def tag(name: str, *inner: str) -> str:
        return f"<{name}>{''.join(inner)}</{name}>"

    def coordinates(text: str) -> str:
        names = ("groupId", "artifactId", "version")
        return "".join(tag(name, escape(part)) for name, part in zip(names, text.split(":"), strict=False))

    left_out = tag("exclusions", *(tag("exclusion", coordinates(text)) for text in _LEFT_OUT))
    jars = tag("dependencies", *(tag("dependency", coordinates(text), left_out) for text in _JARS))
    us = coordinates("lakehouse:jars:1") + tag("packaging", "pom")
    return tag("project", tag("modelVersion", "4.0.0"), us, jars) + "\n"
