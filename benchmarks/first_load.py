"""First loads, compared with plain DuckDB on the same files and the same embedded S3 server.

    python benchmarks/first_load.py --rows 3000000 --scale 200 --runs 3

- Silver: order lines from bronze to silver, with rules, quarantine, lineage and sorted files. DuckDB casts the same
  bronze files, keeps the newest row of each key and writes one Parquet file.
- Whole job: the shop's raw files to bronze, silver and gold. DuckDB writes the CSV files as Parquet, casts and
  deduplicates the nine tables by key, and joins the sales.

Both take turns, each in its own process. Both open DuckDB within the measured time; starting Python is not measured.
Medians are printed as a table: use the ratios, because the seconds depend on the machine and on its load. CPU
seconds are those of the process itself.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from csv_to_bronze import order_lines, own_server

from lakehouse_utils import embedded_s3
from lakehouse_utils.sample_data import generate

_PREPARE_SILVER = """
from lakehouse_utils.pipeline import bronze
context, landing, source = opened()
counts, refused = bronze.refresh(context, landing, source, landing.files()[0])
assert counts.added and not refused
finish(0, counts.added)
"""

_SILVER = """
from lakehouse_utils.pipeline import silver
context, _, source = opened()
remove("silver")
with context.engine:
    started = clock()
    counts = silver.refresh(context, source, source.name)
    finish(started, counts.added)
"""

# `ORDER` is empty, or sorts the rows as the pipeline does.
_DUCKDB_SILVER = """
from lakehouse_utils.lake import delta_log
context, _, source = opened()
files = delta_log.live_files(lake.table("bronze", source.name), lake.delta("bronze", source.name))
started = clock()
db = duckdb()
columns = set(db.sql(f"FROM read_parquet({files})").columns)
values = ", ".join(
    f"TRY_CAST({name if name in columns else 'NULL'} AS {column.sql_type}) AS {name}"
    for name, column in source.columns.items()
)
key = ", ".join(source.key)
(rows,) = db.execute(f'''
    COPY (
        SELECT {values}, _batch, _source_file, _source_line FROM read_parquet({files})
        QUALIFY row_number() OVER (
            PARTITION BY {key} ORDER BY _batch DESC, _ingested_at DESC, _source_file DESC, _source_line DESC
        ) = 1
        ORDER
    ) TO '{lake.uri("duckdb.parquet")}'
''').fetchone()
finish(started, rows)
"""

_JOB = """
from lakehouse_utils.pipeline import sources
from lakehouse_utils.pipeline.run import run
for layer in ("bronze", "silver", "gold", "quarantine"):
    remove(layer)
started = clock()
report = run(RunContext(lake, LocalEngine(lake), NoProgress()), sys.argv[1], sources.load())
finish(started, sum(counts.read for label, counts in report.rows.items() if label.startswith("bronze.")))
"""

_DUCKDB_JOB = """
from pathlib import Path
from lakehouse_utils.pipeline import sources
started, total = clock(), 0
db = duckdb()
described = sources.load()
for name, source in described.items():
    files = sorted(map(str, Path(sys.argv[1]).rglob(f"{name}.*")))
    raw = [f"read_csv({csv}, all_varchar = true, union_by_name = true, ignore_errors = true, filename = true)"
           for csv in [[file for file in files if file.endswith(".csv")]] if csv]
    json_lines = [file for file in files if file.endswith(".jsonl")]
    if json_lines:
        read = f"read_json({json_lines}, union_by_name = true, ignore_errors = true, filename = true)"
        raw.append(f"(SELECT COLUMNS(*)::VARCHAR FROM {read})")
    parquet = [file for file in files if file.endswith(".parquet")]
    if parquet:
        raw.append(f"(SELECT COLUMNS(*)::VARCHAR FROM read_parquet({parquet}, union_by_name = true, filename = true))")
    rows = " UNION ALL BY NAME ".join(f"SELECT * FROM {part}" for part in raw)
    bronze, silver = lake.uri("bronze", f"{name}.parquet"), lake.uri("silver", f"{name}.parquet")
    total += db.execute(f"COPY ({rows}) TO '{bronze}'").fetchone()[0]
    existing = set(db.sql(f"FROM '{bronze}'").columns)
    values = ", ".join(
        f"TRY_CAST({column if column in existing else 'NULL'} AS {described_column.sql_type}) AS {column}"
        for column, described_column in source.columns.items()
    )
    db.execute(f'''
        COPY (
            SELECT {values} FROM '{bronze}'
            QUALIFY row_number() OVER (PARTITION BY {", ".join(source.key)} ORDER BY filename DESC) = 1
        ) TO '{silver}'
    ''')
of = lambda name: f"'{lake.uri('silver', name + '.parquet')}'"
db.execute(f'''
    COPY (
        SELECT i.*, o.customer_id, o.store_id, o.staff_id, o.order_date,
            i.quantity * i.list_price * (1 - i.discount) AS net_amount
        FROM {of("order_items")} AS i
        LEFT JOIN {of("orders")} AS o USING (order_id)
        LEFT JOIN {of("customers")} AS c USING (customer_id)
        LEFT JOIN {of("products")} AS p USING (product_id)
    ) TO '{lake.uri("gold", "sales.parquet")}'
''')
finish(started, total)
"""

_START = """
import json, sys, time
from lakehouse_utils.lake import Lake
from lakehouse_utils.pipeline import landing as landings, sources
from lakehouse_utils.pipeline.context import NoProgress, RunContext
from lakehouse_utils.pipeline.engines.local import LocalEngine
lake = Lake.open(sys.argv[2])
lake.check_access()
clock = lambda: (time.perf_counter(), time.process_time())

def duckdb():
    return lake.duckdb(preserve_insertion_order=False)

def opened():
    source = sources.load()["order_items"]
    return RunContext(lake, LocalEngine(lake), NoProgress()), landings.Landing(sys.argv[1], lake), source

def remove(layer):
    for entry in list(lake.objects(lake.key(layer, ""))):
        lake.s3.delete_object(Bucket=lake.bucket, Key=entry["Key"])

def finish(started, rows):
    seconds, cpu = (now - then for now, then in zip(clock(), started or clock()))
    peak = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) // 1024
    print(json.dumps({"rows": rows, "seconds": seconds, "cpu": cpu, "peak_mb": peak}))
"""


class Result(NamedTuple):
    """One measure: medians of the pipeline and of its limit, and the goal for the ratio of their seconds."""

    name: str
    seconds: float
    limit_seconds: float
    ratio: float  # of seconds: the median of the ratios pair by pair
    cpu_ratio: float | None  # the same of CPU seconds
    goal: float
    peak_mb: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=3_000_000)
    parser.add_argument("--scale", type=float, default=200, help="size of the whole job; 1 is about 1,600 orders")
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    print_table([*measure_silver(arguments.rows, arguments.runs), *measure_job(arguments.scale, arguments.runs)])


def print_table(results: list[Result]) -> None:
    print(f"{'measure':60} {'seconds':>8} {'limit':>8} {'ratio':>6} {'CPU':>6} {'goal':>6} {'MB':>6}")
    for r in results:
        cpu = "" if r.cpu_ratio is None else f"{r.cpu_ratio:.2f}"
        print(
            f"{r.name:60} {r.seconds:8.2f} {r.limit_seconds:8.2f} {r.ratio:6.2f} {cpu:>6} {r.goal:6.2f}"
            f" {r.peak_mb:6.0f}",
            flush=True,
        )


def measure_silver(rows: int, runs: int) -> list[Result]:
    """Silver's first load, against DuckDB without and with sorting."""
    with tempfile.TemporaryDirectory() as folder, own_server(Path(folder)):
        landing = order_lines(rows, Path(folder))
        _run(_PREPARE_SILVER, landing)
        scripts = {
            "pipeline": _SILVER,
            "cast, dedupe, COPY": _DUCKDB_SILVER.replace("ORDER\n", "\n"),
            "cast, dedupe, sort, COPY": _DUCKDB_SILVER.replace("ORDER\n", "ORDER BY {key}\n"),
        }
        measured = _alternate(scripts, landing, runs)
    name = f"silver, {rows:,} order lines"
    return [_compare(f"{name}: {limit}", measured["pipeline"], measured[limit], 1.5) for limit in list(scripts)[1:]]


def measure_job(scale: float, runs: int) -> list[Result]:
    """The whole job against plain DuckDB."""
    with tempfile.TemporaryDirectory() as folder, own_server(Path(folder)):
        landing = Path(folder) / "landing"
        generate(landing, scale=scale)
        measured = _alternate({"pipeline": _JOB, "duckdb": _DUCKDB_JOB}, landing, runs)
    return [_compare(f"whole job, scale {scale:g}", measured["pipeline"], measured["duckdb"], 2.5)]


Run = dict[str, float]


def _alternate(scripts: dict[str, str], landing: Path, runs: int) -> dict[str, list[Run]]:
    measured: dict[str, list[Run]] = {name: [] for name in scripts}
    for run in range(runs + 1):  # the first warms up
        for name, script in scripts.items():
            figures = _run(script, landing)
            if run:
                measured[name].append(figures)
    return measured


def _run(script: str, landing: Path) -> Run:
    command = [sys.executable, "-c", _START + script, str(landing), f"s3://{embedded_s3.BUCKET}/benchmark"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=os.environ)
    figures: Run = json.loads(done.stdout)
    return figures


def _compare(name: str, pipeline: list[Run], limit: list[Run], goal: float) -> Result:
    def ratio(key: str) -> float:
        return statistics.median(one[key] / other[key] for one, other in zip(pipeline, limit, strict=True))

    def median(runs: list[Run], key: str) -> float:
        return statistics.median(run[key] for run in runs)

    seconds, limit_seconds = median(pipeline, "seconds"), median(limit, "seconds")
    return Result(name, seconds, limit_seconds, ratio("seconds"), ratio("cpu"), goal, median(pipeline, "peak_mb"))


if __name__ == "__main__":
    main()
