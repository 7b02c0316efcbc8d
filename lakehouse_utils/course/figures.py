"""The figures of the course: the log of a table over time, the value ranges of its files, what queries read."""

import io
import json
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, ParamSpec

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from deltalake import DeltaTable
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.rcsetup import cycler
from PIL import Image

from lakehouse_utils.course import views
from lakehouse_utils.errors import LakehouseError
from lakehouse_utils.lake.delta_log import Action, Commit, DeltaLog

# The palette of Okabe and Ito: people with colour blindness can tell the colours apart, on light and dark backgrounds.
BLUE = "#0072B2"
ORANGE = "#E69F00"
GREEN = "#009E73"
RED = "#D55E00"
PURPLE = "#CC79A7"
SKY = "#56B4E9"
YELLOW = "#F0E442"

_GREY = "#7F7F7F"
_LIGHT_GREY = "#C0C0C0"
_DPI = 100
_DAY_S = 86400
_WIDTH_INCHES = 7.0  # 700 pixels
_BAR_INCHES = 0.22
_STYLE: dict[Any, Any] = {
    "figure.figsize": (_WIDTH_INCHES, 3.2),
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
    "axes.prop_cycle": cycler(color=[BLUE, ORANGE, GREEN, RED, PURPLE, SKY, YELLOW]),
    "legend.frameon": False,
}

_Parameters = ParamSpec("_Parameters")


def _in_style(draw: Callable[_Parameters, Figure]) -> Callable[_Parameters, Figure]:
    @wraps(draw)
    def draw_in_style(*args: _Parameters.args, **kwargs: _Parameters.kwargs) -> Figure:
        with plt.rc_context(_STYLE):
            figure = draw(*args, **kwargs)
        plt.close(figure)  # the cell shows it once, as its value
        return figure

    return draw_in_style


def use_style() -> None:
    """Set the course's style for matplotlib and pandas: small figures on white, and long cells of tables in full.

    In a notebook, the titles and axis labels of each figure also become the alternative text of its picture.
    """
    plt.rcParams.update(_STYLE)
    pd.set_option("display.max_colwidth", 160)
    try:
        from IPython import get_ipython
    except ImportError:
        return
    if shell := get_ipython():
        plt.switch_backend(plt.get_backend())  # otherwise the first figure does it, and replaces our formatter
        shell.display_formatter.formatters["image/png"].for_type(Figure, _png)


@_in_style
def timeline(table: DeltaTable) -> Figure:
    """Draw the log over time: one dot per commit with its operation, and one bar per data file while it is live."""
    log = DeltaLog.of_table(table).commits_up_to(table.version())
    lifetimes = _lifetimes(log)
    last = table.version()
    figure, axes = plt.subplots(figsize=(_WIDTH_INCHES, 1.4 + _bars_height(len(lifetimes))))
    for row, spans in enumerate(lifetimes.values(), start=1):
        for begin, end in spans:
            width = (last + 0.5 if end is None else end) - begin
            axes.barh(-row, width, left=begin, height=0.6, color=BLUE if end is None else _LIGHT_GREY)
    axes.axhline(0, color=_GREY, linewidth=1, zorder=0)
    label: dict[str, Any] = {"xytext": (0, 8), "textcoords": "offset points", "rotation": 30, "fontsize": 8}
    for commit in log:
        axes.plot(commit.version, 0, "o", color=ORANGE, markersize=8)
        axes.annotate(commit.operation, (commit.version, 0), **label)
    live = sum(spans[-1][1] is None for spans in lifetimes.values())
    axes.set_title(f"{len(log)} commits wrote {len(lifetimes)} files; live now: {live}", pad=44)
    axes.set_xlabel("version (grey: a file that a later commit removed)")
    axes.set_xticks([commit.version for commit in log] if len(log) <= 20 else range(0, last + 1, last // 10))
    axes.set_xlim(-0.2, last + 0.7)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    return figure


@_in_style
def ranges(table: DeltaTable, *columns: str) -> Figure:
    """Draw one bar per live file, from the smallest to the largest value of a column; one panel per column.

    The files are in the order of the first column. Where the bars do not overlap, a query on the column can skip
    files; where they overlap, it cannot.
    Raises LakehouseError for a column that does not exist, or whose values are not numbers, dates or times.
    """
    files = views.files(table, columns).sort_values([f"min {columns[0]}", f"max {columns[0]}"], kind="stable")
    figure, panels = plt.subplots(
        1, len(columns), squeeze=False, figsize=(_WIDTH_INCHES, 1.2 + _bars_height(len(files)))
    )
    for axes, column in zip(panels[0], columns, strict=True):
        low, high = (_numbers(files[f"{bound} {column}"]) for bound in ("min", "max"))
        narrowest = (high.max() - low.min()) / 200
        axes.barh(range(len(files)), (high - low).clip(lower=narrowest), left=low, height=0.7, color=BLUE)
        axes.invert_yaxis()
        line_break = "\n" if len(columns) > 1 else " "  # beside another panel, the title needs two lines
        axes.set_title(f"{column}:{line_break}{_overlap(low, high)}", fontsize=10)
        axes.set_xlabel(column)
        axes.set_yticks([])
        if pd.api.types.is_datetime64_any_dtype(_with_dates(files[f"min {column}"])):
            axes.xaxis_date()
            axes.tick_params(axis="x", labelrotation=30)
    panels[0][0].set_ylabel(f"{len(files)} files")
    return figure


@_in_style
def compare_reads(measured: Mapping[str, Mapping[str, Any]], title: str = "") -> Figure:
    """Draw the bytes and the requests of several results of `views.reads` side by side, by label.

    Without a `title`, the figure's title says how many times as much the largest one reads as the smallest.
    """
    figure, (left, right) = plt.subplots(1, 2, sharey=True, figsize=(_WIDTH_INCHES, 1.1 + 0.4 * len(measured)))
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


@_in_style
def compare_prices(percents: pd.DataFrame, base: int) -> Figure:
    """Draw each product's price in percent of that in version `base`: one panel per version, one colour per brand.

    `percents` has the columns version, step (what made the version), brand, and percent, one row per product in their
    order. The figure's title says how many products of each brand are cheaper in the last version.
    """
    panels = list(percents.groupby(["version", "step"]))
    figure, all_axes = plt.subplots(1, len(panels), squeeze=False, sharey=True, figsize=(_WIDTH_INCHES, 3))
    for axes, ((version, step), rows) in zip(all_axes[0], panels, strict=True):
        positions = pd.Series(range(1, len(rows) + 1), index=rows.index)
        for (brand, of_brand), color in zip(rows.groupby("brand"), (ORANGE, BLUE, GREEN, RED), strict=False):
            axes.plot(positions[of_brand.index], of_brand["percent"], ".", color=color, markersize=4, label=brand)
        axes.axhline(100, color=_GREY, linewidth=0.8, zorder=0)
        axes.set_title(f"version {version}: {step}", fontsize=9, fontweight="normal")
        axes.set_xlabel("products, by brand", fontsize=8)
    all_axes[0][0].set_ylabel(f"price, % of version {base}")
    handles, brands = all_axes[0][0].get_legend_handles_labels()
    figure.legend(handles, brands, loc="outside lower center", ncols=len(brands), markerscale=3)
    (last, _), rows = panels[-1]
    cheaper = rows[rows["percent"] < 100].groupby("brand").size()
    counts = " and ".join(f"{count} of {brand}" for brand, count in cheaper.items()) or "none"
    title = f"Cheaper in version {last} than in version {base}: {counts}"
    figure.suptitle(title, fontweight="bold", fontsize=11)
    return figure


@_in_style
def request_order(requests: pd.DataFrame, title: str) -> Figure:
    """Draw the requests of writers on a time line, one lane per writer.

    `requests` has the columns writer, request, object and answer, one row per request in order.
    """
    lanes = {writer: -lane for lane, writer in enumerate(sorted(requests["writer"].unique()))}
    figure, axes = plt.subplots(figsize=(_WIDTH_INCHES, 1.2 + 0.7 * len(lanes)))
    for step, (_, row) in enumerate(requests.iterrows(), start=1):
        is_commit = row["request"] == "PUT" and row["object"].endswith(".json")
        axes.plot(step, lanes[row["writer"]], "o", color=ORANGE if is_commit else BLUE, markersize=10)
        name = f"version {int(row['object'].split('.')[0])}" if is_commit else row["object"]
        name = {"parquet": "data file", "_delta_log/": "log"}.get(name.rpartition(".")[2], name)
        label = f"{row['request']} {name}\n{row['answer']}"
        axes.annotate(label, (step, lanes[row["writer"]]), (0, 10), textcoords="offset points", ha="center", fontsize=8)
    axes.hlines(list(lanes.values()), 0.5, len(requests) + 0.5, color=_LIGHT_GREY, zorder=0)
    axes.set_title(title)
    axes.set_xlabel("step, in the order in which the server gets the requests (orange: a commit)")
    axes.set_xticks(range(1, len(requests) + 1))
    axes.set_yticks(list(lanes.values()), [f"writer {writer}" for writer in lanes])
    axes.set_ylim(-len(lanes) + 0.6, 0.8)
    axes.spines["left"].set_visible(False)
    return figure


@_in_style
def pairs(outcomes: pd.DataFrame, title: str) -> Figure:
    """Draw a table of pairs as a map: rows are what is committed first, columns the stale commit that follows.

    Each cell of `outcomes` is "right", "error" or "wrong".
    """
    colors = {"right": SKY, "error": _LIGHT_GREY, "wrong": RED}
    figure, axes = plt.subplots(figsize=(_WIDTH_INCHES, 1.3 + 0.32 * len(outcomes)))
    for y, (_, row) in enumerate(outcomes.iterrows()):
        for x, outcome in enumerate(row):
            axes.add_patch(Rectangle((x, y), 0.95, 0.9, color=colors[outcome]))
            axes.text(x + 0.475, y + 0.45, outcome, ha="center", va="center", fontsize=8)
    axes.set(xlim=(0, len(outcomes.columns)), ylim=(len(outcomes), 0))
    axes.set_xticks([x + 0.475 for x in range(len(outcomes.columns))], outcomes.columns)
    axes.set_yticks([y + 0.45 for y in range(len(outcomes))], outcomes.index)
    axes.tick_params(length=0)
    axes.set_title(title)
    axes.set_xlabel("committed second, by a writer that has not seen the first commit")
    axes.set_ylabel("committed first")
    axes.spines[["left", "bottom"]].set_visible(False)
    return figure


@_in_style
def versions(history: pd.DataFrame, key: str, label: str, events: pd.DataFrame, title: str) -> Figure:
    """Draw each version of a row as a bar from valid_from to valid_to, and events as dots at the `time` they happened.

    `history` has the columns `key`, `label`, valid_from and valid_to; `events` has `key`, `label` (of the version that
    it belongs to), time and name. A version without valid_to ends at the right edge.
    """
    rows = history.sort_values([key, "valid_from"], kind="stable").reset_index(drop=True)
    end = max(rows["valid_from"].max(), events["time"].max()) + pd.Timedelta(days=1)
    starts, ends = (_days(rows[name].fillna(end)) for name in ("valid_from", "valid_to"))
    figure, axes = plt.subplots(figsize=(_WIDTH_INCHES, 1.4 + 0.4 * len(rows)))
    for row, (begin, until) in enumerate(zip(starts, ends, strict=True)):
        color = BLUE if pd.isna(rows.loc[row, "valid_to"]) else _LIGHT_GREY
        axes.barh(row, until - begin, left=begin, height=0.4, color=color)
    for event in events.to_dict("records"):
        (row,) = rows.index[(rows[key] == event[key]) & (rows[label] == event[label])]
        moment = event["time"].timestamp() / _DAY_S
        axes.plot(moment, row, "o", color=ORANGE, markersize=8)
        axes.annotate(str(event["name"]), (moment, row), xytext=(0, 10), textcoords="offset points", ha="center")
    axes.set_yticks(range(len(rows)), [f"{row[key]}: {row[label]}" for row in rows.to_dict("records")])
    axes.set_ylim(len(rows) - 0.4, -0.8)
    days = pd.date_range(rows["valid_from"].min().floor("D"), end, freq="D")
    axes.set_xticks(_days(days.to_series()), [f"{day:%m-%d}" for day in days])
    axes.set_xlabel("day (blue: the current version)")
    axes.set_title(title)
    return figure


# -- drawing


def _lifetimes(log: list[Commit]) -> dict[str, list[tuple[int, int | None]]]:
    """For each data file, the versions (from, to) while it is live; more than one if a restore brought it back.

    `to` is None while the file is live. Within a commit the files are in the order of their values: names are random.
    """
    lifetimes: dict[str, list[tuple[int, int | None]]] = {}
    for commit in log:
        for action in sorted(commit.actions, key=_removals_first_by_values):
            path = action.fields.get("path", "")
            spans = lifetimes.get(path, [])
            is_live = bool(spans) and spans[-1][1] is None
            if action.kind == "add" and not is_live:
                lifetimes.setdefault(path, []).append((commit.version, None))
            elif action.kind == "remove" and is_live:
                spans[-1] = (spans[-1][0], commit.version)
    return lifetimes


def _removals_first_by_values(action: Action) -> tuple[bool, str, str]:
    smallest = json.loads(action.fields.get("stats") or "{}").get("minValues", {})
    partition = action.fields.get("partitionValues") or {}
    return action.kind != "remove", json.dumps(partition), json.dumps(smallest, default=str)


def _days(times: pd.Series) -> list[float]:
    """Times as days since 1970."""
    return [moment.timestamp() / _DAY_S for moment in times]


def _bars_height(bars: int) -> float:
    """The height of this many bars in inches, for at least 4 and at most 24 bars."""
    return _BAR_INCHES * max(4, min(bars, 24))


def _png(figure: Figure) -> tuple[bytes, dict[str, str]]:
    """The figure as a small PNG file, and the metadata for Jupyter."""
    figure.set(dpi=_DPI, facecolor="white")
    canvas: Any = FigureCanvasAgg(figure)  # matplotlib does not annotate its methods
    png = io.BytesIO()
    canvas.draw()  # savefig would draw twice
    pixels = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    pixels.quantize(64, dither=Image.Dither.NONE).save(png, format="png", optimize=True)
    return png.getvalue(), {"alt": _alternative_text(figure)}


def _alternative_text(figure: Figure) -> str:
    words = [figure.get_suptitle()]
    for axes in figure.axes:
        title = axes.get_title("left") or axes.get_title()
        labels = " by ".join(filter(None, [axes.get_ylabel(), axes.get_xlabel()]))
        words += [title, f"({labels})" if labels else ""]
    return " ".join(word.replace("\n", " ") for word in words if word) or "A figure"


def _with_dates(values: pd.Series) -> pd.Series:
    """Dates and times as pandas timestamps in UTC; other values unchanged."""
    if values.map(lambda value: hasattr(value, "year")).all():
        return pd.to_datetime(values, utc=True)
    return values


def _numbers(values: pd.Series) -> pd.Series:
    """Numbers, or days since 1970 for dates and times, as matplotlib draws them."""
    values = _with_dates(values)
    if pd.api.types.is_datetime64_any_dtype(values):
        return values.map(lambda moment: moment.timestamp() / _DAY_S)
    try:
        return pd.to_numeric(values).astype(float)
    except (TypeError, ValueError):
        raise LakehouseError(
            f"{values.name} has values that are not numbers, dates or times, so they cannot be drawn as a range."
            " Choose another column."
        ) from None


def _overlap(low: pd.Series, high: pd.Series) -> str:
    """How many files contain a value: the average over the middles of all files."""
    middles = (low + high) / 2
    average = sum(((low <= middle) & (middle <= high)).sum() for middle in middles) / max(1, len(middles))
    if average < 1.5:
        ordered = pd.DataFrame({"low": low, "high": high}).sort_values(["low", "high"])
        overlaps = (ordered["low"] <= ordered["high"].cummax().shift()).any()
        return "the files hardly overlap" if overlaps else "the files do not overlap"
    return f"a value is in an average of {average:.0f} of {len(low)} files"


def _finding(measured: Mapping[str, Mapping[str, Any]]) -> str:
    most = max(measured, key=lambda label: measured[label]["bytes"])
    least = min(measured, key=lambda label: measured[label]["bytes"])
    times = measured[most]["bytes"] / max(1, measured[least]["bytes"])
    return f"“{most}” reads {times:,.1f} times as much as “{least}”"
