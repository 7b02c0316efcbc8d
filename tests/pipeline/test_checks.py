"""What `--check` finds: each kind of damage is done to a copy of a lake that is right."""

from collections.abc import Callable

import pyarrow as pa
import pytest
from deltalake import write_deltalake
from support import lakes
from support.selected import slow_but

from lakehouse_utils.lake import Lake
from lakehouse_utils.pipeline import checks, sources
from lakehouse_utils.pipeline.context import NoProgress, RunContext
from lakehouse_utils.pipeline.engines.local import LocalEngine


def problems(lake: Lake) -> list[tuple[str, str, str]]:
    context = RunContext(lake, LocalEngine(lake), NoProgress())
    return [tuple(problem) for table in checks.check(context, sources.load()) for problem in table.problems]


def data_file(lake: Lake, *names: str) -> dict[str, str]:
    """A live data file of a table."""
    return {"Bucket": lake.bucket, "Key": lake.delta(*names).file_uris()[0].removeprefix(f"s3://{lake.bucket}/")}


def test_lake_that_the_job_has_built_has_no_problems(right):
    """Every table is checked, and nothing is wrong; nothing is written either."""
    before = {entry["Key"]: entry["ETag"] for entry in right.objects(right.key(""))}
    context = RunContext(right, LocalEngine(right), NoProgress())
    tables = {table.label: table for table in checks.check(context, sources.load())}
    assert [problem for table in tables.values() for problem in table.problems] == []
    assert set(tables) == set(lakes.names(right))
    assert tables["silver.orders"].rows == right.delta("silver", "orders").count()
    assert {entry["Key"]: entry["ETag"] for entry in right.objects(right.key(""))} == before


def test_empty_lake_has_no_problems(lake):
    """Where no table exists, nothing is wrong."""
    assert problems(lake) == []


def test_paths_that_the_log_encodes_are_no_problem(lake):
    """A partition value may have a space, also if the log no longer has the commit that added the file."""
    rows = pa.table({"city": ["New York", "Porto"], "id": [1, 2]})
    write_deltalake(lake.uri("bronze", "stores"), rows, partition_by="city", storage_options=lake.storage_options)
    assert problems(lake) == []
    lake.delta("bronze", "stores").create_checkpoint()
    write_deltalake(lake.uri("bronze", "stores"), rows, mode="append", storage_options=lake.storage_options)
    lake.s3.delete_object(Bucket=lake.bucket, Key=lake.key("bronze", "stores", "_delta_log", f"{0:020}.json"))
    lake.delta("bronze", "stores").delete("city = 'New York'")
    assert problems(lake) == []


def remove_a_file(lake: Lake) -> None:
    lake.s3.delete_object(**data_file(lake, "bronze", "orders"))


def change_a_file(lake: Lake) -> None:
    file = data_file(lake, "quarantine", "orders")
    data = lake.s3.get_object(**file)["Body"].read()
    lake.s3.put_object(**file, Body=data + b"PAR1")


def damage_a_file(lake: Lake) -> None:
    file = data_file(lake, "silver", "brands")
    size = lake.s3.head_object(**file)["ContentLength"]
    lake.s3.put_object(**file, Body=b"x" * size)


def damage_a_log(lake: Lake) -> None:
    key = lake.key("gold", "dim_stores", "_delta_log", f"{1:020}.json")
    lake.s3.put_object(Bucket=lake.bucket, Key=key, Body=b"garbage")


def append_rows_twice(lake: Lake) -> None:
    table = lake.delta("silver", "stores")
    write_deltalake(table, table.to_pyarrow_table(), mode="append")


def compact_twice(lake: Lake) -> None:
    stale = lake.delta("bronze", "stocks")
    lake.delta("bronze", "stocks").optimize.compact()
    stale.optimize.z_order(["store_id"])


def make_versions_overlap(lake: Lake) -> None:
    lake.delta("silver", "products_history").update(
        updates={"valid_to": "NULL"}, predicate="product_id = 1 AND NOT is_current"
    )
    lake.delta("silver", "products_history").update(updates={"is_current": "false"}, predicate="product_id = 2")


def remove_a_member(lake: Lake) -> None:
    lake.delta("gold", "dim_stores").delete("store_id = 1")


def remove_a_dimension(lake: Lake) -> None:
    for entry in list(lake.objects(lake.key("gold", "dim_stores", ""))):
        lake.s3.delete_object(Bucket=lake.bucket, Key=entry["Key"])


def restore_an_input(lake: Lake) -> None:
    lake.delta("silver", "orders").restore(0)


DAMAGES = [
    (remove_a_file, [("bronze.orders", "files", "1 data file is missing from storage (part-")]),
    (change_a_file, [("quarantine.orders", "files", "1 data file is larger or smaller than the log says (part-")]),
    (damage_a_file, [("silver.brands", "files", "")]),
    (damage_a_log, [("gold.dim_stores", "log", "gold.dim_stores is damaged: a commit file in its log is damaged")]),
    (
        append_rows_twice,
        [
            ("silver.stores", "keys", "3 surplus rows for 3 keys (store_id 1; store_id 2; store_id 3)."),
            ("silver.stores", "progress", "it was changed by another program (WRITE at version"),
        ],
    ),
    (compact_twice, [("bronze.stocks", "files", "did not take version")]),
    (
        make_versions_overlap,
        [
            ("silver.products_history", "keys", "or do not include exactly one current version (2)."),
            ("silver.products_history", "progress", "it was changed by another program (UPDATE at version"),
        ],
    ),
    (
        remove_a_member,
        [
            ("gold.dim_stores", "progress", "DELETE at version"),
            ("gold.fact_sales", "references", "rows have a store_sk that gold.dim_stores does not have"),
            ("gold.fact_stocks", "references", "rows have a store_sk that gold.dim_stores does not have"),
        ],
    ),
    (
        remove_a_dimension,
        [
            ("gold.fact_sales", "references", "gold.dim_stores, which store_sk refers to, does not exist."),
            ("gold.fact_stocks", "references", "gold.dim_stores, which store_sk refers to, does not exist."),
        ],
    ),
    (restore_an_input, [("silver.orders", "progress", "it was restored to an earlier version")]),
]


@pytest.mark.parametrize(
    ("damage", "expected"),
    slow_but([case for case in DAMAGES if case[0] is remove_a_file], DAMAGES),
    ids=lambda value: value.__name__ if isinstance(value, Callable) else "",
)
def test_damage_is_found_and_named(right, damage, expected):
    """A problem names the table and the check, says what is wrong, and where a command helps, which one."""
    damage(right)
    found = [problem for problem in problems(right) if not problem[0].startswith("gold.mart")]
    by_place = {(table, check): sentence for table, check, sentence in found}
    for table, check, part in expected:
        assert part in by_place.get((table, check), "no such problem"), found
