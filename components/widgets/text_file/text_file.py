"""A text file of the visitor's own, read in the browser so that no upload is needed for it.

The text travels with the event that needs it; nothing keeps it before. Nothing in it is trusted.
"""

from __future__ import annotations

from dataclasses import dataclass

from components.widgets.html_component import LiveHTML
from surgery import SurgeryError

_ROWS = (".jsonl", ".ndjson")


class TextFile(LiveHTML):
    """The value is {name, size, text} once a file was chosen; `chosen` says what comes of it."""

    stem = "text_file"

    def __init__(self, most: int, **options) -> None:
        """`most` is the limit in bytes."""
        super().__init__(value={"most": most}, **options)


@dataclass(frozen=True)
class Chosen:
    """A text, and whether it is rows of JSON (`.jsonl`) or plain (`.txt`)."""

    text: str
    ending: str


def chosen(value: object) -> Chosen:
    """The text in a component's value. Raises `SurgeryError` if there is none."""
    value = value if isinstance(value, dict) else {}
    name, text = value.get("name"), value.get("text")
    if not isinstance(name, str) or not isinstance(text, str):
        raise SurgeryError("Choose a file with your text first.")
    if not text.strip():
        raise SurgeryError("The file is empty: choose one with a few pages of text.")
    return Chosen(text, ".jsonl" if name.lower().endswith(_ROWS) else ".txt")
