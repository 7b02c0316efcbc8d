"""Ctrl+C without locks that stay locked.

Python raises KeyboardInterrupt at any instruction of the main thread. Between locking a Condition and the `try` that
unlocks it, that would leave other threads waiting forever, for example those of a ThreadPoolExecutor
(https://docs.python.org/3/library/signal.html#note-on-signal-handlers-and-exceptions).
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Self


class CtrlC:
    """Remembers, while it is entered, that Ctrl+C was pressed: Python then raises no KeyboardInterrupt."""

    def __init__(self) -> None:
        self.is_pressed = False
        self._is_handled = False

    def __enter__(self) -> Self:
        in_main_thread = threading.current_thread() is threading.main_thread()
        if in_main_thread and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, self._press)
            self._is_handled = True
        return self

    def __exit__(self, *_error: object) -> None:
        if self._is_handled:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def _press(self, _signal: int, _frame: FrameType | None) -> None:
        self.is_pressed = True  # nothing that locks: it is called at any instruction

    def raise_if_pressed(self) -> None:
        """Raise KeyboardInterrupt if Ctrl+C was pressed."""
        if self.is_pressed:
            raise KeyboardInterrupt


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Put off Ctrl+C while threads work together: KeyboardInterrupt is raised at the end, unless there is an error."""
    with CtrlC() as ctrl_c:
        yield
    ctrl_c.raise_if_pressed()
