"""MERGE into a large table with several versions of delta-rs: seconds, and the peak of the process's memory.

    python benchmarks/merge_versions.py --rows 50000000 --versions 1.5.0 1.6.6

The table has the columns of silver's order lines, sorted by key, in files of 8 MiB on the local disk, so that no server
adds to the figures. Each case merges 10,000 rows into its own copy, in a separate process. Needs Linux.

- clustered: 5,000 changed rows with neighboring keys, and 5,000 new ones after the last key
- spread: 10,000 changed rows, evenly spread over all keys: every file is rewritten
- inserts: 10,000 new rows after the last key, of which 5,000 are in the table already

`merge` does it as the pipeline does: with the range of keys in the condition, and without `streamed_exec`. `spill` also
limits the memory to 1 GiB with `max_spill_size`. `plain` compares the keys alone, with the defaults of delta-rs.
`append` looks for the keys in the table with DuckDB and appends the new rows; only inserts can be written this way.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable, WriterProperties, write_deltalake

LINES_PER_ORDER = 2
CHANGED = NEW = 5_000
FILE_BYTES, SPILL_BYTES = 8 << 20, 1 << 30
KEY = ("order_id", "item_id")
COLUMNS = f"""
    range // {LINES_PER_ORDER} AS order_id,
    (range % {LINES_PER_ORDER})::INTEGER AS item_id,
    (hash(range) % 320)::INTEGER AS product_id,
    (hash(range, 1) % 5)::INTEGER AS quantity,
    ((hash(range, 2) % 1000000) / 100)::DECIMAL(10, 2) AS list_price,
    ((hash(range, 3) % 30) / 100)::DECIMAL(4, 2) AS discount,
    TIMESTAMPTZ '2026-01-01' + to_seconds((range % 86400)::BIGINT) AS updated_at
"""


class Case(NamedTuple):
    """Which rows are written, and how."""

    rows: str
    method: str


CASES = [Case(rows, method) for rows in ("clustered", "spread", "inserts") for method in ("merge", "spill", "plain")]
CASES.append(Case("inserts", "append"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=50_000_000)
    parser.add_argument("--versions", nargs="+", default=["1.5.0", "1.6.6"])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--case", nargs=3, help=argparse.SUPPRESS)  # for the processes that this one starts
    arguments = parser.parse_args()
    if arguments.case:
        rows, method, table = arguments.case
        print(json.dumps(measure(Case(rows, method), table, arguments.rows)))
        return
    with tempfile.TemporaryDirectory(prefix="merge-") as folder:
        table = Path(folder, "table")
        write_table(table, arguments.rows)
        files = len(DeltaTable(table).file_uris())
        print(f"{arguments.rows:,} rows in {files} files, medians of {arguments.runs}\n")
        pythons = {version: python_with(version, Path(folder, version)) for version in arguments.versions}
        print(f"{'rows':<10} {'method':<7}" + "".join(f"{version:>18}" for version in pythons))
        for case in CASES:
            results: dict[str, list[list[float]]] = {version: [] for version in pythons}
            for _ in range(arguments.runs):  # the versions take turns
                for version, python in pythons.items():
                    results[version].append(run(python, case, table, Path(folder, "copy"), arguments.rows))
            print(f"{case.rows:<10} {case.method:<7}", end="")
            for measured in results.values():
                seconds, mebibytes = (statistics.median(values) for values in zip(*measured, strict=True))
                print(f"{seconds:>8.2f} s {mebibytes:>5.0f} MiB", end="", flush=True)
            print()


def python_with(version: str, folder: Path) -> Path:
    """The Python of a new environment with this version of delta-rs, and the other packages as they are here."""
    uv = Path(sys.executable).with_name("uv")
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, folder], check=True)
    packages = [f"deltalake=={version}", f"pyarrow=={pa.__version__}", f"duckdb=={duckdb.__version__}"]
    environment = os.environ | {"VIRTUAL_ENV": str(folder)}
    subprocess.run([uv, "pip", "install", "--quiet", *packages], env=environment, check=True)
    return folder / "bin" / "python"


def write_table(path: Path, rows: int) -> None:
    with duckdb.connect() as db:
        reader = db.sql(f"SELECT {COLUMNS} FROM range({rows})").to_arrow_reader(1 << 18)
        properties = WriterProperties(compression="ZSTD", compression_level=1)
        write_deltalake(path, reader, target_file_size=FILE_BYTES, writer_properties=properties)


def run(python: Path, case: Case, table: Path, copy: Path, rows: int) -> list[float]:
    """Seconds and MiB of one case in a new process, on a copy that shares the data files, which never change."""
    shutil.copytree(table, copy, copy_function=os.link)
    try:
        command = [python, __file__, "--rows", str(rows), "--case", *case, copy]
        return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    finally:
        shutil.rmtree(copy)


def measure(case: Case, path: str, rows: int) -> list[float]:
    source = source_rows(case.rows, rows)
    started = time.perf_counter()
    table = DeltaTable(path)
    added = append(table, source) if case.method == "append" else merge(table, source, case)
    seconds = time.perf_counter() - started
    if added != {"clustered": NEW, "spread": 0, "inserts": NEW}[case.rows]:
        raise SystemExit(f"{case}: {added:,} rows were added")
    return [seconds, peak_mebibytes()]


def peak_mebibytes() -> float:
    """The peak of this process's memory. `getrusage` would also count that of the process that started it."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024


def source_rows(kind: str, rows: int) -> pa.Table:
    step = rows // (CHANGED + NEW) if kind == "spread" else 1
    first = 0 if kind == "spread" else rows - CHANGED
    numbers = f"range({first}, {first + (CHANGED + NEW) * step}, {step})"
    with duckdb.connect() as db:
        return db.sql(f"SELECT * REPLACE (99 AS quantity) FROM (SELECT {COLUMNS} FROM {numbers})").to_arrow_table()


def key_range(source: pa.Table, prefix: str = "") -> str:
    bounds = pc.min_max(source["order_id"])
    return f"{prefix}order_id BETWEEN {bounds['min']} AND {bounds['max']}"


def merge(table: DeltaTable, source: pa.Table, case: Case) -> int:
    """The number of rows that a MERGE has inserted."""
    on = " AND ".join(f"target.{name} = source.{name}" for name in KEY)
    options: dict[str, object] = {}
    if case.method != "plain":
        on = f"{on} AND {key_range(source, 'target.')}"
        options["streamed_exec"] = False
    if case.method == "spill":
        options["max_spill_size"] = SPILL_BYTES
    merger = table.merge(source, on, source_alias="source", target_alias="target", **options)
    if case.rows != "inserts":
        merger = merger.when_matched_update_all()
    return merger.when_not_matched_insert_all().execute()["num_target_rows_inserted"]


def append(table: DeltaTable, source: pa.Table) -> int:
    """The number of rows that were new and have been appended."""
    with duckdb.connect() as db:
        existing = f"SELECT order_id, item_id FROM read_parquet({table.file_uris()}) WHERE {key_range(source)}"
        new = db.sql(f"FROM source ANTI JOIN ({existing}) USING (order_id, item_id)").to_arrow_table()
    write_deltalake(table, new, mode="append")
    return len(new)


if __name__ == "__main__":
    main()
