"""What is the same however often a run is stopped: which windows a step reads, and its rate.

Pure arithmetic of the seed and the step's number. Nothing is carried from one step to the next, so
there is nothing to lose.
"""

from __future__ import annotations

import math

import torch


def windows_of(step: int, batch: int, count: int, seed: int) -> list[int]:
    """The numbers of the `batch` windows that a step reads, of `count`.

    Every window is read once before any is read again; each time round they are shuffled anew.
    """
    found, place = [], step * batch
    while len(found) < batch:
        turn, start = divmod(place, count)
        generator = torch.Generator().manual_seed(seed * 1_000_003 + turn)
        shuffled = torch.randperm(count, generator=generator)
        part = shuffled[start : start + batch - len(found)].tolist()
        found += part
        place += len(part)
    return found


def rate(step: int, steps: int | None, peak: float, schedule: str, warmup: int) -> float:
    """The learning rate of a step: up in a line over `warmup` steps, then down to a tenth of the
    peak by a cosine or a line, or constant. While `steps` is not known yet it is taken for long."""
    warm = min(1.0, (step + 1) / (warmup + 1))
    if schedule == "constant" or steps is None or steps <= warmup + 1:
        return peak * warm
    done = min(1.0, max(0.0, (step - warmup) / (steps - warmup)))
    down = (1 + math.cos(math.pi * done)) / 2 if schedule == "cosine" else 1 - done
    return peak * warm * (0.1 + 0.9 * down)
