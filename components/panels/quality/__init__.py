"""Quality: what the plan costs, measured after each edit."""

from .panel import layout
from .wiring import wire

__all__ = ["layout", "wire"]
