"""Talk: base and patient answer one prompt."""

from .panel import layout
from .wiring import wire

__all__ = ["layout", "wire"]
