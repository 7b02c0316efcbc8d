"""What a learner looks at: a table's files and commits, what changed between two versions, what a query read.

Tables of a few short columns, and figures. Nothing here changes a table. Names of data files are random, so a file is
called by its place, `part 1`, `part 2`: the older commit first, then by partition, then by smallest values. Sizes
are whole kB (1,000 bytes), at least 1: the last bytes of a file differ from run to run.
"""

import io
import json
import re
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import wraps
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.fs
from deltalake import DeltaTable
from deltalake.fs import DeltaStorageHandler
from duckdb import DuckDBPyConnection
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from lakehouse_utils.errors import LakehouseError
from lakehouse_utils.lake import Lake
from lakehouse_utils.readers import Table, deleted_rows, names_in_files, vector_file

# Okabe and Ito's palette: told apart by colour-blind eyes too, and on dark and light.
BLUE, ORANGE, GREEN, RED, PURPLE, SKY, YELLOW = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#D55E00",
    "#CC79A7",
    "#56B4E9",
    "#F0E442",
)
_GREY = "#7F7F7F"
_DPI, _WIDTH = 100, 7.0  # 700 px
_STYLE = {
    "figure.figsize": (_WIDTH, 3.2),
    "figure.dpi": _DPI,
    "savefig.dpi": _DPI,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "figure.constrained_layout.use": True,
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.prop_cycle": plt.cycler(color=[BLUE, ORANGE, GREEN, RED, PURPLE, SKY, YELLOW]),
    "legend.frameon": False,
}


# -- tables


def files(table: DeltaTable, columns: Iterable[str] = ()) -> pd.DataFrame:
    """A row for each live file: file, commit that added it, partition, size_kb, rows, and min and max of `columns`.

    From the log alone, as an engine sees it before it opens a file. A min or max is empty where the log has none.
    """
    live = _live(table, _log(table))
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
    log = list(_log(table)) if table else []
    live = {add["path"]: place for place, add in enumerate(_live(table, log))} if table else {}
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
    rows = [(version, _operation(actions), _in_words(actions)) for version, actions in _log(table)]
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


# -- figures


def _in_style(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    @wraps(draw)
    def drawn(*arguments: Any, **options: Any) -> Figure:
        with plt.rc_context(_STYLE):
            figure = draw(*arguments, **options)
        plt.close(figure)  # shown once, by the cell whose value it is
        return figure

    return drawn


def use_style() -> None:
    """One look for all of the course: figures small, white behind, titles to the left; long words in tables whole.

    In a notebook a figure's titles and axis labels also become the alternative text of its picture.
    """
    plt.rcParams.update(_STYLE)
    pd.set_option("display.max_colwidth", 160)
    try:
        from IPython import get_ipython
    except ImportError:
        return
    if shell := get_ipython():
        plt.switch_backend(plt.get_backend())  # now: else the first figure would, and put its own formatter in place
        shell.display_formatter.formatters["image/png"].for_type(Figure, _png)


@_in_style
def timeline(table: DeltaTable) -> Figure:
    """The log as a time line: a dot a commit with its operation, a bar for each data file while it is live."""
    log = list(_log(table))
    lives: dict[str, list[list[int | None]]] = {}  # by file: [from, to]; more than one where a restore brought it back
    for version, actions in log:
        for kind, action in sorted(actions, key=lambda pair: (pair[0] != "remove", _rank(pair[1]))):
            spans = lives.get(action.get("path"), [])
            is_live = spans and spans[-1][1] is None
            if kind == "add" and not is_live:
                lives.setdefault(action["path"], []).append([version, None])
            elif kind == "remove" and is_live:
                spans[-1][1] = version
    last = table.version()
    figure, axes = plt.subplots(figsize=(_WIDTH, 1.4 + 0.22 * max(4, min(len(lives), 24))))
    alive = sum(spans[-1][1] is None for spans in lives.values())
    for row, spans in enumerate(lives.values()):
        for begin, end in spans:
            axes.barh(-row - 1, (last + 0.5 if end is None else end) - begin, left=begin, height=0.6,
                      color=BLUE if end is None else "#C0C0C0")  # fmt: skip
    axes.axhline(0, color=_GREY, linewidth=1, zorder=0)
    for version, actions in log:
        axes.plot(version, 0, "o", color=ORANGE, markersize=8)
        axes.annotate(_operation(actions), (version, 0), xytext=(0, 8), textcoords="offset points",
                      rotation=30, fontsize=8)  # fmt: skip
    axes.set_title(f"{len(log)} commits wrote {len(lives)} files; live now: {alive}", pad=44)
    axes.set_xlabel("version (grey: a file that a later commit removed)")
    axes.set_xticks([version for version, _ in log] if len(log) <= 20 else range(0, last + 1, last // 10))
    axes.set_xlim(-0.2, last + 0.7)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    return figure


@_in_style
def ranges(table: DeltaTable, *columns: str) -> Figure:
    """A bar for each live file from the smallest to the largest value of a column, a panel a column.

    The files are in the order of the first column. Bars side by side mean that a query on the column skips files; bars
    on top of each other, that it can't.
    """
    found = files(table, columns).sort_values([f"min {columns[0]}", f"max {columns[0]}"], kind="stable")
    figure, panels = plt.subplots(
        1, len(columns), squeeze=False, figsize=(_WIDTH, 1.2 + 0.22 * max(4, min(len(found), 24)))
    )
    for axes, column in zip(panels[0], columns, strict=True):
        low, high = (_numbers(found[f"{end} {column}"]) for end in ("min", "max"))
        least = (high.max() - low.min()) / 200
        axes.barh(range(len(found)), (high - low).clip(lower=least), left=low, height=0.7, color=BLUE)
        axes.invert_yaxis()
        axes.set_title(f"{column}: {_overlap(low, high)}", fontsize=10 if len(columns) == 1 else 8.5)
        axes.set_xlabel(column)
        axes.set_yticks([])
        if pd.api.types.is_datetime64_any_dtype(pd.Series(_dates(found[f"min {column}"]))):
            axes.xaxis_date()
            axes.tick_params(axis="x", labelrotation=30)
    panels[0][0].set_ylabel(f"{len(found)} files")
    return figure


@_in_style
def compare_reads(measured: dict[str, dict[str, Any]], title: str = "") -> Figure:
    """Bytes and requests of several `reads`, by label, side by side; `title` says the finding."""
    figure, (left, right) = plt.subplots(1, 2, sharey=True, figsize=(_WIDTH, 1.1 + 0.4 * len(measured)))
    labels = list(measured)
    kilobytes = [measured[label]["bytes"] / 1000 for label in labels]
    requests = [measured[label]["requests"] for label in labels]
    for axes, values, unit, color in ((left, kilobytes, "kB read", BLUE), (right, requests, "requests", ORANGE)):
        bars = axes.barh(labels, values, color=color, height=0.6)
        axes.bar_label(bars, [f"{value:,.0f}" for value in values], padding=3, fontsize=9)
        axes.set_xlabel(unit)
        axes.margins(x=0.18)
    left.invert_yaxis()
    figure.suptitle(title or _finding(measured), fontweight="bold", fontsize=11)
    return figure


# -- the log


def _log(table: DeltaTable) -> Iterator[tuple[int, list[tuple[str, dict]]]]:
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


def _live(table: DeltaTable, log: Iterable[tuple[int, list[tuple[str, dict]]]]) -> list[dict[str, Any]]:
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


def _rank(action: dict) -> tuple:
    """Sorts a commit's files as they are numbered, by partition and smallest values, not by random names."""
    stats = json.loads(action.get("stats") or "{}")
    return json.dumps(action.get("partitionValues") or {}), json.dumps(stats.get("minValues", {}), default=str)


def _operation(actions: list[tuple[str, dict]]) -> str:
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


# -- drawing


def _png(figure: Figure) -> tuple[bytes, dict[str, str]]:
    figure.set(dpi=_DPI, facecolor="white")
    canvas, small = FigureCanvasAgg(figure), io.BytesIO()
    canvas.draw()  # savefig would draw twice
    colours = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB").quantize(64, dither=Image.Dither.NONE)
    colours.save(small, format="png", optimize=True)
    return small.getvalue(), {"alt": _alternative(figure)}


def _alternative(figure: Figure) -> str:
    words = [figure.get_suptitle()]
    for axes in figure.axes:
        title = axes.get_title("left") or axes.get_title()
        labels = " by ".join(filter(None, [axes.get_ylabel(), axes.get_xlabel()]))
        words += [title, f"({labels})" if labels else ""]
    return " ".join(word.replace("\n", " ") for word in words if word) or "A figure"


def _dates(values: pd.Series) -> pd.Series:
    if values.map(lambda value: hasattr(value, "year")).all():
        return pd.to_datetime(values, utc=True)
    return values


def _numbers(values: pd.Series) -> pd.Series:
    values = _dates(values)
    if pd.api.types.is_datetime64_any_dtype(values):
        return values.map(lambda moment: moment.timestamp() / 86400)
    try:
        return pd.to_numeric(values).astype(float)
    except (TypeError, ValueError):
        raise LakehouseError(f"{values.name} is no number and no time: its values can't be drawn as a range.") from None


def _overlap(low: pd.Series, high: pd.Series) -> str:
    """The finding: of how many files a value lies in, on the average over the files' middles."""
    middles = (low + high) / 2
    share = sum(((low <= middle) & (middle <= high)).sum() for middle in middles) / max(1, len(middles))
    return f"a value lies in {share:.0f} of {len(low)} files" if share >= 1.5 else "files side by side"


def _finding(measured: dict[str, dict[str, Any]]) -> str:
    most, least = (choose(measured, key=lambda label: measured[label]["bytes"]) for choose in (max, min))
    times = measured[most]["bytes"] / max(1, measured[least]["bytes"])
    return f"“{most}” reads {times:,.1f} times what “{least}” does"
