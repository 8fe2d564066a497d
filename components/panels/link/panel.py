"""Lay out the Link button and its sheet."""

from __future__ import annotations

from components.widgets.html_component import LiveHTML


class Link(LiveHTML):
    """The button and its sheet. Emits `draw` with an address; the value is what `code` returns."""

    stem = "link"


def layout() -> Link:
    """Lay the panel out in the current row."""
    return Link(value={}, elem_id="link")
