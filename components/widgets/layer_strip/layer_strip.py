"""The strip: the base's layers above, the patient's below, ribbons between.

Drawing, gestures and keys are in the ES modules beside this file.
"""

from __future__ import annotations

from components.widgets.colours import layer_colour
from components.widgets.html_component import LiveHTML


class LayerStrip(LiveHTML):
    """The value is `Session.view`. Emits `edit` with a request for `Session.apply`."""

    stem = "layer_strip"

    def postprocess(self, value: dict | None) -> dict | None:
        """The value with the colour of every layer of the base."""
        if not value:
            return value
        depth = value["depth"]
        return {**value, "colours": [layer_colour(i, depth) for i in range(depth)]}
