"""What a run reads of the tables' logs: as little as has changed, and never a state that is no longer true."""

import gzip
import itertools
import json
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pytest
from deltalake import CommitProperties, Transaction, write_deltalake
from support import expected, faults, lakes
from support.s3_proxy import proxy_to
from support.selected import slow_but

from lakehouse_utils import settings
from lakehouse_utils.lake import Lake
from lakehouse_utils.lake.delta_log import DeltaLog
from lakehouse_utils.pipeline import build_record, log_states, silver
from lakehouse_utils.pipeline.context import NoProgress, RunContext
from lakehouse_utils.pipeline.engines.local import LocalEngine
from lakehouse_utils.pipeline.log_states import LogState, LogStates
from lakehouse_utils.pipeline.sources import load

MOST_REQUESTS_OF_AN_IDLE_RUN = 60  # 39 tables are listed, and the goal is 100
SILVER = ("bronze", "silver")


class Counted:
    """Runs the job through a proxy and counts its requests."""

    def __init__(self, lake: Lake, keys: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
        self.lake = lake
        self._keys, self._monkeypatch = keys, monkeypatch

    def run(self, landing: Path, **options: object) -> list[tuple[str, str]]:
        """The requests of a run, as (method, path)."""
        requests: list[tuple[str, str]] = []
        with (
            proxy_to(self.lake.endpoint, lambda method, path: requests.append((method, path))) as endpoint,
            self._monkeypatch.context() as context,
        ):
            for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"):
                context.setenv(name, self._keys[name])
            context.setenv("AWS_ENDPOINT_URL", endpoint)
            context.setenv("LAKEHOUSE_URI", self.lake.root)
            behind = Lake.open(None, settings.load())
            lakes.job(behind, landing, **options)
        return requests


@pytest.fixture
def counted(lake: Lake, keys: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Counted:
    return Counted(lake, keys, monkeypatch)


def deliver(folder: Path, day: int, rows: str | None = None) -> None:
    """Write the raw file of a day for `lakes.ONE_TABLE`: one changed row and one new one, or these rows."""
    batch = folder / "landing" / f"2026-{1 + day // 28:02}-{1 + day % 28:02}"
    batch.mkdir(parents=True)
    rows = rows or f"1,{batch.name},v{day},1\n{day + 10},{batch.name},a,1\n"
    (batch / "t.csv").write_text(f"k,at,v,n\n{rows}", encoding="utf-8")


@pytest.fixture
def described(tmp_path: Path) -> Path:
    path = tmp_path / "sources.toml"
    path.write_text(lakes.ONE_TABLE, encoding="utf-8")
    return path


def stored(lake: Lake) -> dict:
    """The object with the states."""
    body = lake.s3.get_object(Bucket=lake.bucket, Key=lake.key(*log_states.KEY))["Body"].read()
    return json.loads(gzip.decompress(body))


def store(lake: Lake, content: bytes) -> None:
    lake.s3.put_object(Bucket=lake.bucket, Key=lake.key(*log_states.KEY), Body=content)


# -- requests


def test_idle_run_sends_one_listing_per_table(counted, small):
    """With nothing new, a run lists each table's log once and reads the states: no log, no table, no write."""
    lakes.job(counted.lake, small)
    requests = counted.run(small)
    tables = 9 + 11 + 10 + 9  # bronze, silver, gold and quarantine
    listings = [path for _, path in requests if "list-type" in path and "_delta_log" in path]
    assert (len(listings), len(set(listings))) == (tables, tables)
    others = [request for request in requests if request[1] not in listings]
    assert {method for method, _ in others} <= {"GET", "HEAD"}
    assert len(others) == 3, "the bucket's region, the access to the lake, and the states"
    assert len(requests) <= MOST_REQUESTS_OF_AN_IDLE_RUN


@pytest.mark.slow
def test_requests_of_an_idle_run_do_not_grow(counted, tmp_path, described):
    """After many commits a run with nothing new sends as many requests as after one."""
    counts = []
    for days in (1, 12):
        for day in range(days - len(counts)):
            deliver(tmp_path, len(list((tmp_path / "landing").glob("*"))) if day or counts else 0)
            lakes.job(counted.lake, tmp_path / "landing", described, layers=SILVER)
        counts.append(len(counted.run(tmp_path / "landing", described=described, layers=SILVER)))
    assert counts[0] == counts[1]


@pytest.mark.slow
def test_requests_of_a_day_do_not_grow(counted, tmp_path, described):
    """A day after twenty days sends no more requests than one after ten: both are as far from a checkpoint."""
    counts = []
    for day in range(22):
        deliver(tmp_path, day)
        if day in (10, 11, 20, 21):
            counts.append(len(counted.run(tmp_path / "landing", described=described, layers=SILVER)))
        else:
            lakes.job(counted.lake, tmp_path / "landing", described, layers=SILVER)
    assert sum(counts[2:]) <= sum(counts[:2]) + 6, counts  # DuckDB reads each small file of the merged tables


def test_each_table_is_opened_once(lake, tmp_path, described, monkeypatch):
    """A day opens each of its tables once, and an idle run opens none."""
    deliver(tmp_path, 0, "1,2026-01-01,a,1\nbroken\n")
    lakes.job(lake, tmp_path / "landing", described, layers=SILVER)
    opened: list[str] = []
    original = lakes.Lake.table

    def table(self: Lake, *names: str) -> object:
        ref = original(self, *names)
        return type(
            "Ref", (type(ref),), {"open": lambda ref, version=None: opened.append(ref.label) or super_open(ref)}
        )(self, names)

    super_open = log_states.TableRef.open
    monkeypatch.setattr(Lake, "table", table)
    lakes.job(lake, tmp_path / "landing", described, layers=SILVER)
    assert opened == []
    deliver(tmp_path, 1)
    lakes.job(lake, tmp_path / "landing", described, layers=SILVER)
    assert sorted(opened) == ["bronze.t", "silver.t", "silver.t_history"]


# -- states of another time or another table


def garbage(_content: bytes) -> bytes:
    return b"\x1f\x8bgarbage"


def other_format(content: bytes) -> bytes:
    return gzip.compress(json.dumps(json.loads(gzip.decompress(content)) | {"format": 0}).encode())


def other_types(content: bytes) -> bytes:
    states = json.loads(gzip.decompress(content))
    for fields in states["tables"].values():
        fields["snapshot"]["transactions"] = {"landing:2026-01-01/t.csv": "1"}
    return gzip.compress(json.dumps(states).encode())


def no_tables(_content: bytes) -> bytes:
    return gzip.compress(json.dumps({"format": 1, "tables": [1]}).encode())


def of_each_other(content: bytes) -> bytes:
    """Each table has the state of another one."""
    states = json.loads(gzip.decompress(content))
    labels, fields = list(states["tables"]), list(states["tables"].values())
    return gzip.compress(
        json.dumps(states | {"tables": dict(zip(labels, fields[1:] + fields[:1], strict=True))}).encode()
    )


@pytest.mark.parametrize("spoil", [garbage, other_format, other_types, no_tables, of_each_other])
def test_states_that_make_no_sense_are_ignored(lake, tmp_path, described, spoil: Callable[[bytes], bytes]):
    """A damaged object, or one with other tables' states, costs requests, but changes nothing."""
    for day in range(2):
        deliver(tmp_path, day)
        lakes.job(lake, tmp_path / "landing", described, layers=SILVER)
    good = stored(lake)
    store(lake, spoil(gzip.compress(json.dumps(good).encode())))
    assert not lakes.job(lake, tmp_path / "landing", described, layers=SILVER).changed_anything
    assert stored(lake)["tables"].keys() == good["tables"].keys()
    deliver(tmp_path, 2)
    lakes.job(lake, tmp_path / "landing", described, layers=SILVER)
    assert lakes.unlike(lake, expected.tables(tmp_path / "landing", described)) == {}


def test_states_that_cannot_be_fetched_are_read_from_the_logs(lake, tmp_path, described, keys, monkeypatch):
    """If each answer with the states is cut off, the run reads more, and ends well."""
    deliver(tmp_path, 0)
    lakes.job(lake, tmp_path / "landing", described, layers=SILVER)
    with faults.proxy(lake.endpoint, rate=1.0, seed=1, path=log_states.KEY[-1]) as proxy:
        proxy.kinds = ("cut off",)
        for name, value in (keys | {"AWS_ENDPOINT_URL": proxy.endpoint, "LAKEHOUSE_URI": lake.root}).items():
            monkeypatch.setenv(name, value)
        report = lakes.job(Lake.open(None, settings.load()), tmp_path / "landing", described, layers=SILVER)
    assert not report.changed_anything
    assert proxy.counts["cut off"] > 0


def restore(lake: Lake, label: str) -> None:
    lake.delta(*label.split(".")).restore(1)


def replace(lake: Lake, label: str) -> None:
    """Delete the table and load it again with other rows, up to the same version."""
    version = lake.delta(*label.split(".")).version()
    for entry in list(lake.objects(lake.key(*label.split("."), ""))):
        lake.s3.delete_object(Bucket=lake.bucket, Key=entry["Key"])
    assert version


def clean_up(lake: Lake, label: str) -> None:
    """Remove all commits before a checkpoint."""
    table = lake.delta(*label.split("."))
    table.create_checkpoint()
    for version in range(table.version()):
        key = lake.key(*label.split("."), "_delta_log", f"{version:020}.json")
        lake.s3.delete_object(Bucket=lake.bucket, Key=key)


class Kept(NamedTuple):
    """A lake after three runs with `folder` as its raw files, what it has, and the states that each run kept."""

    lake: Lake
    folder: Path
    contents: dict[str, list[tuple]]
    states: list[dict]


@pytest.fixture(scope="module")
def kept(s3_server, s3_state_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Kept:
    lake = lakes.at(f"{s3_server.uri}/kept-{uuid.uuid4().hex}", s3_state_dir)
    folder, states = tmp_path_factory.mktemp("kept"), []
    (folder / "sources.toml").write_text(lakes.ONE_TABLE, encoding="utf-8")
    for day in range(3):
        deliver(folder, day, f"1,2026-01-0{day + 1},v{day},1\n{day + 10},2026-01-01,a,1\nbroken\n2,2026-01-01,a,x\n")
        lakes.job(lake, folder / "landing", folder / "sources.toml", layers=SILVER)
        states.append(stored(lake))
    return Kept(lake, folder, lakes.contents(lake), states)


TABLES = ["bronze.t", "silver.t", "silver.t_history", "quarantine.t"]
EVENTS = [restore, replace, clean_up]
QUICK = [("bronze.t", replace, 1), ("silver.t", restore, 0), ("silver.t_history", clean_up, 1)]


@pytest.mark.parametrize(("label", "event", "runs_ago"), slow_but(QUICK, itertools.product(TABLES, EVENTS, [0, 1])))
def test_an_event_after_the_states_were_kept_is_noticed(lake, kept, label, event, runs_ago):
    """States from before a RESTORE, a new table or a clean-up, of the last run or an earlier one, hide none of them."""
    landing, described = kept.folder / "landing", kept.folder / "sources.toml"
    lakes.copy(kept.lake, lake)
    event(lake, label)
    store(lake, gzip.compress(json.dumps(kept.states[-1 - runs_ago]).encode()))
    lakes.job(lake, landing, described, layers=SILVER)
    lakes.job(lake, landing, described, layers=SILVER)
    before, after = kept.contents, lakes.contents(lake)
    assert {name: rows for name, rows in after.items() if name != "quarantine.t"} == {
        name: rows for name, rows in before.items() if name != "quarantine.t"
    }
    assert (label == "quarantine.t" and event is replace) or after == before
    assert not lakes.job(lake, landing, described, layers=SILVER).changed_anything


def test_state_after_each_commit_is_that_of_the_whole_log(lake, tmp_path, described):
    """A state that was brought up to date says what a state says that was read from the start."""
    table_ref, states = lake.table("silver", "t"), LogStates(lake)
    for day in range(4):
        deliver(tmp_path, day)
        lakes.job(lake, tmp_path / "landing", described, layers=SILVER)
        if day == 2:
            lake.delta("silver", "t").delete("k = 10")
            lake.delta("silver", "t").restore(2)
        states.expire()
        state, from_start = states.of(table_ref), LogStates(lake).of(table_ref)
        assert state == from_start
        assert state.record == build_record.read(table_ref, table_ref.open())
        assert LogState.parse(json.loads(json.dumps(state.as_json()))) == state


def test_state_that_mixes_two_tables_is_not_kept(lake):
    """If another job replaces a table during a run, what the run kept of the old table does not reach the next run."""
    ref, rows = lake.table("bronze", "t"), pa.table({"k": ["1"]})

    def append(app_id: str) -> None:
        properties = CommitProperties(app_transactions=[Transaction(app_id, 1)])
        options = lake.storage_options
        write_deltalake(ref.uri, rows, mode="append", storage_options=options, commit_properties=properties)

    append("old")
    states = LogStates(lake)
    states.load([ref])
    for entry in list(lake.objects(ref.key(""))):
        lake.s3.delete_object(Bucket=lake.bucket, Key=entry["Key"])
    for number in range(3):
        append(f"new {number}")
    assert states.open(ref) is not None
    assert "old" in states.transactions(ref)
    states.save()
    assert stored(lake)["tables"]["bronze.t"]["snapshot"]["transactions"] == {f"new {n}": 1 for n in range(3)}


def test_states_may_be_read_while_another_step_expires_them(kept):
    """A step that failed expires the states of all tables, also of those that other threads are reading."""

    class Expired(dict):
        """Expires the states at the worst moment: when one has just been kept."""

        def __setitem__(self, label: str, state: LogState | None) -> None:
            super().__setitem__(label, state)
            states.expire()

    states = LogStates(kept.lake)
    states._current = Expired()
    for label in TABLES:
        ref = kept.lake.table(*label.split("."))
        assert states.of(ref).version == states.open(ref).version() == ref.open().version()


def test_a_job_that_is_overtaken_does_not_take_back_what_the_other_one_did(lake, tmp_path, described):
    """It has opened bronze before another job committed to bronze and silver, and reads silver's log after that."""
    deliver(tmp_path, 0)
    lakes.job(lake, tmp_path / "landing", described, layers=SILVER)
    overtaken = RunContext(lake, LocalEngine(lake), NoProgress())
    overtaken.logs.open(lake.table("bronze", "t"))
    deliver(tmp_path, 1)
    lakes.job(lake, tmp_path / "landing", described, layers=SILVER)
    before = lakes.versions(lake)
    with overtaken.engine:
        counts = silver.refresh(overtaken, load(described)["t"], "t")
    assert (counts.rebuilt, counts.changed, lakes.versions(lake)) == (None, 0, before)


def test_states_of_tables_outside_the_run_are_kept(lake, two_tables):
    """A run of one table leaves the states of the others in the object, and removes none that it did not read."""
    landing, described = two_tables
    lakes.job(lake, landing, described, layers=SILVER)
    before = stored(lake)["tables"]
    (landing / "more").mkdir()
    shutil.copy(landing / "a.csv", landing / "more" / "a.csv")
    lakes.job(lake, landing, described, layers=SILVER, tables=("a",))
    after = stored(lake)["tables"]
    assert after.keys() == before.keys()
    assert {name for name in after if after[name] != before[name]} == {"bronze.a", "silver.a"}


@pytest.fixture
def two_tables(tmp_path: Path) -> tuple[Path, Path]:
    (tmp_path / "landing").mkdir()
    for name in ("a", "b"):
        (tmp_path / "landing" / f"{name}.csv").write_text("k\n1\n", encoding="utf-8")
    described = tmp_path / "sources.toml"
    described.write_text("".join(f'[{n}]\nkey=["k"]\n[{n}.columns]\nk={{type="integer"}}\n' for n in "ab"))
    assert load(described)
    return tmp_path / "landing", described


def test_run_without_permission_to_keep_states_succeeds(lake, tmp_path, described, monkeypatch):
    """If the object cannot be written, the run is as successful as with it."""
    deliver(tmp_path, 0)
    monkeypatch.setattr(log_states, "KEY", ("..",))
    lakes.job(lake, tmp_path / "landing", described, layers=SILVER)
    assert lakes.unlike(lake, expected.tables(tmp_path / "landing", described)) == {}


def test_log_of_a_table_has_checkpoints(lake, tmp_path, described):
    """The tables of the pipeline get a checkpoint at every tenth commit, so opening them reads few commits."""
    for day in range(10):
        deliver(tmp_path, day)
    lakes.job(lake, tmp_path / "landing", described, layers=SILVER)
    assert list(DeltaLog.of_ref(lake.table("bronze", "t")).listing().checkpoints) == [9]
