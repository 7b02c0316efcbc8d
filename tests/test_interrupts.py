"""Ctrl+C while threads work together: it is put off, and no lock stays locked."""

import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from types import FrameType

import pytest

from lakehouse_utils.interrupts import CtrlC, uninterrupted


def test_ctrl_c_is_raised_at_the_end():
    """What was begun is finished first."""
    done = []

    @uninterrupted()
    def work() -> None:
        signal.raise_signal(signal.SIGINT)
        done.append(True)

    with pytest.raises(KeyboardInterrupt):
        work()
    assert done == [True]
    with pytest.raises(KeyboardInterrupt):  # as before
        signal.raise_signal(signal.SIGINT)


def test_an_error_is_raised_in_place_of_ctrl_c():
    """It says more."""

    @uninterrupted()
    def work() -> None:
        signal.raise_signal(signal.SIGINT)
        raise ValueError("wrong")

    with pytest.raises(ValueError, match="wrong"):
        work()


@pytest.mark.parametrize("number", range(1, 9))
def test_no_lock_of_a_pool_stays_locked(number):
    """Ctrl+C at the moment when the main thread has locked a Condition that its threads need: the pool ends."""
    entered: list[bool] = []

    def press(frame: FrameType, event: str, _value: object):
        if frame.f_code is threading.Condition.__enter__.__code__ and event == "return":
            entered.append(True)
            if len(entered) == number:
                signal.raise_signal(signal.SIGINT)
        return press

    @uninterrupted()
    def work() -> None:
        with ThreadPoolExecutor(4) as pool:
            sys.settrace(press)
            results.extend(pool.map(str, range(20)))

    results: list[str] = []
    try:
        with pytest.raises(KeyboardInterrupt):
            work()
    finally:
        sys.settrace(None)
    assert results == list(map(str, range(20)))
    assert len(entered) >= number


def test_other_handlers_are_left_alone():
    """A program that handles Ctrl+C in its own way goes on doing so."""
    heard = []
    usual = signal.signal(signal.SIGINT, lambda *_: heard.append(True))
    try:
        with CtrlC() as ctrl_c:
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, usual)
    assert heard == [True]
    assert not ctrl_c.is_pressed
