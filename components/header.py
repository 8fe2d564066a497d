"""The title line: name, theme switch, help sheet. Knows nothing of models."""

from .live import LiveHTML


class Header(LiveHTML):
    """Static; it takes no value."""

    stem = "header"
