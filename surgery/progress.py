"""How long work tells whoever waits what it does, and how it is stopped.

A progress function hears what is happening and how much of it is done, in bytes or steps, and may
raise to cancel: everything in this library cleans up behind itself when it does.
"""

from __future__ import annotations

from collections.abc import Callable

# (what is happening, done, total); a total of 0 means that it isn't known.
Progress = Callable[[str, float, float], None]


class Cancelled(Exception):
    """Raised by a progress function to stop the work that reports to it."""


def silent(what: str, done: float, total: float) -> None:
    """For callers who don't want to know."""
