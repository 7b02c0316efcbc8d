"""`--rebuild`: tables that a run builds again from their inputs, whatever their build record says.

| table             | is built from                   | built from it, and rebuilt after it          |
|-------------------|---------------------------------|----------------------------------------------|
| bronze.X          | the raw files of X              | silver.X, silver.X_history                   |
| quarantine.X      | the raw files of X, bronze.X    | nothing                                      |
| silver.X(_history)| bronze.X                        | the gold tables that name it in `-- reads:`  |
| gold.T            | the tables in its `-- reads:`   | the gold tables that name it in `-- reads:`  |

Silver and gold get a commit that replaces all rows, so time travel still reaches the old ones. Bronze and quarantine
only grow, so their logs are set aside and the tables start again. That also helps if a log is damaged.
"""

from contextlib import suppress
from datetime import UTC, datetime

import duckdb
from deltalake import Schema
from deltalake.exceptions import DeltaError

from lakehouse_utils.errors import DamagedTableError, LakehouseError, SettingError
from lakehouse_utils.lake import TableRef, delta_log
from lakehouse_utils.lake.delta_log import MissingCommitError
from lakehouse_utils.lake.s3_errors import translate_errors
from lakehouse_utils.pipeline import build_record, commits, gold, quarantine, silver
from lakehouse_utils.pipeline.build_record import CommitRecord
from lakehouse_utils.pipeline.context import RunContext
from lakehouse_utils.pipeline.landing import LandingFile
from lakehouse_utils.pipeline.lineage import SOURCE_FILE
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


def start_again(run: RunContext, label: str, source: Source | None, files: list[LandingFile]) -> None:
    """Prepare a table for being built again. `files` are the raw files of the table's source.

    Raises LakehouseError if raw files are missing that bronze was loaded from: their rows would be lost.
    """
    layer, _, name = label.partition(".")
    ref = run.lake.table(layer, name)
    if layer == "bronze":
        _require_raw_files(run, ref, files)
        set_log_aside(ref)
    elif layer == "quarantine" and source is not None:
        set_log_aside(ref)
        _expect_all_rows_again(run, ref, source)
    elif _is_damaged(ref):
        set_log_aside(ref)


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


def _require_raw_files(run: RunContext, ref: TableRef, files: list[LandingFile]) -> None:
    if (table := None if _is_damaged(ref) else ref.open()) is None:
        return
    recorded = delta_log.transactions(ref, table)
    loaded = {app_id.removeprefix("landing:") for app_id in recorded if app_id.startswith("landing:")}
    missing = loaded - {file.path for file in files}
    if missing:
        with suppress(duckdb.Error, LakehouseError):  # rows that cannot be read do not say where they come from
            rows = run.engine.define_snapshot("bronze_rows", table)
            missing &= {path for (path,) in run.engine.query(f"SELECT DISTINCT {SOURCE_FILE} FROM {rows}")}
    if missing:
        shown = ", ".join(sorted(missing)[:_SHOWN_FILES]) + (", ..." if len(missing) > _SHOWN_FILES else "")
        raise LakehouseError(
            f"{ref.label} cannot be rebuilt: raw files are no longer in the landing folder ({len(missing):,}: {shown}),"
            " and their rows would be lost. Put these files back, and run again."
        )


def _expect_all_rows_again(run: RunContext, ref: TableRef, source: Source) -> None:
    """Create an empty quarantine whose log says that all rows were taken back, so that they are added again."""
    bronze = run.lake.table("bronze", source.name)
    loaded = [app_id for app_id in delta_log.transactions(bronze, bronze.open()) if app_id.startswith("landing:")]
    table = commits.create(ref, Schema.from_arrow(quarantine.SCHEMA))
    taken_back = dict.fromkeys([*loaded, quarantine.app_id_of_rejected(source)], commits.TAKEN_BACK)
    commits.record(table, CommitRecord(taken_back))


def _is_damaged(ref: TableRef) -> bool:
    """Whether the log of a table cannot be read."""
    try:
        build_record.read(ref, ref.open())
    except (DeltaError, DamagedTableError, MissingCommitError, ValueError, KeyError):
        return True
    return False
