"""`--check`: finds what is wrong with the tables of a lake, without changing anything.

| check      | what must be true                                                                             |
|------------|-----------------------------------------------------------------------------------------------|
| log        | the table can be opened                                                                       |
| files      | every live data file exists, with the size and the number of rows that the log says           |
| keys       | silver and gold have each key once; a history has one current version per key, and no overlap |
| references | every surrogate key in gold is that of a row of the dimension                                 |
| progress   | the table's build record is correct, so the next run reads only what is new                   |

Tables that do not exist yet are left out. If a run is going on at the same time, `references` and `progress` may report
problems that disappear when the run ends, because gold follows silver table by table.
"""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import duckdb
from deltalake import DeltaTable

from lakehouse_utils.errors import DamagedTableError, GoneError, LakehouseError, StorageError
from lakehouse_utils.lake import TableRef, delta_log
from lakehouse_utils.lake.delta_log import MissingCommitError
from lakehouse_utils.lake.s3_errors import translate_errors
from lakehouse_utils.pipeline import build_record, double_rewrites, gold, run_history, silver
from lakehouse_utils.pipeline.context import RunContext
from lakehouse_utils.pipeline.engines.protocol import Relation, count_rows
from lakehouse_utils.pipeline.keys import key_columns
from lakehouse_utils.pipeline.report import Problem, counted
from lakehouse_utils.pipeline.sources import Source
from lakehouse_utils.pipeline.sql import quoted

_SHOWN = 3  # examples in a problem


@dataclass
class Checked:
    """A table that was checked: its rows and live files, and what is wrong with it."""

    label: str
    rows: int
    files: int
    problems: list[Problem]


def check(context: RunContext, sources: dict[str, Source]) -> Iterator[Checked]:
    """Check every described table and every gold table that exists, one after the other.

    Opens and closes the context's engine. Raises StorageError if the lake cannot be reached.
    """
    context.lake.check_access()
    keys = key_columns(sources)
    with context.engine:
        for ref in context.lake.tables():
            layer, name = ref.names
            is_of_a_source = layer in ("bronze", "quarantine") and name in sources
            if ref.label in keys or is_of_a_source or ref.names == run_history.NAMES:
                yield _TableCheck(context, sources, ref, keys.get(ref.label, [])).run()


class _TableCheck:
    def __init__(self, context: RunContext, sources: dict[str, Source], ref: TableRef, key: list[str]) -> None:
        self._context = context
        self._sources = sources
        self._ref = ref
        self._key = key
        self._checked = Checked(ref.label, 0, 0, [])

    def run(self) -> Checked:
        """Check the table. An error that concerns only this table becomes one of its problems."""
        try:
            with translate_errors(f"check {self._ref.label}", self._context.lake, objects_must_exist=True):
                table = self._ref.open()
                if table is not None:
                    self._check(table)
        except (LakehouseError, duckdb.Error) as error:
            if isinstance(error, StorageError) and not isinstance(error, GoneError):
                raise
            self._add("files" if isinstance(error, duckdb.Error) else "log", str(error).splitlines()[0])
        return self._checked

    def _check(self, table: DeltaTable) -> None:
        adds = delta_log.live_add_actions(table)
        if not self._check_files(adds):
            return  # the other checks read them
        with suppress(MissingCommitError):
            for found in double_rewrites.examine(self._ref, -1, table.version()):
                self._add("files", f"rows are duplicated, or replaced rows are back: {found}. {self._rebuild_advice}")
        rows = self._context.engine.define_snapshot("checked_rows", table)
        self._checked.rows = count_rows(self._context.engine, rows)
        self._check_number_of_rows(adds)
        if self._key:
            self._check_keys(rows)
        if self._ref.names[1].endswith("_history") and self._ref.names[0] == "silver":
            self._check_versions(rows)
        if self._ref.names[0] == "gold":
            self._check_references(rows, table)
        if self._ref.names[0] in ("silver", "gold"):
            self._check_progress(table)

    def _add(self, check: str, sentence: str) -> None:
        self._checked.problems.append(Problem(self._ref.label, check, sentence))

    def _query(self, sql: str) -> list[tuple[Any, ...]]:
        return self._context.engine.query(sql)

    # -- files

    def _check_files(self, adds: list[dict[str, Any]]) -> bool:
        """Whether all live files exist, with the size that the log says."""
        prefix = self._ref.key("")
        existing = {entry["Key"].removeprefix(prefix): entry["Size"] for entry in self._context.lake.objects(prefix)}
        self._checked.files = len(adds)
        missing = [add["path"] for add in adds if add["path"] not in existing]
        other_size = [add["path"] for add in adds if existing.get(add["path"], add["size_bytes"]) != add["size_bytes"]]
        if missing:
            self._add(
                "files", f"{_files_are(missing)} missing from storage ({_shown(missing)}). {self._rebuild_advice}"
            )
        if other_size:
            sentence = f"{_files_are(other_size)} larger or smaller than the log says ({_shown(other_size)})"
            self._add("files", f"{sentence}. {self._rebuild_advice}")
        return not missing and not other_size

    @property
    def _rebuild_advice(self) -> str:
        if self._ref.names == run_history.NAMES:
            return f"Delete {self._ref.uri}: the next run creates it again."
        return f"`ingestion_processor.py --rebuild {self._ref.label}` builds the table again."

    def _check_number_of_rows(self, adds: list[dict[str, Any]]) -> None:
        counts = [add["num_records"] for add in adds]
        if None not in counts and sum(counts) != self._checked.rows:
            sentence = f"the files have {self._checked.rows:,} rows, but the log says {sum(counts):,}."
            self._add("files", f"{sentence} {self._rebuild_advice}")

    # -- rows

    def _check_keys(self, rows: Relation) -> None:
        key = ", ".join(map(quoted, self._key))
        repeated = self._query(f"SELECT {key}, count(*) FROM {rows} GROUP BY {key} HAVING count(*) > 1 ORDER BY {key}")
        if repeated:
            examples = "; ".join(self._key_text(row[:-1]) for row in repeated[:_SHOWN])
            surplus = sum(row[-1] - 1 for row in repeated)
            sentence = f"{counted(surplus, 'surplus row')} for {counted(len(repeated), 'key')} ({examples})."
            self._add("keys", f"{sentence} {self._rebuild_advice}")

    def _key_text(self, values: tuple[Any, ...]) -> str:
        return ", ".join(f"{name} {value}" for name, value in zip(self._key, values, strict=True))

    def _check_versions(self, rows: Relation) -> None:
        key = ", ".join(map(quoted, self._key[:-1]))
        wrong = self._query(f"""
            SELECT DISTINCT {key}
            FROM (
                SELECT
                    *,
                    lead(valid_from) OVER (PARTITION BY {key} ORDER BY valid_from) AS next_from,
                    count(*) FILTER (WHERE is_current) OVER (PARTITION BY {key}) AS current_versions
                FROM {rows}
            )
            WHERE valid_to IS DISTINCT FROM next_from OR current_versions <> 1
            ORDER BY {key}
        """)
        if wrong:
            examples = "; ".join(", ".join(map(str, row)) for row in wrong[:_SHOWN])
            self._add(
                "keys",
                f"the versions of {counted(len(wrong), 'key')} overlap, have gaps, or do not include exactly one"
                f" current version ({examples}). {self._rebuild_advice}",
            )

    def _check_references(self, rows: Relation, table: DeltaTable) -> None:
        columns = {field.name for field in table.schema().fields}
        for dimension in gold.TABLES:
            surrogate_key = gold.GoldTable.load(dimension).key[-1]
            if not dimension.startswith("dim_") or surrogate_key not in columns or dimension == self._ref.names[1]:
                continue
            try:
                known = self._context.lake.delta("gold", dimension)
            except DamagedTableError:
                continue  # a problem of that table
            if known is None:
                self._add(
                    "references",
                    f"gold.{dimension}, which {surrogate_key} refers to, does not exist. Run the job to build it.",
                )
                continue
            members = self._context.engine.define_snapshot("members", known)
            column = quoted(surrogate_key)
            unknown = self._query(
                f"SELECT {column}, count(*) FROM {rows} ANTI JOIN {members} USING ({column}) GROUP BY 1"
            )
            if unknown:
                count = sum(row[1] for row in unknown)
                self._add(
                    "references",
                    f"{count:,} rows have a {surrogate_key} that gold.{dimension} does not have ({unknown[0][0]}, for"
                    f" example). {self._rebuild_advice}",
                )

    # -- progress

    def _check_progress(self, table: DeltaTable) -> None:
        layer, name = self._ref.names
        record = build_record.read(self._ref, table)
        if layer == "silver":
            source = next(source for source in self._sources.values() if name in silver.tables(source))
            inputs, definition = [("bronze", source.name)], silver.definition_digest(source, name)
        else:
            inputs, definition = gold.GoldTable.load(name).reads, gold.GoldTable.load(name).fingerprint
        changes = []
        for names in inputs:
            ref = self._context.lake.table(*names)
            if (opened := ref.open()) is not None:
                read, covered = build_record.read(ref, opened), record.covered(ref.label)
                changes.append(build_record.changes_since(ref, read, covered, accept_appends=layer == "silver"))
        if why := build_record.why_rebuild(record, changes, definition, "its description or the SQL"):
            self._add("progress", f"the next run rebuilds the table, because {why}.")


def _files_are(paths: list[str]) -> str:
    return f"{counted(len(paths), 'data file')} {'are' if len(paths) > 1 else 'is'}"


def _shown(items: list[str]) -> str:
    return ", ".join(items[:_SHOWN]) + (", ..." if len(items) > _SHOWN else "")
