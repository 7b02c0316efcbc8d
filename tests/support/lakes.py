"""Lakes for the tests of the pipeline: run the job, and read all that it made."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from deltalake import DeltaTable

from lakehouse_utils import embedded_s3, settings
from lakehouse_utils.lake import Lake
from lakehouse_utils.pipeline import sources
from lakehouse_utils.pipeline.context import NoProgress, Progress, RunContext
from lakehouse_utils.pipeline.engines.local import LocalEngine
from lakehouse_utils.pipeline.engines.protocol import Engine
from lakehouse_utils.pipeline.run import RunReport, Selection, run
from support.expected import as_counter

# One table with history and a rule that its type gives, for tests that need few rows.
ONE_TABLE = """
[t]
key = ["k"]
order_by = "at"
history = true
[t.columns]
k = { type = "integer" }
at = { type = "date" }
v = { type = "text" }
n = { type = "integer" }
"""
OWN = {"_version_at", "_batch", "_source_file", "_source_line", "_bronze_version", "_ingested_at"}
KEYS = {"customer_sk": "customers", "product_sk": "products", "staff_sk": "staffs", "store_sk": "stores"}


class RecordingProgress(NoProgress):
    """A Progress that keeps the sentences of a run, and shows nothing."""

    def __init__(self) -> None:
        self.sentences: list[str] = []

    def on_note(self, sentence: str) -> None:
        self.sentences.append(sentence)

    def on_refused_file(self, sentence: str) -> None:
        self.sentences.append(sentence)


def at(uri: str, state_dir: Path) -> Lake:
    return Lake.open(uri, settings.Settings(state_dir=state_dir))


def job(
    lake: Lake,
    landing: Path,
    described: Path = sources.SHOP,
    progress: Progress | None = None,
    engine: Engine | None = None,
    **selected: tuple[str, ...],
) -> RunReport:
    """Run the pipeline in this process; `selected` are layers and tables."""
    context = RunContext(lake, engine or LocalEngine(lake), progress or NoProgress())
    return run(context, str(landing), sources.load(described), Selection(**selected))


def environment(state_dir: Path, **more: str) -> dict[str, str]:
    return os.environ | {"LAKEHOUSE_STATE_DIR": str(state_dir), "COLUMNS": "160"} | more


def environment_with_keys(server: embedded_s3.Server, state_dir: Path) -> dict[str, str]:
    """The environment of a job that takes the server for any other S3 server, and so accepts a proxy to it."""
    keys = {"AWS_ACCESS_KEY_ID": server.access_key, "AWS_SECRET_ACCESS_KEY": server.secret_key}
    return environment(state_dir, AWS_REGION=server.region, AWS_ENDPOINT_URL=server.endpoint, **keys)


def names(lake: Lake) -> list[str]:
    """All tables of the lake, as <layer>.<table>, without the table of runs, which grows with every run."""
    tables = set()
    prefix = lake.key("")
    for entry in lake.objects(prefix):
        layer, table, *rest = entry["Key"].removeprefix(prefix).split("/")
        if layer != "operations" and rest[:1] == ["_delta_log"]:
            tables.add(f"{layer}.{table}")
    return sorted(tables)


def opened(lake: Lake) -> Iterator[tuple[str, DeltaTable]]:
    for name in names(lake):
        yield name, lake.delta(*name.split("."))


def versions(lake: Lake) -> dict[str, int]:
    return {name: table.version() for name, table in opened(lake)}


def rows(table: DeltaTable) -> list[dict]:
    return table.to_pyarrow_table().to_pylist()


def contents(lake: Lake) -> dict[str, list[tuple]]:
    """All rows of all tables, sorted; without what differs from run to run, and with the row's origin in quarantine."""
    tables = {}
    for name, table in opened(lake):
        if name.startswith("gold") or "history" in name:
            ignored = {"_bronze_version"}
        elif name.startswith("silver"):
            ignored = OWN
        else:
            ignored = {"_ingested_at", "resolved_at"}
        kept = ([value for column, value in row.items() if column not in ignored] for row in rows(table))
        tables[name] = sorted(map(tuple, kept), key=repr)
    return tables


class Difference(NamedTuple):
    """How a table differs from what is expected: some of the rows, how many there are, and columns that it lacks."""

    missing_rows: list[tuple]
    surplus_rows: list[tuple]
    missing: int
    surplus: int
    missing_columns: set[str]


def unlike(lake: Lake, expected: dict[str, list[dict]]) -> dict[str, Difference]:
    """Tables that are not as expected, by name."""
    actual = {name: rows(table) for name, table in opened(lake)}
    meaning = _meaning_of_keys(actual)
    different = {}
    for name, expected_rows in expected.items():
        actual_rows = [_with_meaning(row, meaning) for row in actual.get(name, [])]
        columns = list(actual_rows[0]) if actual_rows else list(expected_rows[0]) if expected_rows else []
        columns = [column for column in columns if column not in OWN]
        if name.startswith("quarantine"):
            columns = ["_source_file", "_source_line"]
        actual_counter, expected_counter = as_counter(actual_rows, columns), as_counter(expected_rows, columns)
        missing_columns = {column for row in expected_rows for column in row} - set(columns)
        if actual_counter != expected_counter or missing_columns:
            missing = list((expected_counter - actual_counter).elements())
            surplus = list((actual_counter - expected_counter).elements())
            different[name] = Difference(missing[:3], surplus[:3], len(missing), len(surplus), missing_columns)
    return different


def _meaning_of_keys(tables: dict[str, list[dict]]) -> dict[str, dict[int, tuple]]:
    """By key column: what each surrogate key stands for, as `expected` writes it."""
    meaning = {}
    for column, table in KEYS.items():
        version_numbers: dict[object, int] = {}
        meaning[column] = {-1: None}
        natural_key = f"{table[:-1]}_id"
        dimension = tables.get(f"gold.dim_{table}", [])
        for row in sorted(dimension, key=lambda row: (str(row.get("valid_from")), str(row[natural_key]))):
            if row[column] != -1:
                number = version_numbers[row[natural_key]] = version_numbers.get(row[natural_key], -1) + 1
                assert row[column] not in meaning[column], f"{column} {row[column]} stands for two members"
                meaning[column][row[column]] = (table, row[natural_key], number)
    return meaning


def _with_meaning(row: dict, meaning: dict[str, dict[int, tuple]]) -> dict:
    row = {name: meaning[name][value] if name in KEYS else value for name, value in row.items()}
    if row.get("date_sk") == -1:
        row["date_sk"] = None
    return row


def copy(source: Lake, target: Lake) -> None:
    """Copy all objects of a lake. A table's log names its files by relative paths, so the copy is a working lake."""
    for entry in source.objects(source.key("")):
        key = target.prefix + entry["Key"].removeprefix(source.prefix)
        original = {"Bucket": source.bucket, "Key": entry["Key"]}
        target.s3.copy_object(Bucket=target.bucket, Key=key, CopySource=original)
