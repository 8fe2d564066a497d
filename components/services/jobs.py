"""Run long work in a thread, with its progress, an estimate and a way to stop as a generator.

Gradio can close a generator only at a `yield`, and holds a global lock until then. So these
generators yield at least twice a second, whatever the work does, and closing them does not wait for
the work.
"""

from __future__ import annotations

import contextvars
import threading
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

from surgery import SurgeryError
from surgery.progress import Cancelled, Progress, reporting_to

Result = TypeVar("Result")
Item = TypeVar("Item")
_EVERY = 0.15  # seconds between checks
_BEAT = 0.3  # seconds after which the generator yields without news
_SOON = 1.0  # seconds before an estimate is worth anything
_MOST_ENDING = 4  # cancelled threads still running, from which on new work waits
_PATIENCE = 60.0  # seconds that new work waits for them
# Of the process, not of a page: all threads share its processors and memory.
_ending: set[threading.Thread] = set()


@dataclass(frozen=True)
class Report:
    """Progress of the work. `total` is 0 and `seconds_left` None where they aren't known."""

    what: str
    done: float
    total: float
    seconds_left: float | None

    def view(self) -> dict:
        """Return a status value: a sentence, and a share from 0 to 1 or None."""
        text = self.what
        if self.seconds_left is not None:
            text += f", about {_duration(self.seconds_left)} left"
        share = min(1.0, self.done / self.total) if self.total > 0 else None
        return {"text": text, "share": share}


class Job(Generic[Result]):
    """`for report in job:` runs `work(progress)` in a thread until it ends; then `job.result()`.

    Closing the iteration early, as Gradio does when an event is cancelled, stops the work at its
    next report. While many cancelled jobs are still running, new ones wait.
    """

    def __init__(self, work: Callable[[Progress], Result]) -> None:
        self._work = work
        self._stop = threading.Event()
        self._now: tuple[str, float, float] = ("Working", 0, 0)
        self._since = time.monotonic()
        self._result: Result | None = None
        self._error: BaseException | None = None
        self._thread = _thread(self._run)

    def __iter__(self) -> Generator[Report, None, None]:
        since = time.monotonic()
        while len(ending()) >= _MOST_ENDING:
            if time.monotonic() - since > _PATIENCE:
                self._error = SurgeryError(
                    "The server is still finishing cancelled work. Try again in a minute."
                )
                return
            yield Report("Waiting for cancelled work to finish", 0, 0, None)
            time.sleep(_EVERY)
        self._thread.start()
        seen, reported = self._now, time.monotonic()
        try:
            while self._thread.is_alive():
                self._thread.join(_EVERY)
                news = self._now != seen or time.monotonic() - reported > _BEAT
                if news and self._thread.is_alive():
                    seen, reported = self._now, time.monotonic()
                    yield self._report()
        finally:
            self._stop.set()
            _left(self._thread)

    def result(self) -> Result:
        """Return or raise what the work did."""
        if self._error is not None:
            raise self._error
        return cast(Result, self._result)

    def _run(self) -> None:
        try:
            with reporting_to(self._progress):
                self._result = self._work(self._progress)
        except BaseException as error:  # handed on by `result`
            self._error = plain(error)

    def _progress(self, what: str, done: float, total: float) -> None:
        if self._stop.is_set():
            raise Cancelled
        if not what:
            return
        if what != self._now[0]:
            self._since = time.monotonic()
        self._now = (what, done, total)

    def _report(self) -> Report:
        what, done, total = self._now
        took = time.monotonic() - self._since
        left = took * (total - done) / done if done > 0 and total > 0 and took > _SOON else None
        return Report(what, done, total, left)


def steps(work: Iterator[Item], ended: Callable[[], None] = lambda: None) -> Iterator[Item | None]:
    """Yield the items of `work`, each computed in a thread on demand, and None whenever a step
    takes long.

    `work` is closed and `ended` called when the last step has finished. If this generator is closed
    early, that may happen later.
    """
    asked, answered = threading.Semaphore(0), threading.Event()
    closed = threading.Event()
    answer: list[Any] = []  # one of (item,), error, or () at the end

    def run() -> None:
        try:
            while asked.acquire() and not closed.is_set():
                try:
                    answer[:] = [(next(work),)]
                except StopIteration:
                    answer[:] = [()]
                except BaseException as error:
                    answer[:] = [plain(error)]
                answered.set()
        finally:
            if close := getattr(work, "close", None):
                close()
            ended()

    thread = _thread(run)
    thread.start()
    try:
        while True:
            asked.release()
            while not answered.wait(_BEAT):
                yield None
            answered.clear()
            (result,) = answer
            answer.clear()
            if isinstance(result, BaseException):
                raise result
            if not result:
                return
            yield result[0]
    finally:
        closed.set()
        asked.release()
        _left(thread)


def ending() -> set[threading.Thread]:
    """Threads whose work was cancelled and has not stopped yet."""
    for thread in list(_ending):
        if not thread.is_alive():
            _ending.discard(thread)
    return _ending


def plain(error: BaseException) -> BaseException:
    """Return the error, without traceback and context if it is meant for users: they would keep
    everything alive that the failed work refers to."""
    if isinstance(error, (SurgeryError, Cancelled)):
        error.__context__ = None
        return error.with_traceback(None)
    return error


def _thread(run: Callable[[], None]) -> threading.Thread:
    """Create a thread with the context variables of the current one, such as Gradio's request."""
    context = contextvars.copy_context()
    return threading.Thread(target=context.run, args=(run,), daemon=True, name="job")


def _left(thread: threading.Thread) -> None:
    """Stop waiting for a thread; remember it if it is still running."""
    thread.join(_EVERY)
    if thread.is_alive():
        _ending.add(thread)


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{max(1, round(seconds))} s"
    if seconds < 3600:
        return f"{round(seconds / 60)} min"
    return f"{seconds / 3600:.1f} h"
