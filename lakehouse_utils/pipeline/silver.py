"""Bronze to silver: typed values, one row a key through MERGE, history where the description asks for it.

Each table's commit records the version of bronze that it covers. A run reads the files that bronze has gained since,
so a daily batch costs what the day brought and the files that it touches, not what the tables hold.
"""

from collections.abc import Iterable, Iterator

import pyarrow as pa
from deltalake import DeltaTable
from deltalake.schema import PrimitiveType
from deltalake.transaction import AddAction

from lakehouse_utils.errors import LakehouseError
from lakehouse_utils.lake import Lake, delta_log
from lakehouse_utils.lake.delta_log import is_empty, progress
from lakehouse_utils.lake.s3_errors import translate_errors
from lakehouse_utils.pipeline import commits, lineage, merge, quarantine
from lakehouse_utils.pipeline.context import RunContext, TableCounts
from lakehouse_utils.pipeline.engines.protocol import MergeClause
from lakehouse_utils.pipeline.sources import HISTORY_COLUMNS, Column, Source
from lakehouse_utils.pipeline.sql import literal, quoted, statement

# How values are spelled: regular expressions.
_DAY = r"\d{4}-\d{1,2}-\d{1,2}"
_POWER = r"[+-]?(\d+\.?\d*|\.\d+)[eE][+-]?\d+"
_DECIMAL = r"[+-]?\d*(\.\d{{0,{scale}}}0*)?"
_OFFSET = r"[+-](0\d|1[0-3])(:?[0-5]\d)?|[+-]14(:?00)?"  # what there is on Earth; engines differ on more
_EXACTLY = 2**53  # a double holds each whole number up to this one
_SPELLINGS = {
    "integer": r"[+-]?\d+(\.0*)?",
    "double": rf"[+-]?(\d+\.?\d*|\.\d+)|{_POWER}",
    "boolean": "(?i:true|t|yes|y|1|false|f|no|n|0)",
    "date": rf"{_DAY}([T ]00:00(:00(\.0+)?)?(Z|[+-]00(:?00)?)?)?",
    "timestamp": rf"{_DAY}([T ]([01]?\d|2[0-3]):\d{{2}}(:\d{{2}}(\.\d+)?)?(Z| ?UTC|{_OFFSET})?)?",
}
_BATCH_DATE = r"""TRY_CAST(nullif(regexp_extract(_batch, '\d{4}-\d{2}-\d{2}'), '') AS DATE)"""


def refresh(run: RunContext, source: Source, name: str) -> TableCounts:
    """Bring `silver/<name>`, one of `tables(source)`, up to what bronze holds; counts are 0 if it was there already.

    Where there is no bronze, an empty table is made, so that gold finds it.
    """
    lake = run.lake
    ref = lake.table("bronze", source.name)
    bronze, table = ref.open(), lake.delta("silver", name)
    done, version = progress(table, app_id(source)), bronze.version() if bronze else 0
    if done is not None and done > version:
        raise LakehouseError(
            f"silver.{name} was built from another bronze.{source.name}, one at version {done} and not {version}:"
            f" delete {lake.uri('silver', name)} and what is built from it, then run again."
        )
    if table is not None:
        _refuse_other_columns(lake, source, table, name)
    files = delta_log.files_added_since(ref, bronze, done) if bronze and done != version else []
    if done is not None and not files:
        return TableCounts(version=table.version())
    step = _Step(run, source, bronze, files)
    return step.refresh_current(table) if name == source.name else step.refresh_history(table)


def tables(source: Source) -> list[str]:
    """The silver tables of a source. History comes first: from the current state of before it sees what is late."""
    return [*([f"{source.name}_history"] if source.history else []), source.name]


def app_id(source: Source) -> str:
    """The name under which a silver table's log records the version of bronze that it covers."""
    return f"bronze.{source.name}"


class _Step:
    """One source's new rows on their way into one silver table, in the engine as `incoming` and `incoming_accepted`."""

    def __init__(self, run: RunContext, source: Source, bronze: DeltaTable | None, files: list[str]) -> None:
        self.lake, self.engine, self.source, self.bronze = run.lake, run.engine, source, bronze
        self.version = bronze.version() if bronze else 0
        self.commit = commits.transaction(app_id(source), self.version)
        self.key = ", ".join(map(quoted, source.key))
        self.columns = ", ".join(map(quoted, source.columns))
        self.late_batch = bronze is not None and _is_late(bronze, files)
        self._define("incoming", files)

    def _define(self, name: str, files: list[str]) -> None:
        """Views `<name>`, these files of bronze with all described columns, and `<name>_accepted`, its good rows."""
        self.engine.define_files(name, files, dict.fromkeys(self.source.columns, "VARCHAR") | lineage.BRONZE_SQL_TYPES)
        accepted = statement(
            "silver",
            "accepted",
            rows=name,
            values=",\n    ".join(f"{_value(n, c)} AS {quoted(n)}" for n, c in self.source.columns.items()),
            version_at=_version_at(self.source),
            rules=_rules(self.source),
        )
        self.engine.define_view(f"{name}_accepted", accepted)

    def _files_of_bronze(self) -> list[str]:
        return delta_log.live_files(self.lake.table("bronze", self.source.name), self.bronze)

    def _count(self, rows: str) -> int:
        return self.engine.query(f"SELECT count(*) FROM {rows}")[0][0]

    def _fill(self, table: DeltaTable | None, name: str, rows: str, key: list[str]) -> TableCounts:
        table = self.engine.fill_table(self.lake.table("silver", name), table, rows, key, self.commit)
        return TableCounts(added=table.count(), version=table.version())

    # current state

    def refresh_current(self, table: DeltaTable | None) -> TableCounts:
        read, accepted, rejected = self._count("incoming"), self._count("incoming_accepted"), self._quarantine()
        if read != accepted + rejected:
            raise AssertionError(f"{self.source.name}: {read} rows read, {accepted} accepted, {rejected} quarantined")
        fresh = statement(
            "silver",
            "current",
            versions=self._all_versions() if self.late_batch else "incoming_accepted",
            columns=self.columns,
            key=self.key,
            newest_first=_newest_first(self.source),
            bronze_version=self.version,
        )
        if is_empty(table):
            counts = self._fill(table, self.source.name, fresh, self.source.key)
        else:
            counts = self._merge(table, fresh)
        counts.read, counts.quarantined = read, rejected
        return counts

    def _merge(self, table: DeltaTable, fresh: str) -> TableCounts:
        self.engine.materialize("merging", fresh)
        values = [*self.source.columns, *(["_version_at"] if self.source.order_by else [])]
        differs = _any(f"(target.{quoted(name)} IS DISTINCT FROM source.{quoted(name)})" for name in values)
        newer = f"({_not_older(self.source, 'source', 'target')}) AND ({differs})"
        row = [*self.source.columns, *lineage.SILVER_COLUMNS]
        with translate_errors(f"merge into silver.{self.source.name}", self.lake):
            clauses = [MergeClause("update", newer), MergeClause("insert")]
            merged = merge.merge(self.engine, table, self.source.key, clauses, row, self.commit)
        return TableCounts(added=merged.inserted, changed=merged.updated, version=table.version())

    def _all_versions(self) -> str:
        self._define("everything", self._files_of_bronze())
        return f"(SELECT * FROM everything_accepted SEMI JOIN incoming_accepted USING ({self.key}))"

    def _quarantine(self) -> int:
        """Put the bad rows of `incoming` into quarantine and count them.

        Quarantine commits before silver does: after a crash in between, and where bronze has to be read again because
        it was compacted, rows come by that are there already, and aren't put there twice.
        """
        rejected = statement(
            "silver",
            "rejected",
            rows="incoming",
            problems=", ".join(_problems(self.source)),
            names=", ".join(map(literal, self.source.columns)),
            values=", ".join(map(quoted, self.source.columns)),
            rules=_rules(self.source),
        )
        self.engine.materialize("rejected", rejected)
        if count := self._count("rejected"):
            app_id = f"silver.{self.source.name}"
            quarantine.append(self.lake, self.source, app_id, self.version, self._upload_rejected)
        return count

    def _upload_rejected(self) -> list[AddAction]:
        quarantined = self.lake.table("quarantine", self.source.name)
        held = quarantined.open()
        if held is None:
            return self.engine.write_files(quarantined, "SELECT * FROM rejected")
        self.engine.define_snapshot("held", held)
        return self.engine.write_files(quarantined, statement("silver", "not_held"))

    # history

    def refresh_history(self, table: DeltaTable | None) -> TableCounts:
        previous = "lag({name}) OVER (PARTITION BY {key} ORDER BY valid_from) IS DISTINCT FROM {name}"
        watched = [name for name in self.source.columns if name not in (*self.source.key, self.source.order_by)]
        fresh = statement(
            "silver",
            "history",
            versions=f"({self._versions(table)})",
            columns=self.columns,
            key=self.key,
            newest_first=_newest_first(self.source),
            differs_from_previous=_any(previous.format(name=quoted(name), key=self.key) for name in watched),
            bronze_version=self.version,
        )
        if is_empty(table):
            counts = self._fill(table, f"{self.source.name}_history", fresh, [*self.source.key, "valid_from"])
        else:
            self.engine.materialize("fresh", fresh)
            known = f"(SELECT * FROM known_history SEMI JOIN incoming_accepted USING ({self.key}))"
            key = [*self.source.key, "valid_from"]
            with translate_errors(f"merge into silver.{self.source.name}_history", self.lake):
                counts = merge.merge_difference(
                    self.engine, table, "fresh", known, key, self.commit, {"_bronze_version"}
                )
        counts.read = self._count("incoming_accepted")
        return counts

    def _versions(self, table: DeltaTable | None) -> str:
        """The versions that the history of the new rows' keys is made from: all of bronze's where a row is late.

        A row is late when it sorts before what the current state holds, which has to be that of this history, then.
        """
        if is_empty(table):
            return "SELECT *, false AS _known FROM incoming_accepted"
        self.engine.define_snapshot("known_history", table)
        current = self.lake.delta("silver", self.source.name)
        name = app_id(self.source)
        if self.late_batch or progress(current, name) != progress(table, name):
            late = f"SELECT DISTINCT {self.key} FROM incoming_accepted"
        else:
            self.engine.define_snapshot("known_current", current)
            not_older = _not_older(self.source, "incoming_accepted", "known_current")
            late = statement("silver", "late_keys", key=self.key, not_older=not_older)
        self.engine.materialize("late_keys", late)
        self._define("everything", self._files_of_bronze() if self._count("late_keys") else [])
        return statement("silver", "versions", columns=self.columns, key=self.key)


def _is_late(bronze: DeltaTable, files: list[str]) -> bool:
    """Whether rows come from a batch that sorts before one that is already in silver, or may do so."""
    actions = pa.table(bronze.get_add_actions(flatten=True)).to_pylist()
    new = {uri.rsplit("/", 1)[-1] for uri in files}
    incoming = [a.get("min._batch") for a in actions if a["path"].rsplit("/", 1)[-1] in new]
    known = [a.get("max._batch") for a in actions if a["path"].rsplit("/", 1)[-1] not in new]
    if not incoming or not known:
        return False
    return None in (*incoming, *known) or min(incoming) < max(known)


def _refuse_other_columns(lake: Lake, source: Source, table: DeltaTable, name: str) -> None:
    there = {field.name: field.type for field in table.schema().fields}
    described = {name: PrimitiveType(column.data_type.delta) for name, column in source.columns.items()}
    other = [column for column, kind in described.items() if there.get(column) != kind]
    own = (*lineage.SILVER_COLUMNS, *HISTORY_COLUMNS)
    other += [column for column in there if column not in described and column not in own]
    if other:
        raise LakehouseError(
            f"silver.{name} was built from another description of its columns ({', '.join(other)}): delete"
            f" {lake.uri('silver', name)} and what is built from it, then run again."
        )


# -- SQL from the description


def _any(conditions: Iterable[str]) -> str:
    return " OR ".join(conditions) or "false"


def _text(name: str) -> str:
    return f"nullif(nullif({quoted(name)}, ''), 'NULL')"


def _value(name: str, column: Column) -> str:
    """The typed value; NULL where there is none, and where the text doesn't fit the type."""
    if column.type == "text":
        return _text(name)
    value = f"TRY_CAST(trim({_text(name)}, ' ') AS {column.sql_type})"
    # One zero: -0 equals 0, and yet engines group by them as by two.
    return f"CASE WHEN {value} = 0 THEN CAST(0 AS DOUBLE) ELSE {value} END" if column.type == "double" else value


def _checks(name: str, column: Column, required: bool) -> Iterator[tuple[str, str]]:
    """(what holds for a good value, never NULL; SQL for the words that say what is wrong otherwise)"""

    def wrong(what: str) -> str:
        return f"concat('{name}: ''', left({quoted(name)}, 100), ''' ', {literal(what)})"

    text, value = _text(name), _value(name, column)
    if required:
        yield f"{text} IS NOT NULL", f"'{name}: missing'"
    if column.type != "text":
        fits = f"{text} IS NULL OR coalesce({_is_written(text, value, column)} AND {_in_range(value, column)}, false)"
        yield f"({fits})", wrong(f"is no {column.type}")

    def typed(item: object) -> str:
        return f"CAST({literal(str(item))} AS {column.sql_type})"

    if column.min is not None:
        yield f"({value} IS NULL OR {value} >= {typed(column.min)})", wrong(f"is below {column.min}")
    if column.max is not None:
        yield f"({value} IS NULL OR {value} <= {typed(column.max)})", wrong(f"is above {column.max}")
    if column.allowed is not None:
        allowed = ", ".join(map(typed, column.allowed))
        listed = ", ".join(map(str, column.allowed))
        yield f"({value} IS NULL OR {value} IN ({allowed}))", wrong(f"is not one of {listed}")


def _is_written(text: str, value: str, column: Column) -> str:
    """Whether the text is spelled as the description says, not in one of the ways that a cast takes as well.

    A cast rounds 1.239, cuts the time off a date, and reads 0x1F, 1_000 and 2026-01-31 (BC). With an exponent some
    engines read a number as a double, so it is taken as far as that is exact.
    """
    decimal = column.data_type.name == "decimal"
    scale = column.data_type.scale or 0
    pattern = _DECIMAL.format(scale=scale) if decimal else _SPELLINGS[column.type]
    spelled = f"regexp_full_match(trim({text}, ' '), '{pattern}')"
    if decimal or column.type == "integer":
        as_double = f"TRY_CAST(trim({text}, ' ') AS DOUBLE)"
        least_inexact = f"CAST({_EXACTLY / 10**scale!r} AS DOUBLE)"
        same = f"CAST({value} AS DOUBLE) = {as_double} AND abs({as_double}) < {least_inexact}"
        exact = f"regexp_full_match(trim({text}, ' '), '{_POWER}') AND {same}"
        spelled = f"({spelled} OR {exact})"
    # Comparing is quick, and most values are spelled as DuckDB spells them.
    return f"CASE WHEN CAST({value} AS VARCHAR) = {text} THEN true ELSE {spelled} END"


def _in_range(value: str, column: Column) -> str:
    return {
        "double": f"isfinite({value})",
        "date": f"{value} BETWEEN DATE '0001-01-01' AND DATE '9999-12-31'",
        "timestamp": f"{value} BETWEEN TIMESTAMPTZ '0001-01-01 00:00:00+00'"
        " AND TIMESTAMPTZ '9999-12-31 23:59:59.999999+00'",
    }.get(column.type, f"{value} IS NOT NULL")


def _all_checks(source: Source) -> Iterator[tuple[str, str]]:
    for name, column in source.columns.items():
        yield from _checks(name, column, source.is_required(name))


def _rules(source: Source) -> str:
    return "\n    AND ".join(rule for rule, _ in _all_checks(source))


def _problems(source: Source) -> list[str]:
    return [f"CASE WHEN NOT ({rule}) THEN {problem} END" for rule, problem in _all_checks(source)]


def _orders_by_time(source: Source) -> bool:
    return source.order_by is None or source.columns[source.order_by].is_temporal


def _version_at(source: Source) -> str:
    """The ordering column where it tells a time; else, and where it is empty, the date in the batch's name."""
    moments = [_BATCH_DATE]
    if source.order_by and _orders_by_time(source):
        moments.insert(0, _value(source.order_by, source.columns[source.order_by]))
    return f"coalesce({', '.join(f'CAST({moment} AS TIMESTAMPTZ)' for moment in moments)})"


def _newest_first(source: Source) -> str:
    return "" if _orders_by_time(source) else f"{quoted(source.order_by)} DESC NULLS LAST, "


def _not_older(source: Source, new: str, old: str) -> str:
    """Not true where the row `new` sorts before the row `old`; of equal ones the batch that comes later is newer."""
    not_older = f"({old}._version_at IS NULL OR {new}._version_at >= {old}._version_at)"
    if _orders_by_time(source):
        return not_older
    by = quoted(source.order_by)
    newer = f"{new}.{by} > {old}.{by} OR ({new}.{by} IS NOT NULL AND {old}.{by} IS NULL)"
    return f"{newer} OR (({new}.{by} IS NOT DISTINCT FROM {old}.{by}) AND {not_older})"
