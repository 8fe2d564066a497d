"""Open a base in a session, with progress, and describe it in a line."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import gradio as gr

from components.parts import QUIET, PageParts, tiles_of
from components.services import base_preview_cache, heavy_imports
from components.services.base_preview_cache import BasePreview
from components.services.run_job import run_job, watch
from components.services.services import Services
from components.sessions.session import Session, layers_text
from components.widgets.status.status import note
from components.widgets.stop_button import stops
from surgery.facts import dtypes

from .panel import BasePicker

if TYPE_CHECKING:
    from surgery import Base

_LEAVES = 0.15  # seconds for a drawing to leave before importing holds everything up
_OPEN: dict[str, Any] = {"concurrency_limit": 8, "concurrency_id": "open"}


def wire(
    panel: BasePicker, parts: PageParts, restored: gr.events.Dependency, plan: gr.State
) -> None:
    """Tie the panel to the page. `restored` ends once a link's base and `plan` are known."""
    services = parts.services

    def choose(wanted: str, session: Session, request: gr.Request) -> Iterator:
        yield from open_for(services, session, wanted, "", request)

    def arrive(wanted: str, session: Session, plan: str, request: gr.Request) -> Iterator:
        yield from open_for(services, session, wanted, plan, request)

    chosen = [panel.name, parts.session]
    outputs = [panel.status, parts.strip, parts.tiles, panel.stop]
    loading = restored.then(arrive, [*chosen, plan], outputs, **QUIET, **_OPEN)
    opening = gr.on(
        [panel.open.click, panel.name.input],
        choose,
        chosen,
        outputs,
        trigger_mode="always_last",
        **QUIET,
        **_OPEN,
    )
    stops(
        panel.stop,
        [loading, opening],
        lambda: (note("Stopped."), gr.update(visible=False)),
        None,
        [panel.status, panel.stop],
    )
    parts.opened.extend([loading, opening])


def open_for(
    services: Services, session: Session, wanted: str, plan: str, request: gr.Request | None
) -> Iterator[tuple[dict, object, object, dict]]:
    """Open a base in a session, with `plan` if there is one: values for status, strip, tiles and
    the Stop button. While the library is being imported the strip is drawn from the cached preview.
    It ends early once the session opens another base."""
    latest = session.opening = object()
    wanted = str(wanted or "").strip()
    private = not services.deployment.public
    early = private and not heavy_imports.is_ready() and base_preview_cache.recall(wanted)

    def begin(base: Base | BasePreview) -> None:
        session.open(wanted, base)
        if plan:
            session.become(plan)

    def strip() -> object:  # in every update: the first may be lost among those that follow
        return session.view() if early else gr.skip()

    def running(status: dict) -> tuple:
        return status, strip(), gr.skip(), gr.update(visible=True)

    def ended(status: dict) -> tuple:
        return status, strip(), gr.skip(), gr.update(visible=False)

    def updates() -> Iterator[tuple]:
        base = yield from watch(partial(services.bases.get, wanted), running)
        if session.opening is not latest:
            return
        # If it was open already, what was done meanwhile is kept.
        if not session.shows(wanted, base):
            begin(base)
        if private:
            base_preview_cache.remember(wanted, base)
        hidden = gr.update(visible=False)
        yield describe(base), session.view(), tiles_of(services, session), hidden

    if early:
        begin(early)
        yield note("Loading the numbers …"), strip(), gr.skip(), gr.skip()
        time.sleep(_LEAVES)
    heavy_imports.picture_is_drawn()
    for update in run_job(services, "open", request, updates(), ended):
        if session.opening is not latest:
            return
        yield update


def describe(base: Base) -> dict:
    """A status value that says what the base is."""
    facts = [
        base.architecture,
        layers_text(base.depth),
        dtypes(base),
        base.device.upper() if base.device == "cpu" else base.device,
    ]
    if base.source.revision:
        facts.append(f"revision {base.source.revision[:8]}")
    if base.note:
        facts.append(base.note)
    if not base.has_tokenizer:
        facts.append("no tokenizer: text generation unavailable")
    return note(" · ".join(facts))
