"""Two engines, one result: DuckDB and a Spark Connect server give the same rows from the same raw files."""

import csv
import json
import os
import shutil
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Callable
from contextlib import closing, suppress
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest
from filelock import FileLock
from support import crashes, filters, lakes
from support.cut_connections import CutConnections
from support.selected import slow_but

from lakehouse_utils import sample_data
from lakehouse_utils.errors import EngineError, LakehouseError, SettingError
from lakehouse_utils.lake import Lake
from lakehouse_utils.pipeline.context import NoProgress
from lakehouse_utils.pipeline.engines.protocol import Engine
from lakehouse_utils.pipeline.run import RunReport, open_engine

SOME = ("products", "brands", "categories", "dim_products")  # a source with history and late rows, and its dimension


@pytest.fixture
def job(engine_of: Callable[[str, Lake], Engine]) -> Callable[..., RunReport]:
    """Runs the job on the engine of a name."""

    def job(engine: str, lake: Lake, landing: Path, *described: Path, **selected) -> RunReport:
        return lakes.job(lake, landing, *described, engine=engine_of(engine, lake), **selected)

    return job


@pytest.fixture
def on_the_test_server(s3_state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sail's workers open the lake by themselves, from the environment."""
    monkeypatch.setenv("LAKEHOUSE_STATE_DIR", str(s3_state_dir))


pytestmark = [
    pytest.mark.usefixtures("on_the_test_server"),
    pytest.mark.skipif(find_spec("pysail") is None, reason="the extra spark isn't installed: make test installs it"),
]


def schemas(lake: Lake) -> dict[str, str]:
    return {name: table.schema().to_json() for name, table in lakes.opened(lake)}


def unlike(one: dict[str, list], other: dict[str, list]) -> dict[str, list]:
    """By table: up to six rows that only one of the lakes has."""
    return {
        name: sorted({*map(repr, one.get(name, []))} ^ {*map(repr, other.get(name, []))})[:6]
        for name in one.keys() | other.keys()
        if one.get(name) != other.get(name)
    }


# -- equal results


@pytest.mark.parametrize("which", slow_but(["some"], ["some", "all"]))
def test_every_table_of_the_shop_is_equal_on_both_engines(which, job, finished, lake):
    """Rows, schemas and reports of a complete run are the same, and neither engine then finds anything to do."""
    tables = SOME if which == "some" else ()

    def selected(by_label):
        labels = [label for label in by_label if label.partition(".")[2].removesuffix("_history") in tables]
        return {label: by_label[label] for label in labels} if tables else by_label

    report = job("spark", lake, finished.landing, tables=tables)
    contents = selected(lakes.contents(lake))
    assert len(contents) >= (8 if tables else 30)
    assert unlike(selected(lakes.contents(finished.lake)), contents) == {}
    assert selected(schemas(finished.lake)) == selected(schemas(lake))
    assert report.engine == "spark"
    local_counts, spark_counts = selected(finished.report["rows"]), report.as_json()["rows"]
    for counts in (*local_counts.values(), *spark_counts.values()):
        counts.pop("version")  # Spark needs a second commit to record what a MERGE covers
        counts.pop("seconds")
    assert filters.wrong_counts(lake) == []
    assert local_counts == spark_counts
    assert not job("spark", lake, finished.landing, tables=tables).changed_anything
    assert not job("local", lake, finished.landing, tables=tables).changed_anything


@pytest.mark.slow
def test_every_table_of_a_hundred_shops_is_equal_on_both_engines(job, s3_state_dir, prefix, lake):
    """At scale 100, every table has the same rows on both engines."""
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
    *("1.234,56", "1,234.56", "1.234", "12.34", "1 234,5", "1\u00a0234,5", "1\u202f234", "-1.234.567,8", ",5", "5,"),
    *(
        "31/01/2026",
        "1/2/2026",
        "30/02/2026",
        "31.01.26",
        "31.01.69",
        "01/31/2026 12:05 AM",
        "1/31/2026 1:05 pm",
        "5/1/2026",
    ),
    *("2026-03-29 02:30:00", "2026-10-25 02:30:00", "2026-10-25 03:30:00", "2026-03-30", "1893-04-01 00:03:00"),
    *("0001-01-01 00:30:00", "9999-12-31 23:59:59", "1900-01-01", "2080-07-01 12:00:00", "2026-10-25T02:30:00Z"),
    *("Sim", "NÃO", "não ", "ok a", "é b", "a b\n", "ab c", "\u3000x ", "1,", "\uff11,\uff12"),
    *(
        "2026-02-03T04:05Z",
        "2026-02-03T04:05-05:00",
        "2026-02-03 04:05 UTC",
        "2026-02-03 4:05+01",
        "2026-02-03T04:05:06UTC",
    ),
    *(
        "2026-02-03 04:05:06.5UTC",
        "2026-02-03T04:05:06.123456789Z",
        "2026-02-03T04:05:06.1234560",
        "2026-02-03 04:05  UTC",
    ),
    *(
        "1e-400",
        "5471626565542874265262.e-16",
        "35782737149014689315.0e-4",
        "547162.6565542874265262",
        "1.5e003",
        "15e-1",
    ),
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
    *("1e3", "1.5e1", "1.25e1", "1e", "1e+05", "1e-3", "4e-1", "1e400", "0x1F", "1_000", "١٢", "\uff11\uff12"),
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
german = { type = "decimal(10,2)", decimal = ",", thousands = "." }
french = { type = "double", decimal = ",", thousands = " " }
day_first = { type = "date", date_format = ["%d/%m/%Y", "%d.%m.%y"] }
twelve = { type = "timestamp", timestamp_format = ["%m/%d/%Y %I:%M %p", "iso"] }
berlin = { type = "timestamp", time_zone = "Europe/Berlin" }
word = { type = "boolean", true_values = ["Sim", "1"], false_values = ["Não", "0"] }
trimmed = { type = "text", trim = true, null_values = ["", "-", "."], max_length = 5 }
pattern = { type = "text", pattern = '\\d+[.,]?\\d*|\\w{2} .*' }
fraction = { type = "integer", min = -0.5, max = 9.5 }
few = { type = "text", allowed = ["yes", "it's", 'a"b\\c/d'] }
"""


def test_unusual_spellings_are_accepted_or_rejected_alike(job, tmp_path, s3_state_dir, prefix):
    """Each text in each type is a value or a quarantined row, the same on both engines."""
    (tmp_path / "sources.toml").write_text(KINDS, encoding="utf-8")
    (tmp_path / "landing" / "2026-01-01").mkdir(parents=True)
    columns = [name for name in tomllib.loads(KINDS)["t"]["columns"] if name != "n"]
    with (tmp_path / "landing" / "2026-01-01" / "t.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["n", *columns])
        for number, (value, column) in enumerate((value, column) for value in ODD for column in columns):
            rows.writerow([number, *(value if name == column else "" for name in columns)])
    contents = {}
    for engine in ("local", "spark"):
        lake = lakes.at(f"{prefix}/{engine}", s3_state_dir)
        job(engine, lake, tmp_path / "landing", tmp_path / "sources.toml")
        contents[engine] = lakes.contents(lake)
    assert unlike(contents["local"], contents["spark"]) == {}
    assert min(len(contents["local"][name]) for name in ("silver.t", "quarantine.t")) > 200


# -- one engine continues where the other stopped


@pytest.mark.parametrize("first", slow_but([], ["local", "spark"], slow=["spark"]))
def test_engines_taking_turns_give_the_same_rows(job, first, small, lake, tmp_path, s3_state_dir, prefix):
    """One batch per run, alternating engines; the third batch comes last: late rows meet the other's history."""
    days = sorted(path.name for path in small.iterdir())
    days.append(days.pop(2))
    undisturbed = lakes.at(f"{prefix}/undisturbed", s3_state_dir)
    engines = ["local", "spark"] if first == "local" else ["spark", "local"]
    for number, day in enumerate(days):
        shutil.copytree(small / day, tmp_path / day)
        job(engines[number % 2], lake, tmp_path, tables=SOME)
        job("local", undisturbed, tmp_path, tables=SOME)
    assert unlike(lakes.contents(undisturbed), lakes.contents(lake)) == {}


@pytest.mark.parametrize(
    ("killed", "before", "next_engine"),
    slow_but(
        [],
        [
            ("local", 4, "spark"),
            ("local", 9, "spark"),
            ("spark", 3, "local"),
            ("spark", 6, "local"),
            ("spark", 9, "local"),
            ("spark", 12, "local"),
            ("spark", 7, "spark"),
        ],
        slow=[("local", 9, "spark"), ("spark", 6, "local")],
    ),
)
def test_job_killed_on_one_engine_is_completed_by_the_other(
    job, killed, next_engine, before, small, s3_server, s3_state_dir, keys, lake, prefix, tmp_path
):
    """`before` is the write before which the job is killed, in tables with history and MERGE."""
    landing, undisturbed = tmp_path / "landing", lakes.at(f"{prefix}/undisturbed", s3_state_dir)
    days = sorted(path.name for path in small.iterdir())
    shutil.copytree(small / days[0], landing / days[0])
    for target in (lake, undisturbed):
        job("local", target, landing, tables=SOME)
    for day in days[1:]:
        shutil.copytree(small / day, landing / day)
    job("local", undisturbed, landing, tables=SOME)
    arguments = ["--lake", lake.root, "--landing", landing, "--tables", ",".join(SOME), "--quiet"]
    output = tmp_path / "output"
    with crashes.Proxy.to(s3_server.endpoint) as proxy:
        code = proxy.run(before, [*arguments, "--engine", killed], keys, output)
        assert code in (-9, 0), output.read_text()
        assert proxy.run(None, [*arguments, "--engine", next_engine], keys, output) == 0, output.read_text()
        assert unlike(lakes.contents(undisturbed), lakes.contents(lake)) == {}
        before = lakes.versions(lake)
        assert proxy.run(None, [*arguments, "--engine", "local"], keys, output) == 0
        assert lakes.versions(lake) == before


@pytest.mark.parametrize("second", slow_but([], ["spark", "local"], slow=["local"]))
def test_jobs_of_both_engines_at_the_same_time_give_the_expected_rows(
    second, small, small_expected, s3_state_dir, lake, tmp_path
):
    """Two jobs on one lake, of two engines or (nightly) both of Spark, succeed without duplicate rows."""
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


@pytest.mark.parametrize("engine", slow_but(["local"], ["local", "spark"]))
def test_columns_may_have_names_of_the_pipeline_and_zero_is_one_key(job, engine, lake, tmp_path):
    """Columns may be called as those of quarantine, and the keys 0, -0 and 0.0 are one key."""
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
    (rejected,) = lake.delta("quarantine", "p").to_pyarrow_table().to_pylist()
    assert rejected["layer"] == "silver" and "age: 'never' is not a valid integer" in rejected["reason"]


# -- several processes, and how they end


@pytest.mark.nightly
def test_job_on_a_sail_cluster_of_several_workers(small, small_expected, lake, monkeypatch):
    """With three worker processes the tables are as expected."""
    monkeypatch.setenv("SAIL_MODE", "local-cluster")
    monkeypatch.setenv("SAIL_CLUSTER__WORKER_INITIAL_COUNT", "3")
    lakes.job(lake, small, engine=open_engine("spark", lake))
    assert lakes.unlike(lake, small_expected) == {}


@pytest.mark.slow
def test_job_on_apache_spark(small, lake, tmp_path, s3_state_dir, prefix, cluster):
    """One source with history and its dimension: all tables of a day take minutes on a small machine."""
    undisturbed = lakes.at(f"{prefix}/undisturbed", s3_state_dir)
    selected = {"tables": SOME}
    for day in sorted(path.name for path in small.iterdir()):
        shutil.copytree(small / day, tmp_path / day)
        lakes.job(undisturbed, tmp_path, **selected)
        if day in ("2026-01-01", "2026-01-07"):
            lakes.job(lake, tmp_path, engine=open_engine("spark", lake, cluster.remote), **selected)
    assert unlike(lakes.contents(undisturbed), lakes.contents(lake)) == {}
    assert schemas(undisturbed) == schemas(lake)


@pytest.mark.nightly
def test_gold_on_apache_spark(small, small_expected, lake, cluster):
    """Apache Spark builds the expected gold tables from a silver layer of the local engine."""
    lakes.job(lake, small, layers=("bronze", "silver"))
    lakes.job(lake, small, engine=open_engine("spark", lake, cluster.remote), layers=("gold",))
    assert lakes.unlike(lake, small_expected) == {}


def test_sail_ends_when_its_job_is_killed(small, s3_state_dir, lake, tmp_path):
    """No server process remains after the job was killed."""
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
    """A query that never returns does not keep the server alive after its job has ended."""
    started = str(tmp_path / "started")

    def forever(batches):
        import pathlib
        import time

        pathlib.Path(started).touch()
        time.sleep(600)
        yield from batches

    def collect(rows):
        with suppress(Exception):  # Sail is gone
            rows.collect()

    with open_engine("spark", lake) as engine:
        rows = engine.session.range(1).mapInArrow(forever, "id long")
        threading.Thread(target=collect, args=[rows], daemon=True).start()
        while not Path(started).exists():
            time.sleep(0.05)
        process = engine._sail._process
        process.stdin.close()  # as when the job is killed
        process.wait(20)


def kill_sail() -> None:
    for child in psutil.Process().children():
        with suppress(
            psutil.ZombieProcess
        ):  # it was killed before, and the results of other files have arrived already
            if any("_sail_server" in word for word in child.cmdline()):
                child.kill()


@pytest.mark.slow
def test_sail_killed_during_the_job_is_one_sentence_and_the_next_job_continues(job, small, small_expected, lake):
    """The error says that the server is gone and to start again, and the next job gives the expected rows."""

    class Killer(NoProgress):
        def on_advance(self, size_bytes: int) -> None:
            kill_sail()

    with pytest.raises(EngineError, match=r"^Sail, .+ stopped .+: the system killed it.+ Start the job again"):
        lakes.job(lake, small, progress=Killer(), engine=open_engine("spark", lake))
    job("spark", lake, small)
    assert lakes.unlike(lake, small_expected) == {}


@pytest.mark.nightly
def test_sail_ignores_ctrl_c_and_aws_profile(small, small_expected, lake, monkeypatch):
    """Sail has its own process group, and uses the lake's credentials and not the profile of the shell."""
    groups = set()

    class ProcessGroups(NoProgress):
        def on_advance(self, size_bytes: int) -> None:
            sails = [
                child
                for child in psutil.Process().children()
                if any("_sail_server" in word for word in child.cmdline())
            ]
            groups.update(os.getpgid(sail.pid) for sail in sails)

    engine = open_engine("spark", lake)
    monkeypatch.setenv("AWS_PROFILE", "no_such_profile")
    lakes.job(lake, small, progress=ProcessGroups(), engine=engine)
    assert groups and os.getpgrp() not in groups, "a terminal's Ctrl+C goes to its whole process group"
    assert lakes.unlike(lake, small_expected) == {}


@pytest.mark.slow
def test_a_server_that_stops_answering_is_one_sentence(lake, small):
    """The error names the address of the server."""
    from lakehouse_utils.spark.session import short_retry_policies

    with open_engine("spark", lake) as first:
        remote = first._sail.address
        with (  # noqa: PT012 - the error is raised when the engine is closed
            pytest.raises(EngineError, match=rf"^The Spark Connect server at {remote} no longer answers"),
            open_engine("spark", lake, remote) as engine,
        ):
            engine.session.client.set_retry_policies(short_retry_policies())  # it would ask again for ten minutes
            kill_sail()
            engine.query("SELECT 1")


@pytest.mark.slow
def test_answers_that_are_lost_cost_a_step_a_further_attempt(small, small_expected, lake):
    """Sail cannot repeat an answer whose connection broke. The job repeats the step, and the rows are right."""
    with open_engine("spark", lake) as first:
        server_port = int(first._sail.address.rpartition(":")[2])
        with closing(CutConnections(server_port, at={40, 80, 120})) as proxy:
            engine = open_engine("spark", lake, f"sc://127.0.0.1:{proxy.port}")
            lakes.job(lake, small, engine=engine, tables=SOME)
    assert proxy.cuts == 3
    assert not lakes.unlike(lake, small_expected).keys() & {"silver.products", "gold.dim_products"}


# -- errors


def test_an_address_without_a_server_is_one_sentence(lake, small):
    """The error names the address and the option."""
    with pytest.raises(
        EngineError, match=r"^No Spark Connect server answers at sc://127.0.0.1:1 \(.+\). Check --spark-remote.$"
    ):
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
def test_an_invalid_address_is_refused(remote, lake):
    """Anything but sc://host:port is refused before a connection is tried."""
    with pytest.raises(SettingError, match=r"^--spark-remote=.+ is invalid. It must look like sc://host:port.$"):
        open_engine("spark", lake, remote)


def test_an_empty_address_is_none_and_a_password_is_hidden(lake, small):
    """An empty address counts as none, and an error does not show the password in an address."""
    assert open_engine("spark", lake, "").remote is None
    with pytest.raises(LakehouseError) as caught:
        lakes.job(lake, small, engine=open_engine("spark", lake, "sc://user:secret@127.0.0.1:1"))
    assert "secret" not in str(caught.value) and "sc://127.0.0.1:1" in str(caught.value)


@pytest.mark.parametrize("odd", ["um lago", "ação", "a`b"])
def test_characters_that_spark_servers_encode_are_refused(odd, lake, tmp_path):
    """A lake whose address has such a character is refused, with the alternatives."""
    other = lake.sibling(lake.uri(odd))
    with pytest.raises(EngineError, match=r"^The spark engine does not support the character .+ use --engine local"):
        open_engine("spark", other)


def test_a_failed_query_is_one_sentence(lake):
    """The error has what the server says, without its stack trace."""
    with (
        pytest.raises(EngineError, match=r"^The Spark server could not run a query\. The server says: .*missing"),
        open_engine("spark", lake) as engine,
    ):
        engine.query("SELECT missing FROM range(1)")


def test_an_unknown_engine_is_refused(lake):
    """The error lists the engines."""
    with pytest.raises(SettingError, match=r"^--engine: 'flink' is not one of local, spark"):
        open_engine("flink", lake)


def test_a_spark_address_for_the_local_engine_is_refused(lake):
    """The error says which option to add."""
    with pytest.raises(SettingError, match="needs --engine spark: add it"):
        open_engine("local", lake, "sc://127.0.0.1:1")


def test_spark_without_its_packages_says_how_to_install_them(lake, small, tmp_path, s3_state_dir):
    """The error names the command that installs the packages."""
    program = (
        "import sys; sys.modules['pyspark'] = None; import ingestion_processor; "
        f"ingestion_processor.main({json.dumps(['--lake', lake.root, '--landing', str(small), '--engine', 'spark'])})"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env=lakes.environment(s3_state_dir), capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "make run ENGINE=spark" in done.stderr and "Traceback" not in done.stderr
