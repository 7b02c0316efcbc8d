"""Bronze to silver: typed values, one row per key through MERGE, and history if the description asks for it.

Each table's commit records the position of bronze that it covers (see `build_record.py`). A run reads only the files
that bronze has gained since then, so the cost of a daily batch depends on the new rows and on the files that they
change, not on the size of the tables. When the record is no longer correct, the table is rebuilt: computed from all
rows of bronze, and what differs is written. The rules on values are in `rules.py`, the SQL is in `sql/silver.sql`.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
from deltalake import DeltaTable, Schema
from deltalake.schema import PrimitiveType
from deltalake.transaction import AddAction

from lakehouse_utils.errors import DescriptionError, MissingTableError
from lakehouse_utils.lake import TableRef, delta_log
from lakehouse_utils.lake.delta_log import is_empty, live_files
from lakehouse_utils.lake.s3_errors import translate_errors
from lakehouse_utils.pipeline import build_record, commits, lineage, quarantine, rules
from lakehouse_utils.pipeline.build_record import DEFINITION, BuildRecord, CommitRecord, InputChange, Position
from lakehouse_utils.pipeline.context import RunContext, TableCounts
from lakehouse_utils.pipeline.engines.protocol import Engine, KeyedRows, MergeClause, MergeTarget, Relation, count_rows
from lakehouse_utils.pipeline.merge import merge_difference, merge_rows
from lakehouse_utils.pipeline.sources import HISTORY_COLUMNS, Source
from lakehouse_utils.pipeline.sql import literal, quoted, statement, statements

_MAX_REJECTED_LINES = 1000  # that are listed in a query
_BATCH_DATE = r"""TRY_CAST(nullif(regexp_extract(_batch, '\d{4}-\d{2}-\d{2}'), '') AS DATE)"""


def tables(source: Source) -> list[str]:
    """The silver tables of a source, in the order in which they must be refreshed.

    History comes first, because it finds late rows by comparing new rows with the current state before this run.
    """
    return [*([f"{source.name}_history"] if source.history else []), source.name]


def key_columns(source: Source, name: str) -> list[str]:
    """The key of `silver/<name>`, one of `tables(source)`: a history has one row per key and time."""
    return source.key if name == source.name else [*source.key, "valid_from"]


def input_label(source: Source) -> str:
    """The input of a source's silver tables, as their build records name it."""
    return f"bronze.{source.name}"


@dataclass
class Attempts:
    """The number of rows that the attempts to refresh a table have put into quarantine, also those that failed."""

    quarantined: int = 0


def refresh(
    run: RunContext, source: Source, name: str, *, rebuild: str | None = None, attempts: Attempts | None = None
) -> TableCounts:
    """Bring `silver/<name>`, one of `tables(source)`, up to date with bronze.

    All counts are 0 if it already was. The table is rebuilt if its build record is no longer correct, or if `rebuild`
    says why; only then it may also get other columns. Without a bronze table, an empty silver table is created, because
    gold needs it. `attempts` is what earlier attempts that failed have done.

    Raises DescriptionError if the table's columns are not those of the description, and MissingTableError if bronze is
    gone although silver has rows.
    """
    attempts = attempts or Attempts()
    counts = _refresh(run, source, name, rebuild, attempts)
    counts.quarantined = attempts.quarantined
    return counts


def _refresh(run: RunContext, source: Source, name: str, rebuild: str | None, attempts: Attempts) -> TableCounts:
    label = input_label(source)
    bronze_ref, ref = run.lake.table("bronze", source.name), run.lake.table("silver", name)
    state = run.logs.of(ref)
    if state is not None and run.logs.of(bronze_ref) is None and not is_empty(run.logs.open(ref)):
        raise MissingTableError(
            f"{ref.label} has rows, but {label}, which it is built from, does not exist at {bronze_ref.uri}. Load the"
            f" raw files again (--layers bronze), or delete {ref.uri} as well.",
            table=label,
        )
    work = _find_work(run, source, name, rebuild)
    if state is not None:
        if rebuild is None:
            _require_described_columns(ref, state.snapshot.schema, source)
        if not work.has_rows(rebuild) and not work.change.is_worth_recording:
            return TableCounts(version=state.version)
    table, bronze = run.logs.open(ref), run.logs.open(bronze_ref)
    work = _find_work(run, source, name, rebuild)  # as of the versions that are open
    run.logs.require_current(bronze_ref, bronze)
    if table is not None and not work.has_rows(rebuild):
        if work.change.is_worth_recording:
            commits.record(table, work.commit)
            run.logs.committed(ref, table)
        return TableCounts(version=table.version())
    record, why = work.record, work.why
    has_rows = not is_empty(table)
    if why and has_rows:
        run.progress.on_note(f"{ref.label} is rebuilt, because {why}")
    live = live_files(bronze_ref, bronze) if bronze else []
    new_files = live if why or table is None else _files_to_read(bronze_ref, work.change, live)
    new = replace(_read_new_rows(run, source, bronze, new_files, work.commit), covered=record.covered(label))
    if rebuild or record.foreign_change or record.has_other_definition(work.definition):  # perhaps with another key
        new = replace(new, replaces_all=True)
    if name == source.name:
        counts = _refresh_current(run, source, table, new, attempts)
    else:
        counts = _refresh_history(run, source, table, new)
    counts.rebuilt = why if has_rows or rebuild else None
    if table is not None:
        run.logs.committed(ref, table)
    return counts


@dataclass(frozen=True)
class _Work:
    """What a silver table's log and bronze's say about what is to be done. `why` says why it is rebuilt, if it is."""

    record: BuildRecord
    change: InputChange
    definition: int
    why: str | None
    commit: CommitRecord
    has_bronze: bool

    def has_rows(self, rebuild: str | None) -> bool:
        """Whether there are rows to write into a table that exists."""
        return (self.has_bronze or rebuild is not None) and (self.why is not None or bool(self.change.added))


def _find_work(run: RunContext, source: Source, name: str, rebuild: str | None) -> _Work:
    label, bronze_ref = input_label(source), run.lake.table("bronze", source.name)
    record, definition = run.logs.record(run.lake.table("silver", name)), definition_digest(source, name)
    change = run.logs.changes_since(bronze_ref, record.covered(label), accept_appends=True)
    bronze_record = run.logs.record(bronze_ref)
    why = rebuild or build_record.why_rebuild(record, [change], definition, "its description or the SQL")
    if why is None and name == source.name and quarantine.lost_rejected_rows(run.logs, source):
        why = f"quarantine.{source.name} lost rows by a RESTORE or a rebuild"
    position = bronze_record.head.transactions(label) if bronze_record.head else {}
    commit = CommitRecord({DEFINITION: definition, **position}, rebuilds=why is not None)
    return _Work(record, change, definition, why, commit, run.logs.of(bronze_ref) is not None)


def definition_digest(source: Source, name: str) -> int:
    """A number that changes when the description or the SQL would give other rows."""
    sql = statements("silver")
    texts = [
        *rules.prepared_columns(source),
        *(rules.typed_value(source, column) for column in source.columns),
        rules.all_conditions(source),
        _version_at(source),
        _newest_first(source),
        _columns(source),
        _key(source),
        sql["accepted"],
        *(sql[part] for part in (["version", "newest_first"] if name == source.name else ["history"])),
    ]
    return delta_log.digest("\n".join(texts))


def _files_to_read(bronze_ref: TableRef, change: InputChange, live: list[str]) -> list[str]:
    """The new files of bronze; all of them if new ones were compacted since: it does no harm to read a row twice."""
    added = [f"{bronze_ref.uri}/{add['path']}" for add in change.added]
    return added if set(live).issuperset(added) else live


@dataclass(frozen=True)
class _NewRows:
    """The rows that bronze has gained since a silver table was refreshed; for a rebuild, all of its rows."""

    bronze: DeltaTable | None
    rows: Relation  # as in bronze
    accepted: Relation  # the rows that meet all rules, typed
    commit: CommitRecord  # what a commit to silver records when it covers these rows
    is_late: bool  # whether they may belong to an earlier batch than rows that silver already has
    covered: Position | None = None  # up to where the silver table has covered bronze so far
    replaces_all: bool = False  # whether the rows of silver are replaced without being read

    @property
    def bronze_version(self) -> int:
        """The version of bronze that has these rows."""
        return self.bronze.version() if self.bronze else 0


def _read_new_rows(
    run: RunContext, source: Source, bronze: DeltaTable | None, new_files: list[str], commit: CommitRecord
) -> _NewRows:
    rows, accepted = _define_rows(run, source, "new_rows", new_files)
    is_late = bronze is not None and _is_late(bronze, new_files)
    return _NewRows(bronze, rows, accepted, commit, is_late)


def _define_rows(run: RunContext, source: Source, name: str, files: list[str]) -> tuple[Relation, Relation]:
    """The rows of these files of bronze, with all described columns; and those of them that meet all rules, typed."""
    rows = run.engine.define_files(name, files, dict.fromkeys(source.columns, "VARCHAR") | lineage.BRONZE_SQL_TYPES)
    if prepared := rules.prepared_columns(source):
        sql = f"SELECT *, {', '.join(prepared)} FROM {rows}"
        rows = run.engine.define_view(f"{name}_prepared", sql)
    accepted = _accepted(source, rows, rules.all_conditions(source))
    return rows, run.engine.define_view(f"{name}_accepted", accepted)


def _accepted(source: Source, rows: Relation, condition: str) -> str:
    """SQL for the typed values of the rows that meet a condition."""
    values = (f"{rules.typed_value(source, column)} AS {quoted(column)}" for column in source.columns)
    return statement(
        "silver",
        "accepted",
        rows=rows,
        values=",\n    ".join(values),
        version_at=_version_at(source),
        all_conditions=condition,
    )


def _all_files_of_bronze(run: RunContext, source: Source, bronze: DeltaTable | None) -> list[str]:
    """The addresses of all files of bronze: late rows must be compared with all earlier rows."""
    return delta_log.live_files(run.lake.table("bronze", source.name), bronze) if bronze else []


# -- current state


def _refresh_current(
    run: RunContext, source: Source, table: DeltaTable | None, new: _NewRows, attempts: Attempts
) -> TableCounts:
    """Write the newest version of each key of the new rows, and quarantine the rows that break a rule."""
    ref = run.lake.table("silver", source.name)
    read, rejected = count_rows(run.engine, new.rows), _reject(run.engine, source, new)
    new = replace(new, accepted=_accept(run.engine, source, new, rejected))
    attempts.quarantined = max(attempts.quarantined, _quarantine_rejected(run, source, new, rejected))
    version = statement(
        "silver",
        "version",
        versions=_versions_of_new_keys(run, source, new) if new.is_late else new.accepted,
        columns=_columns(source),
        bronze_version=new.bronze_version,
    )
    newest_first = statement("silver", "newest_first", newest_first=_newest_first(source))
    if table is None or is_empty(table) or new.replaces_all:
        table = run.engine.fill_table(ref, table, KeyedRows(version, source.key, newest_first), new.commit)
        run.logs.committed(ref, table)
        return TableCounts(read, table.count(), version=table.version())
    newest = statement("silver", "newest", version=version, key=_key(source), newest_first=newest_first)
    target = MergeTarget(table, source.key, new.commit)
    newest_rows = run.engine.materialize("newest_rows", newest)
    with translate_errors(f"merge into {ref.label}", run.lake):
        if new.commit.rebuilds:
            existing = run.engine.define_snapshot("silver_rows", table)
            counts = merge_difference(run.engine, target, newest_rows, existing, lineage.SILVER_ORIGIN)
            return TableCounts(read, counts.added, counts.changed, version=table.version())
        values = [*source.columns, *([lineage.VERSION_AT] if source.order_by else [])]
        differs = _any(f"(target.{quoted(name)} IS DISTINCT FROM source.{quoted(name)})" for name in values)
        is_newer = f"({_not_older(source, 'source', 'target')}) AND ({differs})"
        merged = merge_rows(
            run.engine,
            target,
            newest_rows,
            [*source.columns, *lineage.SILVER_COLUMNS],
            [MergeClause("update", is_newer), MergeClause("insert")],
        )
    return TableCounts(read, merged.inserted, merged.updated, version=table.version())


def _versions_of_new_keys(run: RunContext, source: Source, new: _NewRows) -> Relation:
    """All rows of bronze that have a key of the new rows: a late row may be older than what silver has."""
    _, all_accepted = _define_rows(run, source, "all_rows", _all_files_of_bronze(run, source, new.bronze))
    sql = f"SELECT * FROM {all_accepted} SEMI JOIN {new.accepted} USING ({_key(source)})"
    return run.engine.define_view("versions_of_new_keys", sql)


def _reject(engine: Engine, source: Source, new: _NewRows) -> Relation:
    """The new rows that break a rule, as quarantine stores them."""
    sql = statement(
        "silver",
        "rejected",
        rows=new.rows,
        names=", ".join(map(literal, source.columns)),
        values=", ".join(map(quoted, source.columns)),
        all_problems=rules.all_problems(source),
        all_conditions=rules.all_conditions(source),
    )
    return engine.materialize("rejected_rows", sql)


def _accept(engine: Engine, source: Source, new: _NewRows, rejected: Relation) -> Relation:
    """The same rows as `new.accepted`, without evaluating the rules on all rows again.

    The rules are only evaluated on rows with the line number of a rejected row. If there are too many of them, nothing
    would be gained.
    """
    sql = f"SELECT DISTINCT {lineage.SOURCE_LINE} FROM {rejected} LIMIT {_MAX_REJECTED_LINES + 1}"
    lines = [line for (line,) in engine.query(sql)]
    if len(lines) > _MAX_REJECTED_LINES:
        return new.accepted
    listed = ", ".join(str(line) for line in lines if line is not None) or "NULL"
    is_suspect = f"{lineage.SOURCE_LINE} IS NULL OR {lineage.SOURCE_LINE} IN ({listed})"
    condition = f"CASE WHEN {is_suspect} THEN ({rules.all_conditions(source)}) ELSE true END" if lines else "true"
    return engine.define_view("accepted_rows", _accepted(source, new.rows, condition))


def _quarantine_rejected(run: RunContext, source: Source, new: _NewRows, rejected: Relation) -> int:
    """Put the new rows that break a rule into quarantine. Returns the number of rows to report.

    Quarantine commits before silver does. After a crash in between, or if all of bronze is read again, some of the rows
    are already in quarantine; they are not added twice. A rebuild reports only those that were added.
    """
    engine, quarantined = run.engine, run.lake.table("quarantine", source.name)
    # Before any commit: this also records what a RESTORE took back, which a later commit would hide.
    has_lost_rows = quarantine.lost_rejected_rows(run.logs, source)
    count, table = count_rows(engine, rejected), None
    if count or new.commit.rebuilds:
        table = run.logs.open(quarantined)
    if table is not None:
        commits.add_missing_columns(table, quarantine.SCHEMA)
        if new.commit.rebuilds:
            _resolve_accepted(engine, table, rejected, new.rows)
            run.logs.committed(quarantined, table)
    version = delta_log.digest(repr(sorted(new.commit.transactions.items())))
    app_id = quarantine.app_id_of_rejected(source)
    if not count:
        if has_lost_rows:  # record that they are complete again, without files
            quarantine.append(run.logs, source, CommitRecord({app_id: version}), list)
        return 0
    of_last_delivery = statement("silver", "of_last_delivery", rejected=rejected, rows=new.rows)
    added = engine.materialize("rejected_rows_of_last_delivery", of_last_delivery)
    if table is not None:
        quarantined_rows = engine.define_snapshot("quarantined_rows", table)
        missing = statement("silver", "not_quarantined", rejected=added, quarantined=quarantined_rows)
        added = engine.materialize("missing_rows", missing)

    def upload() -> list[AddAction]:
        return engine.write_files(quarantined, f"SELECT * FROM {added}")

    read_version = table.version() if table is not None else -1
    quarantine.append(run.logs, source, CommitRecord({app_id: version}, read_version=read_version), upload)
    return count_rows(engine, added) if new.commit.rebuilds else count


def _resolve_accepted(engine: Engine, table: DeltaTable, rejected: Relation, rows: Relation) -> None:
    """Mark the problems of rows that are accepted now as resolved; quarantine's other rows stay as they are.

    Rows that bronze got after `rows` were read may be in quarantine already; these stay as they are, too.
    """
    quarantined_rows = engine.define_snapshot("quarantined_rows", table)
    sql = statement("silver", "accepted_now", rejected=rejected, quarantined=quarantined_rows, rows=rows)
    accepted_now = engine.materialize("accepted_now", sql)
    if count_rows(engine, accepted_now):
        key = [lineage.SOURCE_FILE, lineage.SOURCE_LINE, "raw", lineage.INGESTED_AT]
        same_row = " AND ".join(f"target.{quoted(name)} = source.{quoted(name)}" for name in key)
        target = MergeTarget(table, key, CommitRecord({}))
        on = f"{same_row} AND target.layer = 'silver'"
        engine.merge(target, accepted_now, on, ["resolved_at"], [MergeClause("update")])


# -- history


def _refresh_history(run: RunContext, source: Source, table: DeltaTable | None, new: _NewRows) -> TableCounts:
    """Build the history of the new rows' keys again, and write what differs from the table."""
    ref, engine = run.lake.table("silver", f"{source.name}_history"), run.engine
    key = key_columns(source, ref.names[1])
    if table is None or is_empty(table) or new.replaces_all:  # many rows
        rejected = _reject(engine, source, new)
        read = count_rows(engine, new.rows) - count_rows(engine, rejected)
        new = replace(new, accepted=_accept(engine, source, new, rejected))
    else:
        read = count_rows(engine, new.accepted)
    all_versions = engine.define_view("all_versions", f"SELECT *, false AS _is_in_history FROM {new.accepted}")
    if table is None or is_empty(table) or new.replaces_all:
        table = engine.fill_table(ref, table, KeyedRows(_history(source, all_versions, new), key), new.commit)
        run.logs.committed(ref, table)
        counts = TableCounts(added=table.count(), version=table.version())
    elif new.commit.rebuilds:
        desired = engine.materialize("desired_rows", _history(source, all_versions, new))
        existing = engine.define_snapshot("history_rows", table)
        with translate_errors(f"merge into {ref.label}", run.lake):
            target = MergeTarget(table, key, new.commit)
            counts = merge_difference(engine, target, desired, existing, {lineage.BRONZE_VERSION})
    else:
        if engine.query(f"SELECT 1 FROM {new.accepted} WHERE _version_at IS NULL LIMIT 1"):
            run.progress.on_note(
                f"{ref.label} keeps only the newest values of rows without a date. Name"
                f" batches by date, such as 2026-01-31, or set order_by for [{source.name}]"
            )
        history = engine.define_snapshot("history_rows", table)
        late_keys = engine.materialize("late_keys", _late_keys(run, source, new))
        files = _all_files_of_bronze(run, source, new.bronze) if count_rows(engine, late_keys) else []
        _, all_accepted = _define_rows(run, source, "all_rows", files)
        sql = statement(
            "silver",
            "versions",
            accepted=new.accepted,
            history=history,
            late_keys=late_keys,
            all_accepted=all_accepted,
            columns=_columns(source),
            key=_key(source),
        )
        versions = engine.define_view("versions", sql)
        desired = engine.materialize("desired_rows", _history(source, versions, new))
        of_new_keys = f"SELECT * FROM {history} SEMI JOIN {new.accepted} USING ({_key(source)})"
        existing = engine.define_view("existing_rows", of_new_keys)
        with translate_errors(f"merge into {ref.label}", run.lake):
            target = MergeTarget(table, key, new.commit)
            counts = merge_difference(engine, target, desired, existing, {lineage.BRONZE_VERSION})
    counts.read = read
    return counts


def _history(source: Source, versions: Relation, new: _NewRows) -> str:
    """SQL for the history of the keys in `versions`."""
    key = _key(source)
    described = [name for name in source.columns if name not in (*source.key, source.order_by)]
    differs = _any(
        f"lag({quoted(name)}) OVER (PARTITION BY {key} ORDER BY valid_from) IS DISTINCT FROM {quoted(name)}"
        for name in described
    )
    return statement(
        "silver",
        "history",
        versions=versions,
        columns=_columns(source),
        key=key,
        newest_first=_newest_first(source),
        differs_from_previous=differs,
        bronze_version=new.bronze_version,
    )


def _late_keys(run: RunContext, source: Source, new: _NewRows) -> str:
    """SQL for the keys with a late row: their history has to be built from all of bronze.

    A row is late if it is older than the one in the current state. That comparison is only valid if the current state
    covers the same version of bronze as the history, and no other program has changed it; otherwise every key counts as
    late.
    """
    ref = run.lake.table("silver", source.name)
    current = run.logs.open(ref)
    record = run.logs.record(ref)
    is_comparable = record.foreign_change is None and record.covered(input_label(source)) == new.covered
    if new.is_late or current is None or not is_comparable:
        return f"SELECT DISTINCT {_key(source)} FROM {new.accepted}"
    current_rows = run.engine.define_snapshot("current_rows", current)
    not_older = _not_older(source, "accepted", "existing")
    return statement(
        "silver", "late_keys", accepted=new.accepted, current=current_rows, key=_key(source), not_older=not_older
    )


# -- checks


def _is_late(bronze: DeltaTable, new_files: list[str]) -> bool:
    """Whether the new files' batches may come before a batch that is already in silver, in the order of their names."""
    actions = pa.table(bronze.get_add_actions(flatten=True)).to_pylist()
    new_names = {uri.rsplit("/", 1)[-1] for uri in new_files}
    new_batches: list[Any] = []  # None if the log has no statistics for a file
    old_batches: list[Any] = []
    for action in actions:
        if action["path"].rsplit("/", 1)[-1] in new_names:
            new_batches.append(action.get("min._batch"))
        else:
            old_batches.append(action.get("max._batch"))
    if not new_batches or not old_batches:
        return False
    if None in (*new_batches, *old_batches):
        return True
    return bool(min(new_batches) < max(old_batches))


def _require_described_columns(ref: TableRef, schema: str, source: Source) -> None:
    existing = {field.name: field.type for field in Schema.from_json(schema).fields}
    described = {name: PrimitiveType(column.data_type.delta) for name, column in source.columns.items()}
    different = [column for column, delta_type in described.items() if existing.get(column) != delta_type]
    expected = {*described, *lineage.SILVER_COLUMNS, *HISTORY_COLUMNS}
    different += [name for name in existing if name not in expected]
    if different:
        raise DescriptionError(
            f"{ref.label} and [{source.name}] in the source descriptions do not have the same columns; these differ in"
            f" name or type: {', '.join(different)}. Undo the change in the description, or apply it with --rebuild"
            f" {ref.label}.",
            entry=source.name,
        )


# -- SQL from the description


def _key(source: Source) -> str:
    return ", ".join(map(quoted, source.key))


def _columns(source: Source) -> str:
    return ", ".join(map(quoted, source.columns))


def _any(conditions: Iterable[str]) -> str:
    return " OR ".join(conditions) or "false"


def _orders_by_time(source: Source) -> bool:
    return source.order_by is None or source.columns[source.order_by].is_temporal


def _version_at(source: Source) -> str:
    """SQL for the moment from which a row applies.

    It is the value of the ordering column if that is a time. Otherwise, or if the value is missing, it is the date in
    the batch's name.
    """
    moments = [_BATCH_DATE]
    if source.order_by is not None and _orders_by_time(source):
        moments.insert(0, rules.typed_value(source, source.order_by))
    return f"coalesce({', '.join(f'CAST({moment} AS TIMESTAMPTZ)' for moment in moments)})"


def _newest_first(source: Source) -> str:
    """The start of an ORDER BY, for a source whose ordering column is not a time."""
    if source.order_by is None or _orders_by_time(source):
        return ""
    return f"{quoted(source.order_by)} DESC NULLS LAST, "


def _not_older(source: Source, new: str, old: str) -> str:
    """SQL that is true unless the row `new` sorts before the row `old`; of equal rows, the later batch is newer."""
    not_older = f"({old}._version_at IS NULL OR {new}._version_at >= {old}._version_at)"
    if source.order_by is None or _orders_by_time(source):
        return not_older
    order_by = quoted(source.order_by)
    is_newer = f"{new}.{order_by} > {old}.{order_by} OR ({new}.{order_by} IS NOT NULL AND {old}.{order_by} IS NULL)"
    return f"{is_newer} OR (({new}.{order_by} IS NOT DISTINCT FROM {old}.{order_by}) AND {not_older})"
