"""One run of the pipeline: raw files to bronze, silver and gold, table by table. A rerun gives the same result."""

import random
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

from deltalake.exceptions import CommitFailedError

from lakehouse_utils.errors import (
    ConflictError,
    DescriptionError,
    ExpiredCredentialsError,
    SettingError,
)
from lakehouse_utils.lake import Lake
from lakehouse_utils.lake.s3_errors import translate_errors
from lakehouse_utils.pipeline import bronze, gold, silver
from lakehouse_utils.pipeline.context import Progress, RunContext, TableCounts
from lakehouse_utils.pipeline.engines.local import LocalEngine
from lakehouse_utils.pipeline.engines.protocol import Engine
from lakehouse_utils.pipeline.landing import Landing, LandingFile
from lakehouse_utils.pipeline.sources import Source

LAYERS = ("bronze", "silver", "gold")
ENGINES = ("local", "spark")
_MAX_ATTEMPTS = 20  # of a step that failed because of another writer's commit or of expired credentials
_MAX_PAUSE_S = 0.1  # before the second attempt; each further pause may be longer by as much


@dataclass
class RunReport:
    """What a run did. `rows` has the counts by `<layer>.<table>`, in the order in which the tables were refreshed.

    `refused` has one sentence per file that could not be read at all.
    """

    engine: str
    lake: str
    seconds: float = 0.0
    rows: dict[str, TableCounts] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """The report as plain values, with the fields as keys."""
        plain = asdict(self) | {"seconds": round(self.seconds, 3), "missing_columns": self.missing_columns}
        for counts in plain["rows"].values():
            del counts["missing_columns"]  # listed for all tables together
        return plain

    @property
    def missing_columns(self) -> list[str]:
        """A sentence for each file loaded by the run that lacks a described column."""
        return [sentence for counts in self.rows.values() for sentence in counts.missing_columns]

    @property
    def quarantined(self) -> int:
        """The number of rows and files that went to quarantine."""
        return sum(counts.quarantined for counts in self.rows.values()) + len(self.refused)

    @property
    def changed_anything(self) -> bool:
        """Whether any table has other rows than before the run."""
        return any(c.added or c.changed or c.quarantined for c in self.rows.values())


@dataclass(frozen=True)
class Selection:
    """Which part of the pipeline to run: `tables` are names of source and gold tables; empty means all."""

    layers: tuple[str, ...] = LAYERS
    tables: tuple[str, ...] = ()

    def has_table(self, name: str) -> bool:
        """Whether a source or gold table is part of the run."""
        return not self.tables or name in self.tables


def run(context: RunContext, landing: str, sources: dict[str, Source], selection: Selection = Selection()) -> RunReport:
    """Bring the tables of a lake up to date with the raw files in `landing`, a folder or an s3:// address.

    Opens and closes the context's engine. Raises LakehouseError; earlier commits remain, and the next run continues
    from there.
    """
    started = time.monotonic()
    report = RunReport(context.engine.name, context.lake.root)
    context.lake.check_access()
    with context.engine:
        if "bronze" in selection.layers:
            _run_bronze(context, report, Landing(landing, context.lake), sources, selection)
        if "silver" in selection.layers:
            for source in sources.values():
                if selection.has_table(source.name):
                    for name in silver.tables(source):
                        _run_step(context, report, f"silver.{name}", partial(silver.refresh, context, source, name))
        if "gold" in selection.layers:
            for name in _gold_tables_of(sources, selection, context.progress):
                if selection.has_table(name):
                    _run_step(context, report, f"gold.{name}", partial(gold.refresh, context, name))
    report.seconds = time.monotonic() - started
    return report


def open_engine(name: str, lake: Lake, spark_remote: str | None = None) -> Engine:
    """The engine of this name, for one run. `spark_remote` is the address of a running server, `sc://host:port`.

    Raises SettingError if there is no such engine, and LakehouseError if its packages are not installed.
    """
    if name == "spark":
        from lakehouse_utils.pipeline.engines.spark import SparkEngine  # its packages are optional

        return SparkEngine(lake, spark_remote)
    if name not in ENGINES:
        raise SettingError(f"--engine: {name!r} is not one of {', '.join(ENGINES)}.", setting="--engine")
    if spark_remote:
        raise SettingError("--spark-remote requires --engine spark: add it.", setting="--spark-remote")
    return LocalEngine(lake)


def _run_bronze(
    context: RunContext, report: RunReport, landing: Landing, sources: dict[str, Source], selection: Selection
) -> None:
    files_by_table = _files_by_table(landing, sources, context.progress)
    for source in sources.values():
        files = files_by_table.get(source.name)
        if files and selection.has_table(source.name):
            step = _bronze_step(context, report, landing, source, files)
            _run_step(context, report, f"bronze.{source.name}", step, sum(file.size_bytes for file in files))


def _bronze_step(
    context: RunContext, report: RunReport, landing: Landing, source: Source, files: list[LandingFile]
) -> Callable[[], TableCounts]:
    """The step that loads these files into one bronze table. A further attempt adds to the counts of the last one."""
    counts = TableCounts()

    def step() -> TableCounts:
        _, refused = bronze.refresh(context, landing, source, files, counts)
        report.refused += refused
        for sentence in refused:
            context.progress.on_refused_file(sentence)
        return counts

    return step


def _files_by_table(landing: Landing, sources: dict[str, Source], progress: Progress) -> dict[str, list[LandingFile]]:
    """The files to load. Files that are ignored are reported as notes."""
    files, notes = landing.files()
    if not files:
        notes.append(f"there are no files to load at {landing.address} (--landing, LAKEHOUSE_LANDING)")
    by_table: dict[str, list[LandingFile]] = {}
    for file in files:
        if file.table in sources:
            by_table.setdefault(file.table, []).append(file)
        else:
            notes.append(f"{file.path} is ignored: the source descriptions have no table {file.table!r}")
    for sentence in notes:
        progress.on_note(sentence)
    return by_table


def _gold_tables_of(sources: dict[str, Source], selection: Selection, progress: Progress) -> list[str]:
    """The gold tables whose sources are all described; gold is the bicycle shop's, so other sources have none.

    Raises DescriptionError if only gold was asked for, or one of the tables without sources.
    """
    missing_sources = {name: gold.needs(name) - sources.keys() for name in gold.TABLES}
    incomplete = {name for name, missing in missing_sources.items() if missing}
    if incomplete:
        missing = ", ".join(sorted(set().union(*missing_sources.values())))
        if selection.layers == ("gold",) or set(selection.tables) & incomplete:
            raise DescriptionError(
                "Gold is the star schema of the bicycle shop, and the source descriptions have no tables"
                f" {missing}. Leave gold out (--layers bronze,silver), or describe these tables (--sources)."
            )
        progress.on_note(
            f"gold is left out: it is the star schema of the bicycle shop, and the source descriptions have no tables"
            f" {missing}"
        )
    return [name for name in gold.TABLES if name not in incomplete]


def _run_step(
    context: RunContext, report: RunReport, label: str, step: Callable[[], TableCounts], size_bytes: int | None = None
) -> None:
    """Bring one table up to date and report it."""
    layer, _, table = label.partition(".")
    context.progress.on_table_start(layer, table, size_bytes)
    counts = report.rows[label] = _retry(context, label, step)
    context.progress.on_table_end(layer, table, counts)


def _retry(context: RunContext, label: str, step: Callable[[], TableCounts]) -> TableCounts:
    """Run a step. Run it again from the start if credentials expired or another writer committed first.

    A repeated step reads from the tables' logs what has been done. A commit fails only if another writer's commit
    succeeded, so two jobs that run at the same time both make progress.
    """
    attempt = 1
    while True:
        try:
            with translate_errors(f"bring {label} up to date", context.lake):
                context.engine.authorize()
                return step()
        except ExpiredCredentialsError:
            if attempt == _MAX_ATTEMPTS or not context.lake.renew_credentials():
                raise
        except CommitFailedError as error:
            if attempt == _MAX_ATTEMPTS:
                raise ConflictError(
                    f"Could not commit to {label}: other writers committed first in all {_MAX_ATTEMPTS} attempts. Run"
                    f" again when they have finished ({error}).",
                    table=label,
                ) from error
            time.sleep(random.uniform(0, _MAX_PAUSE_S * attempt))  # noqa: S311 - no secret, two jobs only have to differ
        attempt += 1
