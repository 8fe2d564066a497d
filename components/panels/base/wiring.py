"""Open a base in a session, with progress, and describe it in a line."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import gradio as gr

from components.parts import AT_ONCE, QUIET, PageParts, tiles_of
from components.services import heavy_imports
from components.services.client_address import visitor
from components.services.run_job import run_job, watch_in_turn
from components.services.services import Services
from components.sessions.healed_store import HealedStore
from components.sessions.session import Session, layers_text
from components.widgets.job_buttons import stops
from components.widgets.status.status import note
from surgery.facts import dtypes
from surgery.progress import Progress

from .panel import BasePicker, name_of, nothing_open, opening

if TYPE_CHECKING:
    from surgery import Base
    from surgery.known_base import KnownBase

_QUIET = 15.0  # seconds for which a base is opened silently behind its remembered numbers
_LEAVES = 0.15  # seconds for a drawing to leave before importing holds everything up


def wire(
    panel: BasePicker, parts: PageParts, restored: gr.events.Dependency, plan: gr.State
) -> None:
    """Tie the panel to the page. `restored` ends once a link's base and `plan` are known."""
    services = parts.services

    def choose(wanted: str, session: Session, healed: HealedStore, request: gr.Request) -> Iterator:
        yield from open_for(services, session, healed, wanted, "", request)

    def arrive(
        wanted: str, session: Session, healed: HealedStore, plan: str, request: gr.Request
    ) -> Iterator:
        yield from open_for(services, session, healed, wanted, plan, request)

    chosen = [panel.name, parts.session, parts.healed]
    outputs = [panel.status, parts.strip, parts.tiles, panel.stop]
    loading = restored.then(arrive, [*chosen, plan], outputs, **QUIET, **AT_ONCE)
    choosing = gr.on(
        [panel.open.click, panel.name.input],
        choose,
        chosen,
        outputs,
        trigger_mode="always_last",
        **QUIET,
        **AT_ONCE,
    )

    def stopped(session: Session) -> tuple:
        strip = gr.skip() if session.spec else nothing_open(services.deployment.public)
        return note("Stopped."), strip, gr.update(visible=False)

    outputs = [panel.status, parts.strip, panel.stop]
    stops(panel.stop, [loading, choosing], stopped, parts.session, outputs)
    parts.opened.extend([loading, choosing])


def open_for(
    services: Services,
    session: Session,
    healed: HealedStore,
    wanted: str,
    plan: str,
    request: gr.Request | None,
) -> Iterator[tuple[dict, object, object, dict]]:
    """Open a base in a session, with `plan` if there is one: values for status, strip, tiles and
    the Stop button. While the library is being imported the page shows what is remembered of the
    base. It ends early once the session opens another base. `healed` has the session's healed
    patients: the open plan may have one."""
    latest = session.opening = object()
    wanted, begun = str(wanted or "").strip(), time.monotonic()
    known = None if heavy_imports.is_ready() else services.bases.expect(wanted)

    def begin(base: Base | KnownBase) -> None:
        session.open(wanted, base)
        if plan:
            session.become(plan, edited=False)

    def shown() -> tuple:  # in every update: the first may be lost among those that follow
        if not known or session.opening is not latest:
            return gr.skip(), gr.skip()
        return session.view(), tiles_of(services, session, healed)

    def running(status: dict) -> tuple:
        if known and time.monotonic() - begun < _QUIET:
            return describe(known), *shown(), gr.skip()
        strip, tiles = shown()
        if not session.spec:
            strip = opening(wanted)
        words = f"Opening {name_of(wanted)}: {status['text']}"
        return {**status, "text": words}, strip, tiles, gr.update(visible=True)

    def ended(status: dict) -> tuple:
        strip, tiles = shown()
        if not session.spec:
            strip = nothing_open(services.deployment.public)
        elif session.spec != wanted and status["failed"]:
            status = {**status, "text": f"{status['text']} {session.name} is still open."}
        return status, strip, tiles, gr.update(visible=False)

    def opened(progress: Progress) -> Base:
        services.bases.refresh(wanted)
        return services.bases.get(wanted, progress)

    def updates() -> Iterator[tuple]:
        base = yield from watch_in_turn(services.opening, visitor(request), opened, running)
        if session.opening is not latest:
            return
        # If it was open already, what was done meanwhile is kept.
        if not session.shows(wanted, base):
            begin(base)
        healed.renew(wanted, base.identity)
        hidden = gr.update(visible=False)
        yield describe(base), session.view(), tiles_of(services, session, healed), hidden

    if known:
        begin(known)
        yield describe(known), *shown(), gr.skip()
        time.sleep(_LEAVES)
    heavy_imports.picture_is_drawn()
    for update in run_job(services, "open", request, updates(), ended):
        if session.opening is not latest:
            return
        same = gr.skip()
        yield (same, same, same, same) if update == same else update


def describe(base: Base | KnownBase) -> dict:
    """A status value that says what the base is."""
    facts = [] if base.has_tokenizer else ["No tokenizer: text generation unavailable"]
    facts += [
        base.architecture,
        layers_text(base.depth),
        dtypes(base),
        base.device.upper() if base.device == "cpu" else base.device,
    ]
    if base.revision:
        facts.append(f"revision {base.revision[:8]}")
    if base.note:
        facts.append(base.note)
    return note(" · ".join(facts))
