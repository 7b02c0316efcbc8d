"""The figures of the course: a table's log as a time line, the ranges of its files, what queries read."""

import io
from collections.abc import Callable
from functools import wraps
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from deltalake import DeltaTable
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from lakehouse_utils.course.views import files, log_of, operation_of, rank_of
from lakehouse_utils.errors import LakehouseError

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
    log = list(log_of(table))
    lives: dict[str, list[list[int | None]]] = {}  # by file: [from, to]; more than one where a restore brought it back
    for version, actions in log:
        for kind, action in sorted(actions, key=lambda pair: (pair[0] != "remove", rank_of(pair[1]))):
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
        axes.annotate(operation_of(actions), (version, 0), xytext=(0, 8), textcoords="offset points",
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
