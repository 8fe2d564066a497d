"""What a repair that fits layers takes in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from surgery.architecture.inspect.hooks import layers_of
from surgery.compute.contexts import copied_bytes
from surgery.errors import SurgeryError
from surgery.healing.cost import widths
from surgery.memory.devices import HEADROOM, free_on, gigabytes

from . import least_squares
from .outputs import OutputProjection, candidates

if TYPE_CHECKING:
    from surgery.base import Base


def bytes_per_token(base: Base) -> int:
    """What a fit keeps of a token: hidden states of base and patient, and what the widest
    projection is given."""
    width, inner = widths(base)
    return (inner + 4 * width) * torch.float32.itemsize


def largest_fit_bytes(base: Base) -> int:
    """What the largest fit takes beside that, however many tokens there are."""
    width, _ = widths(base)
    found = [
        OutputProjection(name, module, 1.0)
        for layer in layers_of(base.anatomy, base.anatomy.model) or ()
        for name, module in candidates(layer).items()
    ]
    inputs = max((one.inputs + (one.bias is not None) for one in found), default=0)
    return least_squares.fit_bytes(inputs, width)


def check_memory(base: Base, tokens: int) -> None:
    """Raise `SurgeryError` if the memory doesn't hold a fit on so many tokens. The weights are
    loaded."""
    fit, states = largest_fit_bytes(base), tokens * bytes_per_token(base)
    free = free_on(torch.device(base.device)) - copied_bytes(base.model)
    if fit + states > free * HEADROOM:
        raise SurgeryError(
            f"Fitting would need about {gigabytes(fit + states)} ({gigabytes(fit)} for the sums "
            f"of one fit, {gigabytes(states)} for {tokens:,} tokens), and {gigabytes(free)} are "
            "free. Choose fewer tokens, or the method alpha or damped, or heal the patient instead."
        )
