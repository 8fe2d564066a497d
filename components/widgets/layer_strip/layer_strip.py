"""The strip: the base's layers above, the patient's below, ribbons between.

Python knows only what it is made of; what it draws is `Session.view`, and what it asks for goes to
`Session.apply`. Gestures, keys and drawing are JavaScript's, in files of their own.
"""

from __future__ import annotations

from components.widgets.html_component import LiveHTML


class LayerStrip(LiveHTML):
    """Emits `edit` with what the user asks for."""

    stem = "layer_strip"
    # One idea a file: how the strip looks, how pictures follow it, how hands and keys work on it.
    scripts = ("layer_strip_drawing", "layer_strip_link", "layer_strip")
