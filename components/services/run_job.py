"""Run a panel's work: admit the request, show progress, and end with what went wrong, if anything.

A panel yields updates, as Gradio takes them. `show` makes one from a status value.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing
from typing import Any, TypeVar

import gradio as gr

from components.widgets.status.status import Status, failed, note
from surgery import SurgeryError
from surgery.progress import Cancelled, Progress

from .client_address import Visitor
from .fair_queue import FairQueue
from .jobs import Job
from .services import Services

Result = TypeVar("Result")
Show = Callable[[dict], Any]


class JobPanel:
    """A panel with a status line, and a Stop button that is visible while its work runs."""

    status: Status
    stop: gr.Button

    def running(self, status: dict) -> dict:
        """The update that shows a status while the work runs."""
        return {self.status: status, self.stop: gr.update(visible=True)}

    def ended(self, status: dict) -> dict:
        """The update that shows a status once the work has ended."""
        return {self.status: status, self.stop: gr.update(visible=False)}


class Replaced(Cancelled):
    """Raised to stop work that a newer event replaces, such as counting a base once another one is
    open."""


def run_job(
    services: Services,
    what: str,
    request: gr.Request | None,
    updates: Iterator[Any],
    show: Show,
    *,
    stopped: dict | None = None,
    cleared: Mapping | None = None,
) -> Iterator[Any]:
    """Pass on a panel's updates if the request for `what` is admitted. If it is refused, or the
    work fails or is cancelled, the last update says so; on failure with the values `cleared`.
    """
    try:
        services.admit(what, request)
    except SurgeryError as error:
        yield show(failed(str(error)))
        return
    try:
        yield from updates
    except Cancelled:
        yield show(stopped or note("Stopped."))
    except SurgeryError as error:
        update = show(failed(services.deployment.words(error)))
        yield {**update, **cleared} if cleared else update


def in_turn(
    turns: FairQueue, who: Visitor | str | None, updates: Iterator[Any], show: Show
) -> Iterator[Any]:
    """Pass on `updates` once it is the turn of `who`; until then yield updates that show the place
    in the queue. `show` may raise to leave it. Raises `SurgeryError` if too many wait already."""

    def waiting(place: int) -> Any:
        return show(note(f"Place {place} in the queue")) if place else gr.skip()

    return turns.queued(who, updates, waiting)


def watch_in_turn(
    turns: FairQueue,
    who: Visitor | str | None,
    work: Callable[[Progress], Result],
    show: Show,
) -> Generator[Any, None, Result]:
    """`watch`, once it is the turn of `who`."""
    results: list[Result] = []

    def turn() -> Iterator[Any]:
        results.append((yield from watch(work, show)))

    yield from in_turn(turns, who, turn(), show)
    return results[0]


def watch(work: Callable[[Progress], Result], show: Show) -> Generator[Any, None, Result]:
    """Run `work(progress)` in a thread, yield updates that show its progress, and return or raise
    what it does."""
    job = Job(work)
    with closing(iter(job)) as reports:  # `show` may raise to stop the work
        for report in reports:
            yield show(report.view())
    return job.result()
