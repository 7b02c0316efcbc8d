"""A test whose worker process died of a signal runs once more, in a new worker, and the summary says so.

Libraries in native code (DuckDB, delta-rs, Arrow) share the process with the tests. A crash that happens again is a
failure; one that does not is reported, with the stack that Python's faulthandler wrote to stderr.
"""

from typing import Any

import pytest

CRASHED: list[str] = []


def pytest_handlecrashitem(crashitem: str, report: pytest.TestReport, sched: Any) -> None:
    if crashitem not in CRASHED:
        CRASHED.append(crashitem)
        sched.mark_test_pending(crashitem)
        report.outcome = "rerun"  # type: ignore[assignment]  # as xdist's documentation of this hook has it


def pytest_terminal_summary(terminalreporter: Any) -> None:
    for test in CRASHED:
        terminalreporter.write_line(f"WARNING: the worker of {test} crashed; the test ran again in another one.")
