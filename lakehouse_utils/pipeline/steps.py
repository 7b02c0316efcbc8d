"""The steps of a run, one per table: in which order they run, several at a time, and how their errors are handled.

A step starts when the tables that it needs are up to date. The local engine, and each helper that it has, run one step
at a time, each in its own thread: while one waits for S3, another one computes. The steps are shown and reported in
their order, and only the thread that started the run uses the display and hears Ctrl+C.
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from queue import SimpleQueue

import duckdb

from lakehouse_utils.errors import (
    EngineError,
    FailedTablesError,
    LakehouseError,
    MachineError,
    SettingError,
    StorageError,
)
from lakehouse_utils.interrupts import CtrlC
from lakehouse_utils.pipeline.context import NoProgress, Progress, RunContext, TableCounts
from lakehouse_utils.pipeline.engines.protocol import Engine
from lakehouse_utils.pipeline.report import RunReport

# Errors that concern the whole run: other tables would fail too.
_END_THE_RUN = (StorageError, MachineError, SettingError, EngineError)
_SHOWN_EVERY_S = 0.1
_SAID_AFTER_S = 1.0  # when a run that was interrupted still works

# Brings a table up to date, with further attempts: (context, label, work) -> what was done.
Attempt = Callable[[RunContext, str, Callable[[], TableCounts]], TableCounts]
_Result = TableCounts | BaseException


@dataclass(frozen=True)
class Step:
    """The work on one table, called <layer>.<table> in `label`.

    `needed` are its inputs: without one of them it is skipped. `after` are tables that only have to be finished,
    whether they have failed or not. Tables that are not part of the run do not count. `refused` gets a sentence for
    each raw file that cannot be read at all; `size_bytes` is the total size of the raw files.
    """

    label: str
    work: Callable[[RunContext], TableCounts]
    needed: frozenset[str] = frozenset()
    after: frozenset[str] = frozenset()
    size_bytes: int | None = None
    refused: list[str] = field(default_factory=list)

    @property
    def layer_and_table(self) -> tuple[str, str]:
        """The two parts of the label."""
        layer, _, table = self.label.partition(".")
        return layer, table


class Steps:
    """Runs steps and reports them, and goes on with independent tables after one has failed."""

    def __init__(self, context: RunContext, report: RunReport, attempt: Attempt) -> None:
        self.context = context
        self.report = report
        self._attempt = attempt
        self._errors: dict[str, Exception] = {}

    def run(self, steps: Sequence[Step]) -> None:
        """Bring the tables up to date. A table that needs one that could not be brought up to date is skipped.

        `steps` are in an order in which they could run one after the other. Raises an error that does not concern one
        table alone; `raise_failures` raises the others.
        """
        engine = self.context.engine
        if engine.name == "local":
            helpers = engine.helpers() if len(steps) > 1 else []
            with ExitStack() as opened:
                self._run_in_threads(steps, [engine, *map(opened.enter_context, helpers)])
            return
        for step in steps:  # Ctrl+C ends waiting for a Spark server
            if not self._skip(step):
                self.context.progress.on_table_start(*step.layer_and_table, step.size_bytes)
                self._report(step, self._result(self.context, step))

    def raise_failures(self) -> None:
        """See the function of this name."""
        raise_failures(self._errors, self.report.failed, "could not be brought up to date")

    def _run_in_threads(self, steps: Sequence[Step], engines: list[Engine]) -> None:
        schedule, progress = _Schedule(steps), self.context.progress
        interrupted = threading.Event()
        collected = {step.label: _CollectedProgress(interrupted) for step in steps}

        def work(engine: Engine) -> None:
            while step := schedule.next_step():
                try:
                    result = self._result(self.context.for_step(engine, collected[step.label]), step)
                    ends_the_run = not self._is_about_one_table(result)
                except BaseException as error:  # noqa: BLE001 - the main thread waits for a result
                    result, ends_the_run = error, True
                schedule.finish(step, result, ends_the_run=ends_the_run)

        def interrupt() -> None:
            interrupted.set()
            for engine in engines:
                engine.interrupt()

        with ThreadPoolExecutor(len(engines)) as threads, CtrlC() as ctrl_c:
            working: list[Future[None]] = []
            try:
                working.extend(threads.submit(work, engine) for engine in engines)
                for step in steps:
                    if self._skip(step):
                        continue
                    while (has_started := schedule.has_started(step, _SHOWN_EVERY_S)) is None:
                        ctrl_c.raise_if_pressed()
                    if not has_started:
                        continue
                    progress.on_table_start(*step.layer_and_table, step.size_bytes)
                    while (result := schedule.result(step, _SHOWN_EVERY_S)) is None:
                        collected[step.label].forward(progress)
                        ctrl_c.raise_if_pressed()
                    collected[step.label].forward(progress)
                    self._report(step, result)
                schedule.raise_error()
                ctrl_c.raise_if_pressed()
            except BaseException as error:
                schedule.stop()
                is_interrupted, is_said = not isinstance(error, Exception), False
                stopped_at = time.monotonic()
                while True:
                    is_interrupted = is_interrupted or ctrl_c.is_pressed
                    if is_interrupted:
                        interrupt()
                    if not wait(working, _SHOWN_EVERY_S).not_done:
                        break
                    if is_interrupted and not is_said and time.monotonic() > stopped_at + _SAID_AFTER_S:
                        progress.on_note("interrupted; the run ends when the commits that have begun are finished")
                        is_said = True
                for step in steps:  # that have ended meanwhile, or before it was their turn
                    if (result := schedule.result(step)) is not None:
                        self._keep(step, result)
                raise

    def _skip(self, step: Step) -> bool:
        """Whether a table that the step needs could not be brought up to date; then the step is reported as skipped."""
        unavailable = sorted(step.needed & (self._errors.keys() | set(self.report.skipped)))
        if unavailable:
            self.report.skipped.append(step.label)
            self.context.progress.on_note(f"{step.label} is skipped, because it needs {', '.join(unavailable)}")
        return bool(unavailable)

    def _result(self, context: RunContext, step: Step) -> _Result:
        """What a step has done, with its duration, or the error that it ended with."""
        started = time.monotonic()
        try:
            counts = self._attempt(context, step.label, partial(step.work, context))
            counts.seconds = round(time.monotonic() - started, 3)
        except BaseException as error:  # noqa: BLE001 - `_report` raises it, or reports it with its table
            return error
        return counts

    def _report(self, step: Step, result: _Result) -> None:
        """Put the result into the report, and show it. Raises an error that ends the run."""
        self._keep(step, result)
        if isinstance(result, TableCounts):
            self.context.progress.on_table_end(*step.layer_and_table, result)
        elif self._is_about_one_table(result):
            self.context.progress.on_table_failed(*step.layer_and_table)
        else:
            raise result

    def _keep(self, step: Step, result: _Result) -> None:
        """Put the result into the report, unless it is there already or is an error that ends the run."""
        report = self.report
        report.refused += [sentence for sentence in step.refused if sentence not in report.refused]
        if isinstance(result, TableCounts):
            batches = [report.rows[name].last_batch for name in step.needed if name in report.rows]
            result.last_batch = result.last_batch or max(filter(None, batches), default=None)
            report.rows[step.label] = result
        elif isinstance(result, Exception) and self._is_about_one_table(result):
            self._errors[step.label] = result
            report.failed[step.label] = " ".join(str(result).split())

    def _is_about_one_table(self, result: _Result) -> bool:
        """Whether the run goes on with other tables after this result."""
        if isinstance(result, LakehouseError):
            return not isinstance(result, _END_THE_RUN)
        if isinstance(result, TableCounts):
            return True
        if not isinstance(result, Exception) or is_interrupted_query(result):
            return False
        return self.context.engine.name == "local"  # a Spark server may be gone: the engine finds that out


class _Schedule:
    """Hands out steps to threads, in their order, as soon as the tables that they wait for are finished."""

    def __init__(self, steps: Sequence[Step]) -> None:
        self._waiting = list(steps)
        self._labels = frozenset(step.label for step in steps)
        self._started: set[str] = set()
        self._results: dict[str, _Result] = {}
        self._unavailable: set[str] = set()  # failed or skipped
        self._error: BaseException | None = None
        self._is_stopped = False
        self._changed = threading.Condition()

    def next_step(self) -> Step | None:
        """The next step for a thread, which waits for it; None if there will be none."""
        with self._changed:
            while self._waiting and not self._is_stopped:
                step = next(filter(self._is_ready, self._waiting), None)
                if step is None:
                    self._changed.wait()
                    continue
                self._waiting.remove(step)
                self._changed.notify_all()
                if not step.needed & self._unavailable:
                    self._started.add(step.label)
                    return step
                self._unavailable.add(step.label)
            return None

    def _is_ready(self, step: Step) -> bool:
        awaited = (step.needed | step.after) & self._labels
        return awaited <= self._results.keys() | self._unavailable

    def finish(self, step: Step, result: _Result, *, ends_the_run: bool) -> None:
        """Keep the result of a step. If it ends the run, no further step starts."""
        with self._changed:
            self._results[step.label] = result
            if isinstance(result, BaseException):
                self._unavailable.add(step.label)
                if ends_the_run:
                    self._error, self._is_stopped = self._error or result, True
            self._changed.notify_all()

    def has_started(self, step: Step, timeout_s: float) -> bool | None:
        """Whether the step has started, which is waited for; None if that is not decided by then."""
        with self._changed:
            is_decided = self._changed.wait_for(lambda: step.label in self._started or self._is_stopped, timeout_s)
            return step.label in self._started if is_decided else None

    def result(self, step: Step, timeout_s: float = 0) -> _Result | None:
        """The result of a step, which is waited for; None if the step has not ended by then."""
        with self._changed:
            self._changed.wait_for(lambda: step.label in self._results, timeout_s)
            return self._results.get(step.label)

    def raise_error(self) -> None:
        """Raise the error that ended the run, if one did."""
        with self._changed:
            if self._error is not None:
                raise self._error

    def stop(self) -> None:
        """Hand out no further step."""
        with self._changed:
            self._is_stopped = True
            self._changed.notify_all()


_Event = Callable[[Progress], None]


class _CollectedProgress(NoProgress):
    """Collects what happens in one step, in its thread, until `forward` hands it on.

    When `interrupted` is set, the step ends as soon as it advances.
    """

    def __init__(self, interrupted: threading.Event) -> None:
        self._events: SimpleQueue[_Event] = SimpleQueue()
        self._interrupted = interrupted

    def on_advance(self, size_bytes: int) -> None:
        """See Progress. Raises KeyboardInterrupt after Ctrl+C, which interrupts only the main thread."""
        if self._interrupted.is_set():
            raise KeyboardInterrupt
        self._events.put(lambda progress: progress.on_advance(size_bytes))

    def on_note(self, sentence: str) -> None:
        """See Progress."""
        self._events.put(lambda progress: progress.on_note(sentence))

    def on_refused_file(self, sentence: str) -> None:
        """See Progress."""
        self._events.put(lambda progress: progress.on_refused_file(sentence))

    def forward(self, progress: Progress) -> None:
        """Hand on, in order, what was collected since the last call."""
        while not self._events.empty():
            self._events.get()(progress)


def raise_failures(errors: Mapping[str, Exception], sentences: Mapping[str, str], what: str) -> None:
    """Raise the error of the table that failed, or FailedTablesError if several have failed.

    `sentences` has the text of each error, `what` says what could not be done with the tables.
    """
    if len(errors) == 1:
        (error,) = errors.values()
        raise error
    if errors:
        text = " ".join(f"{label}: {sentence}" for label, sentence in sentences.items())
        raise FailedTablesError(f"{len(errors)} tables {what}. {text}", tables=list(errors))


def is_interrupted_query(error: BaseException) -> bool:
    """Whether DuckDB was interrupted by Ctrl+C. It raises a RuntimeError that differs from others only in its text."""
    return isinstance(error, duckdb.InterruptException) or str(error) == "Query interrupted"
