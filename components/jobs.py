"""Long work in a thread, watched from a generator: how far it is, how long it takes, how it stops.

Knows the library's way of reporting progress; what the work is, and where the reports are drawn, is
for others to say.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from surgery.progress import Cancelled, Progress

Result = TypeVar("Result")
_EVERY = 0.15  # seconds between looks
_SOON = 1.0  # seconds before an estimate is worth anything


@dataclass(frozen=True)
class Report:
    """How far the work is. `total` is 0 and `seconds_left` None where they aren't known."""

    what: str
    done: float
    total: float
    seconds_left: float | None

    def view(self) -> dict:
        """For the page: a sentence and a share from 0 to 1, or None."""
        text = self.what
        if self.seconds_left is not None:
            text += f", about {_duration(self.seconds_left)} left"
        share = min(1.0, self.done / self.total) if self.total > 0 else None
        return {"text": text, "share": share}


class Job(Generic[Result]):
    """`for report in job:` runs `work(progress)` in a thread until it ends; then `job.result()`.

    Closing the iteration early, as Gradio does when an event is cancelled, stops the work.
    """

    def __init__(self, work: Callable[[Progress], Result]) -> None:
        self._work = work
        self._stop = threading.Event()
        self._now: tuple[str, float, float] = ("", 0, 0)
        self._since = time.monotonic()
        self._result: Result | None = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __iter__(self) -> Iterator[Report]:
        self._thread.start()
        seen = None
        try:
            while self._thread.is_alive():
                self._thread.join(_EVERY)
                if self._now != seen and self._now[0] and self._thread.is_alive():
                    seen = self._now
                    yield self._report()
        finally:
            self._stop.set()

    def result(self) -> Result:
        """What the work returned; raises what it raised."""
        if self._error is not None:
            raise self._error
        return self._result

    def _run(self) -> None:
        try:
            self._result = self._work(self._progress)
        except BaseException as error:  # handed on by `result`
            self._error = error

    def _progress(self, what: str, done: float, total: float) -> None:
        if self._stop.is_set():
            raise Cancelled
        if what != self._now[0]:
            self._since = time.monotonic()
        self._now = (what, done, total)

    def _report(self) -> Report:
        what, done, total = self._now
        took = time.monotonic() - self._since
        left = took * (total - done) / done if done > 0 and total > 0 and took > _SOON else None
        return Report(what, done, total, left)


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{max(1, round(seconds))} s"
    if seconds < 3600:
        return f"{round(seconds / 60)} min"
    return f"{seconds / 3600:.1f} h"
