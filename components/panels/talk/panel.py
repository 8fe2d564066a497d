"""Lay out the Talk panel: a prompt, sampling settings, and the answers of base and patient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from components.services.services import Services
from components.widgets.html_component import LiveHTML
from components.widgets.image_file.image_file import ImageFile
from components.widgets.plotly_view.plotly_view import PlotlyView
from components.widgets.status.status import Status


class TalkView(LiveHTML):
    """Two panes of text, and the Auto-run switch; the value is the second that `talk` yields. With
    `layers` of `token_layers` in it, tokens can be selected. Emits `rerun`, `cease` and `explain`,
    when the layers that mattered are to be measured."""

    stem = "talk"

    def __init__(self, value: dict | None = None, auto: bool = True, **options: Any) -> None:
        """`auto` is whether Auto-run is on for visitors who never switched it."""
        self.auto = auto
        super().__init__(value, **options)

    def fill_in(self, template: str) -> str:
        """The markup, with the switch as it is at first."""
        return template.replace(" SWITCHED", " checked" if self.auto else "")


@dataclass(frozen=True)
class TalkPanel:
    """The panel's components."""

    prompt: gr.Textbox
    start: gr.Button
    stop: gr.Button
    image: ImageFile  # shown where the base takes one
    settings: tuple[gr.components.Component, ...]
    status: Status
    output: TalkView
    figures: dict[str, PlotlyView]  # layers against tokens, by side


def layout(services: Services) -> TalkPanel:
    """Lay the panel out in the current tab."""
    allowed = services.deployment
    with gr.Row(elem_classes="talk-controls", equal_height=True):
        prompt = gr.Textbox(
            value="The three most important inventions in history are",
            label="Prompt",
            show_label=False,
            container=False,
            placeholder="Start a text or ask a question",
            max_length=allowed.max_prompt,
            lines=1,
            max_lines=4,
            scale=8,
            elem_id="prompt",
        )
        start = gr.Button(
            "Stream both", variant="primary", scale=0, min_width=130, size="md", elem_id="stream"
        )
        stop = gr.Button("Stop", scale=0, min_width=80, size="md", elem_id="stop")
    image = ImageFile(value={}, visible=False, elem_id="talk-image")
    status = Status(value={}, elem_id="talk-status")
    output = TalkView(value={}, auto=not allowed.public, elem_id="talk")
    with gr.Row(elem_id="talk-maps", elem_classes="weights-row halves"):
        figures = {
            side: PlotlyView(value={}, elem_id=f"talk-map-{side}") for side in ("base", "patient")
        }
    with (
        gr.Accordion("Sampling settings", open=False, elem_classes="talk-settings"),
        gr.Row(),
    ):
        greedy = gr.Checkbox(
            value=True, label="Greedy", info="Always the most likely token; no randomness."
        )
        chat = gr.Checkbox(
            value=False, label="Apply chat template", info="Treat the prompt as a user message."
        )
        tokens = gr.Slider(
            8,
            allowed.max_new_tokens,
            value=64,
            step=8,
            label="Length",
            info="Maximum number of new tokens.",
        )
        seed = gr.Number(
            value=0, precision=0, minimum=0, label="Seed", info="Same seed, same output."
        )
        temperature = gr.Slider(
            0.1, 2.0, value=0.8, step=0.05, label="Temperature", info="Higher is more random."
        )
        top_p = gr.Slider(
            0.05, 1.0, value=0.95, step=0.05, label="Top-p", info="Nucleus sampling threshold."
        )
    settings = (greedy, chat, tokens, seed, temperature, top_p)
    return TalkPanel(prompt, start, stop, image, settings, status, output, figures)
