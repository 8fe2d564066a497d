"""How long work tells whoever waits what it does, and how it is stopped.

A progress function hears what is happening and how much of it is done, in bytes or steps, and may
raise to cancel: everything in this library cleans up behind itself when it does.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

# (what is happening, done, total); a total of 0 means that it isn't known.
Progress = Callable[[str, float, float], None]


class Cancelled(Exception):
    """Raised by a progress function to stop the work that reports to it."""


def silent(what: str, done: float, total: float) -> None:
    """For callers who don't want to know."""


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
