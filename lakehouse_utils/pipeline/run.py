"""One run of the pipeline: raw files to bronze, silver and gold, table by table. A rerun gives the same result."""

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import duckdb
from deltalake.exceptions import CommitFailedError

from lakehouse_utils.errors import (
    ConflictError,
    DescriptionError,
    ExpiredCredentialsError,
    GoneError,
    IncompleteAnswerError,
    LostAnswerError,
    MemoryLimitError,
    ServerBusyError,
    ServerUnreachableError,
    SettingError,
)
from lakehouse_utils.lake import Lake, TableRef
from lakehouse_utils.lake.s3_errors import translate_errors
from lakehouse_utils.pipeline import bronze, commits, gold, rebuild, silver
from lakehouse_utils.pipeline.commits import MAX_ATTEMPTS
from lakehouse_utils.pipeline.content_hints import ContentHints
from lakehouse_utils.pipeline.context import RunContext, TableCounts
from lakehouse_utils.pipeline.engines.local import LocalEngine
from lakehouse_utils.pipeline.engines.protocol import Engine
from lakehouse_utils.pipeline.landing import Landing, LandingFile, printable
from lakehouse_utils.pipeline.report import RunReport
from lakehouse_utils.pipeline.sources import Source
from lakehouse_utils.pipeline.steps import Step, Steps

__all__ = ["ENGINES", "LAYERS", "RunReport", "Selection", "open_engine", "run"]

LAYERS = ("bronze", "silver", "gold")
ENGINES = ("local", "spark")
# A step that failed because of the server or the network is repeated until an outage has lasted this long. If the
# server answers again, it is tried at least so often, because one attempt of a large table may take longer than that.
_MAX_OUTAGE_S = 45.0
_MIN_ATTEMPTS = 3
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.2, 5.0
_PASSING = (ServerBusyError, ServerUnreachableError, IncompleteAnswerError, GoneError, LostAnswerError)

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Selection:
    """Which part of the pipeline to run: `tables` are names of source and gold tables; empty means all.

    `rebuild` names tables, as <layer>.<table>, that are built again from all of their inputs (see `rebuild.py`).
    """

    layers: tuple[str, ...] = LAYERS
    tables: tuple[str, ...] = ()
    rebuild: tuple[str, ...] = ()

    def has_table(self, name: str) -> bool:
        """Whether a source or gold table is part of the run."""
        return not self.tables or name in self.tables

    def rebuild_reason(self, label: str) -> str | None:
        """Why the table `label` is to be rebuilt; None unless the selection says so."""
        return rebuild.REASON if label in self.rebuild else None


def run(
    context: RunContext,
    landing: str,
    sources: dict[str, Source],
    selection: Selection = Selection(),
    report: RunReport | None = None,
) -> RunReport:
    """Bring the tables of a lake up to date with the raw files in `landing`, a folder or an s3:// address.

    Opens and closes the context's engine. `report` is filled in, also if the run fails.

    If one table fails, the tables that depend on it are skipped and the others are brought up to date; then its error
    is raised, or FailedTablesError for several. Errors of the storage, the credentials, the machine or the engine end
    the run. Raises LakehouseError; earlier commits remain, and the next run continues from there.
    """
    report = report or RunReport(context.engine.name, context.lake.root)
    started = time.monotonic()
    rebuild.require_known(selection.rebuild, sources)
    _require_rebuilds_in_run(selection)
    gold_tables, left_out = _gold_tables(sources, selection)
    steps = Steps(context, report, _retry)
    try:
        # A wrong address must not keep a user waiting, so a server that does not answer at all is not waited for. The
        # embedded one is started again.
        at_start = _PASSING if context.lake.is_embedded else (ServerBusyError, IncompleteAnswerError)
        repeat_passing_faults(context.lake.check_access, context.lake.check_access, passing=at_start)
        with context.engine:
            raw_files = None
            if "bronze" in selection.layers:  # the other layers do not need the landing folder
                raw_files = Landing(landing, context.lake, ContentHints(context.state_path))
            _prepare_rebuilds(context, raw_files, sources, selection)
            context.logs.load(_tables_to_read(context.lake, sources, selection, gold_tables))
            plan: list[Step] = []
            if raw_files is not None:
                plan += _bronze_steps(context, report, raw_files, sources, selection)
            if "silver" in selection.layers:
                plan += _silver_steps(sources, selection)
            plan += _gold_steps(gold_tables, selection)
            steps.run(plan)
            if left_out:
                context.progress.on_note(left_out)
        context.logs.save()
        steps.raise_failures()
    finally:
        report.seconds = time.monotonic() - started
    return report


def _tables_to_read(
    lake: Lake, sources: dict[str, Source], selection: Selection, gold_tables: list[str]
) -> list[TableRef]:
    """The tables whose logs say what a run has to do."""
    names: dict[tuple[str, str], None] = {}
    for source in sources.values():
        if selection.has_table(source.name) and {"bronze", "silver"} & set(selection.layers):
            names |= dict.fromkeys([("bronze", source.name), ("quarantine", source.name)])
            if "silver" in selection.layers:
                names |= dict.fromkeys(("silver", name) for name in silver.tables(source))
    for name in gold_tables:
        names |= dict.fromkeys([("gold", name), *gold.GoldTable.load(name).reads])
    return [lake.table(*name) for name in names]


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
        raise SettingError("--spark-remote needs --engine spark: add it.", setting="--spark-remote")
    return LocalEngine(lake)


def _require_rebuilds_in_run(selection: Selection) -> None:
    """Raise SettingError if a table is to be rebuilt that is not part of the run."""
    for label in selection.rebuild:
        layer, _, name = label.partition(".")
        needed = {"bronze", "silver"} if layer == "quarantine" else {layer}
        table = name.removesuffix("_history")
        if not needed.issubset(selection.layers) or not selection.has_table(table):
            raise SettingError(
                f"--rebuild {label} needs the layer{'s' if len(needed) > 1 else ''} {' and '.join(sorted(needed))} and"
                f" the table {table} in the run. Change --layers or --tables.",
                setting="--rebuild",
            )


def _prepare_rebuilds(
    context: RunContext, landing: Landing | None, sources: dict[str, Source], selection: Selection
) -> None:
    for label in selection.rebuild:
        name = label.partition(".")[2]
        with translate_errors(f"rebuild {label}", context.lake):
            context.engine.authorize()
            rebuild.start_again(context, label, sources.get(name), landing)


def _bronze_steps(
    context: RunContext, report: RunReport, landing: Landing, sources: dict[str, Source], selection: Selection
) -> Iterator[Step]:
    files_by_table, refused = _files_by_table(landing, sources, context)
    report.refused += refused
    for sentence in refused:
        context.progress.on_refused_file(sentence)
    for source in sources.values():
        files = files_by_table.get(source.name)
        if files and selection.has_table(source.name):
            yield _bronze_step(landing, source, files)


def _bronze_step(landing: Landing, source: Source, files: list[LandingFile]) -> Step:
    """The step that loads these files into one bronze table. A further attempt adds to the counts of the last one."""
    attempts, all_refused = bronze.Attempts(), list[str]()

    def load(run: RunContext) -> TableCounts:
        counts, refused = bronze.refresh(run, landing, source, files, attempts)
        all_refused.extend(refused)
        for sentence in refused:
            run.progress.on_refused_file(sentence)
        return counts

    size_bytes = sum(file.size_bytes for file in files)
    return Step(f"bronze.{source.name}", load, size_bytes=size_bytes, refused=all_refused)


def _silver_steps(sources: dict[str, Source], selection: Selection) -> Iterator[Step]:
    for source in sources.values():
        if selection.has_table(source.name):
            earlier: set[str] = set()  # the history must come first: see `silver.tables`
            for name in silver.tables(source):
                label = f"silver.{name}"
                why = selection.rebuild_reason(label)
                work = partial(_refresh_silver, source=source, name=name, why=why, attempts=silver.Attempts())
                yield Step(label, work, frozenset({silver.input_label(source)}), frozenset(earlier))
                earlier.add(label)


def _refresh_silver(
    run: RunContext, source: Source, name: str, why: str | None, attempts: silver.Attempts
) -> TableCounts:
    return silver.refresh(run, source, name, rebuild=why, attempts=attempts)


def _gold_steps(names: list[str], selection: Selection) -> Iterator[Step]:
    for name in names:
        needed = frozenset(f"{layer}.{table}" for layer, table in gold.GoldTable.load(name).reads)
        work = partial(_refresh_gold, name=name, why=selection.rebuild_reason(f"gold.{name}"))
        yield Step(f"gold.{name}", work, needed)


def _refresh_gold(run: RunContext, name: str, why: str | None) -> TableCounts:
    return gold.refresh(run, name, rebuild=why)


def _files_by_table(
    landing: Landing, sources: dict[str, Source], context: RunContext
) -> tuple[dict[str, list[LandingFile]], list[str]]:
    """The files to load, and a sentence for each refused one. Files that are ignored are reported as notes."""
    files, notes, refused = repeat_passing_faults(landing.files, context.lake.check_access)
    if not files:
        notes.append(f"there are no files to load at {landing.address} (--landing, LAKEHOUSE_LANDING)")
    by_table: dict[str, list[LandingFile]] = {}
    for file in files:
        if file.table in sources:
            by_table.setdefault(file.table, []).append(file)
        else:
            notes.append(
                f"{printable(file.path)} is ignored: the source descriptions have no table {printable(file.table)!r}"
            )
    for sentence in notes:
        context.progress.on_note(sentence)
    return by_table, refused


def _gold_tables(sources: dict[str, Source], selection: Selection) -> tuple[list[str], str | None]:
    """The gold tables of a run, and a sentence about them if gold is left out.

    Gold is the bicycle shop's: it is left out unless all of its sources are described, because tables with a few of
    their names, such as orders, may be of another shop. Raises DescriptionError if the selection asks for it then.
    """
    if "gold" not in selection.layers:
        return [], None
    missing = ", ".join(sorted(set().union(*map(gold.needs, gold.TABLES)) - sources.keys()))
    if not missing:
        return [name for name in gold.TABLES if selection.has_table(name)], None
    reason = f"it is the star schema of the bicycle shop, and these tables are not described: {missing}"
    to_rebuild = {label.removeprefix("gold.") for label in selection.rebuild}
    if selection.layers == ("gold",) or (to_rebuild | set(selection.tables)) & set(gold.TABLES):
        raise DescriptionError(
            f"Gold cannot be built: {reason}. Leave gold out (--layers bronze,silver), or describe them (--sources)."
        )
    return [], f"gold is left out: {reason}"


def _retry(context: RunContext, label: str, step: Callable[[], TableCounts]) -> TableCounts:
    """Run a step. Run it again from the start if credentials expired or another writer committed first.

    The same is done for faults that pass, such as a reset connection (see `repeat_passing_faults`). A repeated step
    reads from the tables' logs what has been done. Of two writers that disturb each other, one has committed, so jobs
    that run at the same time do not stop each other for good.
    """

    def try_once() -> TableCounts:
        context.progress.on_advance(0)  # which raises KeyboardInterrupt if a step in a thread is to stop
        context.engine.authorize()
        try:
            return step()
        except Exception as error:  # perhaps a commit succeeded, and only its answer was lost
            context.logs.expire()
            if lost := context.engine.lost_answer(error):
                raise lost from error
            raise

    def attempts() -> TableCounts:
        attempt = 1
        while True:
            used = context.lake.credentials()
            try:
                with translate_errors(f"bring {label} up to date", context.lake, objects_must_exist=True):
                    return try_once()
            except ExpiredCredentialsError:
                was_renewed = used != context.lake.credentials()  # by a step in another thread
                if attempt == MAX_ATTEMPTS or not (was_renewed or context.lake.renew_credentials()):
                    raise
            except CommitFailedError as error:
                if attempt == MAX_ATTEMPTS:
                    raise ConflictError(
                        f"Could not commit to {label}: other writers committed first in all {MAX_ATTEMPTS} attempts"
                        f" (last error: {error}). Run the job again when they have finished.",
                        table=label,
                    ) from error
                commits.pause_after_conflict(attempt)
            except duckdb.OutOfMemoryException as error:
                raise MemoryLimitError(
                    f"Could not bring {label} up to date: DuckDB needs more memory than its limit"
                    f" ({str(error).splitlines()[0]}). Raise LAKEHOUSE_MEMORY_LIMIT, look for very long values in"
                    " the raw files, or use --engine spark.",
                    table=label,
                ) from error
            attempt += 1

    def check_access() -> None:
        context.progress.on_advance(0)  # as in `try_once`
        context.lake.check_access()

    return repeat_passing_faults(attempts, check_access)


def repeat_passing_faults(
    action: Callable[[], _Result],
    check_access: Callable[[], object],
    passing: tuple[type[Exception], ...] = _PASSING,
) -> _Result:
    """Call `action` again after a fault that may pass: of the server, of the network, of an object that was gone.

    Before each further attempt this waits, longer each time, until `check_access` succeeds. The clients have repeated
    single requests already. Raises the last error if an outage lasts too long; other errors are raised at once.
    """
    first_failure: float | None = None
    failures = attempts = 0
    while True:
        answers = False
        try:
            if failures:
                check_access()
            answers, attempts = True, attempts + 1
            return action()
        except passing as error:
            failures, now = failures + 1, time.monotonic()
            first_failure = first_failure or now
            is_over = isinstance(error, GoneError) or now - first_failure > _MAX_OUTAGE_S
            if is_over and (attempts >= _MIN_ATTEMPTS or not answers):
                raise
        longest = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2**failures)
        time.sleep(random.uniform(longest / 2, longest))  # noqa: S311 - no secret
