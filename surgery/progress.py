"""How long work tells whoever waits what it does, and how it is stopped.

A progress function hears what is happening and how much of it is done, in bytes or steps, and may
raise `Cancelled` to stop: everything in this library cleans up behind itself when it does.
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

_LOOK = 0.2  # seconds between looks while waiting
_NO_NEWS = 900.0  # seconds without news of the work that others wait for, until they give up


class Cancelled(BaseException):
    """Raised by a progress function to stop the work that reports to it.

    Not an `Exception`: code that tries something and catches whatever fails must not catch this.
    """


def silent(what: str, done: float, total: float) -> None:
    """For callers who don't want to know."""


# Whom the work of this thread reports to where no progress function was handed down.
_current: ContextVar[Progress] = ContextVar("progress", default=silent)


@contextmanager
def reporting_to(progress: Progress) -> Iterator[None]:
    """Within, `current()` is `progress` in this thread, for work too deep to hand it down to. It
    also hears the empty text: a sign of life with nothing to say."""
    token = _current.set(progress)
    try:
        yield
    finally:
        _current.reset(token)


def current() -> Progress:
    """The progress function of the work that this thread does; `silent` if none was set."""
    return _current.get()


def alive() -> None:
    """For deep work, as often as possible: raises what stops the work of this thread."""
    _current.get()("", 0, 0)


class Turn:
    """A lock for work that others wait for: they see its progress meanwhile, and can leave.

    Whoever waits gives up with a `SurgeryError` once there was no news for a quarter of an hour.
    """

    def __init__(self, what: str = "Waiting for other work to end") -> None:
        self._what = what
        self._news = (what, 0.0, 0.0)
        self._lock = threading.Lock()

    @contextmanager
    def taken(self, progress: Progress) -> Iterator[Progress]:
        """Within, nobody else has it. Report to what this yields, for those who wait to see."""
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
        """So much more is done. Raises what the progress function raises, or `Cancelled`."""
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
        """Have all who report to it stop."""
        with self._lock:
            self._stopped = True
