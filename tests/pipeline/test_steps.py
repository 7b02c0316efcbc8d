"""The steps of a run: several at a time, in an order that is always right, and shown one after the other."""

import signal
import sys
import threading
import time
from types import FrameType

import pytest
from support import lakes

from lakehouse_utils.errors import DescriptionError, ServerUnreachableError
from lakehouse_utils.pipeline.context import NoProgress, RunContext, TableCounts
from lakehouse_utils.pipeline.engines.local import LocalEngine
from lakehouse_utils.pipeline.report import RunReport
from lakehouse_utils.pipeline.steps import Step, Steps

A_MINUTE_OF_WORK = "SELECT count(*) FROM range(100000) AS a, range(100000) AS b WHERE (a.range * b.range) % 7 = 3"


class Events(NoProgress):
    """Keeps what is shown, and fails if another thread than the one that started the run shows it."""

    def __init__(self) -> None:
        self.shown: list[str] = []
        self._thread = threading.get_ident()

    def _show(self, text: str) -> None:
        assert threading.get_ident() == self._thread
        self.shown.append(text)

    def on_table_start(self, layer: str, table: str, size_bytes: int | None) -> None:
        self._show(f"start {layer}.{table}")

    def on_table_end(self, layer: str, table: str, counts: TableCounts) -> None:
        self._show(f"end {layer}.{table}")

    def on_table_failed(self, layer: str, table: str) -> None:
        self._show(f"failed {layer}.{table}")

    def on_note(self, sentence: str) -> None:
        self._show(sentence)

    def on_advance(self, size_bytes: int) -> None:
        self._show(f"{size_bytes} bytes")


class Interrupted(Events):
    """The user presses Ctrl+C while this text is shown."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self._text = text

    def _show(self, text: str) -> None:
        super()._show(text)
        if text == self._text:
            signal.raise_signal(signal.SIGINT)


@pytest.fixture
def run(lake):
    """Run steps on the local engine; returns the report and what was shown."""

    def run(
        *steps: Step, progress: Events | None = None, report: RunReport | None = None
    ) -> tuple[RunReport, list[str]]:
        progress, report = progress or Events(), report or RunReport("local", lake.root)
        context = RunContext(lake, LocalEngine(lake), progress)
        with context.engine:
            running = Steps(context, report, lambda _context, _label, work: work())
            running.run(steps)
        return report, progress.shown

    return run


def step(label: str, work=lambda _run: TableCounts(), needed=(), after=()) -> Step:
    return Step(label, work, frozenset(needed), frozenset(after))


def failing(error: BaseException):
    def work(_run: RunContext) -> TableCounts:
        raise error

    return work


def test_two_steps_run_at_the_same_time_and_are_shown_in_their_order(run):
    """Neither of two steps that wait for each other would end if they ran one after the other."""
    both, second_is_done = threading.Barrier(2), threading.Event()

    def first(context: RunContext) -> TableCounts:
        both.wait(timeout=60)
        assert second_is_done.wait(timeout=60)
        context.progress.on_note("note of a")
        return TableCounts(read=1)

    def second(context: RunContext) -> TableCounts:
        both.wait(timeout=60)
        context.progress.on_note("note of b")
        second_is_done.set()
        return TableCounts(read=2)

    report, shown = run(step("bronze.a", first), step("bronze.b", second))
    assert shown == ["start bronze.a", "note of a", "end bronze.a", "start bronze.b", "note of b", "end bronze.b"]
    assert {label: counts.read for label, counts in report.rows.items()} == {"bronze.a": 1, "bronze.b": 2}
    assert list(report.rows) == ["bronze.a", "bronze.b"]


def test_each_step_has_its_own_engine(run):
    """Relations of the same name in two steps are not mixed up."""
    both = threading.Barrier(2)

    def work(number: int):
        def use_engine(context: RunContext) -> TableCounts:
            relation = context.engine.materialize("numbers", f"SELECT {number} AS n")
            both.wait(timeout=60)
            assert context.engine.query(f"SELECT n FROM {relation}") == [(number,)]
            return TableCounts()

        return use_engine

    run(step("silver.a", work(1)), step("silver.b", work(2)))


def test_a_step_starts_when_what_it_needs_is_finished(run):
    """A table is built from complete inputs, also if another thread is free."""
    finished: list[str] = []

    def slow(_run: RunContext) -> TableCounts:
        time.sleep(0.3)
        finished.append("bronze.a")
        return TableCounts()

    def dependent(_run: RunContext) -> TableCounts:
        assert finished == ["bronze.a"]
        return TableCounts()

    _, shown = run(
        step("bronze.a", slow),
        step("silver.a_history", dependent, ["bronze.a"]),
        step("silver.a", dependent, ["bronze.a", "bronze.unchanged"], ["silver.a_history"]),
    )
    assert shown[-1] == "end silver.a"


def test_a_failed_step_skips_those_that_need_it(run):
    """They are skipped by name, also indirectly; what only comes after it runs."""
    error = DescriptionError("wrong")
    report, shown = run(
        step("bronze.a", failing(error)),
        step("silver.a_history", needed=["bronze.a"]),
        step("silver.b_history", failing(error)),
        step("silver.b", after=["silver.b_history"]),
        step("gold.a", needed=["silver.a_history"]),
    )
    assert (list(report.failed), report.skipped) == (
        ["bronze.a", "silver.b_history"],
        ["silver.a_history", "gold.a"],
    )
    assert list(report.rows) == ["silver.b"]
    assert [text for text in shown if "skipped" in text] == [
        "silver.a_history is skipped, because it needs bronze.a",
        "gold.a is skipped, because it needs silver.a_history",
    ]


def test_an_error_that_ends_the_run_lets_no_further_step_start(run):
    """Steps that are running are finished and reported, and the error is raised."""
    started: list[str] = []
    is_failing = threading.Event()

    def first(_run: RunContext) -> TableCounts:
        assert is_failing.wait(timeout=60)
        time.sleep(0.3)
        started.append("bronze.a")
        return TableCounts()

    def second(_run: RunContext) -> TableCounts:
        is_failing.set()
        raise ServerUnreachableError("gone", server="", uri="")

    progress = Events()
    with pytest.raises(ServerUnreachableError, match="gone"):
        run(
            step("bronze.a", first),
            step("bronze.b", second),
            step("bronze.c", lambda _run: pytest.fail("it has started")),
            progress=progress,
        )
    assert started == ["bronze.a"]
    assert progress.shown == ["start bronze.a", "end bronze.a", "start bronze.b"]


@pytest.mark.parametrize("shown", ["start silver.a", "5 bytes"])
def test_ctrl_c_ends_running_queries_and_uploads(run, shown):
    """Ctrl+C reaches only the main thread: a query of a minute is interrupted, an upload ends where it advances."""

    def query(context: RunContext) -> TableCounts:
        context.progress.on_advance(5)
        context.engine.query(A_MINUTE_OF_WORK)
        raise AssertionError("the query was not interrupted")

    def upload(context: RunContext) -> TableCounts:
        while True:
            time.sleep(0.01)
            context.progress.on_advance(1)

    threads = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        run(step("silver.a", query), step("bronze.b", upload), progress=Interrupted(shown))
    assert threading.active_count() == threads


def test_ctrl_c_leaves_no_lock_behind(run, monkeypatch):
    """Wherever in the main thread's work with the threads it is pressed, the run ends."""
    is_pressed = threading.Event()

    def press_in_a_lock(frame: FrameType, event: str, _value: object):
        """As if Ctrl+C were pressed just after the main thread has locked the schedule."""
        locks = frame.f_code is threading.Condition.__enter__.__code__ and event == "return"
        if locks and "_Schedule" in frame.f_back.f_code.co_qualname and not is_pressed.is_set():
            is_pressed.set()
            signal.raise_signal(signal.SIGINT)
        return press_in_a_lock

    def work(_run: RunContext) -> TableCounts:
        assert is_pressed.wait(timeout=60)
        return TableCounts()

    monkeypatch.setattr(Events, "on_table_start", lambda *_: sys.settrace(press_in_a_lock))
    try:
        with pytest.raises(KeyboardInterrupt):
            run(step("bronze.a", work), step("bronze.b", work))
    finally:
        sys.settrace(None)
    assert is_pressed.is_set()


def test_a_commit_that_has_begun_is_finished_after_ctrl_c(run, lake):
    """It cannot be interrupted; the user learns why the run has not ended yet, and the table is in the report."""

    def commit(context: RunContext) -> TableCounts:
        context.progress.on_advance(1)
        time.sleep(2)
        return TableCounts(read=3)

    report, progress = RunReport("local", lake.root), Interrupted("1 bytes")
    with pytest.raises(KeyboardInterrupt):
        run(step("silver.a", commit), step("silver.b", needed=["silver.a"]), progress=progress, report=report)
    assert progress.shown[-1] == "interrupted; the run ends when the commits that have begun are finished"
    assert list(report.rows) == ["silver.a"]


def test_what_is_finished_is_reported_after_ctrl_c(run, lake):
    """A table whose turn to be shown had not come is in the report, because its rows are in the lake."""
    is_finished = threading.Event()

    def long(context: RunContext) -> TableCounts:
        assert is_finished.wait(timeout=60)
        while True:
            context.progress.on_advance(1)
            time.sleep(0.01)

    def short(_run: RunContext) -> TableCounts:
        is_finished.set()
        return TableCounts(read=3)

    report = RunReport("local", lake.root)
    with pytest.raises(KeyboardInterrupt):
        run(step("bronze.a", long), step("bronze.b", short), progress=Interrupted("1 bytes"), report=report)
    assert {label: counts.read for label, counts in report.rows.items()} == {"bronze.b": 3}


def test_after_an_error_that_ends_the_run_later_steps_that_are_running_are_finished(run, lake):
    """Their work is not thrown away: it is in the report as well."""
    is_running = threading.Event()

    def first(_run: RunContext) -> TableCounts:
        assert is_running.wait(timeout=60)
        raise ServerUnreachableError("gone", server="", uri="")

    def second(context: RunContext) -> TableCounts:
        is_running.set()
        time.sleep(0.3)
        context.engine.query("SELECT 1")
        return TableCounts(read=3)

    report = RunReport("local", lake.root)
    with pytest.raises(ServerUnreachableError, match="gone"):
        run(step("bronze.a", first), step("silver.b", second), report=report)
    assert list(report.rows) == ["silver.b"]


def test_a_step_that_raises_a_keyboard_interrupt_ends_the_run(run):
    """As if it ran in the main thread."""
    with pytest.raises(KeyboardInterrupt):
        run(step("bronze.a", failing(KeyboardInterrupt())), step("bronze.b"))


def test_with_little_memory_one_engine_works_alone(lake, monkeypatch):
    """Half of a small limit would be too little for large tables."""
    monkeypatch.setenv("LAKEHOUSE_MEMORY_LIMIT", "1900MB")
    assert LocalEngine(lake).helpers() == []
    monkeypatch.setenv("LAKEHOUSE_MEMORY_LIMIT", "2GB")
    for is_in_use in (False, True):
        with LocalEngine(lake) as engine:
            if is_in_use:
                engine.query("SELECT 1")
            (helper,) = engine.helpers()
            with helper:
                for one in (engine, helper):
                    assert one.query("SELECT current_setting('memory_limit')") == [("953.6 MiB",)]


@pytest.mark.slow
def test_whole_job_gives_the_same_rows_one_by_one_and_two_at_a_time(small, prefix, s3_state_dir, monkeypatch):
    """How many tables are built at the same time changes neither a row nor the report."""
    results = []
    for number, limit in enumerate(("1GB", "2GB")):
        monkeypatch.setenv("LAKEHOUSE_MEMORY_LIMIT", limit)
        lake = lakes.at(f"{prefix}/{number}", s3_state_dir)
        progress = lakes.RecordingProgress()
        report = lakes.job(lake, small, progress=progress)
        results.append((list(report.rows), report.rows, report.refused, progress.sentences, lakes.contents(lake)))
    assert results[0] == results[1]
