"""`--rebuild`: tables that a run builds again from their inputs, whatever their build record says.

| table             | is built from                   | built from it, and rebuilt after it          |
|-------------------|---------------------------------|----------------------------------------------|
| bronze.X          | the raw files of X              | silver.X, silver.X_history                   |
| quarantine.X      | the raw files of X, bronze.X    | nothing                                      |
| silver.X(_history)| bronze.X                        | the gold tables that name it in `-- reads:`  |
| gold.T            | the tables in its `-- reads:`   | the gold tables that name it in `-- reads:`  |

Silver and gold get a commit that replaces all rows. Bronze and quarantine get one that removes all rows and records
that everything was taken back; then the run loads the raw files again, as it does after a RESTORE. So time travel still
reaches the old rows, and other jobs and maintenance see a new version of the same table. Only a damaged log is set
aside: the table then starts again.
"""

from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime

import duckdb
import pyarrow as pa
from deltalake import DeltaTable, Schema
from deltalake.exceptions import CommitFailedError, DeltaError

from lakehouse_utils.errors import (
    ConflictError,
    DamagedTableError,
    GoneError,
    LakehouseError,
    SettingError,
    UnreadableFileError,
)
from lakehouse_utils.lake import TableRef, delta_log
from lakehouse_utils.lake.delta_log import MissingCommitError
from lakehouse_utils.lake.s3_errors import translate_errors
from lakehouse_utils.pipeline import bronze, build_record, commits, gold, quarantine, silver
from lakehouse_utils.pipeline.build_record import CommitRecord
from lakehouse_utils.pipeline.context import RunContext
from lakehouse_utils.pipeline.landing import Landing, LandingFile, printable
from lakehouse_utils.pipeline.lineage import INGESTED_AT, SOURCE_FILE
from lakehouse_utils.pipeline.sources import Source

REASON = "--rebuild names it"
_SHOWN_FILES = 5


def known_labels(sources: dict[str, Source]) -> list[str]:
    """All tables that can be rebuilt, as <layer>.<table>."""
    labels = [f"{layer}.{name}" for layer in ("bronze", "quarantine") for name in sources]
    labels += [f"silver.{name}" for source in sources.values() for name in silver.tables(source)]
    return [*labels, *(f"gold.{name}" for name in gold.TABLES)]


def require_known(labels: tuple[str, ...], sources: dict[str, Source]) -> None:
    """Raise SettingError for a label that does not name a table."""
    known = known_labels(sources)
    if unknown := sorted(set(labels) - set(known)):
        raise SettingError(
            f"--rebuild: no table is called {', '.join(unknown)}. Write the layer and the name, such as {known[0]}.",
            setting="--rebuild",
        )


def start_again(run: RunContext, label: str, source: Source | None, landing: Landing | None) -> None:
    """Prepare a table for being built again. Bronze and quarantine need their `source` and the `landing`.

    Raises LakehouseError if bronze or quarantine would lose rows, because the landing folder does not have what they
    were loaded from, or because a raw file cannot be read; then nothing is changed.
    """
    for attempt in range(1, commits.MAX_ATTEMPTS + 1):
        try:
            _start_again(run, label, source, landing)
        except CommitFailedError as error:
            if attempt == commits.MAX_ATTEMPTS:
                raise ConflictError(
                    f"{label} cannot be rebuilt now: other writers committed first in all {attempt} attempts. Run again"
                    " when they have finished.",
                    table=label,
                ) from error
            commits.pause_after_conflict(attempt)
        else:
            return


def _start_again(run: RunContext, label: str, source: Source | None, landing: Landing | None) -> None:
    layer, _, name = label.partition(".")
    ref = run.lake.table(layer, name)
    table = _open_unless_damaged(ref)
    if layer in ("silver", "gold"):
        if table is None:
            set_log_aside(ref)
        return
    if source is None or landing is None:
        raise ValueError(f"{label}: the source and the landing are missing")
    files = [file for file in landing.files().files if file.table == name]
    if table is not None:
        _require_raw_files(ref, table, files)
    if layer == "quarantine":
        _expect_all_rows_again(run, ref, table, source)
        return
    if table is not None:
        _require_last_deliveries(run, ref, table, (landing, files))
    _require_readable(ref, landing, source, files)
    _expect_broken_records_again(run, source)
    if table is None:
        set_log_aside(ref)
    else:
        _empty(ref, table, bronze.schema(source), delta_log.transactions(ref, table))


def _empty(ref: TableRef, table: DeltaTable, schema: pa.Schema, app_ids: Iterable[str]) -> None:
    """Remove all rows of a table in one commit, which records that what is recorded under `app_ids` was taken back."""
    taken_back = {app_id: commits.TAKEN_BACK for app_id in app_ids if not build_record.is_own(app_id)}
    settings = table.metadata().configuration
    protected = {name: value for name, value in bronze.APPEND_ONLY.items() if name in settings}
    with translate_errors(f"rebuild {ref.label}", ref.lake):
        _set_properties(table, dict.fromkeys(protected, "false"))
        try:
            record = CommitRecord(taken_back, rebuilds=True)
            commits.replace_files(table, [], Schema.from_arrow(schema), record)
        finally:
            _set_properties(table, protected)


def _set_properties(table: DeltaTable, properties: dict[str, str]) -> None:
    if properties:
        table.update_incremental()
        table.alter.set_table_properties(properties)
        table.update_incremental()


def set_log_aside(ref: TableRef) -> None:
    """Move the log of a table to `_old_logs/<time>/` in the table's folder; its files are then no longer a table.

    The newest commits are removed first: if this is interrupted, an older version of the table is left.
    """
    lake, folder = ref.lake, f"_old_logs/{datetime.now(UTC):%Y%m%dT%H%M%S%f}"
    prefix = ref.key("_delta_log", "")
    with translate_errors(f"set the log of {ref.label} aside", lake):
        names = [entry["Key"].removeprefix(prefix) for entry in lake.objects(prefix)]
        for name in names:
            original = f"{lake.bucket}/{prefix}{name}"
            lake.s3.copy_object(Bucket=lake.bucket, Key=ref.key(folder, name), CopySource=original)
        for name in sorted(names, reverse=True):  # `_last_checkpoint` first
            lake.s3.delete_object(Bucket=lake.bucket, Key=prefix + name)


def _require_raw_files(ref: TableRef, table: DeltaTable, files: list[LandingFile]) -> None:
    missing = _loaded_paths(delta_log.transactions(ref, table)) - {file.path for file in files}
    if missing:
        with suppress(DeltaError, OSError, pa.ArrowException):  # unreadable rows do not say their file
            missing &= commits.source_files(table)
    if missing:
        what = "raw files that it was loaded from are missing from the landing folder, and their rows would be lost"
        raise _refusal(ref, what, missing, "Put these files back, and run the job again")


def _require_last_deliveries(
    run: RunContext, ref: TableRef, table: DeltaTable, raw_files: tuple[Landing, list[LandingFile]]
) -> None:
    """Raise LakehouseError if bronze has rows of other contents of the files than those in the landing folder."""
    landing, files = raw_files
    recorded = delta_log.transactions(ref, table)
    loaded, loaded_paths = bronze.LoadedFiles(landing, recorded.get), _loaded_paths(recorded)
    replaced = {file.path for file in files if file.path in loaded_paths and not loaded.has(file)}
    again = (None, commits.TAKEN_BACK)
    replaced |= {file.path for file in files if recorded.get(bronze.redelivered_app_id(file.path)) not in again}
    reading = translate_errors(f"read {ref.label}", run.lake, objects_must_exist=True)
    try:
        with reading:
            rows = run.engine.define_snapshot("bronze_rows", table)
            deliveries = f"SELECT {SOURCE_FILE} FROM {rows} GROUP BY 1 HAVING count(DISTINCT {INGESTED_AT}) > 1"
            replaced |= {path for (path,) in run.engine.query(deliveries)}
    except (duckdb.OutOfMemoryException, duckdb.InterruptException):
        raise
    except (duckdb.Error, GoneError, DamagedTableError):
        pass  # unreadable rows are lost already
    if replaced:
        what = "it has rows from earlier deliveries of these files, and a rebuild would lose them"
        advice = f"Leave out --rebuild to keep these rows. To do without them, delete {ref.uri} and run the job again"
        raise _refusal(ref, what, replaced, advice)


def _require_readable(ref: TableRef, landing: Landing, source: Source, files: list[LandingFile]) -> None:
    """Raise LakehouseError if the description does not fit the files any more: better now than without a table."""
    for file in files:
        try:
            bronze.require_readable(landing, source, file)
        except UnreadableFileError as error:
            raise LakehouseError(
                f"{ref.label} cannot be rebuilt: {printable(file.path)}: {error}. Nothing has been changed."
            ) from None


def _loaded_paths(recorded: dict[str, int]) -> set[str]:
    loaded = (app_id for app_id, version in recorded.items() if version != commits.TAKEN_BACK)
    return {app_id.removeprefix("landing:") for app_id in loaded if app_id.startswith("landing:")}


def _refusal(ref: TableRef, reason: str, paths: set[str], advice: str) -> LakehouseError:
    shown = ", ".join(map(printable, sorted(paths)[:_SHOWN_FILES])) + (", ..." if len(paths) > _SHOWN_FILES else "")
    return LakehouseError(f"{ref.label} cannot be rebuilt: {reason} ({len(paths):,}: {shown}). {advice}.")


def _expect_broken_records_again(run: RunContext, source: Source) -> None:
    """Empty quarantine of the broken records: reading the files again adds those that are still broken."""
    ref = run.lake.table("quarantine", source.name)
    if (table := _open_unless_damaged(ref)) is None:
        return
    recorded = delta_log.transactions(ref, table)
    again = [app_id for app_id in recorded if app_id.startswith(("landing:", "refused:"))]
    quarantine.remove_broken_records(ref, table, CommitRecord(dict.fromkeys(again, commits.TAKEN_BACK)))


def _expect_all_rows_again(run: RunContext, ref: TableRef, table: DeltaTable | None, source: Source) -> None:
    """Leave an empty quarantine whose log says that all rows were taken back, so that they are added again."""
    bronze_ref = run.lake.table("bronze", source.name)
    recorded = delta_log.transactions(bronze_ref, bronze_ref.open())
    app_ids = [app_id for app_id in recorded if app_id.startswith("landing:")]
    if table is None:
        set_log_aside(ref)
        table = commits.create(ref, Schema.from_arrow(quarantine.SCHEMA))
    else:
        app_ids += delta_log.transactions(ref, table)
    _empty(ref, table, quarantine.SCHEMA, [*app_ids, quarantine.app_id_of_rejected(source)])


def _open_unless_damaged(ref: TableRef) -> DeltaTable | None:
    """The table; None if it does not exist, or if its log cannot be read."""
    try:
        table = ref.open()
        build_record.read(ref, table)
    except (DeltaError, DamagedTableError, MissingCommitError, ValueError, KeyError):
        return None
    return table
