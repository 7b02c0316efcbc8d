"""Notebook 08: right answers that are written differently, its lineage events, and the code that it doesn't run."""

import ast
import json
import re
import shlex
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from notebooks.books import Book
from openlineage.client.event_v2 import InputDataset, Job, OutputDataset, Run, RunEvent, RunState
from openlineage.client.serde import Serde
from support.exercises import verdict

import ingestion_processor
from lakehouse_utils.course.exercises import Wrong
from lakehouse_utils.lake import Lake
from lakehouse_utils.pipeline import sql

BOOK = Book.of_number("08")
PROSE = "\n".join(cell.source for cell in BOOK.cells if cell.cell_type == "markdown")


# -- exercise 08.1


@pytest.fixture
def rows() -> dict[str, pd.DataFrame]:
    """The data of exercise 08.1."""
    names: dict[str, Any] = {"pd": pd}
    exec(BOOK.code_from("visits = pd.DataFrame"), names)
    return {name: names[name] for name in ("history_rows", "visits")}


def cities_by_asof_join(history_rows: pd.DataFrame, visits: pd.DataFrame) -> dict[Any, Any]:
    versions = history_rows.sort_values("valid_from")
    versions["valid_from"] = versions["valid_from"].where(versions["customer_id"].duplicated(), pd.Timestamp(0))
    versions, sorted_visits = versions.sort_values("valid_from"), visits.sort_values("time")
    rows = pd.merge_asof(sorted_visits, versions, left_on="time", right_on="valid_from", by="customer_id")
    return rows.set_index("visit_id")["city"].fillna("Unknown").to_dict()


def cities_by_loop(history_rows: pd.DataFrame, visits: pd.DataFrame) -> dict[Any, Any]:
    answer = {}
    for visit in visits.itertuples():
        if pd.isna(visit.customer_id):
            answer[np.int64(visit.visit_id)] = "Unknown"
            continue
        versions = history_rows[history_rows["customer_id"] == visit.customer_id]
        begun = versions[versions["valid_from"] <= visit.time]
        answer[np.int64(visit.visit_id)] = begun["city"].iloc[-1] if len(begun) else versions["city"].iloc[0]
    return answer


def cities_by_correlated_query(history_rows: pd.DataFrame, visits: pd.DataFrame) -> dict[Any, Any]:
    con = duckdb.connect()
    con.register("history_rows", history_rows)
    con.register("visits", visits)
    frame = con.sql("""
        SELECT visit_id, coalesce((
            SELECT city FROM history_rows AS h WHERE h.customer_id = v.customer_id
            ORDER BY h.valid_from <= v.time DESC, abs(epoch(v.time) - epoch(h.valid_from)) LIMIT 1), 'Unknown') AS city
        FROM visits AS v
    """).df()
    return dict(zip(frame["visit_id"], frame["city"], strict=True))


def cities_by_cross_join(history_rows: pd.DataFrame, visits: pd.DataFrame) -> dict[Any, Any]:
    pairs = visits.merge(history_rows, on="customer_id", how="left")
    is_first = pairs["valid_from"] == pairs.groupby("customer_id")["valid_from"].transform("min")
    in_force = (pairs["valid_from"].le(pairs["time"]) | is_first) & ~(pairs["valid_to"] <= pairs["time"])
    found = pairs[in_force | pairs["customer_id"].isna()]
    return {int(id): "Unknown" if pd.isna(city) else city for id, city in found[["visit_id", "city"]].to_numpy()}


@pytest.mark.parametrize(
    "join", [cities_by_asof_join, cities_by_loop, cities_by_correlated_query, cities_by_cross_join]
)
def test_other_joins_by_time(join: Callable[..., dict[Any, Any]], rows: dict[str, pd.DataFrame], lake: Lake) -> None:
    """An as-of join, a loop, a subquery and a join with a filter are right as well."""
    assert verdict("08.1", join(**rows), lake).startswith("Each visit has the city of its time")


# -- exercise 08.2

TABLES_OF_RUNS = ["bronze.customers", "silver.customers", "bronze.orders", "silver.customers_history"]
TABLES_OF_RUNS += ["gold.dim_customers", "gold.fact_sales"]


@pytest.fixture
def lake_with_runs(lake: Lake) -> Lake:
    """A lake with the table of three runs: before the last batch, with it, and one that found nothing new."""
    _add_run(lake, "2026-03-05", {*TABLES_OF_RUNS})
    _add_run(lake, "2026-03-07", {"bronze.customers", "silver.customers", "bronze.orders"})
    _add_run(lake, "2026-03-07", set())
    return lake


def _add_run(lake: Lake, batch: str, changed: set[str]) -> None:
    """Add a row to the lake's table of runs."""
    tables = [
        {"name": name, "status": "changed" if name in changed else "unchanged", "last_batch": batch}
        for name in TABLES_OF_RUNS
    ]
    row = {"command": "run", "started_at": datetime.now(UTC), "tables": tables}
    uri = lake.uri("operations", "runs")
    write_deltalake(uri, pa.Table.from_pylist([row]), mode="append", storage_options=lake.storage_options)


@pytest.mark.parametrize("kind", [set, list, tuple, frozenset])
def test_prediction_in_any_collection_and_after_another_run(kind: Callable[..., Any], lake_with_runs: Lake) -> None:
    """Any collection is accepted, and a run that the reader starts later does not change the answer."""
    answer = kind(["silver.customers", "bronze.customers"])
    assert verdict("08.2", answer, lake_with_runs).startswith("Only bronze.customers and silver.customers")


@pytest.mark.parametrize("batches", [[], ["2026-03-04", "2026-03-05"]])
def test_prediction_before_step_8(batches: list[str], lake: Lake) -> None:
    """Before the lesson has delivered the last batch, there is nothing to compare a prediction with."""
    for batch in batches:
        _add_run(lake, batch, {"bronze.customers", "gold.fact_sales"})
    for answer in ({"bronze.customers", "silver.customers"}, {"bronze.customers", "gold.fact_sales"}):
        with pytest.raises(Wrong, match=r"^Run the lesson up to step 8 first\.$"):
            verdict("08.2", answer, lake)


def test_prediction_after_a_batch_of_the_reader(lake_with_runs: Lake) -> None:
    """A batch that the reader delivers after the lesson does not change the answer."""
    _add_run(lake_with_runs, "2026-03-09", {*TABLES_OF_RUNS})
    answer = {"silver.customers", "bronze.customers"}
    assert verdict("08.2", answer, lake_with_runs).startswith("Only bronze.customers and silver.customers")


# -- the change data feed


def test_a_copy_by_change_data_feed_follows_a_restore(lake: Lake) -> None:
    """A restore deletes and inserts the same keys in one version."""
    names = {"lake": lake, "pa": pa, "DeltaTable": DeltaTable, "write_deltalake": write_deltalake}
    names |= {"CommitProperties": CommitProperties, "Transaction": Transaction}
    exec(BOOK.code_from('"feed", "copy"') + "\n" + BOOK.code_from("def follow()"), names)
    feed, copy = (DeltaTable(lake.uri("feed", name), **names["s3"]) for name in ("prices", "copy"))
    more = pa.table({"id": range(3, 41), "price": range(3, 41)})
    for change in (
        lambda: write_deltalake(feed, more, mode="append"),
        lambda: feed.update({"price": "450"}, predicate="id = 1"),
        lambda: feed.delete("id = 2"),
        lambda: feed.restore(1),
    ):
        change()
        feed.update_incremental()
        names["follow"]()
        copy.update_incremental()
        assert sorted(copy.to_pandas()["price"]) == sorted(feed.to_pandas()["price"])
    assert len(copy.to_pandas()) == 40


# -- exercise 08.3


def done(version: int) -> CommitProperties:
    return CommitProperties(app_transactions=[Transaction("source", version)])


def load_with_arrow(source: DeltaTable, target: DeltaTable) -> None:
    """Compare the cursor for equality, and filter with Arrow."""
    cursor = target.transaction_version("source")
    if cursor == source.version():
        return
    begin = (-1 if cursor is None else cursor) + 1
    changes = pa.table(source.load_cdf(starting_version=begin, ending_version=source.version()).read_all())
    new = changes.select(["id", "time"]).filter(pc.equal(changes["_change_type"].cast("string"), "insert"))
    write_deltalake(target, new, mode="append", commit_properties=done(source.version()))


def load_version_by_version(source: DeltaTable, target: DeltaTable) -> None:
    """One commit per version of the source, each with its own cursor."""
    cursor = target.transaction_version("source")
    for version in range(0 if cursor is None else cursor + 1, source.version() + 1):
        changes = pa.table(source.load_cdf(starting_version=version, ending_version=version).read_all())
        new = changes.select(["id", "time"]).filter(pc.equal(changes["_change_type"].cast("string"), "insert"))
        write_deltalake(target, new, mode="append", commit_properties=done(version))
        target.update_incremental()


def load_with_merge(source: DeltaTable, target: DeltaTable) -> None:
    """An insert-only MERGE on the key."""
    cursor = target.transaction_version("source")
    if cursor is None or cursor < source.version():
        changes = pa.table(source.load_cdf(starting_version=cursor or 0).read_all()).to_pandas()
        new = changes.query("_change_type == 'insert'")[["id", "time"]].reset_index(drop=True)
        merge = target.merge(pa.table(new), "t.id = s.id", "s", "t", commit_properties=done(source.version()))
        merge.when_not_matched_insert_all().execute()


def load_all_of_the_log(source: DeltaTable, target: DeltaTable) -> None:
    """Open the source again, so that the feed ends at the version that the commit records."""
    load_with_arrow(DeltaTable(source.table_uri, storage_options=source._storage_options), target)


def load_without_an_empty_commit(source: DeltaTable, target: DeltaTable) -> None:
    """Leave out the commit if there is no new row, and use SQL."""
    begin = target.transaction_version("source")
    begin = 0 if begin is None else begin + 1
    if begin <= source.version():
        changes = pa.table(source.load_cdf(starting_version=begin, ending_version=source.version()).read_all())
        con = duckdb.connect()
        con.register("changes", changes)
        new = con.sql("SELECT id, time FROM changes WHERE _change_type = 'insert'").to_arrow_table()
        if len(new):
            write_deltalake(target, new, mode="append", commit_properties=done(source.version()))


@pytest.mark.parametrize(
    "load",
    [load_with_arrow, load_version_by_version, load_with_merge, load_all_of_the_log, load_without_an_empty_commit],
)
def test_other_incremental_loads(load: Callable[[DeltaTable, DeltaTable], None], lake: Lake) -> None:
    """Other ways to filter, one commit per version, and an insert-only MERGE are right as well."""
    assert verdict("08.3", load, lake).startswith("No row is lost or repeated")


# -- lineage events


@pytest.fixture
def events() -> list[dict[str, Any]]:
    """The events that the notebook's cell makes for a run."""
    run = {"run_id": str(uuid.uuid4()), "started_at": pd.Timestamp.now("UTC"), "ended_at": pd.Timestamp.now("UTC")}
    lake = SimpleNamespace(bucket="lakehouse", key=lambda *names: "/".join(["notebooks", *names]))
    names = {"sql": sql, "uuid": uuid, "lake": lake, "table": str, "query": lambda _: pd.DataFrame([run])}
    exec(BOOK.code_from("openlineage.io"), names)
    return json.loads(json.dumps(names["events"]))


def test_lineage_events_follow_the_standard(events: list[dict[str, Any]]) -> None:
    """A run has a START and a COMPLETE event, and OpenLineage's own classes write the same JSON for them."""
    assert [event["eventType"] for event in events] == ["START", "COMPLETE"]
    assert len({event["run"]["runId"] for event in events}) == 1
    for event in events:
        official = RunEvent(
            eventType=RunState[event["eventType"]],
            eventTime=event["eventTime"],
            run=Run(**event["run"]),
            job=Job(**event["job"]),
            inputs=[InputDataset(**dataset) for dataset in event["inputs"]],
            outputs=[OutputDataset(**dataset) for dataset in event["outputs"]],
            producer=event["producer"],
        )
        assert _without_empty(Serde.to_dict(official)) == event


def test_lineage_events_name_every_table_that_the_fact_reads(events: list[dict[str, Any]]) -> None:
    """The inputs are the tables in the FROM clauses of the SQL file, and no others."""
    statements = " ".join(sql.statements("gold/fact_sales").values())
    read = {f"notebooks/silver/{table}" for table in re.findall(r"(?:FROM|JOIN) silver\.(\w+)", statements)}
    assert {dataset["name"] for dataset in events[0]["inputs"]} == read


def _without_empty(value: Any) -> Any:
    """The value without empty dicts: the classes write `"facts": {}` where a facet could be."""
    if isinstance(value, dict):
        return {key: _without_empty(each) for key, each in value.items() if each != {}}
    return [_without_empty(each) for each in value] if isinstance(value, list) else value


# -- code that the notebook shows and does not run


@pytest.mark.parametrize("scheduler", ["Airflow", "Dagster"])
def test_code_for_another_scheduler_compiles_and_has_valid_options(scheduler: str) -> None:
    """The folded code compiles without a warning, has at most twenty lines, and gives the job options that it has."""
    (code,) = re.findall(rf"<summary>The same in {scheduler}</summary>\n\n```python\n(.*?)```", PROSE, re.DOTALL)
    compile(code, scheduler, "exec")
    assert len([line for line in code.splitlines() if line.strip()]) <= 20
    (command,) = re.findall(r"^COMMAND = (.*)$", code, re.MULTILINE)
    _check_command(ast.literal_eval(command))


def test_lines_for_cron_have_valid_options() -> None:
    """Each line of the crontab starts the job with options that it has, and writes the exit code of a failure."""
    (crontab,) = re.findall(r"```cron\n(.*?)```", PROSE, re.DOTALL)
    for line in crontab.splitlines():
        command, _, failure = line.partition(" || ")
        _check_command(shlex.split(command.partition("&& ")[2].partition(" 2>>")[0]))
        assert failure == 'echo "exit code $?" >> job.log'


def _check_command(command: list[str]) -> None:
    assert command[:2] == [".venv/bin/python", "ingestion_processor.py"]
    ingestion_processor.main.make_context("ingestion_processor.py", command[2:])
