"""Choose the base model."""

from .panel import layout
from .wiring import describe, wire

__all__ = ["describe", "layout", "wire"]
