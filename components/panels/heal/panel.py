"""Lay out the Heal panel: what to train, on which text and for how long, its cost, its course."""

from __future__ import annotations

from dataclasses import dataclass

import gradio as gr

from components.services.services import Services
from components.widgets.plotly_view.plotly_view import PlotlyView
from components.widgets.status.status import Status, note
from surgery.healing.settings import (
    AFTER_REPAIR,
    CHOICES,
    LEARNING_RATE,
    bounds,
    described,
    is_whole,
)

from .board import HealBoard
from .text_choice import TextChoice, kind_of_text, text_choice

TAB = "Heal"
LONGEST = {True: 10, False: 240}  # minutes, on a public page and on one's own
TRAIN, OBJECTIVE = (
    {label: value for value, label in CHOICES[name].items()} for name in ("train", "objective")
)


@dataclass(frozen=True)
class HealPanel:
    """The panel's components."""

    settings: tuple[gr.Dropdown | gr.Number, ...]
    text: TextChoice
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
            label=described("train").title,
            info="The base itself is not changed.",
            elem_id="heal-train",
        )
        objective = gr.Dropdown(
            list(OBJECTIVE),
            value=next(iter(OBJECTIVE)),
            label=described("objective").title,
            info="In distillation the base is the teacher.",
            elem_id="heal-objective",
        )
        kind = kind_of_text(public)
        minutes = number_of(
            "minutes",
            value=5,
            minimum=0.1,
            maximum=LONGEST[public],
            info="Longer recovers more.",
            elem_id="heal-minutes",
        )
    text = text_choice(kind, services.deployment.max_training_text)
    with gr.Row(elem_classes="xray-buttons"):
        start = gr.Button(
            "Heal", variant="primary", scale=0, min_width=120, size="md", elem_id="heal"
        )
        pause = gr.Button("Pause", scale=0, min_width=90, size="md", elem_id="heal-pause")
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
        steps = number_of(
            "steps",
            value=0,
            minimum=0,
            info="0: as many as the minutes allow.",
            elem_id="heal-steps",
        )
        batch = number_of("batch", maximum=64, elem_id="heal-batch")
        window = number_of("window", minimum=16, maximum=2048, elem_id="heal-window")
        rate = number_of(
            "learning_rate",
            value=0,  # a field of numbers can't be empty
            minimum=0,
            maximum=1,
            info=f"0: {LEARNING_RATE:g}, or {AFTER_REPAIR:g} after a repair.",
            elem_id="heal-rate",
        )
        rank = number_of("rank", maximum=512)
        seed = number_of("seed")
    settings = (train, objective, steps, minutes, batch, window, rate, rank, seed)
    return HealPanel(settings, text, start, pause, status, priced, board, picture)


def number_of(name: str, **narrower) -> gr.Number:
    """A field for a number of `surgery.healing.Settings`. Label, default, bounds and description
    are the setting's, except where the page has `narrower` ones."""
    field, (low, high) = described(name), bounds(name) or (None, None)
    return gr.Number(
        **{
            "value": field.default,
            "precision": 0 if is_whole(name) else None,
            "minimum": low,
            "maximum": high,
            "label": field.title,
            "info": field.description,
            **narrower,
        }
    )
