"""Open the page as a link describes it, and write its state into the address."""

from __future__ import annotations

from collections.abc import Sequence

import gradio as gr

from components.gradio_compat.event_data import event_data
from components.parts import AT_ONCE, QUIET, PageParts
from surgery import SurgeryError

from .address import SETTINGS, code, read
from .panel import Link


def wire(
    panel: Link,
    parts: PageParts,
    page: gr.Blocks,
    base: gr.Dropdown,
    prompt: gr.Textbox,
    settings: Sequence[gr.components.Component],
) -> tuple[gr.events.Dependency, gr.State]:
    """Tie the panel to the page, whose fields `base`, `prompt` and `settings` are part of a link.
    Returns the event after which the base is to be opened, and the plan for it."""
    deployment, plan = parts.services.deployment, gr.State("")

    def restore(request: gr.Request) -> list:
        wanted = read(dict(request.query_params), deployment)
        values = [(wanted.settings or {}).get(setting, gr.skip()) for setting in SETTINGS]
        return [
            wanted.base or gr.skip(),
            wanted.plan,
            gr.skip() if wanted.prompt is None else wanted.prompt,
            *values,
        ]

    def draw(event: gr.EventData, request: gr.Request) -> object:
        try:
            parts.services.admit("count", request)
            return code(str(event_data(event).get("address", "")))
        except SurgeryError as error:
            gr.Warning(str(error))
            return gr.skip()

    panel.draw(draw, None, panel, **QUIET, **AT_ONCE)  # the queue alone shows a warning
    restored = page.load(restore, None, [base, plan, prompt, *settings], queue=False, **QUIET)
    return restored, plan
