"""Show above the strip how much each layer of the base matters, as far as that is known."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import gradio as gr

from surgery import SurgeryError

from .parts import AT_ONCE, QUIET, PageParts
from .services.services import Services
from .sessions.session import Session

if TYPE_CHECKING:
    from surgery.analysis import LayerCosts

_WHAT = "The increase of the mean loss when a layer alone is dropped, in nats per token"


def wire(parts: PageParts) -> None:
    """Look the importance up whenever a base was opened or its layers were measured. To be called
    once all panels are wired."""

    def look(session: Session, request: gr.Request) -> object:
        if parts.services.refused("count", request):
            return gr.skip()
        return look_up(parts.services, session)

    for event in (*parts.opened, *parts.scanned):
        event.then(look, parts.session, parts.strip, **QUIET, **AT_ONCE)


def look_up(services: Services, session: Session) -> object:
    """A value for the strip with what is known of its base; nothing is measured."""
    spec = session.spec
    if not spec:
        return gr.skip()
    from surgery.analysis import known_costs

    try:
        base = services.bases.get(session.shown)
        found, readable = known_costs(base), base.has_tokenizer
    except SurgeryError:  # said where the base is opened
        return gr.skip()
    if session.spec != spec:  # another base was opened meanwhile
        return gr.skip()
    shown = session.importance
    if found is None and shown and shown["known"]:  # measured on a text of the visitor's own
        return gr.skip()
    session.importance = view(found, readable)
    return session.view()


def follow(session: Session, spec: str, found: LayerCosts) -> object:
    """A value for the strip with the layers of the base `spec` that are measured so far, if there
    are more than it shows."""
    shown = session.importance
    if session.spec != spec or found.known <= (shown["known"] if shown else 0):
        return gr.skip()
    session.importance = view(found, readable=True)
    return session.view()


def view(found: LayerCosts | None, readable: bool) -> dict:
    """What the strip draws: `costs` in nats per token, None where not known or not finite; for how
    many layers one is `known`; the layers that are `breaking`; and a `hint` that says where the
    figures come from. `readable` says whether the base can read the text that measuring takes."""
    if found is None:
        hint = "Measure what dropping each layer costs" if readable else "No tokenizer"
        return {"costs": None, "known": 0, "breaking": [], "measurable": readable, "hint": hint}
    origin = f"shipped with the app, measured on {found.shipped}" if found.shipped else "measured"
    some = "" if found.known == len(found.costs) else f" ({found.known} layers so far)"
    return {
        "costs": [c if c is not None and math.isfinite(c) else None for c in found.costs],
        "known": found.known,
        "breaking": list(found.breaking),
        "measurable": readable,
        "hint": f"{_WHAT}; {origin} on {found.tokens:,} tokens of {found.text}{some}. "
        "Red: without this layer the model breaks.",
    }
