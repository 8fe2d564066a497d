"""A status line: progress with a bar where it is known, a remark, or an error."""

from __future__ import annotations

from components.widgets.html_component import LiveHTML


class Status(LiveHTML):
    """The value is {text, share (0 to 1, or None), failed}; empty shows nothing."""

    stem = "status"


def note(text: str) -> dict:
    """A plain remark; empty text clears the line."""
    return {"text": text, "share": None, "failed": False}


def failed(message: str) -> dict:
    """An error message."""
    return {"text": message, "share": None, "failed": True}
