"""Quality: what the plan costs, measured after each edit."""

from .panel import layout
from .repairing import wire as wire_repair
from .wiring import wire

__all__ = ["layout", "wire", "wire_repair"]
