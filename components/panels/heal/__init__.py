"""Heal: training that recovers the patient."""

from .panel import layout
from .wiring import wire

__all__ = ["layout", "wire"]
