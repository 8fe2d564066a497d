"""Try a step before the base writes its text: how long it takes, and whether it fits in memory."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from accelerate import Accelerator
    from accelerate.optimizer import AcceleratedOptimizer

_SHORTEST = 1e-6  # seconds


def step_seconds(
    accelerator: Accelerator,
    model: nn.Module,
    optimizer: AcceleratedOptimizer,
    loss: Callable[[torch.Tensor], torch.Tensor],
    ids: torch.Tensor,
    parts: int,
    clip: float,
) -> float:
    """How long a step of `parts` parts takes, each with sequences like `ids`, (count, length).

    The step is complete, the optimizer's states included, but at a learning rate of zero: no weight
    changes, and the optimizer is reset afterwards.
    """
    seconds = 0.0
    # The first pass is slow whatever it does, and on a GPU slow for each shape.
    for some in (ids[:1] if ids.device.type == "cpu" else ids, ids):
        begun = time.monotonic()
        value = loss(some)
        accelerator.backward(value)
        float(value.detach())  # waits until the device is done
        passed = time.monotonic()
        norm = accelerator.clip_grad_norm_(model.parameters(), clip)
        for group in optimizer.param_groups:
            group["lr"] = 0.0
        # Zero times anything else is not zero. A scaler of float16 gradients skips such a step.
        if accelerator.scaler is not None or math.isfinite(float(norm)):
            optimizer.step()
            float(value.detach())
        seconds = parts * (passed - begun) + time.monotonic() - passed
        optimizer.zero_grad()
    optimizer.state.clear()
    return max(_SHORTEST, seconds)
