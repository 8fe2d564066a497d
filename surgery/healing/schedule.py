"""Data order and learning rate as functions of seed and step.

Nothing is carried from one step to the next, so a resumed run continues exactly.
"""

from __future__ import annotations

import math

import torch


def windows_of(step: int, batch: int, count: int, seed: int) -> list[int]:
    """Indices of the `batch` sequences that a step reads, out of `count`.

    Every sequence is read once before any is read again; each epoch has its own order.
    """
    chosen: list[int] = []
    place = step * batch
    while len(chosen) < batch:
        epoch, start = divmod(place, count)
        generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
        shuffled = torch.randperm(count, generator=generator)
        part = shuffled[start : start + batch - len(chosen)].tolist()
        chosen += part
        place += len(part)
    return chosen


def rate(step: int, steps: int | None, peak: float, schedule: str, warmup: int) -> float:
    """The learning rate of a step: linear warm-up over `warmup` steps, then a cosine or linear
    decay to a tenth of the peak, or constant. While `steps` is unknown, no decay has begun."""
    warm = min(1.0, (step + 1) / (warmup + 1))
    if schedule == "constant" or steps is None or steps <= warmup + 1:
        return peak * warm
    done = min(1.0, max(0.0, (step - warmup) / (steps - warmup)))
    down = (1 + math.cos(math.pi * done)) / 2 if schedule == "cosine" else 1 - done
    return peak * warm * (0.1 + 0.9 * down)
