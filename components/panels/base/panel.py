"""Lay out the choice of a base: its name, the buttons, and a line that describes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from components.services.services import Services
from components.widgets.status.status import Status, note
from surgery.lesson.course import BARE

_OFFERED = [
    ("SmolLM2-135M-Instruct · bundled", "bundled"),
    "HuggingFaceTB/SmolLM2-360M-Instruct",
    "Qwen/Qwen3-0.6B",
    "Qwen/Qwen2.5-0.5B-Instruct",
    "openai-community/gpt2",
    ("Lesson model · random weights", BARE),
]


_NAMES = {spec: label for label, spec in (one for one in _OFFERED if isinstance(one, tuple))}


def name_of(spec: str) -> str:
    """A base's name before it is open, short enough for a line."""
    return _NAMES.get(spec, spec).partition(" · ")[0][:80]


def opening(spec: str) -> dict:
    """A value for the strip while its first base is being opened."""
    return {"opening": f"Opening {name_of(spec)}…"}


def nothing_open(public: bool) -> dict:
    """A value for the strip when no base could be opened."""
    places = "a Hub id" if public else "a Hub id, a folder, file.gguf or config:file.json"
    return {"note": f"Choose a base above, or enter {places}."}


@dataclass(frozen=True)
class BasePicker:
    """The panel's components."""

    name: gr.Dropdown
    open: gr.Button
    stop: gr.Button
    status: Status


def layout(services: Services, first: str) -> BasePicker:
    """Lay the panel out in the current row, with `first` as the base to open."""
    offered: list[Any] = [*_OFFERED]
    if first != "bundled" and first not in offered:
        offered.insert(0, first)
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
    status = Status(value=note(f"Opening {name_of(first)}…"), scale=6, elem_id="about")
    return BasePicker(name, open_button, stop, status)
