"""The recipes of docs/operate.md: each block of code on that page is run here, as it is printed there."""

import configparser
import csv
import os
import re
import shutil
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from filelock import FileLock
from support import lakes
from support.operators import BLOCKS, PAGE, Operator

from lakehouse_utils.lake import Lake
from lakehouse_utils.pipeline import run_history
from lakehouse_utils.pipeline.context import TableCounts
from lakehouse_utils.pipeline.report import RunReport

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the recipes are for a POSIX shell")


@pytest.fixture(scope="session")
def built(s3_server, s3_state_dir, small) -> Lake:
    """A lake that the job has built from the small shop. Read-only."""
    lake = lakes.at(f"{s3_server.uri}/operated", s3_state_dir)
    with FileLock(s3_state_dir / "operated.lock"):
        if not (s3_state_dir / "operated").exists():
            lakes.job(lake, small)
            (s3_state_dir / "operated").touch()
    return lake


@pytest.fixture
def operator(built, lake, small, keys, tmp_path) -> Operator:
    lakes.copy(built, lake)
    shutil.copytree(small, tmp_path / "landing")
    return Operator(tmp_path / "checkout", lake, tmp_path / "landing", keys)


def test_every_block_of_the_page_is_run_by_a_test():
    """A new recipe needs a test; the DDL for Athena is the only block without one, and says so."""
    text = Path(__file__).read_text(encoding="utf-8")
    assert [name for name in BLOCKS if f'"{name}"' not in text] == []
    assert PAGE.count("\n```") + PAGE.count("\n   ```") == 2 * (len(BLOCKS) + 1)


@pytest.mark.slow
def test_cron_runs_the_job_and_logs_the_exit_code(operator):
    """Each line of the crontab runs as it is; a failure is in the log with its exit code."""
    for line in BLOCKS["cron"][1].splitlines():
        command = re.fullmatch(r"(?:\S+ +){5}(.+)", line)[1].replace("/srv/lakehouse", str(operator.folder))
        operator.call(["sh", "-c", command])
        assert (operator.folder / "job.log").read_text() == ""
        operator.environment["LAKEHOUSE_URI"] = "http://wrong"
        operator.call(["sh", "-c", command])
        operator.environment["LAKEHOUSE_URI"] = operator.lake.root
        log = (operator.folder / "job.log").read_text()
        assert "Error: " in log and re.search(r"^\d{4}-\S+ exit code 1$", log, re.MULTILINE), log
        (operator.folder / "job.log").unlink()


def test_systemd_units_are_valid_and_run_the_job(operator):
    """The service runs the job; where systemd is installed, it accepts both units."""
    for name in ("service", "timer"):
        text = BLOCKS[name][1].replace("/srv/lakehouse", str(operator.folder))
        (operator.folder / f"lakehouse.{name}").write_text(text)
    service = configparser.ConfigParser(interpolation=None)
    service.optionxform = str
    service.read(operator.folder / "lakehouse.service")
    operator.call(service["Service"]["ExecStart"].split())
    if shutil.which("systemd-analyze"):
        units = [str(operator.folder / f"lakehouse.{name}") for name in ("service", "timer")]
        operator.call(["systemd-analyze", "verify", "--man=no", *units])


@pytest.mark.slow
def test_cell_of_a_notebook_job_fails_with_the_job(operator):
    """The cell runs the job, and raises if it fails. A refused file is not a failure, as for the systemd service."""
    operator.run("cell")
    (operator.landing / "2026-01-08").mkdir()
    (operator.landing / "2026-01-08" / "stocks.parquet").write_bytes(b"not a Parquet file")
    operator.job("--quiet", code=4)
    operator.run("cell")
    operator.environment["LAKEHOUSE_URI"] = "http://wrong"
    assert "AssertionError: 1" in operator.run("cell", code=1)


@pytest.mark.slow
def test_runs_are_shown(operator):
    """The queries print the last runs and what failed."""
    operator.job("--quiet")
    assert "│ ok" in operator.run("runs")
    assert re.search(r"^silver\.orders +\d+ +1 .+ (WRITE|MERGE) ", operator.run("status"), re.MULTILINE)


@pytest.mark.slow
def test_alarms_are_raised_for_what_is_wrong_and_for_nothing_else(operator):
    """Silent while all is well; then one line each for a stale lake, a failure, a refused file, and odd volumes."""
    operator.job("--quiet")
    assert operator.run("alarms") == ""

    def record(hours: float, **fields: object) -> None:
        report = RunReport("local", "x", **fields)
        ended = datetime.now(UTC) - timedelta(hours=hours)
        report.end(1 if fields.get("failed") else 0, ValueError("x") if fields.get("failed") else None)
        report.started_at = report.ended_at = ended.isoformat()
        run_history.append(operator.lake, report)

    for days in range(2, 9):
        record(24 * days, rows={"bronze.orders": TableCounts(added=1000), "bronze.stores": TableCounts(added=1)})
    record(24, failed={"silver.stores": "an error that the next run did not have"})
    record(24, rows={"bronze.orders": TableCounts(added=10)})
    record(24 * 4, rows={"bronze.order_items": TableCounts(added=10)})
    record(0, refused=["a.csv: it is empty"], rows={"bronze.orders": TableCounts(added=95, quarantined=6)})
    record(0, failed={"silver.orders": "the error"})
    lines = sorted(operator.run("alarms", code=1).splitlines())
    day = (datetime.now(UTC) - timedelta(days=4)).date()
    assert lines == [
        "a file was refused: a.csv: it is empty",
        f"bronze.order_items: no new rows since {day}",
        "bronze.orders: 10 rows yesterday, and usually 1000.0",
        "bronze.orders: 6 of 101 rows were quarantined today",
        "silver.orders failed: the error",
        "the last run failed: x",
    ]
    for entry in list(operator.lake.objects(operator.lake.key("operations", ""))):
        operator.lake.s3.delete_object(Bucket=operator.lake.bucket, Key=entry["Key"])
    record(30)
    assert operator.run("alarms", code=1) == "no successful run for 26 hours\n"


@pytest.mark.slow
def test_check_and_recovery(operator):
    """A lost data file is named by the check, and the rebuild brings it back."""
    assert "No problems" in operator.run("check")
    (file, *_) = operator.lake.delta("silver", "orders").file_uris()
    key = file.removeprefix(f"s3://{operator.lake.bucket}/")
    operator.lake.s3.delete_object(Bucket=operator.lake.bucket, Key=key)
    assert "silver.orders (files): 1 data file is missing from storage" in operator.run("check", code=5)
    assert operator.run("recover").count("No problems in ") == 1  # after the rebuild


def test_corrected_file_replaces_its_problems(operator):
    """The rows of the corrected file are in silver, and what was in quarantine is resolved."""
    file = operator.landing / "2026-01-03" / "orders.csv"
    file.parent.mkdir(exist_ok=True)
    header = "order_id,customer_id,order_status,order_date,required_date,shipped_date,store_id,staff_id\n"
    file.write_text(header + "900001,1,4,2026-01-0x,2026-01-05,,1,1\n")
    operator.job("--quiet")
    is_open = "SELECT resolved_at IS NULL FROM quarantine.orders WHERE _source_file = '2026-01-03/orders.csv'"
    assert operator.query(is_open) == [(True,)]
    (operator.folder / "corrected").mkdir()
    (operator.folder / "corrected" / "orders.csv").write_text(header + "900001,1,4,2026-01-03,2026-01-05,,1,1\n")
    operator.run("replay")
    assert operator.query(is_open) == [(False,)]
    assert operator.query("SELECT count(*) FROM silver.orders WHERE order_id = 900001") == [(1,)]


@pytest.mark.slow
def test_rebuild_is_followed_by_what_depends_on_the_table(operator):
    """The table is rebuilt, and the gold tables that read it follow."""
    output = operator.run("rebuild")
    assert "silver.orders is rebuilt" in output and "gold.fact_sales is rebuilt" in output


@pytest.mark.slow
def test_renamed_and_retyped_columns(operator):
    """Files with either name fill the column; another type is refused, with the command that makes the change."""
    described = operator.folder / "data" / "sources.toml"
    rules = described.read_text(encoding="utf-8")
    phone = re.findall(r"^phone .*$", rules, re.MULTILINE)[0]
    described.write_text(rules.replace(phone, BLOCKS["rename"][1].strip(), 1), encoding="utf-8")
    full = operator.landing / "2026-01-01" / "customers.csv"
    (first,) = list(csv.DictReader(full.open(encoding="utf-8")))[:1]
    first |= {"customer_id": "900001"}
    day = operator.landing / "2026-02-01"
    day.mkdir()
    names = [name.replace("phone", "phone_number") for name in first]
    values = ["555-0100" if name == "phone" else value for name, value in first.items()]
    with (day / "customers.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([names, values])
    arguments = ("--quiet", "--sources", str(described))
    operator.job(*arguments)
    phones = operator.query("SELECT count(phone), max(phone) FILTER (customer_id = 900001) FROM silver.customers")
    assert phones[0][0] > 1 and phones[0][1] == "555-0100"

    rules = described.read_text(encoding="utf-8")
    start = rules.index("[stores.columns]")
    zip_code = re.search(r"^zip_code .*$", rules[start:], re.MULTILINE)[0]
    retyped = rules[:start] + rules[start:].replace(zip_code, BLOCKS["retype"][1].strip(), 1)
    described.write_text(retyped, encoding="utf-8")
    assert "--rebuild silver.stores" in operator.job(*arguments, code=1)
    operator.environment["LAKEHOUSE_SOURCES"] = str(described)
    rebuild = BLOCKS["retype rebuild"][1].strip().replace(".venv/bin/python", sys.executable)
    operator.call(["bash", "-c", f"{rebuild} --sources {described}"])
    assert operator.query("SELECT DISTINCT typeof(zip_code) FROM silver.stores") == [("BIGINT",)]
    assert "zip_code" in [field.name for field in operator.lake.delta("gold", "dim_stores").schema().fields]


@pytest.mark.slow
def test_removed_person_is_nowhere(operator):
    """After the recipe, no object of the lake and no raw file has the name, and the rest is as before."""
    ((customer_id, email),) = operator.query("""
        SELECT customer_id, email FROM silver.customers
        WHERE email IS NOT NULL AND customer_id IN (SELECT customer_id FROM silver.orders) ORDER BY 1 LIMIT 1
    """)
    facts = "SELECT count(*), sum(quantity) FROM gold.fact_sales"
    keys = f"SELECT customer_id, customer_sk FROM gold.dim_customers WHERE customer_id <> {customer_id} ORDER BY ALL"
    before = operator.query(facts), operator.query(keys)
    operator.run("forget proof", email, code=1)
    assert "records removed: 1" in operator.run("forget lines", str(customer_id), email)
    operator.run("forget tables")
    operator.run("forget run")
    assert operator.run("forget proof", email) == "Nothing is left.\n"
    assert (operator.query(facts), operator.query(keys)) == before
    assert operator.query(f"SELECT count(*) FROM gold.dim_customers WHERE customer_id = {customer_id}") == [(0,)]
    assert "No problems" in operator.run("check")


HEADER = "customer_id,first_name,last_name,phone,email,street,city,state,zip_code\n"
PEOPLE = {
    1: '900001,Ida,Berg,,ida@example.com,"Building 7,\nSecond Street",Peñasco,TX,79843\n',
    2: "900002,Joel,Berg,,joel@example.com,Street 900001,Orion,TX,79843\n",
    3: "900003,Ana,Cruz,,,Street 3,Orion,TX,79843\n",
    4: "900004,Joana,Cruz,,joana@example.com,Street 4,Orion,TX,79843\n",
    5: "900005,Anna,Cruz,,,Street 5,Orion,TX,79843\n",
}


@pytest.fixture
def people(operator) -> Path:
    """A raw file with five people, which the job has loaded; Ida's record has two lines."""
    file = operator.landing / "2026-01-09" / "customers.csv"
    file.parent.mkdir()
    file.write_text(HEADER + "".join(PEOPLE.values()))
    operator.job("--quiet")
    return file


def others(*removed: int) -> str:
    return HEADER + "".join(line for number, line in PEOPLE.items() if number not in removed)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "arguments"),
    [
        pytest.param(1, ["900001", "ida@example.com"], id="record-of-two-lines"),
        pytest.param(3, ["900003", ""], id="no-email"),
        pytest.param(4, ["900004", "JOANA@example.com"], id="email-in-capitals"),
        pytest.param(2, ["900002", "joel@example.com"], id="after-a-line-break"),
    ],
)
def test_only_the_lines_of_the_person_are_removed(operator, people, number, arguments):
    """All other lines of the file stay, whatever the record looks like."""
    operator.run("forget lines", *arguments)
    assert people.read_text() == others(number)


@pytest.mark.slow
def test_lines_are_those_of_the_newest_delivery(operator, people):
    """A corrected file may have other line numbers than the one before it."""
    people.write_text(others(2))
    operator.job("--quiet")
    operator.run("forget lines", "900004", "joana@example.com")
    assert people.read_text() == others(2, 4)


@pytest.mark.slow
def test_lines_of_a_file_that_has_changed_are_not_removed(operator, people):
    """Until the job has loaded the file again, the recorded line numbers are those of other people."""
    operator.run("forget lines", "900002", "joel@example.com")
    assert "run the job, and then this script again" in operator.run("forget lines", "900003", "", code=1)
    assert people.read_text() == others(2)
    operator.job("--quiet")
    operator.run("forget lines", "900003", "")
    assert people.read_text() == others(2, 3)


@pytest.mark.slow
def test_quarantine_is_cleared_of_old_rows(operator):
    """Rows that are younger than 90 days stay, and deleted ones do not come back."""
    assert "0 rows deleted" in operator.run("quarantine")
    text = BLOCKS["quarantine"][1].replace("days=90", "days=-1")
    assert re.search(r"quarantine\.orders: [1-9]\d* rows deleted", operator.call([sys.executable, "-"], text))
    operator.job("--quiet")
    assert operator.query("SELECT count(*) FROM quarantine.orders") == [(0,)]


@pytest.mark.slow
def test_other_programs_read_the_tables(operator):
    """DuckDB's command line and Polars read what the pipeline wrote, and the file for DuckDB has no keys."""
    assert "│ orders │" in operator.run("duckdb")
    file = (operator.folder / "lake.sql").read_text()
    assert operator.environment["AWS_SECRET_ACCESS_KEY"] not in file
    assert "shape: " in operator.run("polars")
