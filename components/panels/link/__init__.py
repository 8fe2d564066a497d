"""The page as a link."""

from .panel import layout
from .wiring import wire

__all__ = ["layout", "wire"]
