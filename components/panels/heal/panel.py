"""Lay out the Heal panel: what to train, on which text and for how long, and how it goes."""

from __future__ import annotations

from dataclasses import dataclass

import gradio as gr

from components.services.services import Services
from components.widgets.plotly_view.plotly_view import PlotlyView
from components.widgets.status.status import Status, note

from .board import HealBoard
from .text_choice import TextChoice, kind_of_text, text_choice

LONGEST = {True: 10, False: 240}  # minutes, on a public page and on one's own
TRAIN = {
    "layers next to seams": "seams",
    "added layers": "new",
    "all layers": "all",
    "LoRA adapters on all layers": "lora",
}
OBJECTIVE = {"distillation from the base": "distill", "next-token prediction": "next-token"}


@dataclass(frozen=True)
class HealPanel:
    """The panel's components."""

    settings: tuple[gr.components.Component, ...]
    text: TextChoice
    price: gr.Button
    start: gr.Button
    pause: gr.Button
    status: Status
    cost: HealBoard
    board: HealBoard
    curve: PlotlyView

    def only_status(self, status: dict) -> dict:
        """The update that shows a status only."""
        return {self.status: status}


def layout(services: Services) -> HealPanel:
    """Lay the panel out in the current tab."""
    public = services.deployment.public
    with gr.Row(elem_id="heal-controls", elem_classes="fields"):
        train = gr.Dropdown(
            list(TRAIN),
            value=next(iter(TRAIN)),
            label="Train",
            info="The base itself is not changed.",
            elem_id="heal-train",
        )
        objective = gr.Dropdown(
            list(OBJECTIVE),
            value=next(iter(OBJECTIVE)),
            label="Objective",
            info="In distillation the base is the teacher.",
            elem_id="heal-objective",
        )
        kind = kind_of_text(public)
        minutes = gr.Number(
            value=5,
            minimum=0.1,
            maximum=LONGEST[public],
            label="Minutes",
            info="Longer recovers more.",
            elem_id="heal-minutes",
        )
    text = text_choice(kind, services.deployment.max_training_text)
    with gr.Row(elem_classes="xray-buttons"):
        start = gr.Button(
            "Heal", variant="primary", scale=0, min_width=120, size="md", elem_id="heal"
        )
        pause = gr.Button("Pause", scale=0, min_width=90, size="md", elem_id="heal-pause")
        price = gr.Button("Estimate cost", scale=0, min_width=200, size="md", elem_id="heal-price")
        status = Status(
            value=note(
                "Trains the patient to recover what the cut lost, and tracks its perplexity on "
                "held-out text."
            ),
            elem_id="heal-status",
        )
    with gr.Row(elem_id="heal-results", elem_classes="weights-row"):
        picture = PlotlyView(value={}, visible=False, elem_id="heal-curve")
        board = HealBoard(value={}, elem_id="heal-board")
    priced = HealBoard(value={}, elem_id="heal-cost")
    with (
        gr.Accordion("Advanced settings", open=False, elem_id="heal-finer"),
        gr.Row(elem_classes="fields"),
    ):
        steps = gr.Number(
            value=0,
            precision=0,
            minimum=0,
            label="Steps",
            info="0: as many as fit in the minutes.",
            elem_id="heal-steps",
        )
        batch = gr.Number(
            value=2,
            precision=0,
            minimum=1,
            maximum=64,
            label="Batch size",
            info="Sequences per step.",
            elem_id="heal-batch",
        )
        window = gr.Number(
            value=256,
            precision=0,
            minimum=16,
            maximum=2048,
            label="Sequence length",
            info="Tokens per sequence.",
            elem_id="heal-window",
        )
        rate = gr.Number(
            value=5e-4,
            minimum=1e-7,
            maximum=1,
            label="Learning rate",
            info="Too high makes training diverge.",
        )
        rank = gr.Number(
            value=16,
            precision=0,
            minimum=1,
            maximum=512,
            label="LoRA rank",
            info="Of the adapter matrices.",
        )
        seed = gr.Number(value=0, precision=0, minimum=0, label="Seed", info="Same seed, same run.")
    settings = (train, objective, steps, minutes, batch, window, rate, rank, seed)
    return HealPanel(settings, text, price, start, pause, status, priced, board, picture)
