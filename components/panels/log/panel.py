"""Lay out the Log panel: all measured plans as a picture and as a table."""

from __future__ import annotations

from dataclasses import dataclass

import gradio as gr

from components.services.run_job import JobPanel
from components.widgets.html_component import LiveHTML
from components.widgets.job_buttons import start_and_stop
from components.widgets.plotly_view.plotly_view import PlotlyView
from components.widgets.status.status import Status, note
from surgery import texts


class LogTable(LiveHTML):
    """The entries in rows, to take away as CSV or JSON. Emits `select`, `rename` and `pin` with an
    entry's index."""

    stem = "log"


@dataclass(frozen=True)
class LogPanel(JobPanel):
    """The panel's components."""

    start: gr.Button
    stop: gr.Button
    status: Status
    picture: PlotlyView
    table: LogTable


def layout() -> LogPanel:
    """Lay the panel out in the current tab."""
    with gr.Row(elem_classes="xray-buttons"):
        start, stop = start_and_stop("Measure this plan", "log", 180)
        status = Status(
            value=note(f"Measures base and patient on the text “{texts.DEFAULT}”."),
            elem_id="log-status",
        )
    with gr.Row(elem_classes="weights-row halves"):
        picture = PlotlyView(value={}, elem_id="log-picture")
        table = LogTable(value={"entries": []}, elem_id="log-table")
    return LogPanel(start, stop, status, picture, table)
