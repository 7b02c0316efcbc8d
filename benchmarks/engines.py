"""Both engines on the same work, from 1 to 50 million order lines: seconds and memory, layer by layer.

    python benchmarks/engines.py --sizes 1 2 5 10 20 50 --repeat 3

The engines take turns, and each run is a separate process: CSV to bronze, bronze to silver, then 10,000 changed and new
lines of one day through both layers, with a MERGE into silver (`merge`). Peak memory is the largest sum over all
processes that do the work, Sail included and the S3 server not. The time to open the engine is not included. Medians go
to engines.csv, which notebook 10 reads, and to the figure in docs/engines.md; the first line of engines.csv names the
machine. `--draw` draws the figure again and measures nothing.
"""

import argparse
import csv
import multiprocessing
import os
import platform
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import metadata
from multiprocessing.connection import Connection
from pathlib import Path

import duckdb
import matplotlib.pyplot as plt
import psutil
from csv_to_bronze import order_lines, own_server
from silver_merge import write_day

from lakehouse_utils import embedded_s3, settings
from lakehouse_utils.course import figures
from lakehouse_utils.lake import Lake
from lakehouse_utils.pipeline import bronze, silver, sources
from lakehouse_utils.pipeline.context import NoProgress, RunContext, TableCounts
from lakehouse_utils.pipeline.landing import Landing
from lakehouse_utils.pipeline.run import ENGINES, open_engine

STEPS = ("bronze", "silver", "merge")
OUT = Path(__file__).with_name("engines.csv")
FIGURE = settings.CHECKOUT / "notebooks" / "images" / "engines.svg"
_GENERATED_LINES = 10_000_000  # larger files repeat these lines
_SAMPLE_INTERVAL_S = 0.2  # reading the memory of processes takes time itself
_PROCESSES = multiprocessing.get_context("spawn")

Figures = dict[str, tuple[float, float]]  # seconds and MB, by step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=float, nargs="+", default=[1, 2, 5, 10, 20, 50], help="million order lines")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--draw", action="store_true", help="only draw the figure of what was measured")
    arguments = parser.parse_args()
    if arguments.draw:
        draw(arguments.out)
        return
    medians: dict[tuple[str, int], Figures] = {}
    for rows in sorted(int(size * 1_000_000) for size in arguments.sizes):
        with tempfile.TemporaryDirectory() as folder, own_server(Path(folder)):
            measured = measure_both(rows, arguments.repeat, Path(folder))
        for engine, runs in measured.items():
            medians[engine, rows] = {
                step: tuple(statistics.median(run[step][which] for run in runs) for which in (0, 1)) for step in STEPS
            }
        write(arguments.out, medians, arguments.repeat)
    if arguments.out == OUT:
        draw(OUT)


def measure_both(rows: int, repeat: int, folder: Path) -> dict[str, list[Figures]]:
    full, day = landings(rows, folder)
    size = sum(file.stat().st_size for file in full.rglob("*.csv"))
    print(f"{rows:,} order lines, {size / 1e6:,.0f} MB of CSV", flush=True)
    measured: dict[str, list[Figures]] = {engine: [] for engine in ENGINES}
    for turn in range(repeat):
        for engine in ENGINES if turn % 2 == 0 else reversed(ENGINES):
            lake = f"s3://{embedded_s3.BUCKET}/{engine}-{turn}"
            figures = measure(engine, rows, full, day, lake)
            measured[engine].append(figures)
            words = (f"{step} {seconds:6.2f} s {peak:5.0f} MB" for step, (seconds, peak) in figures.items())
            print(f"  {engine:6} {'   '.join(words)}", flush=True)
    return measured


def landings(rows: int, folder: Path) -> tuple[Path, Path]:
    """A landing with a full load of `rows` lines, and one with the day after it."""
    generated = order_lines(min(rows, _GENERATED_LINES), folder) / "order_items.csv"
    full, day = folder / "full", folder / "day"
    file = full / "2026-01-01" / "order_items.csv"
    file.parent.mkdir(parents=True)
    last = last_order(generated)
    shutil.move(generated, file)
    for copy in range(1, -(-rows // _GENERATED_LINES)):  # the same lines, as later orders
        more, wanted = folder / "more.csv", min(_GENERATED_LINES, rows - copy * _GENERATED_LINES)
        duckdb.sql("SET enable_progress_bar = false")
        duckdb.sql(f"""
            COPY (
                SELECT * REPLACE (order_id::BIGINT + {copy * last} AS order_id)
                FROM read_csv('{file}', all_varchar = true) LIMIT {wanted}
            ) TO '{more}' (HEADER false)
        """)
        with file.open("ab") as out, more.open("rb") as lines:
            shutil.copyfileobj(lines, out, 1 << 24)
        more.unlink()
    day.mkdir()
    write_day(day, 1, last_order(file))
    return full, day


def last_order(file: Path) -> int:
    with file.open("rb") as lines:
        lines.seek(-200, os.SEEK_END)
        return int(lines.read().split(b"\n")[-2].split(b",")[0])


# -- one run


def measure(engine: str, rows: int, full: Path, day: Path, lake: str) -> Figures:
    receiver, sender = _PROCESSES.Pipe(duplex=False)
    job = _PROCESSES.Process(target=work, args=(engine, rows, str(full), str(day), lake, sender))
    job.start()
    sender.close()
    process, step = psutil.Process(job.pid), ""
    took: dict[str, float] = {}
    peaks: dict[str, float] = {}
    while True:
        if receiver.poll(_SAMPLE_INTERVAL_S):
            try:
                step, seconds = receiver.recv()
            except EOFError:
                break
            if seconds is not None:
                took[step] = seconds
        if step:
            peaks[step] = max(peaks.get(step, 0), memory(process))
    job.join()
    if job.exitcode:
        raise SystemExit(f"The engine {engine} failed at {rows:,} lines.")
    return {step: (took[step], peaks[step]) for step in STEPS}


def memory(process: psutil.Process) -> float:
    """Memory in MB of a process and of the processes that it has started."""
    total = 0
    try:
        for one in [process, *process.children(recursive=True)]:
            total += one.memory_info().rss
    except psutil.NoSuchProcess:
        pass
    return total / 1e6


def work(engine_name: str, rows: int, full: str, day: str, root: str, events: Connection) -> None:
    """What is measured, in its own process. Sends (step, None) at the start of a step, (step, seconds) at its end."""
    lake = Lake.open(root)
    source = sources.load()["order_items"]

    @contextmanager
    def timed(step: str) -> Iterator[None]:
        events.send((step, None))
        started = time.perf_counter()
        yield
        events.send((step, time.perf_counter() - started))

    def context() -> RunContext:
        return RunContext(lake, engine, NoProgress())

    def to_bronze(address: str) -> TableCounts:
        landing = Landing(address, lake)
        counts, refused = bronze.refresh(context(), landing, source, landing.files()[0])
        if refused or counts.quarantined:
            raise SystemExit(f"Some rows were not loaded: {refused} {counts}")
        return counts

    def to_silver() -> TableCounts:
        return silver.refresh(context(), source, source.name)

    with open_engine(engine_name, lake) as engine:
        with timed("bronze"):
            loaded = to_bronze(full)
        with timed("silver"):
            filled = to_silver()
        with timed("merge"):
            to_bronze(day)
            merged = to_silver()
    if not loaded.added == filled.added == rows or (merged.added, merged.changed) != (5_000, 5_000):
        raise SystemExit(f"Unexpected numbers of rows: {loaded} {filled} {merged}")


# -- results


def write(out: Path, medians: dict[tuple[str, int], Figures], repeat: int) -> None:
    packages = ("duckdb", "deltalake", "pysail")
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in packages)
    memory = psutil.virtual_memory().total / 1e9
    with out.open("w", newline="", encoding="utf-8") as file:
        file.write(
            f"# {cores()} cores, {memory:.0f} GB of memory, {platform.system()} {platform.machine()}; {versions};"
            f" {f'medians of {repeat}' if repeat > 1 else 'one run each'}\n"
        )
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["engine", "rows", "step", "seconds", "peak_mb"])
        for (engine, rows), figures in medians.items():
            for step, (seconds, peak) in figures.items():
                table.writerow([engine, rows, step, f"{seconds:.3f}", f"{peak:.0f}"])
    print(f"written: {out}", flush=True)


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def draw(measured: Path) -> None:
    """The figure of README: the full load, the day after it and the memory, by number of lines."""
    note, *lines = measured.read_text(encoding="utf-8").splitlines()
    rows = list(csv.DictReader(lines))

    def curve(engine: str, steps: tuple[str, ...], column: str, of: Callable) -> dict[float, float]:
        values: dict[float, list[float]] = {}
        for row in rows:
            if row["engine"] == engine and row["step"] in steps:
                values.setdefault(int(row["rows"]) / 1e6, []).append(float(row[column]))
        return {million: of(several) for million, several in values.items()}

    figures.use_style()
    plt.rcParams["svg.hashsalt"] = "engines"  # so that drawing it again changes nothing
    figure, panels = plt.subplots(1, 3, figsize=(9, 3.2))
    titles = {
        "full load, seconds": (("bronze", "silver"), "seconds", sum),
        "a day of 10,000 lines after it, seconds": (("merge",), "seconds", sum),
        "most memory, MB": (STEPS, "peak_mb", max),
    }
    for axes, (title, what) in zip(panels, titles.items(), strict=True):
        for engine, name, color, marker in (
            ("local", "local: DuckDB and delta-rs", figures.BLUE, "o"),
            ("spark", "spark: Sail", figures.RED, "s"),
        ):
            points = curve(engine, *what)
            axes.plot(points.keys(), points.values(), color=color, marker=marker, label=name)
        axes.set(xscale="log", yscale="log", xlabel="million order lines")
        axes.set_title(title, fontsize=9)
        axes.yaxis.set_major_locator(plt.LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.minorticks_off()
        axes.set_xticks(list(points), [f"{million:g}" for million in points])
    panels[0].legend(fontsize=8)
    figure.suptitle(f"Both engines on one machine ({note.strip('# ').partition(';')[0]})", weight="bold")
    figure.savefig(FIGURE, metadata={"Date": None}, facecolor="white")
    print(f"drawn: {FIGURE}", flush=True)


if __name__ == "__main__":
    main()
