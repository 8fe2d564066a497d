"""Text that was typed after an option."""

from __future__ import annotations

import os


def as_utf8(text: str) -> str:
    """The text in UTF-8, whatever the locale took its bytes for."""
    return os.fsencode(text).decode("utf-8", "surrogateescape")
