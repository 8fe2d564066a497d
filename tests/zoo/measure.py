"""How much a model's cache really grows with each token: run it and look."""

from __future__ import annotations

import torch
from transformers import PreTrainedModel


@torch.no_grad()
def cache_growth(model: PreTrainedModel, ids: torch.Tensor) -> int | None:
    """Values that the cache gains for each token of one text, or None if it has none to look at.

    Measured between 3 and 5 tokens, while no sliding window is full.
    """
    sizes = []
    for length in (3, 5):
        try:
            out = model(input_ids=ids[:1, :length], use_cache=True)
        except Exception:
            return None
        kept = next(
            (
                value
                for name in ("past_key_values", "cache_params", "state")
                if (value := getattr(out, name, None)) is not None
            ),
            None,
        )
        if kept is None:
            return None
        sizes.append(_values(kept, set()))
    return (sizes[1] - sizes[0]) // 2


def _values(thing, seen: set[int]) -> int:
    """Numbers in all tensors that hang on an object."""
    if id(thing) in seen:
        return 0
    seen.add(id(thing))
    if isinstance(thing, torch.Tensor):
        return thing.numel() if thing.is_floating_point() else 0
    if isinstance(thing, dict):
        return sum(_values(x, seen) for x in thing.values())
    if isinstance(thing, (list, tuple)):
        return sum(_values(x, seen) for x in thing)
    return sum(_values(x, seen) for x in getattr(thing, "__dict__", {}).values())
