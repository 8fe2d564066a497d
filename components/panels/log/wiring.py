"""Draw a session's measurements, and bring a measured plan back when it is picked."""

from __future__ import annotations

from collections.abc import Mapping

import gradio as gr

from components.parts import QUIET, PageParts
from components.sessions.session import Session

from . import figures
from .panel import LogPanel


def wire(panel: LogPanel, parts: PageParts) -> None:
    """Tie the panel to the page."""

    def draw(session: Session, request: gr.Request) -> tuple[dict, dict]:
        if parts.services.refused("draw", request):
            return gr.skip(), gr.skip()
        entries = session.measurements
        return figures.picture(entries, session.spec), figures.table(entries)

    for event in [*parts.measured, *parts.opened]:
        event.then(draw, parts.session, [panel.picture, panel.table], queue=False, **QUIET)
    for view in (panel.picture, panel.table):
        parts.changes_plan(view.select, plan_at)


def plan_at(session: Session, request: Mapping) -> str | None:
    """The plan of the row or point that the browser names; None if there is none, or if it belongs
    to another base."""
    index = request.get("index")
    entries = list(session.measurements)
    if type(index) is not int or not 0 <= index < len(entries):
        return None
    entry = entries[index]
    return entry.plan if entry.identity == session.spec else None
