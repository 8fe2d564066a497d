"""Choose the base model."""

from .panel import layout, opening
from .wiring import describe, wire

__all__ = ["describe", "layout", "opening", "wire"]
