"""Count the values that each layer adds to the KV cache per token, and match caches' dtypes.

A model may cache keys and values of some heads, a compressed latent, a state that never grows, or
two slots per layer. So it runs for two lengths, and the sizes of its cache are compared.
"""

from __future__ import annotations

import torch
from transformers import PreTrainedModel

from .anatomy import Anatomy, build_meta
from .meta import SHORT, run

# What models call the cache that they hand back.
_NAMES = ("past_key_values", "cache_params", "state", "past_buckets_states")
_LONG = 5  # tokens: within any sliding window


def cached_values(base: Anatomy) -> tuple[int, ...] | None:
    """Values that each layer caches per token while no sliding window is full: 0 for a layer whose
    state doesn't grow. None if the model can't run on meta, or its cache has an unknown form."""
    try:
        model = build_meta(base.whole)  # one of our own: running leaves traces
        short, long = (_sizes(model, length) for length in (SHORT, _LONG))
    except Exception:  # whatever a model's code may trip over without memory
        return None
    if short is None or long is None:
        return None
    grown = [(b - a) // (_LONG - SHORT) for a, b in zip(short, long, strict=True)]
    depth = base.stack.depth
    if len(short) == 1 < depth and any(grown):
        return None  # one growing tensor for all layers says nothing about each
    if len(grown) > depth and len(grown) % depth == 0:  # LongCat: two slots a layer
        slots = len(grown) // depth
        return tuple(sum(grown[i * slots : (i + 1) * slots]) for i in range(depth))
    if len(grown) > depth:
        return None
    # Layers behind the last slot use the keys and values of earlier ones (Gemma 3n).
    return (*grown, *[0] * (depth - len(grown)))


def _sizes(model: PreTrainedModel, length: int) -> list[int] | None:
    """Values in each slot of the cache after `length` tokens."""
    out = run(model, length, use_cache=True)
    cache = next((c for n in _NAMES if (c := getattr(out, n, None)) is not None), None)
    if cache is None:
        return None
    cache = getattr(cache, "self_attention_cache", cache)  # an encoder's part doesn't grow
    if hasattr(cache, "layers"):
        return [_values(slot, set()) for slot in cache.layers]
    # Recurrent models keep one state for all layers, which must not grow at all.
    return [_values(cache, set())] if _values(cache, set()) else None


def _values(thing, seen: set[int]) -> int:
    """Numbers in all floating-point tensors that hang on an object."""
    if id(thing) in seen:
        return 0
    seen.add(id(thing))
    if isinstance(thing, torch.Tensor):
        return thing.numel() if thing.is_floating_point() else 0
    if isinstance(thing, dict):
        thing = thing.values()
    elif hasattr(thing, "__dict__"):
        thing = vars(thing).values()
    elif not isinstance(thing, (list, tuple)):
        return 0
    return sum(_values(x, seen) for x in thing)


def match_dtypes(cache, like):
    """Convert a cache's floating-point tensors to the dtypes that the same places have in another
    cache of the same model. Returns the cache; only tuples are made anew."""
    return _match(cache, like, set())


def _match(value, like, seen: set[int]):
    if isinstance(value, torch.Tensor):
        tensors = isinstance(like, torch.Tensor) and value.is_floating_point()
        return value.to(like.dtype) if tensors else value
    if id(value) in seen:
        return value
    seen.add(id(value))
    if isinstance(value, tuple) and isinstance(like, tuple):
        parts = [_match(*pair, seen) for pair in zip(value, like, strict=False)]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    if isinstance(value, list) and isinstance(like, list):
        value[: len(like)] = [_match(*pair, seen) for pair in zip(value, like, strict=False)]
        return value
    mine, other = (x if isinstance(x, dict) else getattr(x, "__dict__", {}) for x in (value, like))
    if isinstance(mine, dict):  # a class has a read-only mapping
        for name in mine.keys() & other.keys():
            mine[name] = _match(mine[name], other[name], seen)
    return value
