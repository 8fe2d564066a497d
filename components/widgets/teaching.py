"""What an empty panel will show, in words; it goes once something is drawn after it."""

from __future__ import annotations

from html import escape

import gradio as gr


def teaching(*lines: str) -> gr.HTML:
    """Lay the lines out in the current tab, before the figures that take their place."""
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return gr.HTML(f"<ul>{items}</ul>", elem_classes="teaching")
