"""Lay out the Quality tile."""

from __future__ import annotations

from html import escape

from components.services.quality import ALL
from components.widgets.html_component import LiveHTML
from surgery import texts


class QualityTile(LiveHTML):
    """The value is one of `view`'s. Emits `measure`, with the name of the `text`, when the page
    shows another plan and when another text is chosen or the button is `pressed`; `repair` when the
    plan is to be repaired, and `stop` when that is to end."""

    stem = "quality"

    def fill_in(self, template: str) -> str:
        """The markup, with the texts that there are."""
        names = [texts.DEFAULT, *(name for name in texts.TEXTS if name != texts.DEFAULT), ALL]
        options = "".join(f"<option>{escape(name)}</option>" for name in names)
        return template.replace("TEXT_OPTIONS", options)


def layout() -> QualityTile:
    """Lay the tile out in the current row."""
    return QualityTile(value={}, elem_id="quality")
