"""MERGE into a Delta table that reads only the files which may hold the keys of the source."""

from collections.abc import Collection

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable

from lakehouse_utils.pipeline import commits
from lakehouse_utils.pipeline.context import TableCounts
from lakehouse_utils.pipeline.engines.protocol import Engine, MergeClause, MergeCounts
from lakehouse_utils.pipeline.sql import literal, quoted, statement

_MAX_RANGES = 50
_TYPES_WITH_EXACT_STATISTICS = ("long", "integer", "string", "date")  # the log's statistics of other types are rounded


def merge(
    engine: Engine,
    table: DeltaTable,
    key: list[str],
    clauses: list[MergeClause],
    row: list[str],
    commit: CommitProperties,
) -> MergeCounts:
    """A MERGE of the engine's rows `merging` into `table` by `key`, whose first column the table is sorted by.

    Files that hold no key of the source are skipped: the log's statistics tell which, and the predicate puts it into
    words that engines hold against the same statistics.
    """
    equal = " AND ".join(f"target.{quoted(name)} = source.{quoted(name)}" for name in key)
    return engine.merge(table, "merging", f"{equal} AND {_ranges(engine, table, key[0])}", clauses, row, commit)


def _ranges(engine: Engine, table: DeltaTable, column: str) -> str:
    actions = pa.table(table.get_add_actions(flatten=True))
    low, high = f"min.{column}", f"max.{column}"
    types = {field.name: field.type for field in table.schema().fields}
    if getattr(types[column], "type", None) not in _TYPES_WITH_EXACT_STATISTICS or low not in actions.column_names:
        return "true"
    if actions[low].null_count or actions[high].null_count:  # a file that tells nothing of itself may hold any key
        return "true"
    engine.define_rows("files", pa.table({"path": actions["path"], "low": actions[low], "high": actions[high]}))
    ranges = engine.query(statement("difference", "file_ranges", column=quoted(column)))
    if len(ranges) > _MAX_RANGES:
        ranges = [(min(low for low, _ in ranges), max(high for _, high in ranges))]
    name = f"target.{quoted(column)}"
    between = [f"{name} BETWEEN {literal(low)} AND {literal(high)}" for low, high in ranges]
    return f"({' OR '.join(between) or 'false'})"


def merge_difference(
    engine: Engine,
    table: DeltaTable,
    fresh: str,
    existing: str,
    key: list[str],
    commit: CommitProperties,
    uncompared: Collection[str] = (),
) -> TableCounts:
    """Make the rows `existing` of `table` equal to `fresh`, in one MERGE of what differs: insert, update, delete.

    Both are relations of the engine with the table's columns; a difference in `uncompared` columns alone is none.
    Where nothing differs, the commit records only how far the table has come.
    """
    columns = [field.name for field in table.schema().fields]
    compared = [name for name in columns if name not in (*key, *uncompared)]
    difference = statement(
        "difference",
        "difference",
        fresh=fresh,
        existing=existing,
        fresh_columns=", ".join(f"fresh.{quoted(name)}" for name in columns),
        existing_columns=", ".join(f"existing.{quoted(name)}" for name in columns),
        same_key=" AND ".join(f"fresh.{quoted(name)} = existing.{quoted(name)}" for name in key),
        unlike=" OR ".join(f"fresh.{quoted(n)} IS DISTINCT FROM existing.{quoted(n)}" for n in compared) or "false",
    )
    engine.materialize("merging", difference)
    if not engine.query("SELECT count(*) FROM merging")[0][0]:
        commits.record(table, commit)
        return TableCounts(version=table.version())
    clauses = [
        MergeClause("delete", "source._change = 'delete'"),
        MergeClause("update", "source._change <> 'delete'"),
        MergeClause("insert", "source._change <> 'delete'"),
    ]
    merged = merge(engine, table, key, clauses, columns, commit)
    return TableCounts(added=merged.inserted, changed=merged.updated + merged.deleted, version=table.version())
