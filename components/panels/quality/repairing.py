"""Repair the plan that the page shows; the Quality tile shows how it goes.

The repaired plan is one more edit, which Undo takes back. The repaired patient is kept beside the
healed ones, so that Talk, X-ray, Log and Save use it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import gradio as gr

from components.gradio_compat.event_data import event_data
from components.parts import AT_ONCE, QUIET, PageParts, tiles_of
from components.services.client_address import Visitor, visitor
from components.services.run_job import run_job, watch
from components.services.services import Services
from components.sessions.healed_store import HealedStore
from components.sessions.measurements import ALL_KINDS, altered_entries
from components.sessions.session import Session
from components.widgets.status.status import note
from surgery import SurgeryError, texts
from surgery.numbers import perplexity
from surgery.operation import Operation
from surgery.progress import Cancelled, Progress

from . import view
from .asked import Asked
from .panel import QualityTile

if TYPE_CHECKING:
    from surgery.repairing import Repaired

STOPPED = note("The repair was stopped.")
_LONGEST = 40  # characters of a text's name


def wire(tile: QualityTile, parts: PageParts) -> gr.State:
    """Tie the tile's repair to the page. Returns the state of what the session asks of the tile."""
    services, asked = parts.services, gr.State(Asked())

    def pressed(
        session: Session,
        healed: HealedStore,
        asked: Asked,
        event: gr.EventData,
        request: gr.Request,
    ) -> Iterator[dict]:
        if not session.spec:
            return
        operation = session.operation()
        text = str(event_data(event).get("text", texts.DEFAULT))[:_LONGEST]

        def numbered(value: dict) -> dict:
            return {tile: {**value, "request": number}}

        def ended(status: dict) -> dict:
            asked.keep_reason(operation, status["text"])
            show = view.failed if status["failed"] else view.offer
            return numbered(show(operation, text, status["text"]))

        def updates() -> Iterator[dict]:
            who, before = visitor(request), session.order
            for value in repair(services, session, healed, asked, operation, text, who):
                yield numbered(value)
            if session.order != before:  # repaired, perhaps to an equal plan, whose fits were gone
                yield {
                    parts.strip: session.view(),
                    parts.tiles: tiles_of(services, session, healed),
                }

        with asked.repairing(operation) as number:
            yield from run_job(services, "measure", request, updates(), ended, stopped=STOPPED)

    def stop(asked: Asked) -> None:
        asked.repair = None

    done = tile.repair(
        pressed,
        [parts.session, parts.healed, asked],
        [tile, parts.strip, parts.tiles],
        **QUIET,
        **AT_ONCE,
    )
    tile.stop(stop, asked, None, queue=False, **QUIET)
    parts.measured.append(done)
    parts.edits.append(done)
    return asked


def repair(
    services: Services,
    session: Session,
    healed: HealedStore,
    asked: Asked,
    operation: Operation,
    text: str,
    who: Visitor | None = None,
) -> Iterator[dict]:
    """Values of the tile while a plan waits for its turn and is repaired, within `asked.repairing`;
    at the end the session has the repaired plan, if that is better. `who` is the visitor, for fair
    queueing. Raises `SurgeryError`, or `Cancelled` once it is stopped or another plan is shown."""
    services.deployment.check_repair()
    # Others wait for the turn in which this would wait.
    if healed.training.is_set() and not healed.pausing.is_set():
        raise SurgeryError("This page is healing a patient. Pause that first, or wait for its end.")
    shown = view.repairing(operation, text, "Starting")
    results: list[Repaired] = []

    def check() -> None:
        shown_now = session.spec, session.plan
        if asked.repair is not operation or shown_now != (operation.spec, operation.plan):
            raise Cancelled

    def waiting(place: int) -> dict:
        check()
        if not place:
            return shown
        return view.repairing(operation, text, f"Place {place} in the queue")

    def running(status: dict) -> dict:
        nonlocal shown
        check()
        shown = view.repairing(operation, text, status["text"])
        return shown

    def work(progress: Progress) -> Repaired:
        from surgery.repairing import repair as repaired_of

        with healed.busy.taken(progress) as report:
            base = services.bases.load(operation, report)
            with services.bases.in_use(base):
                return repaired_of(base, operation.plan, progress=report)

    def turn() -> Iterator[dict]:
        results.append((yield from watch(work, running)))

    yield shown
    yield from services.repairs.queued(who, turn(), waiting)
    check()
    (result,) = results
    done = Operation(operation.spec, result.plan, healed=result)
    cut = Operation(operation.spec, operation.plan.unfitted)
    for entry in altered_entries(services.bases.get(operation), cut, done, ALL_KINDS):
        session.measurements.add(entry)
    if not result.helps:
        words = _no_better(result)
        asked.keep_reason(operation, words)
        yield view.remark(operation, text, words)
        return
    healed.keep(done)
    session.repaired(result.plan)


def _no_better(result: Repaired) -> str:
    """What to say of a repair that doesn't help."""
    scores = result.facts["perplexity"]
    cut, repaired = perplexity(scores["cut"]), perplexity(scores["repaired"])
    return f"Repair not applied: no better on held-out text (perplexity {cut} → {repaired})."
