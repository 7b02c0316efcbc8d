"""What a learner looks at: a table's files and commits, what changed between two versions, what a query read.

Tables of a few short columns, and figures. Nothing here changes a table. Names of data files are random, so a file is
called by its place, `part 1`, `part 2`: the older commit first, then by partition, then by smallest values. Sizes
are whole kB (1,000 bytes), at least 1: the last bytes of a file differ from run to run.
"""

import json
import re
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.fs
from deltalake import DeltaTable
from deltalake.fs import DeltaStorageHandler
from duckdb import DuckDBPyConnection

from lakehouse_utils.errors import LakehouseError
from lakehouse_utils.lake import Lake
from lakehouse_utils.lake.compatibility import Table, deleted_rows, names_in_files, vector_file

# -- tables


def files(table: DeltaTable, columns: Iterable[str] = ()) -> pd.DataFrame:
    """A row for each live file: file, commit that added it, partition, size_kb, rows, and min and max of `columns`.

    From the log alone, as an engine sees it before it opens a file. A min or max is empty where the log has none.
    """
    live = live_of(table, log_of(table))
    columns = [columns] if isinstance(columns, str) else list(columns)
    known = {field.name for field in table.schema().fields}
    if unknown := [name for name in columns if name not in known]:
        raise LakehouseError(f"The table has no column {', '.join(unknown)}; it has {', '.join(sorted(known))}.")
    rows = []
    for number, add in enumerate(live, start=1):
        row = {"file": f"part {number}", "commit": add["commit"]}
        row |= {name: add[f"partition.{name}"] for name in table.metadata().partition_columns}
        row |= {"size_kb": _kb(add["size_bytes"]), "rows": add["num_records"]}
        for name in columns:
            row |= {f"min {name}": add.get(f"min.{name}"), f"max {name}": add.get(f"max.{name}")}
        rows.append(row)
    return pd.DataFrame(rows).convert_dtypes() if rows else pd.DataFrame(columns=["file", "commit", "size_kb", "rows"])


def objects(lake: Lake, *names: str) -> pd.DataFrame:
    """Every object in the folder of the table at `lake.uri(*names)`: key below it, size_kb, and whether it is live.

    `state` is `log`, `live` (a file of the newest version), `old` (of an older version only), or `orphan` (no commit
    names it).
    """
    below = lake.key(*names, "")
    found = {entry["Key"][len(below) :]: entry["Size"] for entry in lake.objects(below)}
    table = lake.delta(*names)
    log = list(log_of(table)) if table else []
    live = {add["path"]: place for place, add in enumerate(live_of(table, log))} if table else {}
    named: dict[str, tuple] = {}
    vectors: dict[str, str] = {}  # files of deletion vectors, by whose rows they delete
    for version, actions in log:
        for kind, action in actions:
            if kind in ("add", "remove", "cdc"):
                named.setdefault(action["path"], (version, kind, action.get("size", 0)))
                if vector := vector_file(action):
                    named.setdefault(vector, (version, kind, 0))
                    vectors.pop(vector, None)
                    vectors |= {vector: action["path"]} if kind == "add" else {}

    def state(key: str) -> str:
        if key.startswith("_delta_log/"):
            return "log"
        return "live" if key in live or vectors.get(key) in live else "old" if key in named else "orphan"

    def place(key: str) -> tuple:
        folder = key.rpartition("/")[0]
        if state(key) == "log":
            return 0, folder, key
        rank = named.get(key, (1 << 62, "", found[key]))
        return 1, folder, rank[0], live.get(key, -1), rank[2], key

    keys = sorted(found, key=place)
    return pd.DataFrame(
        {"key": keys, "size_kb": [_kb(found[key]) for key in keys], "state": [state(key) for key in keys]}
    )


def commits(table: DeltaTable) -> pd.DataFrame:
    """A row for each commit up to the table's version, newest last: version, operation, and what it did in words.

    As far back as the log reaches: what a clean-up removed is missing.
    """
    rows = [(version, operation_of(actions), _in_words(actions)) for version, actions in log_of(table)]
    return pd.DataFrame(rows, columns=["version", "operation", "what"])


def commit(lake: Lake, *names: str, version: int = 0) -> pd.DataFrame:
    """The actions of one commit file, in their order: action, details in words."""
    actions = _parse(_commit_text(lake, names, version))
    parts: dict[str, int] = {}
    rows = [(kind, _details(kind, action, parts)) for kind, action in actions]
    return pd.DataFrame(rows, columns=["action", "details"])


def commit_json(lake: Lake, *names: str, version: int = 0) -> str:
    """The text of one commit file, to be printed: its JSON, action by action, indented and else unchanged."""
    lines = _commit_text(lake, names, version).splitlines()
    return "\n".join(json.dumps(json.loads(line), indent=2, ensure_ascii=False) for line in lines if line.strip())


def changes(
    table: DeltaTable, before: int, after: int, key: str | Iterable[str], columns: Iterable[str] = ()
) -> pd.DataFrame:
    """The rows that differ between two versions, by `key`: the key, change, and `old → new` in each changed column.

    `change` is inserted, updated or deleted. Without `columns`, all those in which anything differs are shown, but
    for the pipeline's own, whose names begin with `_`. Reads both versions whole: for small tables.
    """
    key = [key] if isinstance(key, str) else list(key)
    (_, old), (names, new) = (_rows(table, version, key) for version in (before, after))
    wanted = list(columns) or [name for name in names if not name.startswith("_") and name not in key]
    rows = []
    for where in sorted(old.keys() | new.keys(), key=lambda where: tuple(map(_sortable, where))):
        was, now = old.get(where), new.get(where)
        if was == now:
            continue
        cells = {name: _cell(was, now, name) for name in wanted}
        if any(cells.values()):
            change = "inserted" if was is None else "deleted" if now is None else "updated"
            rows.append(dict(zip(key, where, strict=True)) | {"change": change} | cells)
    shown = [name for name in wanted if columns or any(row[name] for row in rows)]
    return pd.DataFrame(rows, columns=[*key, "change", *shown])


def reads(connection: DuckDBPyConnection, sql: str) -> dict[str, Any]:
    """What a query reads from S3, by DuckDB's own EXPLAIN ANALYZE: requests, bytes, files, ms, rows.

    Of data files: the Delta extension reads the log by itself, uncounted. `files` is "3 of 12" where the query scans
    one Delta table. Nothing is taken from a cache. `ms` differs each time; `bytes` is rounded as DuckDB prints it.
    """
    cached = connection.execute("SELECT current_setting('enable_external_file_cache')").fetchone()[0]
    connection.execute("SET enable_external_file_cache = false")
    try:
        text = "\n".join(row[1] for row in connection.execute(f"EXPLAIN ANALYZE {sql}").fetchall())
    finally:
        connection.execute(f"SET enable_external_file_cache = {str(cached).lower()}")
    scanned = re.findall(r"Total Files Read:\s*(\d+)", text)
    among = re.findall(r"Scanning Files:\s*\d+/(\d+)", text) or scanned
    plan = text.partition("EXPLAIN_ANALYZE")[2]
    counts = [int(count.replace(",", "")) for count in re.findall(r"([\d,]+) rows?\b", plan)]
    return {
        "requests": sum(int(count) for count in re.findall(r"#(?:HEAD|GET|PUT|POST|DELETE): (\d+)", text)),
        "bytes": sum(_bytes(*found) for found in re.findall(r"\bin: ([\d.]+) (\w+)", text)),
        "files": f"{scanned[0]} of {among[0]}" if len(scanned) == len(among) == 1 else "",
        "ms": round(1000 * float(re.search(r"Total Time: ([\d.]+)s", text)[1])),
        "rows": counts[1] if len(counts) > 1 else 0,
    }


# -- the log


def log_of(table: DeltaTable) -> Iterator[tuple[int, list[tuple[str, dict]]]]:
    """(version, [(kind, action)]) of each commit file there is, up to the table's version."""
    folder = pa.fs.PyFileSystem(DeltaStorageHandler.from_table(table._table))
    entries = folder.get_file_info(pa.fs.FileSelector("_delta_log", allow_not_found=True))
    names = sorted(entry.path for entry in entries if re.search(r"(^|/)\d{20}\.json$", entry.path))
    names = [name for name in names if int(name[-25:-5]) <= table.version()]

    def read(name: str) -> str:
        with folder.open_input_file(name) as file:
            return file.read().decode()

    with ThreadPoolExecutor(8) as readers:  # a request takes longer to arrive than to answer
        for name, text in zip(names, readers.map(read, names), strict=True):
            yield int(name[-25:-5]), _parse(text)


def _parse(text: str) -> list[tuple[str, dict]]:
    return [next(iter(json.loads(line).items())) for line in text.splitlines() if line.strip()]


def _commit_text(lake: Lake, names: tuple[str, ...], version: int) -> str:
    s3 = lake.s3
    try:
        key = lake.key(*names, "_delta_log", f"{version:020}.json")
        return s3.get_object(Bucket=lake.bucket, Key=key)["Body"].read().decode()
    except s3.exceptions.NoSuchKey:
        raise LakehouseError(f"{lake.uri(*names)} has no commit file of version {version}.") from None


def live_of(table: DeltaTable, log: Iterable[tuple[int, list[tuple[str, dict]]]]) -> list[dict[str, Any]]:
    """The live files' add actions, flat, in the order in which they are numbered; with the `commit` that added them."""
    added = {action["path"]: version for version, actions in log for kind, action in actions if kind == "add"}
    found = pa.table(table.get_add_actions(flatten=True)).to_pylist()
    deleted = deleted_rows(table)
    in_files = names_in_files(table)
    for add in found:
        add["commit"] = added.get(add["path"])
        if add["num_records"] is not None:
            add["num_records"] -= deleted.get(add["path"], 0)
        for end in ("min", "max"):  # statistics go by the names in the files
            add |= {f"{end}.{name}": add.get(f"{end}.{other}") for name, other in in_files.items()}

    def place(add: dict) -> tuple:
        values = [value for name, value in sorted(add.items()) if name.startswith(("partition.", "min.", "max."))]
        commit = -1 if add["commit"] is None else add["commit"]
        return commit, [_sortable(value) for value in values], add["num_records"] or 0, add["size_bytes"]

    return sorted(found, key=place)


def rank_of(action: dict) -> tuple:
    """Sorts a commit's files as they are numbered, by partition and smallest values, not by random names."""
    stats = json.loads(action.get("stats") or "{}")
    return json.dumps(action.get("partitionValues") or {}), json.dumps(stats.get("minValues", {}), default=str)


def operation_of(actions: list[tuple[str, dict]]) -> str:
    return next((action.get("operation", "") for kind, action in actions if kind == "commitInfo"), "")


_ROWS_OF = {  # metrics by what they count, as delta-rs and others name them
    "inserted": ("num_target_rows_inserted", "numTargetRowsInserted"),
    "updated": ("num_target_rows_updated", "num_updated_rows", "numTargetRowsUpdated", "numUpdatedRows"),
    "deleted": ("num_target_rows_deleted", "num_deleted_rows", "numTargetRowsDeleted", "numDeletedRows"),
    "copied": ("num_target_rows_copied", "num_copied_rows", "numTargetRowsCopied", "numCopiedRows"),
}


def _in_words(actions: list[tuple[str, dict]]) -> str:
    by_kind: dict[str, list[dict]] = {}
    for kind, action in actions:
        by_kind.setdefault(kind, []).append(action)
    info = by_kind.get("commitInfo", [{}])[0]
    metrics = info.get("operationMetrics") or {}
    added, removed = by_kind.get("add", []), by_kind.get("remove", [])
    words = []
    if added or removed:
        signed = [f"+{len(added)}"] * bool(added) + [f"−{len(removed)}"] * bool(removed)
        words.append(f"{' '.join(signed)} file{'s' * (len(added) + len(removed) > 1)}")
    rows = [
        f"{int(count):,} {done}"
        for done, names in _ROWS_OF.items()
        if (count := next((metrics[name] for name in names if name in metrics), 0)) and int(count)
    ]
    if not rows and added and info.get("operation") != "OPTIMIZE":
        written = sum(json.loads(add.get("stats") or "{}").get("numRecords", 0) for add in added)
        rows = [f"{written:,} written"]
    if rows:
        words.append(f"rows: {', '.join(rows)}")
    if "cdc" in by_kind:
        words.append(f"change data: {_many(len(by_kind['cdc']), 'file')}")
    if "metaData" in by_kind:
        fields = json.loads(by_kind["metaData"][0]["schemaString"])["fields"]
        words.append(f"schema of {_many(len(fields), 'column')}")
    if info.get("operation", "").startswith("VACUUM"):
        count = metrics.get("numDeletedFiles", metrics.get("numFilesToDelete"))
        words += [_many(int(count), "unused object")] if count is not None else []
    return "; ".join(words)


def _details(kind: str, action: dict, parts: dict[str, int]) -> str:
    if kind == "commitInfo":
        return f"{action.get('operation', '')} by {action.get('engineInfo', 'an engine that gives no name')}"
    if kind == "protocol":
        features = [*action.get("readerFeatures", []), *action.get("writerFeatures", [])]
        versions = f"reader {action['minReaderVersion']}, writer {action['minWriterVersion']}"
        return versions + (f", {', '.join(dict.fromkeys(features))}" if features else "")
    if kind == "metaData":
        columns = ", ".join(f"{field['name']} {_type(field)}" for field in json.loads(action["schemaString"])["fields"])
        by = action.get("partitionColumns")
        settings = ", ".join(f"{name} = {value}" for name, value in sorted(action.get("configuration", {}).items()))
        return columns + (f"; partitioned by {', '.join(by)}" if by else "") + (f"; {settings}" if settings else "")
    if kind in ("add", "remove", "cdc"):
        name = f"part {parts.setdefault(action['path'], len(parts) + 1)}"
        words = [f"{name}={value}" for name, value in (action.get("partitionValues") or {}).items()]
        stats = json.loads(action.get("stats") or "{}")
        words += [f"{stats['numRecords']:,} rows"] if "numRecords" in stats else []
        words += [f"{vector['cardinality']:,} of them deleted"] if (vector := action.get("deletionVector")) else []
        words += [f"{_kb(action['size']):,} kB"] if "size" in action else []
        words += [] if action.get("dataChange", True) else ["no data changed"]
        return f"{name}: {', '.join(words)}"
    if kind == "txn":
        return f"{action['appId']} is at {action['version']}"
    return json.dumps(action, ensure_ascii=False)


def _type(field: dict) -> str:
    return field["type"] if isinstance(field["type"], str) else field["type"].get("type", "")


# -- values


def _rows(table: DeltaTable, version: int, key: list[str]) -> tuple[list[str], dict[tuple, dict]]:
    """The columns at a version, and its rows by their key."""
    then = Table(table.table_uri, version=version, storage_options=table._storage_options).to_pyarrow_table()
    rows = {tuple(row[name] for name in key): row for row in then.to_pylist()}
    if len(rows) < len(then):
        raise LakehouseError(f"{', '.join(key)} is no key at version {version}: a value comes more than once.")
    return then.column_names, rows


def _cell(was: dict | None, now: dict | None, name: str) -> str:
    if was is None or now is None:
        return _text((now or was or {}).get(name))
    old, new = _text(was.get(name)), _text(now.get(name))
    return "" if old == new else f"{old or 'NULL'} → {new or 'NULL'}"


def _text(value: object) -> str:
    return "" if value is None else str(value)


def _sortable(value: object) -> tuple:
    if value is None:
        return (0,)
    return (1, float(value)) if isinstance(value, int | float) else (2, str(value))


def _kb(size: int) -> int:
    return max(1, round(size / 1000))


def _many(count: int, what: str) -> str:
    return f"{count:,} {what}{'s' * (count != 1)}"


def _bytes(number: str, unit: str) -> int:
    return round(float(number) * 1024 ** "bKMGT".index(unit[0]))
