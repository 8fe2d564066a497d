"""Tie the X-ray panel's three tabs to the page."""

from __future__ import annotations

from components.parts import PageParts

from . import compare, scan, suggest
from .panel import TAB, XrayPanel


def wire(panel: XrayPanel, parts: PageParts) -> None:
    """Tie the panel to the page."""
    scan.wire(panel.scan, panel.sample, parts, TAB)
    compare.wire(panel.compare, panel.sample, parts)
    suggest.wire(panel.suggest, panel.sample, parts)
