"""The buttons that start and stop a job."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr


def start_and_stop(label: str, name: str, width: int) -> tuple[gr.Button, gr.Button]:
    """A Start button with a label, at least `width` pixels wide, and a Stop button, which is hidden
    until the job runs. Their ids are NAME-start and NAME-stop."""
    start = gr.Button(
        label, variant="primary", scale=0, min_width=width, size="md", elem_id=f"{name}-start"
    )
    stop = gr.Button(
        "Stop", scale=0, min_width=80, size="md", visible=False, elem_id=f"{name}-stop"
    )
    return start, stop


def stops(
    button: gr.Button,
    running: list,
    message: Callable,
    inputs: Any,
    outputs: Sequence[gr.Component],
) -> None:
    """Have a button cancel events and show what `message` returns, as two events in this order:
    Gradio runs an event's function before it cancels others, and a late report would cover the
    message. Through the queue the message comes after the last report."""
    quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    button.click(None, None, None, cancels=running, queue=False, **quiet)
    button.click(message, inputs, outputs, concurrency_limit=None, **quiet)
