"""Lay out the Log panel: all measured plans as a picture and as a table."""

from __future__ import annotations

from dataclasses import dataclass

import gradio as gr

from components.widgets.html_component import LiveHTML
from components.widgets.plotly_view.plotly_view import PlotlyView


class LogTable(LiveHTML):
    """The entries in rows, to take away as CSV or JSON. Emits `select` with a row's index."""

    stem = "log"


@dataclass(frozen=True)
class LogPanel:
    """The panel's components."""

    picture: PlotlyView
    table: LogTable


def layout() -> LogPanel:
    """Lay the panel out in the current tab."""
    with gr.Row(elem_classes="weights-row halves"):
        picture = PlotlyView(value={}, elem_id="log-picture")
        table = LogTable(value={"entries": []}, elem_id="log-table")
    return LogPanel(picture, table)
