"""The lake of a lesson: its own, empty at first, with real copies of the pipeline's tables."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from lakehouse_utils import settings
from lakehouse_utils.course import lessons
from lakehouse_utils.embedded_s3 import Server
from lakehouse_utils.errors import LakehouseError, MissingTableError
from lakehouse_utils.lake import Lake
from lakehouse_utils.pipeline import run as pipeline
from lakehouse_utils.pipeline import sources
from lakehouse_utils.pipeline.context import RunContext
from lakehouse_utils.pipeline.engines.local import LocalEngine
from lakehouse_utils.pipeline.run import Selection, run


@pytest.fixture(autouse=True)
def on_the_test_server(s3_server: Server, s3_state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test is as in a new kernel, on the server of the test run."""
    monkeypatch.setenv("LAKEHOUSE_STATE_DIR", str(s3_state_dir))
    monkeypatch.setattr(lessons, "_runs", {})
    monkeypatch.setattr(lessons, "_current", None)


def keys(lake: Lake) -> list[str]:
    """The keys of all objects in a lake."""
    return [entry["Key"] for entry in lake.objects(lake.key(""))]


def home(prefix: str) -> Lake:
    """The lake in which lessons have their folders."""
    return Lake.open(prefix)


def test_start_in_a_new_kernel(prefix: str) -> None:
    """A lesson gets an empty lake below the given one, and it is the current lake."""
    lake = lessons.start("02", prefix)
    assert re.fullmatch(rf"{prefix}/notebooks/02-[0-9a-f]{{8}}", lake.root)
    assert keys(lake) == []
    assert lessons.current() is lake


def test_start_again_in_the_same_kernel(prefix: str) -> None:
    """A second start of a notebook gets a new lake and removes its old one, but not those of other notebooks."""
    first, other = lessons.start("02", prefix), lessons.start("03", prefix)
    for lake in (first, other):
        lake.s3.put_object(Bucket=lake.bucket, Key=lake.key("mine"), Body=b"x")
    again = lessons.start("02", prefix)
    assert again.root != first.root
    assert keys(first) == [] == keys(again)
    assert len(keys(other)) == 1


def test_start_with_and_without_an_address(prefix: str) -> None:
    """Without an address the lesson is on the embedded server, and an invalid address is an error."""
    assert lessons.start("02").root.startswith("s3://lakehouse/notebooks/02-")
    with pytest.raises(LakehouseError, match="must look like s3://bucket"):
        lessons.start("02", "lakehouse/mine")
    assert lessons.start("02", prefix).root.startswith(prefix)


def test_start_with_tables(prefix: str) -> None:
    """The copies have the rows and all the commits of the prepared tables, and only these tables exist."""
    lake = lessons.start("04", tables=["bronze/orders", "silver/orders", "gold/fact_sales", "quarantine/orders"])
    orders = lake.delta("bronze", "orders")
    assert orders.version() == 7
    assert len(orders.history()) == 8
    assert orders.count() == 1679
    assert lake.delta("bronze", "orders", version=1).count() == 1600
    assert lake.delta("gold", "fact_sales").count() == 4797
    assert lake.delta("silver", "customers") is None
    assert all(uri.startswith(lake.root) for uri in orders.file_uris())


def test_start_where_the_state_folder_cannot_be_written(
    s3_server: Server, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On another S3 server, a lesson needs no state folder: it copies prepared tables and generates raw files."""
    (tmp_path / "a-file").write_text("")  # root too cannot make a folder below a file
    monkeypatch.setenv("LAKEHOUSE_STATE_DIR", str(tmp_path / "a-file" / "state"))
    monkeypatch.setenv("LAKEHOUSE_URI", prefix)
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server.endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3_server.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3_server.secret_key)
    lake = lessons.start("04", scale=0.1, tables=["bronze/orders"])
    assert lake.root.startswith(prefix)
    assert lake.delta("bronze", "orders").count() > 0
    assert lessons.raw_files(0.1).is_dir()


def test_changes_to_a_copy() -> None:
    """What a lesson does to its copy does not change the copy of the next one."""
    lake = lessons.start("04", tables=["silver/brands"])
    lake.delta("silver", "brands").delete()
    assert lessons.start("05", tables=["silver/brands"]).delta("silver", "brands").count() == 9


def test_start_with_prepared_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once the tables are prepared, a lesson only copies them: the pipeline does not run again."""
    lessons.start("04", tables=["bronze/orders"])
    monkeypatch.setattr(pipeline, "run", lambda *_: pytest.fail("the pipeline ran again"))
    lake = lessons.start("04", tables=["bronze/orders", "silver/orders", "gold/fact_sales"])
    assert lake.delta("gold", "fact_sales").count() == 4797


def test_prepared_tables_of_other_versions(prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tables are built once for each version of the libraries that write them."""
    ran = []
    monkeypatch.setattr(pipeline, "run", lambda context, *_: ran.append(context.lake.root))
    for version in ("1.6.6", "1.6.6", "1.7.0"):
        monkeypatch.setattr(lessons.metadata, "version", lambda name, version=version: version)
        lessons._prepared(home(prefix), 1)
    assert len(ran) == len(set(ran)) == 2
    assert all(root.startswith(f"{prefix}/prepared/scale-1/") for root in ran)


def test_prepared_tables_after_an_interruption(prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A build that was interrupted is run again, and not taken for finished."""

    def stopped(*_) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(pipeline, "run", stopped)
        with pytest.raises(KeyboardInterrupt):
            lessons._prepared(home(prefix), 1)
    ran = []
    monkeypatch.setattr(pipeline, "run", lambda *_: ran.append(True))
    lessons._prepared(home(prefix), 1)
    assert ran


def test_start_with_an_unknown_table() -> None:
    """A table that the pipeline does not build is an error that lists those it does."""
    message = r"There is no prepared table 'gold/sales'\. The prepared tables are bronze/brands, .*gold/fact_sales.*\.$"
    with pytest.raises(MissingTableError, match=message) as info:
        lessons.start("04", tables=["gold/sales"])
    assert info.value.table == "gold/sales"


def test_status_line_as_progress_of_the_pipeline(prefix: str, tmp_path: Path) -> None:
    """The pipeline runs with the status line as its progress, also where a file has no description."""
    (tmp_path / "2026-01-01").mkdir()
    (tmp_path / "2026-01-01" / "brands.csv").write_text("brand_id,brand_name\n1,Volta\n")
    (tmp_path / "2026-01-01" / "unknown.csv").write_text("a\n1\n")
    lake = home(prefix)
    with lessons._StatusLine("Preparing") as line:
        report = run(
            RunContext(lake, LocalEngine(lake), line), str(tmp_path), sources.load(sources.SHOP), Selection(("bronze",))
        )
    assert report.rows["bronze.brands"].added == 1


@pytest.mark.parametrize(("days", "is_kept"), [(0, True), (2, False)])
def test_start_removes_old_runs(prefix: str, days: int, is_kept: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of other kernels are removed after a day, and nothing else is."""
    lake = lessons.start("02", prefix)
    lake.s3.put_object(Bucket=lake.bucket, Key=lake.key("bronze", "x"), Body=b"x")
    own = home(prefix)
    own.s3.put_object(Bucket=own.bucket, Key=own.key("bronze", "mine"), Body=b"x")
    monkeypatch.setattr(lessons, "_runs", {})  # another kernel

    class Later(datetime):
        @classmethod
        def now(cls, zone):
            return datetime.now(UTC) + timedelta(days=days)

    monkeypatch.setattr(lessons, "datetime", Later)
    lessons.start("03", prefix)
    assert bool(keys(lake)) is is_kept
    assert own.key("bronze", "mine") in keys(own)
    markers = [key for key in keys(own) if "/.runs/" in key]
    assert len(markers) == 1 + is_kept


def test_raw_files_at_scale_1() -> None:
    """The raw files at scale 1 are those of the checkout."""
    assert lessons.raw_files() == settings.CHECKOUT / "data" / "landing"


def test_raw_files_at_another_scale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other raw files are generated once, and again when the generator has changed."""
    monkeypatch.setenv("LAKEHOUSE_STATE_DIR", str(tmp_path))
    folder = lessons.raw_files(0.1)
    assert folder == tmp_path / "landing" / "scale-0.1"
    assert (folder / "2026-01-01" / "orders.csv").is_file()
    made = (folder / "2026-01-01" / "orders.csv").stat().st_mtime_ns
    assert lessons.raw_files(0.1) == folder
    assert (folder / "2026-01-01" / "orders.csv").stat().st_mtime_ns == made
    (tmp_path / "landing" / "scale-0.1.made-by").write_text("an older generator")
    lessons.raw_files(0.1)
    assert (folder / "2026-01-01" / "orders.csv").stat().st_mtime_ns != made
