"""The theme switch and the help sheet. Knows nothing of models."""

from .live import LiveHTML


class Help(LiveHTML):
    """Static; it takes no value."""

    stem = "help"
