"""The strip: the base's layers above, the patient's below, ribbons between.

Drawing, gestures and keys are in the ES modules beside this file.
"""

from __future__ import annotations

from html import escape
from typing import Any

from components.widgets.colours import layer_colour
from components.widgets.html_component import LiveHTML
from surgery.initialisers import INITIALISERS


class LayerStrip(LiveHTML):
    """The value is `Session.view`; before a base is open it is {opening} or {note}, each a line to
    show. Emits `edit` with a request for `Session.apply`, `recipe` with the `text` of one that is
    pasted, and `measure` when the layers' importance is to be measured."""

    stem = "layer_strip"

    def fill_in(self, template: str) -> str:
        """The markup, with the initialisers that there are."""
        # Fitted layers are made by a repair, which chooses them.
        known = [one for one in INITIALISERS.values() if not one.fitted]
        options = "".join(
            f'<option value="{one.notation}">{one.notation.replace("=", " ")}</option>'
            for one in known
        )
        hints = " ".join(f"{one.name.capitalize()}: {escape(one.hint)}." for one in known)
        return template.replace("INITIALISER_OPTIONS", options).replace("INITIALISER_HINTS", hints)

    def postprocess(self, value: Any) -> Any:
        """The value with the colour of every layer of the base."""
        if not value or "depth" not in value:
            return value
        depth = value["depth"]
        return {**value, "colours": [layer_colour(i, depth) for i in range(depth)]}
