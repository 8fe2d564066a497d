"""Share long-running work between visitors: opening a base, loading its weights.

Visitors who request work that is already running join it and see the same progress. The work stops
only when all of them have left, and never if the app itself requested it.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar, cast

from surgery import BaseError
from surgery.progress import Cancelled, Progress, reporting_to

from .jobs import plain

Result = TypeVar("Result")
_LOOK = 0.1  # seconds between progress updates
_LINGER = 20.0  # seconds after the last visitor left until the work is stopped


@dataclass(eq=False)
class _Preparation(Generic[Result]):
    """Work under way, and the number of callers that wait for it."""

    watchers: int = 0
    left: float = field(default_factory=time.monotonic)  # when the last caller stopped waiting
    lasting: bool = False
    now: tuple[str, float, float] = ("Working", 0, 0)
    ended: threading.Event = field(default_factory=threading.Event)
    result: Result | None = None
    error: BaseException | None = None


class SharedWork:
    """Work that several callers may wait for, by its key."""

    def __init__(self, linger: float = _LINGER) -> None:
        """Work that nobody waits for any more continues for `linger` seconds: a page may be
        reloaded."""
        self._linger = linger
        self._lock = threading.Lock()
        self._process = os.getpid()
        self._under_way: dict[Hashable, _Preparation] = {}

    def __len__(self) -> int:
        """How much work is under way."""
        return len(self._under_way)

    def run(
        self,
        key: Hashable,
        work: Callable[[Progress], Result],
        progress: Progress,
        *,
        lasting: bool = False,
    ) -> Result:
        """Return or raise what `work(progress)` does; concurrent callers with one key share it.

        `progress` is called with its updates. If it raises, this caller stops waiting and the work
        continues. Without callers it continues for a while, and to its end if `lasting`.
        """
        if self._process != os.getpid():  # a forked process has none of its parent's threads
            self._process, self._lock = os.getpid(), threading.Lock()
            self._under_way.clear()
        with self._lock:
            one = self._under_way.get(key)
            if one is None:
                one = self._under_way[key] = self._begin(key, work)
            one.watchers += 1
            one.lasting |= lasting
        try:
            while not one.ended.wait(_LOOK):
                progress(*one.now)
        finally:
            with self._lock:
                one.watchers -= 1
                one.left = time.monotonic()
        if one.error is not None:
            raise one.error
        return cast(Result, one.result)

    def _begin(self, key: Hashable, work: Callable[[Progress], Result]) -> _Preparation[Result]:
        one: _Preparation[Result] = _Preparation()
        options: dict[str, Any] = {"args": (key, one, work), "daemon": True, "name": "preparing"}
        threading.Thread(target=self._run, **options).start()
        return one

    def _run(self, key: Hashable, one: _Preparation, work: Callable[[Progress], Result]) -> None:
        def progress(what: str, done: float, total: float) -> None:
            if what:
                one.now = (what, done, total)
            if not self._wanted(key, one):
                raise Cancelled

        try:
            with reporting_to(progress):
                one.result = work(progress)
        except BaseException as error:  # raised again in all callers
            one.error = plain(error)
        finally:
            with self._lock:
                self._forget(key, one)
            one.ended.set()

    def _wanted(self, key: Hashable, one: _Preparation) -> bool:
        """Whether work is to continue; if not, later callers start it again."""
        if one.watchers or one.lasting or time.monotonic() - one.left < self._linger:
            return True
        with self._lock:
            if not one.watchers:
                self._forget(key, one)
            return bool(one.watchers)

    def _forget(self, key: Hashable, one: _Preparation) -> None:
        if self._under_way.get(key) is one:
            del self._under_way[key]


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
