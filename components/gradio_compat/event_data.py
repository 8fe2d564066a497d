"""What the browser sent with an event of one of our own components.

Gradio 6.31 passes it to a handler as `gr.EventData`, with the values in a private attribute. This
can go once Gradio has a public one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gradio as gr


def event_data(event: gr.EventData) -> Mapping[str, Any]:
    """Return the event's values, none of which can be trusted; empty if it has no mapping."""
    return event._data if isinstance(event._data, Mapping) else {}
