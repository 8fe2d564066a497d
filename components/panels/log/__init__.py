"""Log: measured plans."""

from .panel import layout
from .wiring import wire

__all__ = ["layout", "wire"]
