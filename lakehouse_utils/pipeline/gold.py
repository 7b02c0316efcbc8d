"""Silver to gold: the star schema and the marts, one .sql file per table in `sql/gold/`, refreshed from what changed.

The header of a file names the table's key and the tables that it reads. Its statements are:

- `changed_keys`: the keys that are affected by changes to these tables since the last refresh. A table whose file lacks
  this statement is computed completely.
- `rows`: the rows of gold for these keys. What differs from the table is written with one MERGE.
- `unknown_member`: in a dimension, the row that facts point to when the source names no known member.

The commit records the progress of each table that was read. A new file in the folder is picked up automatically.
"""

import re
import zlib
from dataclasses import dataclass
from graphlib import TopologicalSorter

from deltalake import CommitProperties, DeltaTable, Transaction

from lakehouse_utils.errors import LakehouseError, MissingTableError
from lakehouse_utils.lake import Lake
from lakehouse_utils.lake.delta_log import is_empty, progress, progress_by_app_id
from lakehouse_utils.lake.s3_errors import translate_errors
from lakehouse_utils.pipeline import sql
from lakehouse_utils.pipeline.context import RunContext, TableCounts
from lakehouse_utils.pipeline.engines.protocol import Engine, MergeTarget, Relation, count_rows
from lakehouse_utils.pipeline.merge import merge_difference
from lakehouse_utils.pipeline.sql import quoted

_DEFINITION = "definition"  # the app id under which a table's log records the SQL that it was computed with


@dataclass(frozen=True)
class GoldTable:
    """A gold table as `sql/gold/<name>.sql` defines it. `reads` are (layer, table)."""

    name: str
    key: list[str]
    reads: list[tuple[str, str]]
    statements: dict[str, str]

    @classmethod
    def load(cls, name: str) -> "GoldTable":
        """The definition of a gold table. Raises LakehouseError, which names the file and the line that it lacks."""
        file = f"gold/{name}"
        head = dict(re.findall(r"^-- (key|reads): (.+)$", sql.text(file), flags=re.MULTILINE))
        statements = sql.statements(file)
        for line, is_missing in {
            "-- key: <column>, ...": "key" not in head,
            "-- reads: <layer>.<table>, ...": not re.fullmatch(r"\w+\.\w+(, \w+\.\w+)*", head.get("reads", "")),
            "-- name: rows": "rows" not in statements,
        }.items():
            if is_missing:
                raise LakehouseError(
                    f"sql/{file}.sql has no line `{line}`. Add it, as in the other files of sql/gold/."
                )
        reads = [(layer, table) for layer, table in (label.split(".") for label in head["reads"].split(", "))]
        return cls(name, head["key"].split(", "), reads, statements)

    @property
    def fingerprint(self) -> int:
        """A number that changes when this SQL changes, or that of a function or of a gold table that it reads."""
        texts = [*self.statements.values(), *sql.statements("functions").values()]
        upstream = [str(GoldTable.load(table).fingerprint) for layer, table in self.reads if layer == "gold"]
        return zlib.crc32("\n".join([*texts, *upstream]).encode())


def tables() -> list[str]:
    """The names of all gold tables, each after the tables that it reads: dimensions and facts, then marts.

    Raises LakehouseError if a file's head is incomplete, or names a gold table that has no file.
    """
    names = {path.name.removesuffix(".sql") for path in (sql.FOLDER / "gold").iterdir() if path.name.endswith(".sql")}
    upstream = {name: {table for layer, table in GoldTable.load(name).reads if layer == "gold"} for name in names}
    for name, read in upstream.items():
        if missing := sorted(read - names):
            raise LakehouseError(
                f"sql/gold/{name}.sql reads gold.{missing[0]}, which has no file in sql/gold/."
                " Change its line `-- reads:`."
            )
    sorter = TopologicalSorter(upstream)
    sorter.prepare()
    ordered: list[str] = []
    while sorter.is_active():
        ready = sorted(sorter.get_ready())
        ordered += ready
        sorter.done(*ready)
    return ordered


TABLES = tables()


def needs(name: str) -> set[str]:
    """The names of the source tables that a gold table is made from, directly or through other gold tables."""
    sources: set[str] = set()
    for layer, table in GoldTable.load(name).reads:
        sources |= needs(table) if layer == "gold" else {table.removesuffix("_history")}
    return sources


def refresh(run: RunContext, name: str) -> TableCounts:
    """Bring `gold/<name>` up to date with the tables that it reads; all counts are 0 if it already was.

    Raises MissingTableError if one of these tables does not exist, and LakehouseError if the table was built with other
    columns.
    """
    definition, ref = GoldTable.load(name), run.lake.table("gold", name)
    table = ref.open()
    inputs = {f"{layer}.{read}": _open_input(run.lake, name, layer, read) for layer, read in definition.reads}
    now = {label: _progress_of_input(label, read) for label, read in inputs.items()}
    now[_DEFINITION] = definition.fingerprint
    progress_under = progress_by_app_id(ref, table)
    covered = {label: progress_under(label) for label in now}
    if table is not None and covered == now:
        return TableCounts(version=table.version())
    for label, read in inputs.items():
        run.engine.define_snapshot(label, read)
    changed_keys = _find_changed_keys(run.engine, definition, covered)
    commit = CommitProperties(app_transactions=[Transaction(label, version) for label, version in now.items()])
    with translate_errors(f"refresh gold.{name}", run.lake):
        if table is None or is_empty(table):
            return _fill(run, definition, table, changed_keys, commit)
        return _merge(run.engine, MergeTarget(table, definition.key, commit), definition, changed_keys)


def _find_changed_keys(engine: Engine, definition: GoldTable, covered: dict[str, int | None]) -> Relation | None:
    """The keys that changed since the last refresh: all keys if there was none, or if the SQL changed since.

    None for a table that is computed completely.
    """
    if "changed_keys" not in definition.statements:
        return None
    starts_over = covered[_DEFINITION] != definition.fingerprint
    versions = {
        f"{label.split('.')[-1]}_version": -1 if version is None or starts_over else version
        for label, version in covered.items()
    }
    return engine.materialize("changed_keys", definition.statements["changed_keys"].format(**versions))


def _rows(definition: GoldTable, changed_keys: Relation | None) -> str:
    return definition.statements["rows"].format(changed_keys=changed_keys)


def _fill(
    run: RunContext,
    definition: GoldTable,
    table: DeltaTable | None,
    changed_keys: Relation | None,
    commit: CommitProperties,
) -> TableCounts:
    """Write an empty or new table, with the unknown member if there is one."""
    engine, rows = run.engine, _rows(definition, changed_keys)
    if unknown_member := definition.statements.get("unknown_member"):
        known, unknown = engine.define_view("known_rows", rows), engine.define_view("unknown_member", unknown_member)
        has_value = engine.columns(unknown)
        values = (quoted(name) if name in has_value else f"NULL AS {quoted(name)}" for name in engine.columns(known))
        rows = f"SELECT * FROM {known} UNION ALL SELECT {', '.join(values)} FROM {unknown}"
    table = engine.fill_table(run.lake.table("gold", definition.name), table, rows, definition.key, commit)
    if changed_keys:
        engine.drop(changed_keys)  # the next table needs its memory
    count = table.count()
    return TableCounts(read=count, added=count, version=table.version())


def _merge(engine: Engine, target: MergeTarget, definition: GoldTable, changed_keys: Relation | None) -> TableCounts:
    """Write what differs: in the rows of the changed keys, or in all rows."""
    desired = engine.materialize("desired_rows", _rows(definition, changed_keys))
    if different := sorted(set(engine.columns(desired)) ^ set(target.columns)):
        raise LakehouseError(
            f"The columns of gold.{definition.name} are not those of sql/gold/{definition.name}.sql:"
            f" {', '.join(different)}. Delete {target.table.table_uri.rstrip('/')} and run again."
        )
    existing = engine.define_snapshot("gold_rows", target.table)
    if changed_keys:
        key = ", ".join(map(quoted, engine.columns(changed_keys)))
        of_changed_keys = f"SELECT * FROM {existing} SEMI JOIN {changed_keys} USING ({key})"
        existing = engine.define_view("gold_rows_of_changed_keys", of_changed_keys)
    counts = merge_difference(engine, target, desired, existing)
    counts.read = count_rows(engine, desired)
    engine.drop(desired, *([changed_keys] if changed_keys else []))  # the next table needs their memory
    return counts


def _open_input(lake: Lake, name: str, layer: str, read: str) -> DeltaTable:
    table = lake.delta(layer, read)
    if table is None:
        raise MissingTableError(
            f"gold.{name} is made from {layer}.{read}, which does not exist at {lake.uri(layer, read)}. Run the"
            f" {layer} layer first (--layers).",
            table=f"{layer}.{read}",
        )
    return table


def _progress_of_input(label: str, table: DeltaTable) -> int:
    """The progress of an input, as a number that grows with each change to its rows.

    For silver it is the version of bronze that it covers, because rows carry that number. For gold it is the sum over
    the tables that it read. The table's own version is not suitable, because OPTIMIZE changes it too.
    """
    layer, name = label.split(".")
    if layer == "gold":
        versions = [progress(table, f"{layer}.{read}") for layer, read in GoldTable.load(name).reads]
    else:
        versions = [progress(table, f"bronze.{name.removesuffix('_history')}")]
    return sum(version or 0 for version in versions)
