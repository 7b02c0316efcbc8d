"""Every order of two writers' requests is run once, on its own copy of the table."""

import subprocess
import sys
from collections import Counter

import pyarrow as pa
import pytest
from botocore.exceptions import ClientError, HTTPClientError
from deltalake import DeltaTable, write_deltalake

from lakehouse_utils.course import figures, interleavings
from lakehouse_utils.course.interleavings import Choice, SmallWriter
from lakehouse_utils.errors import LakehouseError
from lakehouse_utils.lake import Lake


@pytest.fixture
def ledger(lake: Lake) -> Lake:
    """A lake with an empty table called ledger."""
    schema = pa.schema({"writer": pa.string()})
    DeltaTable.create(lake.uri("ledger"), schema, storage_options=lake.storage_options)
    return lake


def append(writer: SmallWriter) -> None:
    """Append a row; look at what is stored after a refusal or a lost reply."""
    version = writer.next_version()
    commit = writer.upload_row()
    while True:
        try:
            writer.put_commit(version, commit)
        except (ClientError, HTTPClientError):
            if writer.read_commit(version) != commit:
                version += 1
                continue
        return


def start_over(writer: SmallWriter) -> None:
    """Append a row; append it again after a lost reply."""
    try:
        append_without_looking(writer)
    except HTTPClientError:
        append_without_looking(writer)


def append_without_looking(writer: SmallWriter) -> None:
    """Append a row, or raise."""
    version = writer.next_version()
    writer.put_commit(version, writer.upload_row())


def test_explore_with_put_if_absent(ledger: Lake) -> None:
    """Two writers of three requests have at least 20 orders, all different, and none loses a row."""
    runs = interleavings.explore(ledger, append, "ledger")
    starts = Counter("".join(choice.writer for choice in run.choices[:6]) for run in runs)
    assert len({run.order for run in runs}) == len({run.uri for run in runs}) == len(runs)
    assert len(starts) >= 20
    assert {run.rows for run in runs} == {"AB"}
    assert not any(run.errors for run in runs)
    assert DeltaTable(ledger.uri("ledger"), storage_options=ledger.storage_options).version() == 0


def test_explore_without_put_if_absent(ledger: Lake) -> None:
    """Without the condition there are exactly 20 orders, and only the two serial ones keep both rows."""
    runs = interleavings.explore(ledger, append, "ledger", put_if_absent=False)
    assert len(runs) == 20
    right = [[choice.writer for choice in run.choices] for run in runs if run.rows == "AB"]
    assert sorted(right) == [["A"] * 3 + ["B"] * 3, ["B"] * 3 + ["A"] * 3]
    assert Counter(run.rows for run in runs) == {"AB": 2, "A": 9, "B": 9}


def test_explore_with_lost_replies(ledger: Lake) -> None:
    """The server has the commit whose reply is lost: a writer that starts over has its row twice."""
    without, lost = interleavings.explore(ledger, start_over, "ledger", writers=["A"], lost_replies=1)
    assert (without.rows, lost.rows) == ("A", "AA")
    assert lost.choices[2] == Choice("A", lost=True)
    assert lost.table()["answer"].tolist() == ["200", "200", "200, lost", "200", "200", "200"]
    assert lost.order == "A:LIST A:PUT A:PUT! A:LIST A:PUT A:PUT"


def test_explore_records_errors_of_writers(ledger: Lake) -> None:
    """A writer that gives up is in `errors`, and the other one goes on."""
    runs = interleavings.explore(ledger, append_without_looking, "ledger")
    failed = [run for run in runs if run.errors]
    assert len(runs) == 20
    assert len(failed) == 18
    assert {type(error) for run in failed for error in run.errors.values()} == {ClientError}
    assert {len(run.rows) for run in failed} == {1}


def test_explore_over_tls() -> None:
    """Requests over TLS cannot be held."""

    class LakeOverTls:
        endpoint = "https://s3.example.com"

    with pytest.raises(LakehouseError, match="over TLS"):
        interleavings.explore(LakeOverTls(), append, "ledger")


def test_a_writer_that_sends_nothing(ledger: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer that waits for the other one is an error, not an endless wait."""
    monkeypatch.setattr(interleavings, "_PATIENCE_S", 0.2)
    with pytest.raises(LakehouseError, match="sent no request"):
        interleavings.explore(ledger, lambda _: __import__("time").sleep(1), "ledger")


_WRITER = """import sys, deltalake, pyarrow
deltalake.write_deltalake(sys.argv[1], pyarrow.table({"n": [2]}), mode="append")
"""


@pytest.mark.parametrize("is_released", [False, True])
def test_hold_commits(lake: Lake, is_released: bool) -> None:
    """A held writer has stored its data file but no commit; its commit counts only after release."""
    options = lake.storage_options
    write_deltalake(lake.uri("t"), pa.table({"n": [1]}), storage_options=options)
    with interleavings.hold_commits(lake) as held:
        command = [sys.executable, "-c", _WRITER, lake.uri("t")]
        with subprocess.Popen(command, env=options | held.environment) as process:
            held.wait()
            keys = [entry["Key"] for entry in lake.objects(lake.key("t", "part-"))]
            assert (len(keys), lake.delta("t").version()) == (2, 0)
            if is_released:
                held.release()
            else:
                process.kill()
    assert process.returncode == (0 if is_released else -9)
    assert lake.delta("t").count() == (2 if is_released else 1)


_THREE_APPENDS = """import sys, deltalake, pyarrow
for number in range(3):
    deltalake.write_deltalake(sys.argv[1], pyarrow.table({"n": [number]}), mode="append")
"""


def test_hold_commits_after_some(lake: Lake) -> None:
    """With `after`, the first commits are passed on, and the next one is held."""
    command = [sys.executable, "-c", _THREE_APPENDS, lake.uri("t")]
    with (
        interleavings.hold_commits(lake, after=2) as held,
        subprocess.Popen(command, env=lake.storage_options | held.environment) as process,
    ):
        held.wait()
        process.kill()
    assert lake.delta("t").version() == 1


def test_figure_of_an_order(ledger: Lake) -> None:
    """The time line has one dot per request, and a lane per writer."""
    run = interleavings.explore(ledger, append, "ledger", put_if_absent=False)[1]
    axes = figures.request_order(run.table(), "a title").axes[0]
    assert len(axes.lines) == len(run.requests) == 6
    assert [label.get_text() for label in axes.get_yticklabels()] == ["writer A", "writer B"]
    assert "PUT version 1\n200" in [text.get_text() for text in axes.texts]
