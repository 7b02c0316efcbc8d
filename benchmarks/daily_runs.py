"""A day's run, and a run with nothing new, on a lake with a long history and on a fresh one.

    python benchmarks/daily_runs.py --batches 2000 --apart 200 --runs 5

Two lakes get the same two tables, one of them with history. The grown one takes `--batches` daily batches of 20 rows
per table: all but the last `--apart` in one run, each of the others in a separate run; the fresh one takes a single
batch. Then days, and runs without a new file, are timed on both in alternation, each in a separate process. It prints
the medians, their ratios, and the requests to S3 of one run of each kind, which do not depend on the machine.
`--compact` compacts the grown lake's tables then, and measures again.
"""

import argparse
import collections
import datetime as dt
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from csv_to_bronze import own_server

from lakehouse_utils import embedded_s3, settings
from lakehouse_utils.course import request_log
from lakehouse_utils.lake import Lake
from lakehouse_utils.pipeline import sources
from lakehouse_utils.pipeline.context import NoProgress, RunContext
from lakehouse_utils.pipeline.run import open_engine, run

ROWS = 20  # of a table in a batch
DESCRIPTION = """
[people]
key = ["id"]
history = true
[people.columns]
id = { type = "integer" }
name = { type = "text" }

[sales]
key = ["id"]
[sales.columns]
id = { type = "integer" }
amount = { type = "decimal(10,2)" }
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batches", type=int, default=2000)
    parser.add_argument("--apart", type=int, default=200)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--compact", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, own_server(Path(folder)):
        fresh, grown = Shop("fresh", Path(folder)), Shop("grown", Path(folder))
        fresh.grow(1, 1)
        started = time.perf_counter()
        grown.grow(arguments.batches, arguments.apart)
        print(f"grown by {arguments.batches} batches in {time.perf_counter() - started:.0f} s", flush=True)
        for shop in (fresh, grown):
            shop.run_process()
        compare(fresh, grown, arguments.runs)
        if arguments.compact:
            grown.compact()
            print("after a compaction of the grown tables:", flush=True)
            compare(fresh, grown, arguments.runs)


def compare(fresh: "Shop", grown: "Shop", runs: int) -> None:
    """Time and count days and idle runs on both lakes, and print the figures."""
    seconds: dict[tuple[str, str], list[float]] = collections.defaultdict(list)
    requests: dict[tuple[str, str], int] = {}
    for kind in ("day", "nothing new"):
        for number in range(runs + 1):
            for shop in (fresh, grown):
                if kind == "day":
                    shop.deliver()
                if number:
                    seconds[kind, shop.name].append(shop.run_process())
                else:
                    requests[kind, shop.name] = shop.count_requests()
        before, after = (statistics.median(seconds[kind, shop.name]) for shop in (fresh, grown))
        print(
            f"{kind}: {before:.2f} s fresh, {after:.2f} s grown, ratio {after / before:.2f};"
            f" {requests[kind, 'fresh']} and {requests[kind, 'grown']} requests",
            flush=True,
        )


class Shop:
    """A lake, its raw files and its descriptions."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.lake = Lake.open(f"s3://{embedded_s3.BUCKET}/{name}")
        self.landing, self.described = folder / name, folder / f"{name}.toml"
        self.described.write_text(DESCRIPTION, encoding="utf-8")
        self.batches = 0

    def deliver(self) -> None:
        """Write the raw files of the next day: half of the people are known already, all sales are new."""
        day = self.landing / str(dt.date(2020, 1, 1) + dt.timedelta(days=self.batches))
        day.mkdir(parents=True)
        first_person, first_sale = self.batches * ROWS // 2, self.batches * ROWS
        people = (f"{first_person + number},name {self.batches}\n" for number in range(ROWS))
        (day / "people.csv").write_text("id,name\n" + "".join(people), encoding="utf-8")
        sales = (f"{first_sale + number},{number}.50\n" for number in range(ROWS))
        (day / "sales.csv").write_text("id,amount\n" + "".join(sales), encoding="utf-8")
        self.batches += 1

    def grow(self, batches: int, apart: int) -> None:
        """Load batches: the last `apart` of them one by one."""
        for number in range(batches):
            self.deliver()
            if number >= batches - apart - 1:
                context = RunContext(
                    self.lake, open_engine("local", self.lake), NoProgress(), settings.load().state_dir
                )
                run(context, str(self.landing), sources.load(self.described))

    def compact(self) -> None:
        """Put the small files of all tables together."""
        for ref in self.lake.tables():
            table = ref.open()
            if table is not None:
                table.optimize.compact()

    def run_process(self, endpoint: str | None = None) -> float:
        """Run the job in a process. Returns the seconds that it took, start included."""
        keys, lake = self.lake.credentials(), self.lake
        environment = os.environ | {
            "AWS_ACCESS_KEY_ID": keys.access_key,
            "AWS_SECRET_ACCESS_KEY": keys.secret_key,
            "AWS_REGION": lake.region,
            "AWS_ENDPOINT_URL": endpoint or lake.endpoint,
        }
        environment.pop("PYTHONDONTWRITEBYTECODE", None)  # compiling all modules again takes as long as an idle run
        options = ["--lake", lake.root, "--landing", self.landing, "--sources", self.described, "--quiet"]
        job = [sys.executable, settings.CHECKOUT / "ingestion_processor.py", *options]
        started = time.perf_counter()
        subprocess.run(list(map(str, job)), env=environment, check=True, stderr=subprocess.DEVNULL)
        return time.perf_counter() - started

    def count_requests(self) -> int:
        """Run the job in a process, and return the number of requests that it sends."""
        with request_log.record(self.lake) as log:
            self.run_process(log.endpoint)
        return len(log.requests)


if __name__ == "__main__":
    main()
