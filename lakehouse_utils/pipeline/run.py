"""The whole way from raw files to the star schema, table by table, again and again with the same result."""

import random
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

from deltalake.exceptions import CommitFailedError

from lakehouse_utils.errors import ExpiredCredentialsError, LakehouseError
from lakehouse_utils.lake import Lake
from lakehouse_utils.lake.s3_errors import translate_errors
from lakehouse_utils.pipeline import bronze, gold, silver
from lakehouse_utils.pipeline.context import Progress, RunContext, TableCounts
from lakehouse_utils.pipeline.engines.local import Local
from lakehouse_utils.pipeline.engines.protocol import Engine
from lakehouse_utils.pipeline.landing import Landing, LandingFile
from lakehouse_utils.pipeline.sources import Source

LAYERS = ("bronze", "silver", "gold")
ENGINES = ("local", "spark")
_TRIES = 20  # of a step that another writer's commit got in the way of, or whose credentials ran out


@dataclass
class RunReport:
    """What a run did. `rows` has the counts by `<layer>.<table>`, in the order of work."""

    engine: str
    lake: str
    seconds: float = 0.0
    rows: dict[str, TableCounts] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """The report as plain values: engine, lake, seconds, rows and refused, a sentence for each unreadable file."""
        return asdict(self) | {"seconds": round(self.seconds, 3)}

    @property
    def quarantined(self) -> int:
        return sum(counts.quarantined for counts in self.rows.values()) + len(self.refused)

    @property
    def changed_anything(self) -> bool:
        return any(c.added or c.changed or c.quarantined for c in self.rows.values())


def run(
    lake: Lake,
    landing: str,
    sources: dict[str, Source],
    progress: Progress,
    layers: tuple[str, ...] = LAYERS,
    tables: tuple[str, ...] = (),
    engine: Engine | None = None,
) -> RunReport:
    """Bring the tables of `lake` up to what has arrived at `landing`, a folder or s3:// address.

    `tables` are names of source or gold tables, all when empty; `engine` is DuckDB's when none is given. Raises
    LakehouseError; what was committed before stays, and the next run goes on from there.
    """
    started = time.monotonic()
    engine = engine or Local(lake)
    report = RunReport(engine.name, lake.root)
    lake.check_access()
    chosen = [source for source in sources.values() if not tables or source.name in tables]

    context = RunContext(lake, engine, progress)
    with engine:

        def step(layer: str, table: str, work: Callable[[], TableCounts], size: int | None = None) -> None:
            progress.on_table_start(layer, table, size)
            counts = report.rows[f"{layer}.{table}"] = _persistently(lake, engine, f"{layer}.{table}", work)
            progress.on_table_end(layer, table, counts)

        if "bronze" in layers:
            place = Landing(landing, lake)
            arrived = _arrived(place, sources, progress)
            for source in chosen:
                if files := arrived.get(source.name):
                    work = partial(_to_bronze, context, place, source, files, report, TableCounts())
                    step("bronze", source.name, work, sum(file.size for file in files))
        if "silver" in layers:
            for source in chosen:
                for name in silver.tables(source):
                    step("silver", name, partial(silver.refresh, context, source, name))
        if "gold" in layers:
            for name in _possible(sources, tables, layers, progress):
                if not tables or name in tables:
                    step("gold", name, partial(gold.refresh, context, name))
    report.seconds = time.monotonic() - started
    return report


def open_engine(name: str, lake: Lake, spark_remote: str | None = None) -> Engine:
    """The engine of this name, for one run. `spark_remote`, `sc://host:port`, is a server that is there already."""
    if name == "spark":
        from lakehouse_utils.pipeline.engines.spark import Spark  # its packages are an extra

        return Spark(lake, spark_remote)
    if name not in ENGINES:
        raise LakehouseError(f"There is no engine {name}; there are {', '.join(ENGINES)}.")
    if spark_remote:
        raise LakehouseError("--spark-remote is for the engine spark: add --engine spark.")
    return Local(lake)


def _arrived(landing: Landing, sources: dict[str, Source], progress: Progress) -> dict[str, list[LandingFile]]:
    """The files to load, by table; what is left alone, and why, is said."""
    files, ignored = landing.files()
    if not files:
        ignored.append(f"there are no files to load at {landing.address} (--landing, LAKEHOUSE_LANDING)")
    arrived: dict[str, list[LandingFile]] = {}
    for file in files:
        if file.table in sources:
            arrived.setdefault(file.table, []).append(file)
        else:
            ignored.append(f"{file.path}: no table {file.table!r} is described; left alone")
    for sentence in ignored:
        progress.on_note(sentence)
    return arrived


def _to_bronze(
    run: RunContext,
    landing: Landing,
    source: Source,
    files: list[LandingFile],
    report: RunReport,
    counts: TableCounts,
) -> TableCounts:
    counts, refused = bronze.refresh(run, landing, source, files, counts)
    report.refused += refused
    for sentence in refused:
        run.progress.on_refused_file(sentence)
    return counts


def _possible(
    sources: dict[str, Source], tables: tuple[str, ...], layers: tuple[str, ...], progress: Progress
) -> list[str]:
    """The gold tables whose sources are described; with others than the shop's, gold has nothing to do."""
    lacking = {name: gold.needs(name) - sources.keys() for name in gold.TABLES}
    if any(lacking.values()):
        missing = ", ".join(sorted(set().union(*lacking.values())))
        if layers == ("gold",) or set(tables) & {name for name, lack in lacking.items() if lack}:
            raise LakehouseError(f"Gold is the bicycle shop's star schema; these sources lack its tables {missing}.")
        progress.on_note(f"gold is left out: it is the bicycle shop's, and these sources lack {missing}")
    return [name for name, lack in lacking.items() if not lack]


def _persistently(lake: Lake, engine: Engine, label: str, work: Callable[[], TableCounts]) -> TableCounts:
    """Do one step; again, from its beginning, with new credentials or behind another writer's commit.

    A step that is begun again finds in the tables' logs what of it is done. A commit that failed means that somebody
    else's didn't, so that two jobs at a time get on, too.
    """
    for attempt in range(1, _TRIES + 1):
        try:
            with translate_errors(f"bring {label} up to date", lake):
                engine.authorize()
                return work()
        except ExpiredCredentialsError:
            if attempt == _TRIES or not lake.renew_credentials():
                raise
        except CommitFailedError as error:
            if attempt == _TRIES:
                raise LakehouseError(
                    f"Could not commit to {label}: another writer was quicker {_TRIES} times. Run again when it is"
                    f" done ({error})."
                ) from error
            time.sleep(random.uniform(0, 0.1 * attempt))
    raise AssertionError("unreachable")
