"""Share long-running work between visitors: opening a base, loading its weights.

Visitors who request work that is already running join it and see the same progress. The work stops
only when all of them have left, and never if the app itself requested it.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from surgery import BaseError
from surgery.progress import Cancelled, Progress, reporting_to

from .jobs import plain

Result = TypeVar("Result")
_LOOK = 0.1  # seconds between progress updates
_RETURN = 20.0  # seconds after the last visitor left until the work is stopped


class _Preparation(Generic[Result]):
    """Shared work in a separate thread, and the number of callers that wait for it."""

    def __init__(self, key: Hashable, work: Callable[[Progress], Result]) -> None:
        self.watchers, self.left = 0, time.monotonic()
        self.lasting = False
        self.now: tuple[str, float, float] = ("Working", 0, 0)
        self.ended = threading.Event()
        self.result: Result | None = None
        self.error: BaseException | None = None
        self._key, self._work = key, work
        threading.Thread(target=self._run, daemon=True, name="preparing").start()

    def _run(self) -> None:
        try:
            with reporting_to(self._progress):
                self.result = self._work(self._progress)
        except BaseException as error:  # raised again in all callers
            self.error = plain(error)
        finally:
            _forget(self._key, self)
            self.ended.set()

    def _progress(self, what: str, done: float, total: float) -> None:
        if what:
            self.now = (what, done, total)
        if self.watchers or self.lasting or time.monotonic() - self.left < _RETURN:
            return
        with _lock:
            if self.watchers:
                return
            if _under_way.get(self._key) is self:
                del _under_way[self._key]  # later callers start again
        raise Cancelled


_under_way: dict[Hashable, _Preparation] = {}
_lock = threading.Lock()


def shared(
    key: Hashable,
    work: Callable[[Progress], Result],
    progress: Progress,
    *,
    lasting: bool = False,
) -> Result:
    """Return or raise what `work(progress)` does; concurrent callers with the same key share it.

    `progress` is called with its updates. If it raises, this caller stops waiting and the work
    continues. Without callers the work goes on for a while, so that a page can be reloaded, and to
    its end if `lasting`.
    """
    with _lock:
        one = _under_way.get(key)
        if one is None:
            one = _under_way[key] = _Preparation(key, work)
        one.watchers += 1
        one.lasting |= lasting
    try:
        while not one.ended.wait(_LOOK):
            progress(*one.now)
    finally:
        with _lock:
            one.watchers -= 1
            one.left = time.monotonic()
    if one.error is not None:
        raise one.error
    return one.result


def at_most(seconds: float) -> Progress:
    """A progress function that raises `BaseError` after that time, for callers that show none."""
    end = time.monotonic() + seconds

    def progress(what: str, done: float, total: float) -> None:
        if time.monotonic() > end:
            raise BaseError(
                f"{what or 'Working'}: this is still in progress. Open the model on the page, and "
                "try again once it is open."
            )

    return progress


def _forget(key: Hashable, one: _Preparation) -> None:
    with _lock:
        if _under_way.get(key) is one:
            del _under_way[key]


def _in_a_child() -> None:
    """Reset the module's state: a forked process has none of its parent's threads."""
    global _lock
    _lock = threading.Lock()
    _under_way.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_a_child)
