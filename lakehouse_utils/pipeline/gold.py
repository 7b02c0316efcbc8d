"""Silver to gold: the star schema and the marts, one .sql file per table in `sql/gold/`, refreshed from what changed.

The header of a file names the table's key and the tables that it reads. Its statements are:

- `changed_keys`: the keys that are affected by changes to these tables since the last refresh. A table whose file lacks
  this statement is computed completely.
- `rows`: the rows of gold. `{is_changed}`, after a column, restricts them to these keys. What differs from the table is
  written with one MERGE.
- `unknown_member`: in a dimension, the row that facts point to when the source names no known member.

The commit records the position of each table that was read (see `build_record.py`); if it is no longer correct, the
table is rebuilt: computed for all keys, and what differs is written. A new file
in the folder is picked up automatically.
"""

import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from graphlib import TopologicalSorter

from deltalake import DeltaTable

from lakehouse_utils.errors import LakehouseError, MissingTableError
from lakehouse_utils.lake import TableRef
from lakehouse_utils.lake.delta_log import is_empty
from lakehouse_utils.lake.s3_errors import translate_errors
from lakehouse_utils.pipeline import build_record, commits, sql
from lakehouse_utils.pipeline.build_record import DEFINITION, BuildRecord, CommitRecord, InputChange
from lakehouse_utils.pipeline.context import RunContext, TableCounts
from lakehouse_utils.pipeline.engines.protocol import Engine, KeyedRows, MergeTarget, Relation, count_rows
from lakehouse_utils.pipeline.merge import merge_difference
from lakehouse_utils.pipeline.sql import quoted


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


def refresh(run: RunContext, name: str, *, rebuild: str | None = None) -> TableCounts:
    """Bring `gold/<name>` up to date with the tables that it reads; all counts are 0 if it already was.

    The table is rebuilt if its build record is no longer correct, or if `rebuild` says why; only then it may also get
    other columns. Raises MissingTableError if one of these tables does not exist, and LakehouseError if the table was
    built with other columns.
    """
    definition, ref = GoldTable.load(name), run.lake.table("gold", name)
    inputs = {f"{layer}.{read}": run.lake.table(layer, read) for layer, read in definition.reads}
    for input_ref in inputs.values():
        if run.logs.of(input_ref) is None:
            raise _missing(name, input_ref)
    state, work = run.logs.of(ref), _find_work(run, ref, definition, inputs, rebuild)
    if state is not None and not work.has_rows and not work.is_worth_recording:
        return TableCounts(version=state.version)
    table = run.logs.open(ref)
    opened = {label: _open_input(run, name, input_ref) for label, input_ref in inputs.items()}
    work = _find_work(run, ref, definition, inputs, rebuild)  # as of the versions that are open
    for label, input_ref in inputs.items():
        run.logs.require_current(input_ref, opened[label])
    if table is not None and not work.has_rows:
        if work.is_worth_recording:
            commits.record(table, work.commit)
            run.logs.committed(ref, table)
        return TableCounts(version=table.version())
    record, why = work.record, work.why
    has_rows = not is_empty(table)
    if why and has_rows:
        run.progress.on_note(f"{ref.label} is rebuilt, because {why}")
    for label, read in opened.items():
        run.engine.define_snapshot(label, read)
    has_other_sql = record.has_other_definition(definition.fingerprint)
    with translate_errors(f"refresh gold.{name}", run.lake):
        if table is not None and has_rows and not rebuild:
            _require_columns(run.engine, table, definition)
        if table is None or not has_rows or rebuild or record.foreign_change or has_other_sql:
            counts = _fill(run, definition, table, work.commit)
        else:
            changed_keys = None if why else _find_changed_keys(run.engine, definition, record.transactions)
            counts = _merge(run.engine, MergeTarget(table, definition.key, work.commit), definition, changed_keys)
    counts.rebuilt = why if has_rows or rebuild else None
    if table is not None:
        run.logs.committed(ref, table)
    return counts


@dataclass(frozen=True)
class _Work:
    """What the logs of a gold table and of its inputs say about what is to be done.

    `why` says why it is rebuilt, if it is. `has_rows` says whether there are rows to write into a table that exists.
    """

    record: BuildRecord
    why: str | None
    has_rows: bool
    is_worth_recording: bool
    commit: CommitRecord


def _find_work(
    run: RunContext, ref: TableRef, definition: GoldTable, inputs: dict[str, TableRef], rebuild: str | None
) -> _Work:
    record, transactions, changes = run.logs.record(ref), {DEFINITION: definition.fingerprint}, list[InputChange]()
    for label, input_ref in inputs.items():
        changes.append(run.logs.changes_since(input_ref, record.covered(label)))
        transactions |= _record_input(label, run.logs.record(input_ref))
    why = rebuild or build_record.why_rebuild(record, changes, definition.fingerprint, "its SQL")
    has_rows = why is not None or any(change.adds_rows for change in changes)
    is_worth_recording = any(change.is_worth_recording for change in changes)
    return _Work(record, why, has_rows, is_worth_recording, CommitRecord(transactions, rebuilds=why is not None))


def _record_input(label: str, record: BuildRecord) -> dict[str, int]:
    """What a commit records about an input: its position, and for silver the version of bronze that it covers.

    Rows of silver carry the version of bronze that they were made from, by which changed rows are found.
    """
    if record.head is None:
        return {}
    layer, table = label.split(".")
    covered = record.transactions.get(f"bronze.{table.removesuffix('_history')}", 0)
    return record.head.transactions(label) | ({f"{label} covers": covered} if layer == "silver" else {})


def _find_changed_keys(engine: Engine, definition: GoldTable, covered: Mapping[str, int]) -> Relation | None:
    """The keys that changed since the last refresh. None for a table that is computed completely."""
    if "changed_keys" not in definition.statements:
        return None
    versions = {f"{table}_version": covered.get(f"{layer}.{table} covers", -1) for layer, table in definition.reads}
    return engine.materialize("changed_keys", definition.statements["changed_keys"].format(**versions))


def _rows(engine: Engine, definition: GoldTable, changed_keys: Relation | None = None) -> str:
    """SQL for the rows of the changed keys, or for all rows: then the condition on a key is one that is always true."""
    is_changed = "IS NOT NULL"
    if changed_keys:
        (key,) = engine.columns(changed_keys)
        is_changed = f"IN (SELECT {quoted(key)} FROM {changed_keys})"
    return definition.statements["rows"].format(is_changed=is_changed)


def _all_rows(engine: Engine, definition: GoldTable) -> str:
    """SQL for all rows of a table, with the unknown member if there is one."""
    rows = _rows(engine, definition)
    if unknown_member := definition.statements.get("unknown_member"):
        known, unknown = engine.define_view("known_rows", rows), engine.define_view("unknown_member", unknown_member)
        has_value = engine.columns(unknown)
        values = (quoted(name) if name in has_value else f"NULL AS {quoted(name)}" for name in engine.columns(known))
        rows = f"SELECT * FROM {known} UNION ALL SELECT {', '.join(values)} FROM {unknown}"
    return rows


def _fill(run: RunContext, definition: GoldTable, table: DeltaTable | None, commit: CommitRecord) -> TableCounts:
    """Write all rows of a table; those that it has are replaced without being read, with their columns."""
    engine, ref = run.engine, run.lake.table("gold", definition.name)
    rows = KeyedRows(f"SELECT * FROM ({_all_rows(engine, definition)})", definition.key)
    table = engine.fill_table(ref, table, rows, commit)
    run.logs.committed(ref, table)
    count = table.count()
    return TableCounts(read=count, added=count, version=table.version())


def _require_columns(engine: Engine, table: DeltaTable, definition: GoldTable) -> None:
    desired = engine.define_view("desired_columns", _rows(engine, definition))
    existing = {field.name for field in table.schema().fields}
    if different := sorted(set(engine.columns(desired)) ^ existing):
        raise LakehouseError(
            f"gold.{definition.name} and sql/gold/{definition.name}.sql do not have the same columns; only one of them"
            f" has {', '.join(different)}. Apply the change with --rebuild gold.{definition.name}."
        )


def _merge(engine: Engine, target: MergeTarget, definition: GoldTable, changed_keys: Relation | None) -> TableCounts:
    """Write what differs: in the rows of the changed keys, or in all rows."""
    desired = engine.materialize("desired_rows", _rows(engine, definition, changed_keys))
    existing = engine.define_snapshot("gold_rows", target.table)
    if target.commit.rebuilds:  # keys may be gone; the unknown member, whose own key is NULL, stays
        is_known = " AND ".join(f"{quoted(name)} IS NOT NULL" for name in definition.key)
        existing = engine.define_view("known_gold_rows", f"SELECT * FROM {existing} WHERE {is_known}")
    elif changed_keys:
        key = ", ".join(map(quoted, engine.columns(changed_keys)))
        of_changed_keys = f"SELECT * FROM {existing} SEMI JOIN {changed_keys} USING ({key})"
        existing = engine.define_view("gold_rows_of_changed_keys", of_changed_keys)
    counts = merge_difference(engine, target, desired, existing)
    counts.read = count_rows(engine, desired)
    engine.drop(desired, *([changed_keys] if changed_keys else []))  # the next table needs their memory
    return counts


def _open_input(run: RunContext, name: str, ref: TableRef) -> DeltaTable:
    table = run.logs.open(ref)
    if table is None:
        raise _missing(name, ref)
    return table


def _missing(name: str, ref: TableRef) -> MissingTableError:
    layer, _ = ref.names
    return MissingTableError(
        f"gold.{name} is made from {ref.label}, which does not exist at {ref.uri}. Run the {layer} layer first"
        " (--layers).",
        table=ref.label,
    )
