"""The figures, by their titles, bars and pictures."""

import json

import matplotlib.pyplot as plt
import pandas as pd
import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from matplotlib.dates import AutoDateLocator
from matplotlib.figure import Figure

from lakehouse_utils.course import figures
from lakehouse_utils.errors import LakehouseError
from lakehouse_utils.lake import Lake


def write(lake: Lake, rows: dict[str, list[object]]) -> DeltaTable:
    """Append rows to `t` in one commit."""
    write_deltalake(lake.uri("t"), pa.table(rows), mode="append", storage_options=lake.storage_options)
    return lake.delta("t")


# -- timeline


def test_timeline_title(lake: Lake) -> None:
    """The title counts commits, files, and live files."""
    table = write(lake, {"id": [1, 2]})
    table.delete("id = 1")
    assert figures.timeline(table).axes[0].get_title("left") == "2 commits wrote 2 files; live now: 1"


def test_timeline_of_a_restored_file(lake: Lake) -> None:
    """A file that a restore brings back has two bars."""
    table = write(lake, {"id": [1, 2]})
    table.delete("id = 1")
    table.restore(0)
    axes = figures.timeline(table).axes[0]
    assert axes.get_title("left") == "3 commits wrote 2 files; live now: 1"
    assert sorted((bar.get_x(), bar.get_width()) for bar in axes.patches) == [(0, 1), (1, 1), (2, 0.5)]


def test_timeline_of_many_commits(lake: Lake) -> None:
    """More than 20 commits get fewer ticks than commits."""
    for number in range(25):
        table = write(lake, {"id": [number]})
    assert len(figures.timeline(table).axes[0].get_xticks()) < 25


def test_timeline_after_a_log_clean_up(lake: Lake) -> None:
    """Where the log's first commits are gone, the others are drawn."""
    for number in range(3):
        table = write(lake, {"id": [number]})
    table.create_checkpoint()
    lake.s3.delete_object(Bucket=lake.bucket, Key=lake.key("t", "_delta_log", f"{0:020}.json"))
    title = figures.timeline(lake.delta("t")).axes[0].get_title("left")
    assert title == "2 commits wrote 2 files; live now: 2"


# -- ranges


def test_ranges_of_files_with_and_without_overlap(lake: Lake) -> None:
    """Each panel's title says whether the files overlap in that column."""
    for begin in range(0, 100, 10):
        ids = list(range(begin, begin + 10))
        table = write(lake, {"id": ids, "mixed": [id * 37 % 100 for id in ids]})
    left, right = figures.ranges(table, "id", "mixed").axes
    assert left.get_title("left") == "id:\nthe files do not overlap"
    assert right.get_title("left").startswith("mixed:\na value is in ")
    assert right.get_title("left").endswith("of 10 files")


def test_ranges_of_files_that_share_a_border(lake: Lake) -> None:
    """Files of sorted rows that share only the value at their border hardly overlap, and the title says so."""
    for begin in range(0, 100, 10):
        table = write(lake, {"id": list(range(begin, begin + 11))})
    (axes,) = figures.ranges(table, "id").axes
    assert axes.get_title("left") == "id: the files hardly overlap"


def test_ranges_of_dates(lake: Lake) -> None:
    """Dates are drawn on an axis of dates."""
    table = write(lake, {"day": pd.to_datetime(["2026-01-01", "2026-01-05"]).date.tolist()})
    assert isinstance(figures.ranges(table, "day").axes[0].xaxis.get_major_locator(), AutoDateLocator)


def test_ranges_of_text(lake: Lake) -> None:
    """A column of text is an error that names the column."""
    with pytest.raises(LakehouseError, match="min name has values that are not numbers, dates or times"):
        figures.ranges(write(lake, {"name": ["a", "b"]}), "name")


# -- reads


def test_compare_reads_titles() -> None:
    """Without a title, the figure compares the largest with the smallest; a given title is used as it is."""
    everything, one = {"bytes": 3000, "requests": 9}, {"bytes": 1000, "requests": 3}
    figure = figures.compare_reads({"all": everything, "one": one})
    assert figure.get_suptitle() == "“all” reads 3.0 times as much as “one”"
    assert figures.compare_reads({"all": everything}, "A finding").get_suptitle() == "A finding"


# -- pictures


def test_pictures_in_a_notebook(lake: Lake) -> None:
    """Pictures are small, the same each time, and have their titles as alternative text."""
    figures.use_style()
    for number in range(12):
        table = write(lake, {"id": [number]})
    for figure in (figures.timeline(table), figures.ranges(table, "id")):
        png, metadata = figures._png(figure)
        assert png.startswith(b"\x89PNG")
        assert len(png) < 40_000
        assert figure.axes[0].get_title("left") in metadata["alt"]
        assert figures._png(figure)[0] == png
        assert json.dumps(metadata)


def test_figures_are_closed(lake: Lake) -> None:
    """A figure does not stay open in matplotlib, which would show it a second time."""
    before = plt.get_fignums()
    figure = figures.timeline(write(lake, {"id": [1]}))
    assert isinstance(figure, Figure)
    assert plt.get_fignums() == before


# -- pairs


def test_pairs() -> None:
    """Each pair is a cell with its outcome; rows are what is committed first."""
    outcomes = pd.DataFrame(
        {"append": {"append": "right", "compact": "right"}, "compact": {"append": "error", "compact": "wrong"}}
    )
    axes = figures.pairs(outcomes, "a title").axes[0]
    assert [text.get_text() for text in axes.texts] == ["right", "error", "right", "wrong"]
    assert len({patch.get_facecolor() for patch in axes.patches}) == 3
    assert [label.get_text() for label in axes.get_yticklabels()] == ["append", "compact"]


# -- versions


def test_versions() -> None:
    """One bar per version, the current one in blue, one dot per event, and the title."""
    day = pd.Timestamp("2026-03-01", tz="UTC")
    later = day + pd.Timedelta(days=2)
    history = pd.DataFrame(
        {"id": [1, 1], "city": ["Lima", "Oslo"], "valid_from": [day, later], "valid_to": [later, pd.NaT]}
    )
    events = pd.DataFrame({"id": [1], "city": ["Lima"], "time": [day], "name": ["a"]})
    axes = figures.versions(history, "id", "city", events, "a title").axes[0]
    assert axes.get_title("left") == "a title"
    assert [bar.get_width() for bar in axes.patches] == [2, 1]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["1: Lima", "1: Oslo"]
    assert len(axes.lines) == 1


# -- prices in percent


def test_compare_prices_title_counts_what_is_cheaper() -> None:
    """The title counts the cheaper products of each brand in the last version; each version has a panel."""
    percents = pd.DataFrame(
        {
            "version": [4, 4, 4, 8, 8, 8],
            "step": ["sale"] * 3 + ["repair"] * 3,
            "brand": ["A", "B", "B"] * 2,
            "percent": [80.0, 80.0, 80.0, 100.0, 80.0, 97.0],
        }
    )
    figure = figures.compare_prices(percents, 3)
    assert figure.get_suptitle() == "Cheaper in version 8 than in version 3: 2 of B"
    assert [axes.get_title("left") for axes in figure.axes] == ["version 4: sale", "version 8: repair"]
    assert [len(line.get_xdata()) for line in figure.axes[0].lines] == [1, 2, 2]  # brand A, brand B, the line at 100 %


def test_compare_prices_without_a_cheaper_product() -> None:
    """If nothing is cheaper, the title says so."""
    percents = pd.DataFrame({"version": [1], "step": ["load"], "brand": ["A"], "percent": [100.0]})
    assert figures.compare_prices(percents, 0).get_suptitle() == "Cheaper in version 1 than in version 0: none"
