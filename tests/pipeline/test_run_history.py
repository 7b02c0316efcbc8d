"""The table of runs: one row per run, whatever its end, that SQL can ask."""

import re
import threading
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from lakehouse_utils.lake import Lake
from lakehouse_utils.pipeline import run_history
from lakehouse_utils.pipeline.context import TableCounts
from lakehouse_utils.pipeline.report import RunReport
from lakehouse_utils.pipeline.status import status


def ended(exit_code: int = 0, error: BaseException | None = None, **fields: object) -> RunReport:
    report = RunReport("local", "s3://lake", seconds=1.5, **fields)
    report.end(exit_code, error)
    return report


def rows(lake: Lake) -> list[dict]:
    return lake.delta(*run_history.NAMES).to_pyarrow_table().to_pylist()


def test_row_has_what_the_report_has(lake):
    """The first run creates the table; its row says when, how, and what happened to each table."""
    counts = TableCounts(read=5, added=3, quarantined=2, version=7, last_batch="2026-01-31", rebuilt="x", seconds=0.25)
    report = ended(
        1,
        ValueError("two\nlines"),
        rows={"bronze.t": counts, "silver.u": TableCounts(version=4)},
        refused=["b/t.csv: it is empty"],
        failed={"silver.t": "the error"},
        skipped=["gold.x"],
    )
    run_history.append(lake, report)
    (row,) = rows(lake)
    assert (row["run_id"], row["command"], row["status"], row["exit_code"]) == (report.run_id, "run", "failed", 1)
    assert (row["error_class"], row["error_message"]) == ("ValueError", "two lines")
    assert (row["seconds"], row["engine"], row["refused"]) == (1.5, "local", ["b/t.csv: it is empty"])
    assert row["started_at"] <= row["ended_at"] <= datetime.now(UTC) < row["started_at"] + timedelta(minutes=5)
    tables = {
        entry["name"]: {key: value for key, value in entry.items() if value is not None} for entry in row["tables"]
    }
    counted = {"read": 5, "added": 3, "changed": 0, "quarantined": 2, "version": 7, "last_batch": "2026-01-31"}
    nothing = {"read": 0, "added": 0, "changed": 0, "quarantined": 0, "version": 4, "seconds": 0.0}
    assert tables == {
        "bronze.t": {"name": "bronze.t", "status": "changed", "rebuilt": "x", "seconds": 0.25} | counted,
        "silver.u": {"name": "silver.u", "status": "unchanged"} | nothing,
        "silver.t": {"name": "silver.t", "status": "failed", "error": "the error"},
        "gold.x": {"name": "gold.x", "status": "skipped"},
    }


def test_runs_that_end_at_the_same_time_are_all_recorded(lake):
    """Several runs may create the table, and append to it, at the same time."""
    reports = [ended() for _ in range(6)]
    threads = [threading.Thread(target=run_history.append, args=(lake, report)) for report in reports]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(row["run_id"] for row in rows(lake)) == sorted(report.run_id for report in reports)


def test_rows_and_columns_of_others_do_no_harm(lake):
    """A later version may add a column, and another program a row: runs are recorded as before."""
    run_history.append(lake, ended())
    foreign = pa.table({"run_id": ["x"], "foreign": [1]})
    write_deltalake(lake.delta(*run_history.NAMES), foreign, mode="append", schema_mode="merge")
    run_history.append(lake, ended())
    assert [row["command"] for row in sorted(rows(lake), key=lambda row: row["run_id"] == "x")] == ["run", "run", None]
    assert [found.name for found in status(lake, {})] == ["operations.runs"]


def test_opening_the_table_does_not_read_the_commits_of_all_runs(lake):
    """Every five runs there is a checkpoint, so the log is read from there on."""
    for _ in range(11):
        run_history.append(lake, ended())
    assert any(
        entry["Key"].endswith(".checkpoint.parquet") for entry in lake.objects(lake.key("operations", "runs", ""))
    )


@pytest.mark.parametrize(
    ("what", "condition", "expected"),
    [
        ("what failed", "entry.status = 'failed'", [("silver.t",)]),
        ("what was rebuilt", "entry.rebuilt IS NOT NULL", [("bronze.t",)]),
    ],
)
def test_sql_of_the_module_answers(lake, what, condition, expected):
    """The query in the module's docstring runs in DuckDB."""
    run_history.append(lake, ended(rows={"bronze.t": TableCounts(rebuilt="x")}, failed={"silver.t": "the error"}))
    query = re.search(r"    SELECT (?:.+\n)+", run_history.__doc__)[0]
    assert "entry.status = 'failed'" in query
    with lake.duckdb() as connection:
        connection.sql(f"CREATE VIEW runs AS FROM delta_scan('{lake.uri(*run_history.NAMES)}')")
        found = connection.sql(query.replace("entry.status = 'failed'", condition)).fetchall()
    assert [(name,) for _, name, _ in found] == expected, what
