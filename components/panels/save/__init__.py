"""Save: checkpoints to disk, as downloads, or to the Hub."""

from .panel import layout
from .push import offered as push_offered
from .wiring import wire

__all__ = ["layout", "push_offered", "wire"]
