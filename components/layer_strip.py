"""The strip: the base's layers above, the patient's below, ribbons between.

Python knows only what it is made of; what it draws is `Session.view`, and what it asks for goes to
`Session.apply`. Gestures, keys and drawing are JavaScript's, in files of their own.
"""

from __future__ import annotations

from .live import HERE, LiveHTML


class LayerStrip(LiveHTML):
    """Emits `edit` with what the user asks for."""

    stem = "layer_strip"
    # One idea a file: how the strip looks, and how hands and keys work on it.
    scripts = (HERE / "layer_strip_drawing.js", HERE / "layer_strip.js")
