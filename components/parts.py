"""The parts of the page that its panels are wired to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import gradio as gr

from surgery import PlanError, SurgeryError

from .gradio_compat.event_data import event_data
from .services.services import Services
from .sessions.healed_store import HealedStore
from .sessions.session import Session, layers_text
from .widgets.layer_strip.layer_strip import LayerStrip
from .widgets.tiles.tiles import Tiles
from .widgets.tiles.tiles import view as tiles_view

QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
_DROPPED = "This page was idle for too long. Reload it: the plan is in its address."
# Gradio's own queue says nothing to those who wait in it: work that has to wait takes its turn
# within the event, by `run_job.in_turn`.
AT_ONCE: dict[str, Any] = {"concurrency_limit": None}


@dataclass(frozen=True)
class PageParts:
    """What `build` passes to each panel's `wire`. Panels add events of their own to the lists."""

    services: Services
    session: gr.State
    healed: gr.State
    strip: LayerStrip
    tiles: Tiles
    tabs: gr.Tabs
    edits: list[gr.events.Dependency]  # after each the plan may have changed
    opened: list[gr.events.Dependency] = field(default_factory=list)  # … another base is open
    measured: list[gr.events.Dependency] = field(default_factory=list)  # … plans were measured
    scanned: list[gr.events.Dependency] = field(default_factory=list)  # … layers were measured

    def changes_plan(
        self, event: Callable, plan_of: Callable[[Session, Mapping], str | None]
    ) -> None:
        """Have an event change the plan to the one whose notation `plan_of` returns, from what the
        browser sent; None for a plan of another base. `plan_of` may raise `SurgeryError`."""

        def apply(
            session: Session, healed: HealedStore, event: gr.EventData, request: gr.Request
        ) -> tuple[dict, dict]:
            if self.services.refused("edit", request):
                return gr.skip(), gr.skip()
            try:
                text = plan_of(session, event_data(event))
            except SurgeryError as error:
                session.refuse(SurgeryError(self.services.deployment.words(error)))
                return strip_of(session), gr.skip()
            if text is None:
                gr.Info("That plan belongs to another base: open that base first.")
                return gr.skip(), gr.skip()
            session.become(text)
            return strip_of(session), tiles_of(self.services, session, healed)

        # Gradio shows messages of events in its queue only.
        outputs = [self.strip, self.tiles]
        changed = event(apply, [self.session, self.healed], outputs, **QUIET, **AT_ONCE)
        self.edits.append(changed)


def strip_of(session: Session) -> dict:
    """What the strip shows after an edit: the session, or that it was dropped."""
    return session.view() or {"note": _DROPPED}


def tiles_of(services: Services, session: Session, healed: HealedStore) -> dict:
    """The tiles for a session's plan, or why there are none; which plan that is, and the session's
    `order`. `healed` has the session's healed patients."""
    about: dict = {"order": session.order}  # read before the plan, which may change meanwhile
    try:
        plan = session.plan
        about["of"] = {"spec": session.spec, "plan": str(plan)}
        is_healed = healed.is_healed(session.spec, plan)
        return {**tiles_view(services.bases.numbers(session), plan, is_healed), **about}
    except SurgeryError as error:
        return {"error": services.deployment.words(error), **about}


def sizes_of(services: Services, session: Session) -> dict[str, str]:
    """The size of each plan that the preset menu tries out, or why there is none."""
    sizes = {}
    for name, plan in session.trials.items():
        try:
            if isinstance(plan, PlanError):
                raise plan
            size = services.bases.numbers(session).preview(plan)
            sizes[name] = f"{layers_text(size.layers)}, {size.parameters:,} parameters"
        except SurgeryError as error:
            sizes[name] = services.deployment.words(error)
    return sizes
