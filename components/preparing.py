"""Work that several visitors wait for, done once by the app: opening a base, loading its weights.

Whoever asks for what is under way already joins in and sees the same progress. A visitor who leaves
stops nothing that others wait for, nor what the app wants for itself.
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
_LOOK = 0.1  # seconds between looks
_RETURN = 20.0  # seconds for a visitor who left to come back, before the work is stopped


class _Preparation(Generic[Result]):
    """One piece of work in a thread of its own, and how many wait for it."""

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
        except BaseException as error:  # handed on to all who wait
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
                del _under_way[self._key]  # whoever asks from now on begins anew
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
    """What `work(progress)` returns or raises: done once for all who ask under this key meanwhile.

    `progress` hears of it, and stops the waiting alone by raising. The work goes on for a while
    without anybody waiting, so that a page can be loaded anew, and to its end if `lasting`.
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
    """A progress function for callers who can show none: they stop waiting after so long."""
    end = time.monotonic() + seconds

    def progress(what: str, done: float, total: float) -> None:
        if time.monotonic() > end:
            raise BaseError(
                f"{what or 'Working'}: this takes longer. Open the model, and try again once it "
                "is open."
            )

    return progress


def _forget(key: Hashable, one: _Preparation) -> None:
    with _lock:
        if _under_way.get(key) is one:
            del _under_way[key]


def _in_a_child() -> None:
    """A forked process has none of the threads that its parent had at work."""
    global _lock
    _lock = threading.Lock()
    _under_way.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_a_child)
