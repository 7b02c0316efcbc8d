"""Notebook 05: what its prose and figures say is true, and right answers are accepted in other spellings."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from notebooks.books import Book
from notebooks.wrong_answers.nb05 import ARCHIVE

from lakehouse_utils.course.exercises import Right, Wrong, check, nb05
from lakehouse_utils.lake import Lake
from lakehouse_utils.lake.delta_log import DeltaLog


@pytest.fixture(scope="module")
def lesson(s3_server: object, s3_state_dir: Path) -> Iterator[dict[str, Any]]:
    """The variables after all cells before the exercises, and `new_table`."""
    book = Book.of_number("05")
    variables: dict[str, Any] = {"display": lambda *_: None}
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("LAKEHOUSE_STATE_DIR", str(s3_state_dir))  # otherwise it starts the server of the checkout
        for cell in book.code_cells:
            if "answer = ..." not in cell.source and not cell.source.startswith("summary("):
                exec(compile(cell.source, book.path.name, "exec"), variables)
        yield variables


def run(lesson: dict[str, Any], code: str) -> Any:
    """Run code after the lesson, and return its `answer`."""
    variables = dict(lesson)
    exec(code, variables)
    return variables.get("answer")


@pytest.mark.slow
def test_small_files_cost_requests(lesson: dict[str, Any]) -> None:
    """A scan needs about three requests for each file, and after compaction half of them, and fewer bytes."""
    small, compacted = lesson["scans"].values()
    assert small["files"] == "32 of 32"
    assert compacted["files"] == "16 of 16"
    assert 90 <= small["requests"] <= 96
    assert 0.45 < compacted["requests"] / small["requests"] < 0.55
    assert compacted["bytes"] < small["bytes"]


def test_layouts_differ_as_the_notebook_says(lesson: dict[str, Any]) -> None:
    """The first table of the notebook is the measured one, and Z-order reads least for one page."""
    table = Book.of_number("05").cells[0].source
    lines = [line for line in table.splitlines() if line.startswith("| ")][1:]
    stated = [[int(cell) for cell in line.split("|")[3:6]] for line in lines]
    measured = [[int(reads["files"].split()[0]) for reads in layout.values()] for layout in lesson["layouts"].values()]
    assert stated == measured
    for unit in ("bytes", "requests"):
        by_layout = {layout: reads[unit] for layout, reads in lesson["one_page"].items()}
        assert min(by_layout, key=by_layout.__getitem__) == "Z-ordered"


def test_z_order_of_larger_ids_skips_no_file(lesson: dict[str, Any]) -> None:
    """With ids that are 64 times as large, every file may have any customer and any page."""
    files = pa.table(lesson["larger_table"].get_add_actions(flatten=True)).to_pylist()
    assert len(files) == 16
    for column in ("customer_id", "page_id"):
        value = lesson["QUESTIONS"][column] * 64
        assert all(file[f"min.{column}"] <= value <= file[f"max.{column}"] for file in files)


def test_rows_survive_all_maintenance(lesson: dict[str, Any]) -> None:
    """After compaction, Z-order, vacuum and log clean-up, the table has exactly the appended rows."""
    rows = lesson["table"].to_pyarrow_table().sort_by("viewed_at")
    appended = pa.concat_tables(lesson["make_page_views"](batch) for batch in range(32))
    assert rows.select(appended.column_names).equals(appended.cast(rows.select(appended.column_names).schema))


def test_make_page_views_gives_the_same_rows_each_time(lesson: dict[str, Any]) -> None:
    """A batch can be loaded again: its rows are always the same, and no moment occurs twice."""
    first, again = (lesson["make_page_views"](5) for _ in range(2))
    assert first.equals(again)
    assert len(first["viewed_at"].unique()) == len(first)


def test_optimize_commits_no_data_change(lake: Lake) -> None:
    """Compaction marks each file with dataChange false, and does not mix partitions."""
    uri, options = lake.uri("t"), lake.storage_options
    for _ in range(2):
        rows = pa.table({"day": ["a", "b"], "id": [1, 2]})
        write_deltalake(uri, rows, mode="append", partition_by=["day"], storage_options=options)
    table = DeltaTable(uri, storage_options=options)
    table.optimize.compact()
    assert len(table.file_uris()) == 2
    commit = DeltaLog.of_table(table).commit(2)
    assert [file["dataChange"] for kind in ("add", "remove") for file in commit.of_kind(kind)] == [False] * 6


def test_statistics_end_after_32_columns(lake: Lake) -> None:
    """The log has statistics of the first 32 columns only."""
    uri, options = lake.uri("t"), lake.storage_options
    write_deltalake(uri, pa.table({f"c{n}": [1] for n in range(34)}), storage_options=options)
    names = pa.table(DeltaTable(uri, storage_options=options).get_add_actions(flatten=True)).column_names
    assert "min.c31" in names
    assert "min.c32" not in names


@pytest.mark.parametrize("later", ["compact", "z_order"])
@pytest.mark.parametrize("earlier", ["compact", "z_order"])
def test_stale_optimize_doubles_rows(earlier: str, later: str, lake: Lake) -> None:
    """A compaction or Z-order by a handle that has not seen another one gives every row twice, without an error."""
    uri, options = lake.uri("t"), lake.storage_options
    for _ in range(2):
        write_deltalake(uri, pa.table({"id": [1, 2]}), mode="append", storage_options=options)
    handles = [DeltaTable(uri, storage_options=options) for _ in range(2)]
    for handle, operation in zip(handles, (earlier, later), strict=True):
        handle.optimize.compact() if operation == "compact" else handle.optimize.z_order(["id"])
    assert DeltaTable(uri, storage_options=options).count() == 8


def test_prediction_is_what_happens(lesson: dict[str, Any]) -> None:
    """The calls of exercise 05.1, run for real, leave what the check expects."""
    book = Book.of_number("05")
    (task,) = [cell.source for cell in book.cells if cell.source.startswith("### Exercise 05.1")]
    clicks = run(lesson, task.split("```")[1].removeprefix("python\n") + "answer = clicks")
    lake, options = lesson["lake"], lesson["options"]
    readable = set()
    for version in range(8):
        try:
            DeltaTable(clicks.table_uri, version=version, storage_options=options).to_pyarrow_table()
            readable.add(version)
        except FileNotFoundError:
            pass
    objects = lake.objects(clicks.table_uri.split("/", 3)[3])
    in_folder = sum(entry["Key"].endswith(".parquet") for entry in objects)
    assert (clicks.version(), len(clicks.file_uris()), in_folder, readable) == nb05.PREDICTED


@pytest.mark.parametrize("kind", [list, tuple, set, np.array])
def test_prediction_in_any_collection(kind: Callable[[list[int]], object], lake: Lake) -> None:
    """The readable versions are accepted in any collection, order and kind of integer, and no other versions are."""
    *numbers, readable = nb05.PREDICTED
    assert isinstance(nb05.check_prediction([*map(np.int64, numbers), kind(sorted(readable)[::-1])], lake), Right)
    for version in range(10):
        with pytest.raises(Wrong, match=str(version)):
            nb05.check_prediction([*numbers, kind(sorted(readable ^ {version}))], lake)
    for position in range(3):
        for number in {*range(14)} - {numbers[position]}:
            with pytest.raises(Wrong):
                nb05.check_prediction([*numbers[:position], number, *numbers[position + 1 :], sorted(readable)], lake)


def test_queries_per_day_decide_the_layout(lesson: dict[str, Any]) -> None:
    """Sorted by page wins with 9,000 and 1,000 queries, and the Z-order with 5,000 of each, as the solution says."""
    bytes_per_day = run(
        lesson,
        """answer = {}
for columns in (["page_id"], ["customer_id", "page_id"]):
    copy = new_table("copy")
    copy.optimize.z_order(columns, target_size=int(70_000 * SCALE))
    reads = measure(copy.table_uri)
    page, customer = reads["page_id"]["bytes"], reads["customer_id"]["bytes"]
    answer[len(columns)] = [9_000 * page + 1_000 * customer, 5_000 * (page + customer)]
""",
    )
    assert bytes_per_day[1][0] < bytes_per_day[2][0]
    assert bytes_per_day[1][1] > bytes_per_day[2][1]


@pytest.mark.parametrize(
    ("layout", "pair"),
    [
        ('table.optimize.z_order(columns=["page_id"], target_size=65_000)', "(table, gb)"),
        ('table.optimize.z_order(columns=["page_id"], target_size=180_000)', "(table, gb)"),
        (
            """rows = table.to_pyarrow_table().sort_by("page_id")
for begin in range(0, len(rows), 2560):
    write_deltalake(table, rows.slice(begin, 2560), mode="append" if begin else "overwrite")""",
            "[DeltaTable(table.table_uri, storage_options=options), round(gb, 2)]",
        ),
    ],
)
def test_layout_written_differently(layout: str, pair: str, lesson: dict[str, Any]) -> None:
    """Any way to sort by page is accepted, as a tuple or a list, with the number rounded."""
    answer = run(
        lesson,
        f"""table = new_table("anything")
{layout}
reads = measure(table.table_uri)
gb = (9_000 * reads["page_id"]["bytes"] + 1_000 * reads["customer_id"]["bytes"]) / 1e9
answer = {pair}""",
    )
    assert check("05.2", answer).solved


@pytest.mark.parametrize(
    "repair",
    [
        'archive.restore(5)\narchive.delete("seconds > 200")',
        'archive.restore(5)\narchive.delete("seconds > 200")\narchive.optimize.compact()',
        """kept = db.sql(f"SELECT DISTINCT * FROM delta_scan('{archive.table_uri}')").to_arrow_table()
write_deltalake(archive, kept, mode="overwrite")""",
        """rows = DeltaTable(archive.table_uri, version=5, storage_options=options).to_pyarrow_table()
kept = db.sql("FROM rows WHERE seconds <= 200 OR seconds IS NULL").to_arrow_table()
write_deltalake(archive, kept, mode="overwrite")""",
    ],
)
def test_archive_repaired_differently(repair: str, lesson: dict[str, Any]) -> None:
    """The repair may restore another version or write the rows again, and the vacuum may come in two steps."""
    vacuum = """archive.vacuum(**at_once, keep_versions=[5], dry_run=False)
archive.vacuum(0, enforce_retention_duration=False, full=True, dry_run=False, keep_versions=[5])
answer = DeltaTable(archive.table_uri, storage_options=options)"""
    verdict = check("05.3", run(lesson, f"{ARCHIVE}{repair}\n{vacuum}"))
    assert verdict.solved, verdict.text


@pytest.mark.parametrize("vacuum", ["", "archive.vacuum(**at_once, full=True, dry_run=False)\n"])
def test_archive_with_a_log_that_was_cleaned_up(vacuum: str, lesson: dict[str, Any]) -> None:
    """If the log was cleaned up, with or without a vacuum, the check says so and does not fail."""
    code = (
        ARCHIVE
        + vacuum
        + """archive.alter.set_table_properties({"delta.logRetentionDuration": "interval 0 days"})
archive.create_checkpoint()
archive.cleanup_metadata()
answer = archive"""
    )
    assert "the log was cleaned up too" in check("05.3", run(lesson, code)).text
