"""Lakes and raw files for the tests of the pipeline; what many tests only read is made once."""

import json
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import pytest
from filelock import FileLock
from support import expected, lakes
from support.suppliers import Supplier

from lakehouse_utils import sample_data
from lakehouse_utils.lake import Lake
from lakehouse_utils.pipeline import sources
from lakehouse_utils.pipeline.engines.protocol import Engine
from lakehouse_utils.pipeline.run import open_engine
from lakehouse_utils.spark.sail import Sail


class Finished(NamedTuple):
    """A lake that the job has built at scale 1, its raw files and the report. Read-only."""

    lake: Lake
    landing: Path
    report: dict


@pytest.fixture(scope="session")
def finished(s3_server, s3_state_dir: Path) -> Finished:
    root = s3_state_dir / "finished"
    uri, landing, report = f"{s3_server.uri}/finished", root / "landing", root / "report.json"
    lake = lakes.at(uri, s3_state_dir)
    with FileLock(s3_state_dir / "finished.lock"):
        if not report.exists():
            sample_data.generate(landing)
            done = lakes.job(lake, landing)
            report.write_text(json.dumps(done.as_json()), encoding="utf-8")
    return Finished(lake, landing, json.loads(report.read_text(encoding="utf-8")))


@pytest.fixture(scope="session")
def small(s3_state_dir: Path) -> Path:
    """The raw files of a small shop. Read-only."""
    landing = s3_state_dir / "small"
    with FileLock(s3_state_dir / "small.lock"):
        if not landing.exists():
            sample_data.generate(landing, 0.05)
    return landing


@pytest.fixture(scope="session")
def small_expected(small: Path) -> dict[str, list[dict]]:
    return expected.tables(small, sources.SHOP)


@pytest.fixture(scope="session")
def engine_of(s3_state_dir: Path) -> Iterator[Callable[[str, Lake], Engine]]:
    """Opens the engine of a name for a lake, or skips the test if its packages are missing.

    Spark engines share a Sail server, because it takes seconds to start.
    """
    sail = Sail()

    def engine_of(name: str, lake: Lake) -> Engine:
        if name == "spark" and find_spec("pysail") is None:
            pytest.skip("the extra spark isn't installed: make test installs it")
        if name == "spark" and not sail.is_running_for(lake):
            with pytest.MonkeyPatch.context() as patched:
                patched.setenv("LAKEHOUSE_STATE_DIR", str(s3_state_dir))  # its workers open the lake by themselves
                sail.start(lake)
        return open_engine(name, lake, sail.address if name == "spark" else None)

    yield engine_of
    sail.stop()


@pytest.fixture
def lake(prefix: str, s3_state_dir: Path) -> Lake:
    """An empty lake."""
    return lakes.at(prefix, s3_state_dir)


@pytest.fixture
def right(lake: Lake, finished: Finished) -> Lake:
    """A copy of the finished lake, to be changed."""
    lakes.copy(finished.lake, lake)
    return lake


@pytest.fixture
def keys(s3_server, s3_state_dir) -> dict[str, str]:
    """The environment of a job that uses the test server as any other S3 server, with an endpoint and keys."""
    return lakes.environment_with_keys(s3_server, s3_state_dir)


@pytest.fixture
def folder(lake: Lake, tmp_path: Path) -> Supplier:
    """A supplier that delivers to a folder."""
    return Supplier(lake, tmp_path, on_s3=False)


@pytest.fixture
def s3(lake: Lake, tmp_path: Path) -> Supplier:
    """A supplier that delivers to S3."""
    return Supplier(lake, tmp_path, on_s3=True)


@pytest.fixture(params=["folder", "s3"])
def supplier(request: pytest.FixtureRequest) -> Supplier:
    """A supplier that delivers to a folder, then one that delivers to S3."""
    return request.getfixturevalue(request.param)
