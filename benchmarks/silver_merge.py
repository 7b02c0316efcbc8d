"""MERGE of a day's order lines into silver, at 1 and at 10 million rows: the cost is that of the rewritten files.

    python benchmarks/silver_merge.py --runs 3

For each size: a full load by the pipeline, then days with some changed lines of recent orders and some new lines. It
prints the seconds of the complete silver step and the number of files that its commit rewrote.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from csv_to_bronze import order_lines, own_server

from lakehouse_utils import embedded_s3
from lakehouse_utils.lake import Lake
from lakehouse_utils.pipeline import bronze, silver, sources
from lakehouse_utils.pipeline.context import NoProgress, RunContext
from lakehouse_utils.pipeline.engines.local import LocalEngine
from lakehouse_utils.pipeline.landing import Landing

HEADER = "order_id,item_id,product_id,quantity,list_price,discount,updated_at\n"
CHANGED = NEW = 5_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000, 10_000_000])
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    medians = []
    for rows in arguments.rows:
        with tempfile.TemporaryDirectory() as folder, own_server(Path(folder)):
            medians.append(measure(rows, arguments.runs, Path(folder)))
    print("ratios to the first size:", ", ".join(f"{m / medians[0]:.2f}" for m in medians))


def measure(rows: int, runs: int, folder: Path) -> float:
    """Median seconds of a day's silver step on a table of `rows` rows."""
    landing = order_lines(rows, folder)
    full = landing / "2026-01-01"
    full.mkdir()
    (landing / "order_items.csv").rename(full / "order_items.csv")
    last_order = int((full / "order_items.csv").read_bytes()[-200:].split(b"\n")[-2].split(b",")[0])
    lake = Lake.open(f"s3://{embedded_s3.BUCKET}/lake")
    source = sources.load()["order_items"]
    print(f"{rows:,} rows", flush=True)
    seconds = []
    for day in range(runs + 1):
        if day:
            write_day(landing, day, last_order)
        batches = Landing(str(landing), lake)
        with LocalEngine(lake) as engine:
            context = RunContext(lake, engine, NoProgress())
            bronze.refresh(context, batches, source, batches.files()[0])
            started = time.perf_counter()
            counts = silver.refresh(context, source, source.name)
            took = time.perf_counter() - started
        table = lake.delta("silver", source.name)
        if day:
            seconds.append(took)
            metrics = table.history(1)[0]["operationMetrics"]
            rewritten = f"{metrics['num_target_files_removed']} of {len(table.file_uris())} files rewritten"
            print(
                f"  day {day}: {counts.added:,} added, {counts.changed:,} changed, {took:.2f} s, {rewritten}",
                flush=True,
            )
        else:
            print(f"  full load: {counts.added:,} rows in {len(table.file_uris())} files, {took:.1f} s", flush=True)
    return statistics.median(seconds)


def write_day(landing: Path, day: int, last_order: int) -> None:
    """Write the batch of one day: 5,000 changed lines of recent orders and 5,000 new lines."""
    moment = f"2026-01-0{day + 1}T12:00:00Z"
    recent = last_order - 10_000
    lines = [f"{recent + i},1,1,{day + 1},99.99,0.05,{moment}\n" for i in range(CHANGED)]
    lines += [f"{last_order + day * NEW + i},1,1,1,99.99,0.05,{moment}\n" for i in range(NEW)]
    folder = landing / f"2026-01-0{day + 1}"
    folder.mkdir()
    (folder / "order_items.csv").write_text(HEADER + "".join(lines))


if __name__ == "__main__":
    main()
