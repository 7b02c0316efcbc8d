"""Bronze to silver: typed values, one row a key through MERGE, history where the description asks for it.

Each table's commit records the version of bronze that it covers. A run reads the files that bronze has gained since,
so a daily batch costs what the day brought and the files that it touches, not what the tables hold.
"""

from collections.abc import Iterable, Iterator
from functools import partial

import polars as pl
import pyarrow as pa
from deltalake import DeltaTable
from duckdb import DuckDBPyConnection

from lakehouse_utils.errors import LakehouseError, explained
from lakehouse_utils.lake import Lake
from lakehouse_utils.pipeline import delta
from lakehouse_utils.pipeline.bronze import quarantine
from lakehouse_utils.pipeline.delta import Counts
from lakehouse_utils.pipeline.sources import Column, Source
from lakehouse_utils.pipeline.sql import quoted, statement

_LINEAGE = ["_version_at", "_batch", "_source_file", "_source_line", "_bronze_version"]
_BATCH_DATE = r"""TRY_CAST(nullif(regexp_extract(_batch, '\d{4}-\d{2}-\d{2}'), '') AS DATE)"""


def refresh(lake: Lake, db: DuckDBPyConnection, source: Source, name: str) -> Counts:
    """Bring `silver/<name>`, one of `tables(source)`, up to what bronze holds; counts are 0 if it was there already.

    Where there is no bronze, an empty table is made, so that gold finds it. The current state comes before the history.
    """
    bronze, table = lake.delta("bronze", source.name), lake.delta("silver", name)
    done, version = delta.progress(table, app_id(source)), bronze.version() if bronze else 0
    if done is not None and done > version:
        raise LakehouseError(
            f"silver.{name} was built from another bronze.{source.name}, one at version {done} and not {version}:"
            f" delete {lake.uri('silver', name)} and what is built from it, then run again."
        )
    files = delta.files_added_since(lake, bronze, "bronze", source.name, done) if bronze and done != version else []
    if table is not None and not files:
        return Counts(version=table.version())
    step = _Step(lake, db, source, bronze, files)
    return step.refresh_current(table) if name == source.name else step.refresh_history(table)


def tables(source: Source) -> list[str]:
    """The silver tables of a source."""
    return [source.name, *([f"{source.name}_history"] if source.history else [])]


def app_id(source: Source) -> str:
    """The name under which a silver table's log records the version of bronze that it covers."""
    return f"bronze.{source.name}"


class _Step:
    """One source's new rows on their way into one silver table, as DuckDB views `incoming` and `incoming_accepted`."""

    def __init__(
        self, lake: Lake, db: DuckDBPyConnection, source: Source, bronze: DeltaTable | None, files: list[str]
    ) -> None:
        self.lake, self.db, self.source, self.bronze = lake, db, source, bronze
        self.version = bronze.version() if bronze else 0
        self.commit = delta.transaction(app_id(source), self.version)
        self.key = ", ".join(map(quoted, source.key))
        self.columns = ", ".join(map(quoted, source.columns))
        self.late_batch = bronze is not None and _is_late(bronze, files)
        self._define("incoming", files)

    def _define(self, name: str, files: list[str]) -> None:
        """Views `<name>`, these files of bronze with all described columns, and `<name>_accepted`, its good rows."""
        columns = ", ".join(f"NULL::VARCHAR AS {quoted(column)}" for column in self.source.columns)
        origin = "NULL::VARCHAR AS _batch, NULL::VARCHAR AS _source_file, NULL::BIGINT AS _source_line"
        nothing = f"SELECT {columns}, {origin}, NULL::TIMESTAMPTZ AS _ingested_at WHERE false"
        of_files = f"SELECT * FROM read_parquet({files!r}, union_by_name = true) UNION ALL BY NAME " if files else ""
        self.db.execute(f"CREATE OR REPLACE TEMP VIEW {name} AS {of_files}{nothing}")
        accepted = statement(
            "silver",
            "accepted",
            rows=name,
            values=",\n    ".join(f"{_value(n, c)} AS {quoted(n)}" for n, c in self.source.columns.items()),
            version_at=_version_at(self.source),
            rules=_rules(self.source),
        )
        self.db.execute(f"CREATE OR REPLACE TEMP VIEW {name}_accepted AS {accepted}")

    def _count(self, rows: str) -> int:
        return self.db.sql(f"SELECT count(*) FROM {rows}").fetchone()[0]

    def _create(self, name: str, rows: str, order: str) -> Counts:
        reader = self.db.sql(f"SELECT * FROM ({rows}) ORDER BY {order}").to_arrow_reader(1 << 16)
        table = delta.write_sorted(self.lake, "silver", name, reader, self.commit)
        return Counts(added=table.count(), version=table.version())

    # current state

    def refresh_current(self, table: DeltaTable | None) -> Counts:
        read, accepted, rejected = self._count("incoming"), self._count("incoming_accepted"), self._quarantine(table)
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
        counts = self._create(self.source.name, fresh, self.key) if table is None else self._merge(table, fresh)
        counts.read, counts.quarantined = read, rejected
        return counts

    def _merge(self, table: DeltaTable, fresh: str) -> Counts:
        self.db.execute(f"CREATE OR REPLACE TEMP TABLE merging AS {fresh}")
        values = [*self.source.columns, *(["_version_at"] if self.source.order_by else [])]
        differs = _any(f"(target.{quoted(name)} IS DISTINCT FROM source.{quoted(name)})" for name in values)
        row = {quoted(name): f"source.{quoted(name)}" for name in [*self.source.columns, *_LINEAGE]}
        with explained(f"merge into silver.{self.source.name}", self.lake):
            metrics = (
                delta.merge(self.db, table, self.source.key, self.commit)
                .when_matched_update(row, f"{_not_older(self.source)} AND ({differs})")
                .when_not_matched_insert(row)
                .execute()
            )
        added, changed = metrics["num_target_rows_inserted"], metrics["num_target_rows_updated"]
        return Counts(added=added, changed=changed, version=table.version())

    def _all_versions(self) -> str:
        self._define("everything", self.bronze.file_uris())
        return f"(SELECT * FROM everything_accepted SEMI JOIN incoming_accepted USING ({self.key}))"

    def _quarantine(self, table: DeltaTable | None) -> int:
        """Put the bad rows of `incoming` into quarantine and count them.

        Quarantine commits first and keeps its own record: after a crash between the two commits, rows that are there
        already aren't put there again.
        """
        rejected = self._rejected("incoming")
        count = self._count(f"({rejected})")
        if count:
            name = f"silver.{self.source.name}"
            held = delta.progress(self.lake.delta("quarantine", self.source.name), name)
            done = delta.progress(table, app_id(self.source))
            if held is not None and (done is None or held > done):
                files = delta.files_added_since(self.lake, self.bronze, "bronze", self.source.name, held)
                self._define("unheld", files)
                rejected = self._rejected("unheld")
            reader = self.db.sql(rejected).to_arrow_reader(1 << 16)
            parts = (pl.from_arrow(batch) for batch in reader if batch.num_rows)
            put = partial(delta.put_parquet, self.lake, "quarantine", self.source.name, stats={})
            quarantine(self.lake, self.source, name, self.version, lambda: [put(rows=part) for part in parts])
        return count

    def _rejected(self, rows: str) -> str:
        return statement(
            "silver",
            "rejected",
            rows=rows,
            problems=", ".join(_problems(self.source)),
            raw=", ".join(f"{quoted(name)} := {quoted(name)}" for name in self.source.columns),
            rules=_rules(self.source),
        )

    # history

    def refresh_history(self, table: DeltaTable | None) -> Counts:
        previous = "lag({name}) OVER (PARTITION BY {key} ORDER BY valid_from) IS DISTINCT FROM {name}"
        watched = [name for name in self.source.columns if name not in (*self.source.key, self.source.order_by)]
        fresh = statement(
            "silver",
            "history",
            versions="incoming_accepted" if table is None else f"({self._versions(table)})",
            columns=self.columns,
            key=self.key,
            differs_from_previous=_any(previous.format(name=quoted(name), key=self.key) for name in watched),
            bronze_version=self.version,
        )
        if table is None:
            counts = self._create(f"{self.source.name}_history", fresh, f"{self.key}, valid_from")
        else:
            self.db.execute(f"CREATE OR REPLACE TEMP TABLE fresh AS {fresh}")
            known = f"(SELECT * FROM known_history SEMI JOIN incoming_accepted USING ({self.key}))"
            key = [*self.source.key, "valid_from"]
            with explained(f"merge into silver.{self.source.name}_history", self.lake):
                counts = delta.merge_difference(self.db, table, "fresh", known, key, self.commit, {"_bronze_version"})
        counts.read = self._count("incoming_accepted")
        return counts

    def _versions(self, table: DeltaTable) -> str:
        delta.attach(self.db, "known_history", table)
        delta.attach(self.db, "known_current", self.lake.delta("silver", self.source.name))
        if self.late_batch:
            late = f"SELECT DISTINCT {self.key} FROM incoming_accepted"
        else:
            late = statement("silver", "late_keys", key=self.key)
        self.db.execute(f"CREATE OR REPLACE TEMP TABLE late_keys AS {late}")
        self._define("everything", self.bronze.file_uris() if self._count("late_keys") else [])
        return statement("silver", "versions", columns=self.columns, key=self.key)


def _is_late(bronze: DeltaTable, files: list[str]) -> bool:
    """Whether rows come from a batch that sorts before one that is already in silver."""
    actions = pa.table(bronze.get_add_actions(flatten=True)).to_pylist()
    new = {uri.rsplit("/", 1)[-1] for uri in files}
    incoming = [a.get("min._batch") for a in actions if a["path"].rsplit("/", 1)[-1] in new]
    known = [a.get("max._batch") for a in actions if a["path"].rsplit("/", 1)[-1] not in new]
    return min(filter(None, incoming), default="") < max(filter(None, known), default="")


# -- SQL from the description


def _any(conditions: Iterable[str]) -> str:
    return " OR ".join(conditions) or "false"


def _text(name: str) -> str:
    return f"nullif(nullif({quoted(name)}, ''), 'NULL')"


def _value(name: str, column: Column) -> str:
    """The typed value; NULL where there is none, and where the text doesn't fit the type."""
    return _text(name) if column.type == "text" else f"TRY_CAST(trim({_text(name)}) AS {column.sql_type})"


def _string(text: object) -> str:
    return "'" + str(text).replace("'", "''") + "'"


def _checks(name: str, column: Column, required: bool) -> Iterator[tuple[str, str]]:
    """(what holds for a good value, never NULL; SQL for the words that say what is wrong otherwise)"""

    def wrong(what: str) -> str:
        return f"concat('{name}: ''', left({quoted(name)}, 100), {_string(chr(39) + ' ' + what)})"

    text, value = _text(name), _value(name, column)
    if required:
        yield f"{text} IS NOT NULL", f"'{name}: missing'"
    fits = {
        "text": None,
        "boolean": "true",
        "double": f"{value} BETWEEN -1.7976931348623157e308 AND 1.7976931348623157e308",
        "date": f"{value} BETWEEN DATE '0001-01-01' AND DATE '9999-12-31'"
        f" AND CAST({value} AS TIMESTAMP) = TRY_CAST(trim({text}) AS TIMESTAMP)",
        "timestamp": f"{value} BETWEEN TIMESTAMPTZ '0001-01-01 00:00:00+00' AND TIMESTAMPTZ '9999-12-31 00:00:00+00'",
    }.get(column.type, f"{value} = TRY_CAST(trim({text}) AS DOUBLE)")  # a cast to a shorter number rounds
    if fits:
        yield f"({text} IS NULL OR ({value} IS NOT NULL AND {fits}))", wrong(f"is no {column.type}")

    def literal(item: object) -> str:
        return f"CAST({_string(item)} AS {column.sql_type})"

    if column.min is not None:
        yield f"({value} IS NULL OR {value} >= {literal(column.min)})", wrong(f"is below {column.min}")
    if column.max is not None:
        yield f"({value} IS NULL OR {value} <= {literal(column.max)})", wrong(f"is above {column.max}")
    if column.allowed is not None:
        allowed = ", ".join(map(literal, column.allowed))
        listed = ", ".join(map(str, column.allowed))
        yield f"({value} IS NULL OR {value} IN ({allowed}))", wrong(f"is not one of {listed}")


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


def _not_older(source: Source) -> str:
    order = "_version_at" if _orders_by_time(source) else quoted(source.order_by)
    return f"(target.{order} IS NULL OR source.{order} >= target.{order})"
