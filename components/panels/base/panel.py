"""Choosing a base: by name, opened with progress, described in a line.

Knows how a base is worded for people and what strangers may open. Where bases come from is the
library's affair.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import gradio as gr

from components.services import base_preview_cache, bases, heavy_imports
from components.services.deployment import current
from components.services.jobs import Job
from components.services.rates import admit
from components.sessions.session import Session, layers_text
from components.widgets.status.status import Status, failed, note
from components.widgets.tiles.tiles import view as tiles_view
from surgery import Plan, SurgeryError
from surgery.lesson.course import BARE
from surgery.progress import Cancelled

if TYPE_CHECKING:
    from surgery import Base

_LEAVES = 0.15  # seconds for a drawing to leave before importing holds everything up
_OFFERED = [
    ("SmolLM2-135M-Instruct · bundled", "bundled"),
    "HuggingFaceTB/SmolLM2-360M-Instruct",
    "Qwen/Qwen3-0.6B",
    "Qwen/Qwen2.5-0.5B-Instruct",
    "openai-community/gpt2",
    ("The lesson's model · random weights", BARE),
]


@dataclass(frozen=True)
class BasePicker:
    """The panel's components, for the page to wire."""

    name: gr.Dropdown
    open: gr.Button
    stop: gr.Button
    status: Status


def base_picker(first: str, public: bool) -> BasePicker:
    """Lay it out in the row that is being built, with `first` as the base to open."""
    offered = [*_OFFERED]
    if first != "bundled" and first not in offered:
        offered.insert(0, first)
    places = "a Hub id" if public else "a Hub id, a folder, file.gguf or config:file.json"
    name = gr.Dropdown(
        offered,
        value=first,
        label="Base",
        show_label=False,
        container=False,
        allow_custom_value=True,
        filterable=True,
        scale=3,
        min_width=260,
        elem_id="base",
    )
    open_button = gr.Button("Open", scale=0, min_width=80, size="md", elem_id="open")
    stop = gr.Button("Stop", scale=0, min_width=80, size="md", elem_id="open-stop", visible=False)
    status = Status(value=note(f"Choose a base, or type {places}."), scale=6, elem_id="about")
    return BasePicker(name, open_button, stop, status)


def open_base(spec: str, request: gr.Request | None) -> Iterator[dict | Base]:
    """Status values while the base opens; the last item is the base itself, or a failure."""
    try:
        admit("open", request)

        def work(progress) -> Base:
            base = bases.get(spec, progress)
            base.preview(Plan.whole(base.depth))  # what can't be sized up is not opened
            return base

        job = Job(work)
        for report in job:
            yield report.view()
        yield job.result()
    except Cancelled:
        yield note("Stopped.")
    except SurgeryError as error:
        yield failed(error)


def open_for(
    session: Session, wanted: str, plan: str, request: gr.Request | None
) -> Iterator[tuple[dict, object, object, dict]]:
    """Open a base in a session, with `plan` if there is one: values for status, strip, tiles and
    the stop button. While the library is being imported the strip is drawn from what is remembered
    of the base. It ends early once the session opens another base."""
    latest = session.opening = object()
    wanted = str(wanted or "").strip()
    public = current().public
    early = None if public or heavy_imports.is_ready() else base_preview_cache.recall(wanted)

    def begin(base: Base | base_preview_cache.Look) -> None:
        session.open(wanted, base)
        if plan:
            session.become(plan)

    def strip() -> object:  # in every drawing: the first may be lost among those that follow
        return session.view() if early else gr.skip()

    if early:
        begin(early)
        yield note("The numbers follow in a moment."), strip(), gr.skip(), gr.skip()
        time.sleep(_LEAVES)
    heavy_imports.picture_is_drawn()
    for item in open_base(wanted, request):
        if session.opening is not latest:
            return
        if isinstance(item, dict):
            yield item, strip(), gr.skip(), gr.update(visible=not item.get("failed"))
            continue
        # Asked for once more, it keeps what was done meanwhile.
        if not session.shows(wanted, item):
            begin(item)
        if not public:
            base_preview_cache.remember(wanted, item)
        drawn = tiles_view(item, session.plan)
        yield about(item), session.view(), drawn, gr.update(visible=False)


def about(base: Base) -> dict:
    """A status value that says what the base is."""
    facts = [
        base.architecture,
        layers_text(base.depth),
        base.dtype,
        base.device.upper() if base.device == "cpu" else base.device,
    ]
    if base.source.revision:
        facts.append(f"revision {base.source.revision[:8]}")
    if base.note:
        facts.append(base.note)
    if not base.has_tokenizer:
        facts.append("no tokenizer: it can be saved, but not speak")
    return note(" · ".join(facts))
