"""Send what the page shows to the panels that follow it in the browser."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gradio as gr

from .parts import QUIET
from .widgets.layer_strip.layer_strip import LayerStrip

# Runs in the browser; widgets/page_values.mjs passes the values on. They are kept for panels
# that are drawn later.
_CHANGED = """(...values) => {
  window.layerSurgeryPage = values;
  document.dispatchEvent(new CustomEvent('page-changed'));
}"""


def wire(
    strip: LayerStrip, prompt: gr.Textbox, settings: Sequence[gr.components.Component]
) -> None:
    """Send the strip's view, the prompt and the settings whenever one of them has changed."""
    values: list[Any] = [strip, prompt, *settings]  # each has a change event
    changes = [value.change for value in values]
    gr.on(changes, None, values, js=_CHANGED, trigger_mode="multiple", **QUIET)
