"""Lay out the Weights panel: the choices, and four pictures."""

from __future__ import annotations

from dataclasses import dataclass

import gradio as gr

from components.services.run_job import JobPanel
from components.widgets.plotly_view.plotly_view import PlotlyView
from components.widgets.status.status import Status
from surgery.weight_stats.depth import MEASURES

from .matrix import RAW, SINGULAR

TAB = "Weights"
ALL = "all weights"
LOG, LINEAR = "logarithmic", "linear"
DEFAULTS = (ALL, LOG, "norm", RAW)  # kind, scale, measure, matrix


@dataclass(frozen=True)
class WeightsPanel(JobPanel):
    """The panel's components."""

    kind: gr.Dropdown
    measure: gr.Dropdown
    scale: gr.Radio
    matrix: gr.Radio
    stop: gr.Button
    status: Status
    heat: PlotlyView
    detail: PlotlyView
    depth: PlotlyView
    raw: PlotlyView

    @property
    def pictures(self) -> list[PlotlyView]:
        """All that is drawn."""
        return [self.heat, self.detail, self.depth, self.raw]


def layout() -> WeightsPanel:
    """Lay the panel out in the current tab."""
    with gr.Row(elem_id="weights-controls", equal_height=True):
        chosen = DEFAULTS
        kind = gr.Dropdown([ALL], value=chosen[0], label="Tensors", elem_id="weights-kind")
        scale = gr.Radio([LOG, LINEAR], value=chosen[1], label="Scale", elem_id="weights-scale")
        measure = gr.Dropdown(
            [(what.name, key) for key, what in MEASURES.items()],
            value=chosen[2],
            label="Along depth",
            elem_id="weights-measure",
        )
        matrix = gr.Radio(
            [RAW, SINGULAR], value=chosen[3], label="Matrix", elem_id="weights-matrix"
        )
        stop = gr.Button(
            "Stop", scale=0, min_width=80, size="md", visible=False, elem_id="weights-stop"
        )
        status = Status(value={}, elem_id="weights-status")
    with gr.Row(elem_classes="weights-row"):
        heat = PlotlyView(value={}, elem_id="weights-heat")
        detail = PlotlyView(value={}, elem_id="weights-detail")
    with gr.Row(elem_classes="weights-row"):
        depth = PlotlyView(value={}, elem_id="weights-depth")
        raw = PlotlyView(value={}, elem_id="weights-raw")
    return WeightsPanel(kind, measure, scale, matrix, stop, status, heat, detail, depth, raw)


def choices(kinds: list[str], value: str = "") -> dict:
    """An update of the list of tensors; without a value what is chosen stays."""
    offered = [ALL, *kinds]
    return gr.update(choices=offered, value=value) if value else gr.update(choices=offered)
