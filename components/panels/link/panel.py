"""The page as a link: base, plan, prompt and settings are written into its address and read back.

The browser writes the address and keeps the last plans (link.mjs); this module reads a link. It may
come from anyone, so nothing in it is trusted: invalid values are dropped, and base and plan go
through the same checks as typed ones. It also draws the QR code, as a path for the browser, so
that no other service is asked for it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr
import segno

from components.panels.talk.panel import TalkPanel
from components.services.deployment import current
from components.services.rates import admit
from components.widgets.html_component import LiveHTML
from surgery import SurgeryError

SETTINGS = ("greedy", "chat", "tokens", "seed", "temperature", "top_p")
_LONGEST_SPEC = 500
_LONGEST_PLAN = 20_000
_QR_HOLDS = 2300  # characters at its lowest level of error correction
_QUIET = {"show_progress": "hidden", "api_visibility": "private"}

# Runs in the browser whenever what the address says has changed.
_WRITE = "(...values) => { window.layerSurgeryLink?.(...values); }"


class Link(LiveHTML):
    """The button and its sheet. Emits `draw` with an address; the value is what `code` returns."""

    stem = "link"


@dataclass(frozen=True)
class Wanted:
    """What a link asks for. Empty or None where it says nothing that can be used."""

    base: str = ""
    plan: str = ""
    prompt: str | None = None
    settings: Mapping[str, Any] | None = None


def read(query: Mapping[str, str]) -> Wanted:
    """What an address's query says."""
    base = str(query.get("base", "")).strip()
    # Windows would log in to a server that is named like that.
    if len(base) > _LONGEST_SPEC or base.removeprefix("config:").startswith(("\\\\", "//")):
        base = ""
    plan = str(query.get("plan", ""))
    prompt = query.get("prompt")
    return Wanted(
        base,
        plan if len(plan) <= _LONGEST_PLAN else "",
        str(prompt) if prompt is not None and len(prompt) <= current().max_prompt else None,
        _settings(query),
    )


def _settings(query: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in ("greedy", "chat"):
        if query.get(name) in ("0", "1"):
            found[name] = query[name] == "1"
    ranges = {
        "tokens": (8, current().max_new_tokens),
        "seed": (0, 2**53),
        "temperature": (0.1, 2.0),
        "top_p": (0.05, 1.0),
    }
    for name, (least, most) in ranges.items():
        try:
            value = float(query.get(name, ""))
        except ValueError:
            continue
        if math.isfinite(value) and least <= value <= most:
            found[name] = value if isinstance(least, float) else int(value)
    return found


def code(address: str) -> dict:
    """A QR code (ISO/IEC 18004) as {address, size, path}: `path` draws its dark squares into a
    square of `size`, with the quiet zone of 4 that readers need."""
    if not address.startswith(("http://", "https://")) or len(address) > _QR_HOLDS:
        return {"address": address[:_QR_HOLDS], "size": 0, "path": ""}
    drawn = segno.make(address, error="l", micro=False)
    runs = []
    for y, row in enumerate(drawn.matrix):
        runs += [f"M{x + 4} {y + 4}h1v1h-1z" for x, dark in enumerate(row) if dark]
    return {"address": address, "size": len(drawn.matrix) + 8, "path": "".join(runs)}


def wire(
    link: Link, strip: LiveHTML, name: gr.Dropdown, talking: TalkPanel
) -> tuple[gr.events.Dependency, gr.State]:
    """Tie it to the page. Returns the event after which the base is to be opened, and the plan that
    is wanted then."""
    plan = gr.State("")
    settings: Sequence[gr.components.Component] = talking.settings

    def restore(request: gr.Request) -> list:
        wanted = read(dict(request.query_params))
        values = [(wanted.settings or {}).get(setting, gr.skip()) for setting in SETTINGS]
        return [
            wanted.base or gr.skip(),
            wanted.plan,
            gr.skip() if wanted.prompt is None else wanted.prompt,
            *values,
        ]

    def draw(event: gr.EventData, request: gr.Request) -> object:
        asked = event._data if isinstance(event._data, Mapping) else {}
        try:
            admit("count", request)
            return code(str(asked.get("address", "")))
        except SurgeryError as error:
            gr.Warning(str(error))
            return gr.skip()

    link.draw(draw, None, link, queue=False, **_QUIET)
    inputs = [strip, talking.prompt, *settings]
    written = [strip.change, talking.prompt.change, *(setting.change for setting in settings)]
    gr.on(written, fn=None, inputs=inputs, js=_WRITE, **_QUIET)
    restored = gr.context.Context.root_block.load(
        restore, None, [name, plan, talking.prompt, *settings], queue=False, **_QUIET
    )
    return restored, plan
