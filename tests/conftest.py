"""What every test gets: an environment without the developer's settings, and one S3 server for the whole run."""

import os
import shutil
import signal
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.crashed_workers import pytest_handlecrashitem, pytest_terminal_summary  # noqa: F401 - hooks of pytest
from support.s3_gateway import Gateway

from lakehouse_utils import embedded_s3, settings
from lakehouse_utils.errors import LakehouseError
from lakehouse_utils.lake import Lake
from lakehouse_utils.spark import cluster as spark_cluster
from lakehouse_utils.spark import software

STATE_DIR = pytest.StashKey[Path]()


def pytest_configure(config: pytest.Config) -> None:
    given = getattr(config, "workerinput", {}).get("state_dir")  # an xdist worker shares the controller's
    config.stash[STATE_DIR] = Path(given or tempfile.mkdtemp(prefix="lakehouse-test-"))
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # of a job in the background of a script, and all it starts
        signal.signal(signal.SIGINT, signal.default_int_handler)  # tests press Ctrl+C


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark nightly tests as slow, too. Start the longest first, so that no worker is left with one at the end."""
    for item in items:
        if item.get_closest_marker("nightly"):
            item.add_marker(pytest.mark.slow)

    def start_order(item: pytest.Item) -> tuple[bool, float]:
        timeout = item.get_closest_marker("timeout")
        return item.get_closest_marker("slow") is None, -timeout.args[0] if timeout else 0

    items.sort(key=start_order)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Start no slow test after SLOW_TESTS_UNTIL, in seconds since 1970: see `.ci/run`."""
    until = float(os.environ.get("SLOW_TESTS_UNTIL", "inf"))
    if item.get_closest_marker("slow") and time.time() > until:
        pytest.skip("the tests before this slow one have taken too long")


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node) -> None:
    node.workerinput["state_dir"] = str(node.config.stash[STATE_DIR])


def pytest_unconfigure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        spark_cluster.stop(config.stash[STATE_DIR])
        embedded_s3.stop(config.stash[STATE_DIR])
        shutil.rmtree(config.stash[STATE_DIR], ignore_errors=True)


@pytest.fixture(autouse=True, scope="session")
def _no_settings_of_the_developer() -> None:
    for name in os.environ:
        if name.startswith(("AWS_", "LAKEHOUSE_")) or name.upper().endswith("_PROXY"):
            del os.environ[name]
    os.environ["AWS_CONFIG_FILE"] = os.environ["AWS_SHARED_CREDENTIALS_FILE"] = f"{os.devnull}/none"
    os.environ["AWS_EC2_METADATA_DISABLED"] = "true"


@pytest.fixture(autouse=True, scope="session")
def _compiled_once(s3_state_dir: Path) -> None:
    """Kernels and programs that tests start keep what they compile, beside the test run's server: most of an import."""
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ["PYTHONPYCACHEPREFIX"] = str(s3_state_dir / "bytecode")


@pytest.fixture(autouse=True)
def _environment_as_before(_no_settings_of_the_developer) -> Iterator[None]:
    """What a test, or a `.env` read in it, sets in the environment ends with the test."""
    before = dict(os.environ)
    yield
    # Only what has changed is set: threads of libraries, such as Polars', may read the environment at any time, and the
    # process crashes if a variable disappears meanwhile.
    for name in os.environ.keys() - before.keys():
        del os.environ[name]
    for name, value in before.items():
        if os.environ.get(name) != value:
            os.environ[name] = value


@pytest.fixture(scope="session")
def s3_state_dir(pytestconfig: pytest.Config) -> Path:
    """The folder of `s3_server`."""
    return pytestconfig.stash[STATE_DIR]


@pytest.fixture(scope="session")
def s3_server(s3_state_dir: Path, _no_settings_of_the_developer) -> embedded_s3.Server:
    """An S3 server that all tests share; write below `prefix`."""
    return embedded_s3.ensure(s3_state_dir)


@pytest.fixture
def prefix(s3_server: embedded_s3.Server) -> str:
    """A fresh s3://bucket/prefix."""
    return f"{s3_server.uri}/test-{uuid.uuid4().hex}"


@pytest.fixture
def lake(prefix: str, s3_state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Lake:
    """A lake with nothing in it, on the server that the environment names as well."""
    monkeypatch.setenv("LAKEHOUSE_STATE_DIR", str(s3_state_dir))
    return Lake.open(prefix)


@pytest.fixture(scope="session")
def _gateway(s3_server: embedded_s3.Server) -> Iterator[Gateway]:
    with Gateway.start(s3_server) as started:
        yield started


@pytest.fixture
def gateway(_gateway: Gateway) -> Gateway:
    """The same server as AWS would serve it: behind temporary credentials, a region and a policy."""
    _gateway.reset()
    return _gateway


@pytest.fixture(scope="session")
def spark_software() -> Path:
    """Apache Spark and its jars, downloaded once for all runs of the tests in this checkout."""
    folder = settings.CHECKOUT / ".lakehouse" / "spark" / "software"
    try:
        software.install(folder, print)
    except LakehouseError as error:
        pytest.skip(str(error))
    return folder


@pytest.fixture(scope="session")
def cluster(s3_server: embedded_s3.Server, s3_state_dir: Path, spark_software: Path) -> spark_cluster.Cluster:
    """A Spark cluster that all tests share, for the lakes on `s3_server`."""
    return spark_cluster.start(settings.Settings(state_dir=s3_state_dir), software_path=spark_software)


@pytest.fixture
def spark(cluster: spark_cluster.Cluster, s3_state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator:
    """A session on `cluster` that only this test uses."""
    pytest.importorskip("pyspark", reason="the extra spark isn't installed: make test installs it")
    from lakehouse_utils.spark.session import open_session

    monkeypatch.setenv("LAKEHOUSE_STATE_DIR", str(s3_state_dir))  # it keeps the token
    session = open_session(cluster.remote)
    yield session
    session.stop()
