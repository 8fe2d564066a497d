"""Tie the X-ray panel's tabs to the page."""

from __future__ import annotations

import gradio as gr

from components.parts import QUIET, PageParts

from . import compare, scan, skills, suggest
from .panel import SCAN, TAB, XrayPanel


def wire(panel: XrayPanel, parts: PageParts) -> None:
    """Tie the panel to the page."""
    # The strip's button starts the scan, whose progress is shown here.
    parts.strip.measure(
        lambda: (gr.Tabs(selected=TAB), gr.Tabs(selected=SCAN)),
        None,
        [parts.tabs, panel.tabs],
        queue=False,
        **QUIET,
    )
    scan.wire(panel.scan, panel.sample, parts, TAB)
    compare.wire(panel.compare, panel.sample, parts)
    skills.wire(panel.skills, parts)
    suggest.wire(panel.suggest, panel.sample, parts)
