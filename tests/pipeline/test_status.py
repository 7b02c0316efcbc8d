"""What `--status` says about each table of a lake."""

import uuid

import pytest
from support import lakes

from lakehouse_utils.lake import Lake
from lakehouse_utils.pipeline import run_history, sources
from lakehouse_utils.pipeline.context import TableCounts
from lakehouse_utils.pipeline.report import RunReport
from lakehouse_utils.pipeline.status import TableStatus, as_row, status


def statuses(lake: Lake) -> dict[str, TableStatus]:
    return {found.name: found for found in status(lake, sources.load())}


def test_each_table_has_its_rows_files_and_last_commit(right):
    """Rows, files and bytes are those of the current version; nothing is written."""
    before = {entry["Key"]: entry["ETag"] for entry in right.objects(right.key(""))}
    found = statuses(right)
    assert set(found) == set(lakes.names(right))
    for name, table in lakes.opened(right):
        assert (found[name].rows, found[name].version) == (table.count(), table.version()), name
        assert found[name].files == len(table.file_uris()) and found[name].size > 0
        assert found[name].last_operation == table.history(1)[0]["operation"]
        assert found[name].error is None and found[name].maintenance
    assert {entry["Key"]: entry["ETag"] for entry in right.objects(right.key(""))} == before


def test_dead_and_orphaned_bytes_are_told_apart(right):
    """A file that a commit removed is dead, one that no commit names is orphaned; live files are neither."""
    table = right.delta("gold", "dim_stores")
    (live,) = table.file_uris()
    size = right.s3.head_object(Bucket=right.bucket, Key=live.removeprefix(f"s3://{right.bucket}/"))["ContentLength"]
    table.delete("store_id = 1")
    orphan = right.key("gold", "dim_stores", f"part-{uuid.uuid4()}.parquet")
    right.s3.put_object(Bucket=right.bucket, Key=orphan, Body=b"x" * 77)
    found = statuses(right)["gold.dim_stores"]
    assert (found.dead_size, found.orphaned_size, found.rows) == (size, 77, 3)


def test_runs_say_what_happened_last(right):
    """The last batch, how the last run went, and the rows that were quarantined lately come from the table of runs."""
    for counts in (TableCounts(read=3, added=1, quarantined=2, last_batch="2026-01-31"), TableCounts(quarantined=1)):
        report = RunReport("local", right.root, rows={"silver.orders": counts})
        report.end(0)
        run_history.append(right, report)
    report = RunReport("local", right.root, failed={"silver.orders": "the error"})
    report.end(1, ValueError("x"))
    run_history.append(right, report)
    found = statuses(right)["silver.orders"]
    assert (found.last_batch, found.last_run, found.quarantined) == ("2026-01-31", "failed", 3)


def test_damaged_table_has_an_error_and_the_others_a_status(right):
    """A table that cannot be read says so in its own line."""
    key = right.key("gold", "dim_stores", "_delta_log", f"{1:020}.json")
    right.s3.put_object(Bucket=right.bucket, Key=key, Body=b"garbage")
    found = statuses(right)
    assert "a commit file in its log is damaged" in found["gold.dim_stores"].error
    assert found["gold.fact_sales"].error is None and found["gold.fact_sales"].rows > 0


@pytest.mark.parametrize(
    ("size", "text"), [(0, ""), (999, "999 B"), (1_000, "1.0 kB"), (2_500_000, "2.5 MB"), (3_210_000_000, "3.2 GB")]
)
def test_line_of_the_terminal_has_readable_sizes(size, text):
    """Sizes have three units and one digit; what is zero is left out."""
    row = as_row(TableStatus("silver.t", rows=1234, files=2, size=size))
    assert row[:6] == ["silver.t", "1,234", "2", text, "", ""]
