"""Two engines, one result: what DuckDB makes of the raw files and what a Spark Connect server makes of them."""

import csv
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest
from filelock import FileLock
from support import crashes, lakes

from lakehouse_utils import sample_data
from lakehouse_utils.errors import LakehouseError
from lakehouse_utils.lake import Lake
from lakehouse_utils.pipeline.run import RunReport, open_engine

SOME = ("products", "brands", "categories", "dim_products")  # history, late rows, and what gold makes of it


def job(engine: str, lake: Lake, landing: Path, *described: Path, **chosen) -> RunReport:
    return lakes.job(lake, landing, *described, engine=open_engine(engine, lake), **chosen)


@pytest.fixture
def on_the_test_server(s3_state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sail's workers look for the lake themselves."""
    monkeypatch.setenv("LAKEHOUSE_STATE_DIR", str(s3_state_dir))


pytestmark = [
    pytest.mark.usefixtures("on_the_test_server"),
    pytest.mark.skipif(find_spec("pysail") is None, reason="the extra spark isn't installed: make test installs it"),
]


def schemas(lake: Lake) -> dict[str, str]:
    return {name: table.schema().to_json() for name, table in lakes.opened(lake)}


def unlike(one: dict[str, list], other: dict[str, list]) -> dict[str, list]:
    """By table: rows that only one of them has."""
    return {
        name: sorted({*map(repr, one.get(name, []))} ^ {*map(repr, other.get(name, []))})[:6]
        for name in one.keys() | other.keys()
        if one.get(name) != other.get(name)
    }


# -- equal results


def test_every_table_of_the_shop_row_for_row(finished, lake):
    report = job("spark", lake, finished.landing)
    assert unlike(lakes.contents(finished.lake), lakes.contents(lake)) == {}
    assert schemas(finished.lake) == schemas(lake)
    assert report.engine == "spark"
    there, here = finished.report["rows"], report.as_json()["rows"]
    for counts in (*there.values(), *here.values()):
        counts.pop("version")  # of a MERGE and what it covered, Spark makes two commits
    assert there == here
    assert not job("spark", lake, finished.landing).changed_anything
    assert not job("local", lake, finished.landing).changed_anything


def test_every_table_of_a_hundred_shops_row_for_row(s3_state_dir, prefix, lake):
    landing = s3_state_dir / "hundred"
    with FileLock(s3_state_dir / "hundred.lock"):
        if not landing.exists():
            sample_data.generate(landing, 100)
    other = lakes.at(f"{prefix}-local", s3_state_dir)
    job("spark", lake, landing)
    job("local", other, landing)
    assert len(lakes.rows(lake.delta("gold", "fact_sales"))) > 470_000
    for name, table in lakes.opened(other):  # one at a time: all are a few gigabytes of Python's values
        ignored = {"_ingested_at", "_bronze_version"} | (lakes.OWN if name.startswith("silver") else set())
        columns = [field.name for field in table.schema().fields if field.name not in ignored]
        one, two = (t.to_pyarrow_table(columns=columns) for t in (table, lake.delta(*name.split("."))))
        order = [(column, "ascending") for column in columns]
        assert one.sort_by(order).equals(two.sort_by(order)), name


ODD = [
    *(
        "",
        "NULL",
        " 1",
        "1 ",
        "\t5",
        "5\u00a0",
        "5\n",
        "+7",
        "-0",
        "--1",
        "007",
        "1.0",
        "1.",
        ".5",
        ".",
        "-",
        "1,5",
        "1 000",
    ),
    *("1e3", "1.5e1", "1.25e1", "1e", "1e+05", "1e-3", "4e-1", "1e400", "0x1F", "1_000", "١٢", "１２"),
    *("1e5", "1e6", "9e15", "1e16", "1e18", "1e22", "123456789012345678e1", "1.0000000001e1", "-0.0", "-0e0"),
    *("2026-01-31T10:00:00+14:00", "2026-01-31T10:00:00+14:30", "2026-01-31T10:00:00+18:30", "2026-01-31T10:00-00:30"),
    *("9223372036854775807", "9223372036854775808", "-9223372036854775808", "123456789012345678901234567890"),
    *(
        "NaN",
        "inf",
        "-Infinity",
        "12345678.125",
        "99999999.99",
        "100000000",
        "0.005",
        "1.10000",
        "2.5",
        "-2.5",
        "0.135",
    ),
    *("true", "TRUE", "t", "yes", "no", "on", "off", "0", "1", "f", "N", "y"),
    *("2026-01-31", "2026-1-5", "2026-02-30", "1900-02-29", "2000-02-29", "0001-01-01", "0000-01-01", "9999-12-31"),
    *("10000-01-01", "2026-01-31 (BC)", "31/01/2026", "epoch", "infinity", "now", "today"),
    *("2026-01-31T00:00", "2026-01-31 00:00:00.000Z", "2026-01-31T10:00:00Z", "2026-01-31 10:00:00+02"),
    *("2026-01-31 10:00:00 +02:00", "2026-01-31 10:00:00 UTC", "2026-01-31T10:00:00.123456789Z", "2026-01-31 10:00"),
    *("2026-01-31 10", "2026-01-31 24:00:00", "2026-01-31 10:00:60", "2026-01-31T10:00:00+0530", "2026-01-31T1:00:00"),
    *("2026-01-31T10:00:00.Z", "9999-12-31T23:59:59.999999Z", "9999-12-31T23:59:59-05"),
    *('a"b\\c/d', "\u0001", "ü€😀", "x" * 150, "it's"),
]
KINDS = """
[t]
key = ["n"]
history = true
order_by = "at"
[t.columns]
n = { type = "integer" }
i = { type = "integer" }
d = { type = "decimal(10,2)" }
wide = { type = "decimal(38,10)" }
f = { type = "double" }
b = { type = "boolean" }
day = { type = "date" }
at = { type = "timestamp" }
s = { type = "text" }
some = { type = "double", min = -2, max = 1000 }
few = { type = "text", allowed = ["yes", "it's", 'a"b\\c/d'] }
"""


def test_every_odd_spelling_is_taken_or_quarantined_alike(tmp_path, s3_state_dir, prefix):
    (tmp_path / "sources.toml").write_text(KINDS, encoding="utf-8")
    (tmp_path / "landing" / "2026-01-01").mkdir(parents=True)
    columns = ["i", "d", "wide", "f", "b", "day", "at", "s", "some", "few"]
    with (tmp_path / "landing" / "2026-01-01" / "t.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["n", *columns])
        for number, (value, column) in enumerate((value, column) for value in ODD for column in columns):
            rows.writerow([number, *(value if name == column else "" for name in columns)])
    found = {}
    for engine in ("local", "spark"):
        lake = lakes.at(f"{prefix}/{engine}", s3_state_dir)
        job(engine, lake, tmp_path / "landing", tmp_path / "sources.toml")
        found[engine] = lakes.contents(lake)
    assert unlike(found["local"], found["spark"]) == {}
    assert min(len(found["local"][name]) for name in ("silver.t", "quarantine.t")) > 200


# -- one goes on where the other stopped


@pytest.mark.parametrize("first", ["local", "spark"])
def test_day_by_day_on_the_one_and_the_other(first, small, lake, tmp_path, s3_state_dir, prefix):
    """The third day comes last: late rows, whose history the other engine has to make again."""
    days = sorted(path.name for path in small.iterdir())
    days.append(days.pop(2))
    whole = lakes.at(f"{prefix}/whole", s3_state_dir)
    engines = ["local", "spark"] if first == "local" else ["spark", "local"]
    for number, day in enumerate(days):
        shutil.copytree(small / day, tmp_path / day)
        job(engines[number % 2], lake, tmp_path, tables=SOME)
        job("local", whole, tmp_path, tables=SOME)
    assert unlike(lakes.contents(whole), lakes.contents(lake)) == {}


@pytest.mark.parametrize(
    "dies, before, goes_on",
    [
        *(("local", write, "spark") for write in (4, 9)),
        *(("spark", write, "local") for write in (3, 6, 9, 12)),
        ("spark", 7, "spark"),
    ],
)
def test_killed_on_one_and_started_again_on_the_other(
    dies, goes_on, before, small, s3_server, s3_state_dir, keys, lake, prefix, tmp_path
):
    """`before` is the write that the job dies before; of silver and gold the tables with history and MERGE."""
    landing, whole = tmp_path / "landing", lakes.at(f"{prefix}/whole", s3_state_dir)
    days = sorted(path.name for path in small.iterdir())
    shutil.copytree(small / days[0], landing / days[0])
    for target in (lake, whole):
        job("local", target, landing, tables=SOME)
    for day in days[1:]:
        shutil.copytree(small / day, landing / day)
    job("local", whole, landing, tables=SOME)
    arguments = ["--lake", lake.root, "--landing", landing, "--tables", ",".join(SOME), "--quiet"]
    output = tmp_path / "output"
    with crashes.Proxy.to(s3_server.endpoint) as proxy:
        code = proxy.run(before, [*arguments, "--engine", dies], keys, output)
        assert code in (-9, 0), output.read_text()
        assert proxy.run(None, [*arguments, "--engine", goes_on], keys, output) == 0, output.read_text()
        assert unlike(lakes.contents(whole), lakes.contents(lake)) == {}
        assert proxy.run(None, [*arguments, "--engine", "local"], keys, output) == 0
        assert proxy.writes == 0


@pytest.mark.parametrize("second", ["spark", "local"])
def test_two_jobs_at_the_same_time(second, small, small_expected, s3_state_dir, lake, tmp_path):
    environment = lakes.environment(s3_state_dir)
    started = [
        crashes.start(
            ["--lake", lake.root, "--landing", small, "--engine", engine], environment, tmp_path / f"output{n}"
        )
        for n, engine in enumerate(("spark", second))
    ]
    for number, process in enumerate(started):
        process.join()
        assert process.exitcode == 0, (tmp_path / f"output{number}").read_text()
    assert lakes.unlike(lake, small_expected) == {}


ALIASES = """
[p]
key = ["id"]
history = true
[p.columns]
id = { type = "double" }
age = { type = "integer" }
reason = { type = "text" }
layer = { type = "text" }
raw = { type = "text" }
"""


@pytest.mark.parametrize("engine", ["local", "spark"])
def test_columns_may_have_any_name_and_a_key_one_zero(engine, lake, tmp_path):
    (tmp_path / "sources.toml").write_text(ALIASES, encoding="utf-8")
    for day, rows in enumerate(("0,30\n-0,31\n1.5,40", "-0,32\n1.5,39", "0.0,33\n1.5,50\n2,never"), start=1):
        batch = tmp_path / "landing" / f"2026-01-0{day}"
        batch.mkdir(parents=True)
        lines = [f"{row},because {day},gold,rust" for row in rows.splitlines()]
        (batch / "p.csv").write_text("\n".join(["id,age,reason,layer,raw", *lines, ""]))
        job(engine, lake, tmp_path / "landing", tmp_path / "sources.toml")
    current, history = (lake.delta("silver", name).to_pyarrow_table().to_pylist() for name in ("p", "p_history"))
    assert sorted((row["id"], row["age"], row["reason"]) for row in current) == [
        (0.0, 33, "because 3"),
        (1.5, 50, "because 3"),
    ]
    assert sorted((row["id"], row["age"], row["is_current"]) for row in history) == [
        (0.0, 31, False),
        (0.0, 32, False),
        (0.0, 33, True),
        (1.5, 39, False),
        (1.5, 40, False),
        (1.5, 50, True),
    ]
    (refused,) = lake.delta("quarantine", "p").to_pyarrow_table().to_pylist()
    assert refused["layer"] == "silver" and "age: 'never' is no integer" in refused["reason"]


# -- more than one process, and the end of them


def test_on_a_sail_cluster_of_several_workers(small, small_expected, lake, monkeypatch):
    monkeypatch.setenv("SAIL_MODE", "local-cluster")
    monkeypatch.setenv("SAIL_CLUSTER__WORKER_INITIAL_COUNT", "3")
    job("spark", lake, small)
    assert lakes.unlike(lake, small_expected) == {}


def test_on_apache_spark_itself(small, lake, tmp_path, s3_state_dir, prefix, cluster):
    """One source with history and what gold makes of it: on a small machine a day of all tables takes minutes there."""
    whole = lakes.at(f"{prefix}/whole", s3_state_dir)
    chosen = {"tables": SOME}
    for day in sorted(path.name for path in small.iterdir()):
        shutil.copytree(small / day, tmp_path / day)
        lakes.job(whole, tmp_path, **chosen)
        if day in ("2026-01-01", "2026-01-07"):
            lakes.job(lake, tmp_path, engine=open_engine("spark", lake, cluster.remote), **chosen)
    assert unlike(lakes.contents(whole), lakes.contents(lake)) == {}
    assert schemas(whole) == schemas(lake)


def test_gold_on_apache_spark_itself(small, small_expected, lake, cluster):
    lakes.job(lake, small, layers=("bronze", "silver"))
    lakes.job(lake, small, engine=open_engine("spark", lake, cluster.remote), layers=("gold",))
    assert lakes.unlike(lake, small_expected) == {}


def test_sail_ends_with_the_job_however_that_ends(small, s3_state_dir, lake, tmp_path):
    process = crashes.start(
        ["--lake", lake.root, "--landing", small, "--engine", "spark"],
        lakes.environment(s3_state_dir),
        tmp_path / "output",
    )
    while not (sails := psutil.Process(process.pid).children()):
        assert process.is_alive(), (tmp_path / "output").read_text()
    process.kill()
    process.join()
    assert psutil.wait_procs(sails, timeout=20)[1] == []


def test_sail_ends_in_the_middle_of_a_query(lake, tmp_path):
    begun = str(tmp_path / "begun")

    def forever(batches):
        import pathlib
        import time

        pathlib.Path(begun).touch()
        time.sleep(600)
        yield from batches

    def ask(rows):
        with suppress(Exception):  # that Sail is gone
            rows.collect()

    with open_engine("spark", lake) as engine:
        asked = engine.session.range(1).mapInArrow(forever, "id long")
        threading.Thread(target=ask, args=[asked], daemon=True).start()
        while not Path(begun).exists():
            time.sleep(0.05)
        process = engine._sail._process
        process.stdin.close()  # as it is when the job dies
        process.wait(20)


def kill_sail() -> None:
    (sail,) = (child for child in psutil.Process().children() if any("pysail" in word for word in child.cmdline()))
    sail.kill()


def test_sail_killed_under_the_job_is_one_sentence_and_the_next_job_goes_on(small, small_expected, lake):
    class Killer(lakes.Silent):
        def on_advance(self, size_bytes: int) -> None:
            kill_sail()

    with pytest.raises(LakehouseError, match=r"^Sail, .+ is gone .+: the system ended it.+ Start the job again"):
        lakes.job(lake, small, watch=Killer(), engine=open_engine("spark", lake))
    job("spark", lake, small)
    assert lakes.unlike(lake, small_expected) == {}


def test_sail_minds_neither_ctrl_c_nor_a_profile_of_the_shell(small, small_expected, lake, monkeypatch):
    groups = set()

    class Onlooker(lakes.Silent):
        def on_advance(self, size_bytes: int) -> None:
            sails = [
                child for child in psutil.Process().children() if any("pysail" in word for word in child.cmdline())
            ]
            groups.update(os.getpgid(sail.pid) for sail in sails)

    engine = open_engine("spark", lake)
    monkeypatch.setenv("AWS_PROFILE", "no_such_profile")
    lakes.job(lake, small, watch=Onlooker(), engine=engine)
    assert groups and os.getpgrp() not in groups, "a terminal's Ctrl+C goes to its whole process group"
    assert lakes.unlike(lake, small_expected) == {}


def test_a_server_that_goes_away_is_one_sentence(lake, small):
    from lakehouse_utils.spark.session import impatient_retries

    with open_engine("spark", lake) as there:
        remote = there._sail.address
        with (
            pytest.raises(LakehouseError, match=rf"^The Spark Connect server at {remote} doesn't answer any more"),
            open_engine("spark", lake, remote) as engine,
        ):
            engine.session.client.set_retry_policies(impatient_retries())  # it would ask again for ten minutes
            kill_sail()
            engine.query("SELECT 1")


# -- errors


def test_an_address_where_no_server_answers_is_one_sentence(lake, small):
    with pytest.raises(LakehouseError, match=r"^No Spark Connect server answers at sc://127.0.0.1:1: check --spark-"):
        lakes.job(lake, small, engine=open_engine("spark", lake, "sc://127.0.0.1:1"))


@pytest.mark.parametrize(
    "remote",
    [
        "localhost:15002",
        "http://localhost:15002",
        "local[2]",
        "sc://",
        "sc://h:",
        "sc://h:99999",
        "sc://h:a",
        "sc://h:1/x",
    ],
)
def test_what_is_no_address_is_refused(remote, lake):
    with pytest.raises(LakehouseError, match=r"^--spark-remote must look like sc://host:port, and .+ doesn't\."):
        open_engine("spark", lake, remote)


def test_an_empty_address_is_none_and_a_password_stays_hidden(lake, small):
    assert open_engine("spark", lake, "").remote is None
    with pytest.raises(LakehouseError) as caught:
        lakes.job(lake, small, engine=open_engine("spark", lake, "sc://user:secret@127.0.0.1:1"))
    assert "secret" not in str(caught.value) and "sc://127.0.0.1:1" in str(caught.value)


@pytest.mark.parametrize("odd", ["um lago", "ação", "a`b"])
def test_an_address_that_spark_servers_encode_is_refused(odd, lake, tmp_path):
    there = lake.sibling(lake.uri(odd))
    with pytest.raises(LakehouseError, match="The engine spark can't work on .+, or the engine local"):
        open_engine("spark", there)


def test_what_the_server_cannot_do_is_one_sentence(lake):
    with (
        pytest.raises(
            LakehouseError, match=r"^The Spark server could not do what it was asked for\. It says: .*missing"
        ),
        open_engine("spark", lake) as engine,
    ):
        engine.query("SELECT missing FROM range(1)")


def test_an_engine_that_is_not_there_is_refused(lake):
    with pytest.raises(LakehouseError, match="There is no engine flink; there are local, spark"):
        open_engine("flink", lake)


def test_an_address_without_the_engine_is_refused(lake):
    with pytest.raises(LakehouseError, match="add --engine spark"):
        open_engine("local", lake, "sc://127.0.0.1:1")


def test_without_its_packages_the_sentence_says_how_to_get_them(lake, small, tmp_path, s3_state_dir):
    program = (
        "import sys; sys.modules['pyspark'] = None; import ingestion_processor; "
        f"ingestion_processor.main({json.dumps(['--lake', lake.root, '--landing', str(small), '--engine', 'spark'])})"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env=lakes.environment(s3_state_dir), capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "make run ENGINE=spark" in done.stderr and "Traceback" not in done.stderr
