"""A Stop button: it cancels running events, then shows that they were stopped."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr


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
