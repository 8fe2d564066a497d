"""X-ray: layer scores, comparisons, suggestions."""

from .panel import TAB, layout
from .wiring import wire

__all__ = ["TAB", "layout", "wire"]
