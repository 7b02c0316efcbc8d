"""The lake of a lesson: its own, fresh, with real copies of the pipeline's tables."""

import re
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from lakehouse_utils import settings
from lakehouse_utils.course import lessons
from lakehouse_utils.errors import LakehouseError
from lakehouse_utils.lake import Lake
from lakehouse_utils.pipeline import run as pipeline
from lakehouse_utils.pipeline import sources
from lakehouse_utils.pipeline.context import RunContext
from lakehouse_utils.pipeline.engines.local import LocalEngine
from lakehouse_utils.pipeline.run import Selection, run


@pytest.fixture(autouse=True)
def on_the_test_server(s3_server, s3_state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAKEHOUSE_STATE_DIR", str(s3_state_dir))
    monkeypatch.setattr(lessons, "_runs", {})
    monkeypatch.setattr(lessons, "_current", None)


def keys(lake: Lake) -> list[str]:
    return [entry["Key"] for entry in lake.objects(lake.key(""))]


def home(prefix: str) -> Lake:
    return Lake.open(prefix)


def test_gives_a_fresh_lake_of_its_own(prefix: str) -> None:
    lake = lessons.start("02", prefix)
    assert re.fullmatch(rf"{prefix}/notebooks/02-[0-9a-f]{{8}}", lake.root)
    assert keys(lake) == []
    assert lessons.current() is lake


def test_begins_anew_in_the_same_kernel(prefix: str) -> None:
    first, other = lessons.start("02", prefix), lessons.start("03", prefix)
    for lake in (first, other):
        lake.s3.put_object(Bucket=lake.bucket, Key=lake.key("mine"), Body=b"x")
    again = lessons.start("02", prefix)
    assert again.root != first.root
    assert keys(first) == [] == keys(again)
    assert len(keys(other)) == 1


def test_is_on_the_lake_of_the_settings_or_the_embedded_one(prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert lessons.start("02").root.startswith("s3://lakehouse/notebooks/02-")
    with pytest.raises(LakehouseError, match="must look like s3://bucket"):
        lessons.start("02", "lakehouse/mine")
    assert lessons.start("02", prefix).root.startswith(prefix)


def test_copies_tables_with_their_history(prefix: str) -> None:
    lake = lessons.start("04", tables=["bronze/orders", "silver/orders", "gold/fact_sales", "quarantine/orders"])
    orders = lake.delta("bronze", "orders")
    assert orders.version() == 7
    assert len(orders.history()) == 8
    assert orders.count() == 1679
    assert lake.delta("bronze", "orders", version=1).count() == 1600
    assert lake.delta("gold", "fact_sales").count() == 4797
    assert lake.delta("silver", "customers") is None
    assert all(uri.startswith(lake.root) for uri in orders.file_uris())


def test_what_a_lesson_does_to_its_copy_is_done_to_no_other() -> None:
    lake = lessons.start("04", tables=["silver/brands"])
    lake.delta("silver", "brands").delete()
    assert lessons.start("05", tables=["silver/brands"]).delta("silver", "brands").count() == 9


def test_a_prepared_lake_makes_it_quick() -> None:
    lessons.start("04", tables=["bronze/orders"])
    began = time.process_time()
    lessons.start("04", tables=["bronze/orders", "silver/orders", "gold/fact_sales"])
    assert time.process_time() - began < 2  # a tenth of that where nobody else computes


def test_prepares_again_when_the_pipeline_is_another(prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = []
    monkeypatch.setattr(pipeline, "run", lambda lake, landing, described, watch: ran.append(lake.root))
    for version in ("1.6.6", "1.6.6", "1.7.0"):
        monkeypatch.setattr(lessons.metadata, "version", lambda name, version=version: version)
        lessons._prepared(home(prefix), 1)
    assert len(ran) == len(set(ran)) == 2
    assert all(root.startswith(f"{prefix}/prepared/scale-1/") for root in ran)


def test_one_that_was_interrupted_is_finished(prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(pipeline, "run", stopped)
        lessons._prepared(home(prefix), 1)
    ran = []
    monkeypatch.setattr(pipeline, "run", lambda *_: ran.append(True))
    lessons._prepared(home(prefix), 1)
    assert ran


def test_names_the_tables_there_are(prefix: str) -> None:
    with pytest.raises(LakehouseError, match=r"No prepared table is called 'gold/sales'; there are bronze/brands, .*"):
        lessons.start("04", tables=["gold/sales"])


def test_the_line_of_progress_is_the_pipelines_watch(prefix: str, tmp_path: Path) -> None:
    (tmp_path / "2026-01-01").mkdir()
    (tmp_path / "2026-01-01" / "brands.csv").write_text("brand_id,brand_name\n1,Volta\n")
    (tmp_path / "2026-01-01" / "unknown.csv").write_text("a\n1\n")
    lake = home(prefix)
    with lessons._Line("Preparing") as line:
        report = run(
            RunContext(lake, LocalEngine(lake), line), str(tmp_path), sources.load(sources.SHOP), Selection(("bronze",))
        )
    assert report.rows["bronze.brands"].added == 1


@pytest.mark.parametrize(("days", "left"), [(0, True), (2, False)])
def test_removes_what_runs_of_other_days_left(
    prefix: str, days: int, left: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
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
    assert bool(keys(lake)) is left
    assert own.key("bronze", "mine") in keys(own)
    markers = [key for key in keys(own) if "/.runs/" in key]
    assert len(markers) == 1 + left


def test_raw_files_of_scale_1_are_those_of_the_checkout() -> None:
    assert lessons.raw_files() == settings.CHECKOUT / "data" / "landing"


def test_raw_files_of_another_scale_are_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
