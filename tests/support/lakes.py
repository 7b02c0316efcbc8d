"""Lakes for the tests of the pipeline: run the job, and read all that it made."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from deltalake import DeltaTable

from lakehouse_utils import settings
from lakehouse_utils.lake import Lake
from lakehouse_utils.pipeline import sources
from lakehouse_utils.pipeline.run import LAYERS, RunReport, run
from support.expected import as_counter

JOB = settings.CHECKOUT / "ingestion_processor.py"
OWN = {"_version_at", "_batch", "_source_file", "_source_line", "_bronze_version", "_ingested_at"}
KEYS = {"customer_sk": "customers", "product_sk": "products", "staff_sk": "staffs", "store_sk": "stores"}


class Silent:
    """A watch that remembers what it was told."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def on_table_start(self, layer: str, table: str, size_bytes: int | None) -> None:
        pass

    def on_advance(self, size_bytes: int) -> None:
        pass

    def on_table_end(self, layer: str, table: str, counts: object) -> None:
        pass

    def on_note(self, sentence: str) -> None:
        self.said.append(sentence)

    on_refused_file = on_note


def at(uri: str, state_dir: Path) -> Lake:
    return Lake.open(uri, settings.Settings(state_dir=state_dir))


def job(lake: Lake, landing: Path, described: Path = sources.SHOP, watch: Silent | None = None, **chosen) -> RunReport:
    """Run the pipeline in this process."""
    return run(lake, str(landing), sources.load(described), watch or Silent(), **{"layers": LAYERS, **chosen})


def environment(state_dir: Path, **more: str) -> dict[str, str]:
    return os.environ | {"LAKEHOUSE_STATE_DIR": str(state_dir), "COLUMNS": "160"} | more


def command(*arguments: object, **options) -> subprocess.Popen:
    """Start `python ingestion_processor.py` as a process of its own."""
    return subprocess.Popen(
        [sys.executable, str(JOB), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def names(lake: Lake) -> list[str]:
    """All tables of the lake, as <layer>.<table>."""
    found = set()
    prefix = lake.key("")
    for entry in lake.objects(prefix):
        layer, table, *rest = entry["Key"].removeprefix(prefix).split("/")
        if rest[0] == "_delta_log":
            found.add(f"{layer}.{table}")
    return sorted(found)


def opened(lake: Lake) -> Iterator[tuple[str, DeltaTable]]:
    for name in names(lake):
        yield name, lake.delta(*name.split("."))


def versions(lake: Lake) -> dict[str, int]:
    return {name: table.version() for name, table in opened(lake)}


def rows(table: DeltaTable) -> list[dict]:
    return table.to_pyarrow_table().to_pylist()


def contents(lake: Lake) -> dict[str, list[tuple]]:
    """All rows of all tables, sorted; without what differs from run to run, and with the row's origin in quarantine."""
    found = {}
    for name, table in opened(lake):
        there = rows(table)
        if name.startswith("gold") or "history" in name:
            there = [{k: v for k, v in row.items() if k != "_bronze_version"} for row in there]
        elif name.startswith("silver"):
            there = [{k: v for k, v in row.items() if k not in OWN} for row in there]
        else:
            there = [{k: v for k, v in row.items() if k != "_ingested_at"} for row in there]
        found[name] = sorted((tuple(row.values()) for row in there), key=repr)
    return found


def unlike(lake: Lake, expected: dict[str, list[dict]]) -> dict[str, tuple[list, list]]:
    """Where tables are not as expected: by table, (rows that are missing, rows that are too many)."""
    there = {name: rows(table) for name, table in opened(lake)}
    meaning = _meaning_of_keys(there)
    wrong = {}
    for name, expected_rows in expected.items():
        found = [_with_meaning(row, meaning) for row in there.get(name, [])]
        columns = list(found[0]) if found else list(expected_rows[0]) if expected_rows else []
        columns = [column for column in columns if column not in OWN]
        if name.startswith("quarantine"):
            columns = ["_source_file", "_source_line"]
        there_is, should_be = as_counter(found, columns), as_counter(expected_rows, columns)
        lacking = {column for row in expected_rows for column in row} - set(columns)
        if there_is != should_be or lacking:
            missing, many = list((should_be - there_is).elements()), list((there_is - should_be).elements())
            wrong[name] = (missing[:3], many[:3], len(missing), len(many), lacking)
    return wrong


def _meaning_of_keys(there: dict[str, list[dict]]) -> dict[str, dict[int, tuple]]:
    """By key column: what each surrogate key stands for, as `expected` writes it."""
    meaning = {}
    for column, table in KEYS.items():
        seen: dict[object, int] = {}
        meaning[column] = {-1: None}
        natural = f"{table[:-1]}_id"
        dimension = there.get(f"gold.dim_{table}", [])
        for row in sorted(dimension, key=lambda row: (str(row.get("valid_from")), str(row[natural]))):
            if row[column] != -1:
                number = seen[row[natural]] = seen.get(row[natural], -1) + 1
                assert row[column] not in meaning[column], f"{column} {row[column]} stands for two"
                meaning[column][row[column]] = (table, row[natural], number)
    return meaning


def _with_meaning(row: dict, meaning: dict[str, dict[int, tuple]]) -> dict:
    row = {name: meaning[name][value] if name in KEYS else value for name, value in row.items()}
    if row.get("date_sk") == -1:
        row["date_sk"] = None
    return row


def copy(source: Lake, target: Lake) -> None:
    """Copy all objects; a table's log names its files by relative paths."""
    for entry in source.objects(source.key("")):
        place = {"Bucket": source.bucket, "Key": entry["Key"]}
        key = target.prefix + entry["Key"].removeprefix(source.prefix)
        target.s3.copy_object(Bucket=target.bucket, Key=key, CopySource=place)
