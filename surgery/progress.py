"""Progress reporting and cancellation for long-running calls.

A progress function gets a description and the amount done, in bytes or steps. It may raise
`Cancelled` to stop the work, which then cleans up.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from .errors import SurgeryError

# (what is happening, done, total); a total of 0 means that it isn't known.
Progress = Callable[[str, float, float], None]

_LOOK = 0.2  # seconds between progress reports while waiting
_NO_NEWS = 900.0  # seconds without news from the holder until waiting callers give up


class Cancelled(BaseException):
    """Raised by a progress function to stop the work that reports to it.

    Not an `Exception`, so that broad `except Exception` handlers don't catch it.
    """


def silent(what: str, done: float, total: float) -> None:
    """Ignore progress."""


# The current thread's progress function, for code that isn't passed one.
_current: ContextVar[Progress] = ContextVar("progress", default=silent)


@contextmanager
def reporting_to(progress: Progress) -> Iterator[None]:
    """Make `progress` the value of `current()` in this thread during the block, for nested code
    that isn't passed a progress function. It is also called with an empty text, by `alive`."""
    token = _current.set(progress)
    try:
        yield
    finally:
        _current.reset(token)


def current() -> Progress:
    """The progress function of this thread; `silent` if none was set."""
    return _current.get()


def alive() -> None:
    """Check for cancellation, as often as possible in inner loops. May raise `Cancelled`."""
    _current.get()("", 0, 0)


class Turn:
    """A lock whose waiting callers see the holder's progress and can cancel.

    Waiting fails with `SurgeryError` if the holder reports nothing for a quarter of an hour.
    """

    def __init__(self, what: str = "Waiting for other work to end") -> None:
        self._what = what
        self._news = (what, 0.0, 0.0)
        self._lock = threading.Lock()

    @contextmanager
    def taken(self, progress: Progress) -> Iterator[Progress]:
        """Hold the lock. Report to the yielded function; waiting callers see it."""
        seen, since = self._news, time.monotonic()
        while not self._lock.acquire(timeout=_LOOK):
            if self._news is not seen:
                seen, since = self._news, time.monotonic()
            progress(*seen)
            if time.monotonic() - since > _NO_NEWS:
                raise SurgeryError(
                    f"{seen[0]}: no progress for {_NO_NEWS / 60:.0f} minutes. Try again, or "
                    "restart the program."
                )

        def report(what: str, done: float, total: float) -> None:
            self._news = (what, done, total)
            progress(what, done, total)

        try:
            yield report
        finally:
            self._news = (self._what, 0.0, 0.0)
            self._lock.release()


class Meter:
    """Adds up what several threads have done of `total`, and reports it to one progress function.

    Once stopped, or once the progress function has raised, every further report raises too.
    """

    def __init__(self, progress: Progress, what: str, total: float) -> None:
        self.progress, self.what, self.total = progress, what, total
        self.done = 0.0
        self._stopped = False
        self._lock = threading.Lock()
        progress(what, 0, total)

    def add(self, amount: float) -> None:
        """Count `amount` more as done. Raises what the progress function raises, or `Cancelled`."""
        with self._lock:
            if self._stopped:
                raise Cancelled
            self.done += amount
            try:
                self.progress(self.what, self.done, self.total)
            except BaseException:
                self._stopped = True
                raise

    def stop(self) -> None:
        """Stop all threads that report to it."""
        with self._lock:
            self._stopped = True
