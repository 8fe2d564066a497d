"""A line that says what is going on, with a bar while it is known how far; or what went wrong."""

from __future__ import annotations

from components.services.deployment import current
from components.widgets.html_component import LiveHTML


class Status(LiveHTML):
    """The value is {text, share (0 to 1, or None), failed}; empty shows nothing."""

    stem = "status"


def note(text: str) -> dict:
    """A plain remark; empty text clears the line."""
    return {"text": text, "share": None, "failed": False}


def failed(error: Exception) -> dict:
    """What went wrong, in the error's own words, as far as they are for everyone."""
    return {"text": current().words(error), "share": None, "failed": True}
