"""The theme switch and the help sheet."""

from components.widgets.html_component import LiveHTML


class Help(LiveHTML):
    """Static; it takes no value."""

    stem = "help"
