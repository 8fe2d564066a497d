"""A link to a file that waits on the server. Gradio's own button for that spells out where on the
machine the file lies; and to follow a plain link would be to leave the page."""

from __future__ import annotations

from components.widgets.html_component import LiveHTML


class DownloadLink(LiveHTML):
    """The value is {address}, relative to the page; empty shows nothing."""

    stem = "download_link"
