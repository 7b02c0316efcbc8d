"""CSV to bronze, compared with Polars' `scan_csv().sink_delta()` of the same file to the same embedded S3 server.

    python benchmarks/csv_to_bronze.py --rows 10000000 --runs 5

The pipeline writes text and the line that each row came from. Polars writes numbers and no lineage, which is less work,
and in a second variant text and the number of each row, as the pipeline does. They take turns, and each run is a
separate process. It prints the seconds from the start of the load to the commit and the peak memory as the kernel
counts it.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lakehouse_utils import embedded_s3
from lakehouse_utils.sample_data import generate

SCALE_OF_A_MILLION_LINES = 212

PIPELINE = """
import json, sys, time
from lakehouse_utils.lake import Lake
from lakehouse_utils.pipeline import bronze, landing, sources
from lakehouse_utils.pipeline.context import NoProgress, RunContext
from lakehouse_utils.pipeline.engines import local
lake = Lake.open(sys.argv[2])
lake.check_access()
source_folder = landing.Landing(sys.argv[1], lake)
context = RunContext(lake, local.LocalEngine(lake), NoProgress())
started = time.perf_counter()
counts, refused = bronze.refresh(context, source_folder, sources.load()["order_items"], source_folder.files()[0])
seconds = time.perf_counter() - started
assert not refused and counts.quarantined == 0
rows = counts.added
"""

POLARS = """
import json, sys, time
import polars as pl
from lakehouse_utils.lake import Lake
lake = Lake.open(sys.argv[2])
lake.check_access()
started = time.perf_counter()
options = lake.storage_options
lines = pl.scan_csv(sys.argv[1] + "/order_items.csv")
lines.sink_delta(lake.uri("polars", "order_items"), storage_options=options)
seconds = time.perf_counter() - started
rows = lake.delta("polars", "order_items").count()
"""

POLARS_TEXT = POLARS.replace(
    '"/order_items.csv")',
    '"/order_items.csv", infer_schema=False, row_index_name="line").with_columns(pl.col("line").cast(pl.Int64))',
)

# The second and third are what the pipeline is compared with.
SCRIPTS = {"pipeline": PIPELINE, "Polars": POLARS, "Polars, text and line numbers": POLARS_TEXT}

# VmHWM and not ru_maxrss, which starts with what the parent process had before exec.
PEAK = """
peak = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) // 1024
print(json.dumps({"rows": rows, "seconds": seconds, "peak_mb": peak}))
"""


def order_lines(rows: int, folder: Path) -> Path:
    """A landing folder with one `order_items.csv` of `rows` lines."""
    generate(folder / "shop", scale=min(rows, 10_000_000) / 1e6 * SCALE_OF_A_MILLION_LINES)
    generated = folder / "shop" / "2026-01-01" / "order_items.csv"
    landing = folder / "landing"
    landing.mkdir()
    written = 0
    with (landing / "order_items.csv").open("wb") as out:
        while written < rows:  # beyond 10 million lines are repeated, which makes no difference to bronze
            with generated.open("rb") as lines:
                header = next(lines)
                if not written:
                    out.write(header)
                for line in lines:
                    out.write(line)
                    written += 1
                    if written == rows:
                        break
    shutil.rmtree(folder / "shop")
    return landing


@contextmanager
def own_server(folder: Path) -> Iterator[None]:
    """The embedded server with all of its data in `folder`; it is stopped at the end."""
    os.environ["LAKEHOUSE_STATE_DIR"] = str(folder / "server")
    try:
        yield
    finally:
        embedded_s3.stop(folder / "server")


def measure(script: str, landing: Path, lake: str, rows: int) -> dict[str, float]:
    """Run one load in a separate process: rows, seconds and peak memory in MB."""
    command = [sys.executable, "-c", script + PEAK, str(landing), lake]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    figures = json.loads(done.stdout)
    if figures["rows"] != rows:
        raise SystemExit(f"{figures['rows']:,} of {rows:,} rows were loaded.")
    return figures


Figures = dict[str, list[dict[str, float]]]  # of each run, by name


def compare(rows: int, runs: int, *, verbose: bool = False) -> Figures:
    """The figures of `runs` loads with each of SCRIPTS, in turns."""
    figures: Figures = {name: [] for name in SCRIPTS}
    with tempfile.TemporaryDirectory() as folder, own_server(Path(folder)):
        landing = order_lines(rows, Path(folder))
        size = (landing / "order_items.csv").stat().st_size
        if verbose:
            print(f"{rows:,} order lines, {size / 1e6:,.0f} MB of CSV", flush=True)
        for run in range(runs + 1):  # the first warms up
            for number, (name, script) in enumerate(SCRIPTS.items()):
                measured = measure(script, landing, f"s3://{embedded_s3.BUCKET}/benchmark-{number}-{run}", rows)
                if verbose:
                    print(f"  {name:30} {measured['seconds']:6.2f} s  {measured['peak_mb']:5.0f} MB", flush=True)
                if run:
                    figures[name].append(measured)
    return figures


def median_ratio(figures: Figures, limit: str) -> float:
    """The median of the ratios of seconds of the pipeline and `limit`, pair by pair."""
    pairs = zip(figures["pipeline"], figures[limit], strict=True)
    return statistics.median(one["seconds"] / other["seconds"] for one, other in pairs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    figures = compare(arguments.rows, arguments.runs, verbose=True)
    for name, runs in figures.items():
        seconds, peak = (statistics.median(run[key] for run in runs) for key in ("seconds", "peak_mb"))
        print(
            f"{name:30} median {seconds:.2f} s, {arguments.rows / seconds / 1e6:.1f} million rows/s, peak {peak:.0f} MB"
        )
    for limit in list(SCRIPTS)[1:]:
        print(f"ratio pipeline/{limit}, pair by pair: median {median_ratio(figures, limit):.2f}")


if __name__ == "__main__":
    main()
