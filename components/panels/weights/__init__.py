"""Weights: distributions and single matrices."""

from .panel import TAB, choices, layout
from .wiring import wire

__all__ = ["TAB", "choices", "layout", "wire"]
