"""MERGE into a Delta table, reading only the files that may hold a key of the source."""

from collections.abc import Collection, Sequence

import pyarrow as pa
from deltalake import DeltaTable

from lakehouse_utils.pipeline import commits
from lakehouse_utils.pipeline.context import TableCounts
from lakehouse_utils.pipeline.engines.protocol import (
    Engine,
    MergeClause,
    MergeCounts,
    MergeTarget,
    Relation,
    count_rows,
)
from lakehouse_utils.pipeline.sql import literal, quoted, statement

_MAX_RANGES = 50  # more ranges of keys than this are combined into one
_TYPES_WITH_EXACT_STATISTICS = ("long", "integer", "string", "date")  # the log rounds the statistics of other types


def merge_rows(
    engine: Engine, target: MergeTarget, source: Relation, columns: Sequence[str], clauses: Sequence[MergeClause]
) -> MergeCounts:
    """MERGE the rows of `source` into a table by its key; an update or insert takes `columns` from the source.

    Files that hold no key of the source are skipped: the condition contains ranges of keys from the log's statistics,
    which engines compare with the same statistics. The commit is recorded even if no row changes. Raises
    CommitFailedError if another writer committed first.
    """
    same_key = " AND ".join(f"target.{quoted(name)} = source.{quoted(name)}" for name in target.key)
    ranges = _key_ranges(engine, target.table, source, target.key[0])
    version = target.table.version()
    counts = engine.merge(target, source, f"{same_key} AND {ranges}", columns, clauses)
    if target.table.version() == version:  # a MERGE that changes nothing makes no commit
        commits.record(target.table, target.commit)
    return counts


def merge_difference(
    engine: Engine, target: MergeTarget, desired: Relation, existing: Relation, ignored_columns: Collection[str] = ()
) -> TableCounts:
    """Turn the rows `existing` of a table into the rows `desired`, in one MERGE of the rows that differ.

    Both relations have the table's columns. Rows that differ in `ignored_columns` only count as equal. If no row
    differs, the commit only records what it covers. Raises CommitFailedError if another writer committed first.
    """
    table, columns = target.table, target.columns
    compared = [name for name in columns if name not in (*target.key, *ignored_columns)]
    different = " OR ".join(f"desired.{quoted(n)} IS DISTINCT FROM existing.{quoted(n)}" for n in compared) or "false"
    changes = engine.materialize(
        "changes",
        statement(
            "difference",
            "difference",
            desired=desired,
            existing=existing,
            desired_columns=", ".join(f"desired.{quoted(name)}" for name in columns),
            existing_columns=", ".join(f"existing.{quoted(name)}" for name in columns),
            same_key=" AND ".join(f"desired.{quoted(name)} = existing.{quoted(name)}" for name in target.key),
            different=different,
        ),
    )
    if not count_rows(engine, changes):
        commits.record(table, target.commit)
        return TableCounts(version=table.version())
    clauses = [
        MergeClause("delete", "source._change = 'delete'"),
        MergeClause("update", "source._change <> 'delete'"),
        MergeClause("insert", "source._change <> 'delete'"),
    ]
    merged = merge_rows(engine, target, changes, columns, clauses)
    return TableCounts(added=merged.inserted, changed=merged.updated + merged.deleted, version=table.version())


def _key_ranges(engine: Engine, table: DeltaTable, source: Relation, column: str) -> str:
    """A condition on `column` that all keys of the source meet, and that excludes as many files as possible."""
    actions = pa.table(table.get_add_actions(flatten=True))
    minimum, maximum = f"min.{column}", f"max.{column}"
    types = {field.name: field.type for field in table.schema().fields}
    has_statistics = minimum in actions.column_names
    if getattr(types[column], "type", None) not in _TYPES_WITH_EXACT_STATISTICS or not has_statistics:
        return "true"
    if actions[minimum].null_count or actions[maximum].null_count:  # a file without statistics may hold any key
        return "true"
    file_keys = pa.Table.from_arrays(
        [actions["path"], actions[minimum], actions[maximum]], names=["path", "low", "high"]
    )
    files = engine.define_rows("file_keys", file_keys)
    ranges = engine.query(statement("difference", "file_ranges", files=files, source=source, column=quoted(column)))
    if len(ranges) > _MAX_RANGES:
        ranges = [(min(low for low, _ in ranges), max(high for _, high in ranges))]
    name = f"target.{quoted(column)}"
    between = [f"{name} BETWEEN {literal(low)} AND {literal(high)}" for low, high in ranges]
    return f"({' OR '.join(between) or 'false'})"
