"""Silver to gold: the star schema and the marts, each one .sql file in `sql/gold/`, refreshed from what changed.

A file's `scope` finds the natural keys that a change concerns, its `rows` says what gold holds of these; what differs
from the table goes in with one MERGE. A file without a scope is computed whole, and only what differs is written.
The commit records how far each table that was read had come.
"""

import re
from dataclasses import dataclass
from importlib.resources import files

from deltalake import CommitProperties, DeltaTable, Transaction

from lakehouse_utils.errors import LakehouseError
from lakehouse_utils.lake import Lake
from lakehouse_utils.lake.delta_log import is_empty, progress
from lakehouse_utils.lake.s3_errors import translate_errors
from lakehouse_utils.pipeline.context import RunContext, TableCounts
from lakehouse_utils.pipeline.merge import merge_difference
from lakehouse_utils.pipeline.sql import quoted, statements

# Dimensions, then facts, then marts: a table comes after those that it reads.
TABLES = [
    "dim_customers",
    "dim_products",
    "dim_stores",
    "dim_staffs",
    "dim_date",
    "fact_sales",
    "fact_stocks",
    "mart_monthly_sales",
    "mart_product_sales",
    "mart_customer_value",
]


@dataclass(frozen=True)
class Definition:
    """What the head of `sql/gold/<table>.sql` says: the key, and the tables that it reads as (layer, table)."""

    key: list[str]
    reads: list[tuple[str, str]]
    statements: dict[str, str]


def definition(table: str) -> Definition:
    """The definition of a gold table."""
    text = (files("lakehouse_utils.pipeline.sql") / "gold" / f"{table}.sql").read_text(encoding="utf-8")
    head = dict(re.findall(r"^-- (key|reads): (.+)$", text, flags=re.MULTILINE))
    reads = [tuple(name.split(".")) for name in head["reads"].split(", ")]
    return Definition(head["key"].split(", "), reads, statements(f"gold/{table}"))


def needs(table: str) -> set[str]:
    """The source tables that a gold table is made from, whichever way."""
    found = set()
    for layer, name in definition(table).reads:
        found |= needs(name) if layer == "gold" else {name.removesuffix("_history")}
    return found


def refresh(run: RunContext, name: str) -> TableCounts:
    """Bring `gold/<name>` up to what the tables that it reads hold; all counts are 0 if it was there already.

    Raises LakehouseError where one of these doesn't exist.
    """
    lake, engine = run.lake, run.engine
    plan = definition(name)
    inputs = {f"{layer}.{table}": _open(lake, name, layer, table) for layer, table in plan.reads}
    now = {label: _progress(label, table) for label, table in inputs.items()}
    table = lake.delta("gold", name)
    since = {label: progress(table, label) for label in inputs}
    if table is not None and since == now:
        return TableCounts(version=table.version())
    for label, snapshot in inputs.items():
        engine.define_snapshot(label, snapshot)
    before = {label.split(".")[1]: -1 if version is None else version for label, version in since.items()}
    if scope := plan.statements.get("scope"):
        engine.materialize("scope", scope.format(**before))
    commit = CommitProperties(app_transactions=[Transaction(label, version) for label, version in now.items()])
    with translate_errors(f"refresh gold.{name}", lake):
        fill_or_merge = _fill if is_empty(table) else _merge
        counts = fill_or_merge(run, name, plan, table, commit)
    engine.drop("scope", "fresh")  # the next table needs their memory
    return counts


def _open(lake: Lake, name: str, layer: str, table: str) -> DeltaTable:
    found = lake.delta(layer, table)
    if found is None:
        raise LakehouseError(
            f"gold.{name} is made from {layer}.{table}, which doesn't exist at {lake.uri(layer, table)}:"
            f" run the layer {layer} first (--layers)."
        )
    return found


def _progress(label: str, table: DeltaTable) -> int:
    """How far an input has come: silver in versions of bronze, as its rows say; gold by the sum of what it has read.

    A table's own version won't do: OPTIMIZE moves it, too.
    """
    layer, name = label.split(".")
    if layer == "gold":
        return sum(progress(table, f"{layer}.{name}") for layer, name in definition(name).reads)
    return progress(table, f"bronze.{name.removesuffix('_history')}")


def _fill(
    run: RunContext, name: str, plan: Definition, table: DeltaTable | None, commit: CommitProperties
) -> TableCounts:
    engine = run.engine
    rows = plan.statements["rows"]
    if "unknown" in plan.statements:
        engine.define_view("known", rows)
        engine.define_view("unknown", plan.statements["unknown"])
        told = engine.columns("unknown")
        columns = engine.columns("known")
        member = ", ".join(quoted(column) if column in told else f"NULL AS {quoted(column)}" for column in columns)
        rows = f"SELECT * FROM known UNION ALL SELECT {member} FROM unknown"
    table = engine.fill_table(run.lake.table("gold", name), table, rows, plan.key, commit)
    count = table.count()
    return TableCounts(read=count, added=count, version=table.version())


def _merge(run: RunContext, name: str, plan: Definition, table: DeltaTable, commit: CommitProperties) -> TableCounts:
    engine = run.engine
    engine.materialize("fresh", plan.statements["rows"])
    engine.define_snapshot("existing_rows", table)
    existing = "existing_rows"
    if "scope" in plan.statements:
        keys = ", ".join(map(quoted, engine.columns("scope")))
        existing = f"(SELECT * FROM existing_rows SEMI JOIN scope USING ({keys}))"
    counts = merge_difference(engine, table, "fresh", existing, plan.key, commit)
    counts.read = engine.query("SELECT count(*) FROM fresh")[0][0]
    return counts
