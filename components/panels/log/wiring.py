"""Measure the session's plan, draw its measurements, name and pin them, and bring a measured plan
back when it is picked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import gradio as gr

from components.gradio_compat.event_data import event_data
from components.parts import AT_ONCE, QUIET, PageParts
from components.services.client_address import Visitor, visitor
from components.services.default_scores import default_scores
from components.services.run_job import run_job, watch_in_turn
from components.services.services import Services
from components.sessions.healed_store import HealedStore
from components.sessions.measurements import Entry
from components.sessions.session import Session
from components.widgets.job_buttons import stops
from components.widgets.status.status import note
from surgery import SurgeryError, texts
from surgery.operation import Operation

from . import figures
from .panel import LogPanel

if TYPE_CHECKING:
    from surgery import Base
    from surgery.analysis import Score
    from surgery.harness import KeptResult

_STOPPED = note("Stopped. Measurements are kept.")


def wire(panel: LogPanel, parts: PageParts) -> None:
    """Tie the panel to the page."""
    services = parts.services
    drawn: dict[str, Any] = {"outputs": [panel.picture, panel.table], "queue": False, **QUIET}

    def draw(session: Session, request: gr.Request) -> tuple[dict, dict]:
        if services.refused("draw", request):
            return gr.skip(), gr.skip()
        entries, tasks = session.measurements, task_results(services, session)
        here = session.identity
        return figures.picture(entries, here), figures.table(entries, here, tasks)

    def mark(session: Session, event: gr.EventData, request: gr.Request) -> tuple[dict, dict]:
        note_down(session, event_data(event))
        return draw(session, request)

    def begin(session: Session, healed: HealedStore, request: gr.Request) -> Iterator[dict]:
        updates = measure(panel, services, session, healed, visitor(request))
        yield from run_job(services, "measure", request, updates, panel.ended, stopped=_STOPPED)

    measuring = panel.start.click(
        begin, [parts.session, parts.healed], [panel.status, panel.stop], **QUIET, **AT_ONCE
    )
    hidden = gr.update(visible=False)
    stops(panel.stop, [measuring], lambda: (_STOPPED, hidden), None, [panel.status, panel.stop])
    for event in [measuring, *parts.measured, *parts.opened]:
        event.then(draw, parts.session, **drawn)
    for event in (panel.table.rename, panel.table.pin):
        event(mark, parts.session, trigger_mode="multiple", **drawn)  # one for each row
    for view in (panel.picture, panel.table):
        parts.changes_plan(view.select, plan_at)


def measure(
    panel: LogPanel,
    services: Services,
    session: Session,
    healed: HealedStore,
    who: Visitor | str | None = None,
) -> Iterator[dict]:
    """Wait for a turn, and measure base and patient on the default text. `who` is the visitor, for
    fair queueing. Raises `SurgeryError`."""
    operation = session.operation(healed)

    def work(progress) -> tuple[Base, list[tuple[Operation, Score]]]:
        base = services.bases.load(operation, progress)
        with services.bases.in_use(base):
            return base, default_scores(base, operation, progress)

    base, scores = yield from watch_in_turn(services.measuring, who, work, panel.running)
    for of, score in scores:
        session.measurements.add(Entry.of(base, of, score, texts.DEFAULT))
    yield panel.ended(note(f"Measured on {scores[0][1].tokens:,} tokens."))


def task_results(services: Services, session: Session) -> list[KeptResult]:
    """What `evaluate` found out about the open base on this machine; nothing is loaded."""
    from surgery.harness import kept

    try:
        return kept(services.bases.get(session)) if session.spec else []
    except SurgeryError:  # said where the base is opened
        return []


def note_down(session: Session, request: Mapping) -> None:
    """Name or pin the entry that the browser names; nothing in the request is trusted."""
    index, name, pinned = (request.get(key) for key in ("index", "name", "pinned"))
    if type(index) is not int:
        return
    if isinstance(name, str):
        session.measurements.rename(index, name)
    if isinstance(pinned, bool):
        session.measurements.pin(index, pinned)


def plan_at(session: Session, request: Mapping) -> str | None:
    """The plan of the row or point that the browser names; None if there is none, or if it belongs
    to another base. Rows of tasks are of the open base, and name the plan itself."""
    if isinstance(plan := request.get("plan"), str):
        return plan
    index = request.get("index")
    entry = session.measurements.at(index) if type(index) is int else None
    return entry.plan if entry and entry.identity == session.identity else None
