"""The guided lesson."""

from .panel import layout
from .wiring import Beside, wire

__all__ = ["Beside", "layout", "wire"]
