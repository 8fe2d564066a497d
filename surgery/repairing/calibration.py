"""Calibration text: what hidden states are compared on, as windows of tokens.

By default it is half text that the base writes, and half source code of Python's own library:
neither needs a network, and together they do better than each alone (docs/explanation/repair.md).
What the base writes is kept in the cache for its next repair.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from surgery.analysis.cache import lasting_name
from surgery.errors import SurgeryError
from surgery.healing.text import alternating, of_data_set, of_file, of_library, sampled
from surgery.io.array_cache import ArrayCache
from surgery.io.cache_folder import cache_folder
from surgery.progress import Progress, silent
from surgery.texts.default_text import MIXED, OWN, PYTHON

from .settings import TOKENS

if TYPE_CHECKING:
    from surgery.base import Base

_WINDOW = 128  # tokens: more windows are written at once than with longer ones
_HELD_OUT = 5  # one window in so many is held out of the fits; odd, so that two texts take turns
_FEWEST = 2 * _HELD_OUT  # windows
_KEPT, _VERSION = 16, 2  # texts in the cache; files of another version are ignored
_SEED = 0


def windows(
    base: Base, text: str = MIXED, tokens: int = TOKENS, progress: Progress = silent
) -> torch.Tensor:
    """About `tokens` tokens of `text`, one of those that `RepairSettings` names: (windows, length).
    Raises `SurgeryError` if it can't be read or is too short."""
    length = min(_WINDOW, base.context or _WINDOW)
    count = max(_FEWEST, tokens // length)
    if text == MIXED:
        half = count // 2
        own = _own(base, half, length, progress)
        return alternating(own, of_library(base, count - half, length)).long()
    if text == OWN:
        found = _own(base, count, length, progress)
    elif text == PYTHON:
        found = of_library(base, count, length)
    elif text.startswith("data:"):
        name = text.removeprefix("data:")
        found = of_data_set(base, name, length, count * length, progress)
    else:
        found = of_file(base, text, length, None, progress)
    if len(found) < _FEWEST:
        raise SurgeryError(
            f"The calibration text is too short: it has {found.numel():,} tokens, and a repair "
            f"takes at least {_FEWEST * length:,}. Give more text, or let the base write it."
        )
    spread = torch.linspace(0, len(found) - 1, min(count, len(found))).long()
    return found[spread].long()


def held_out(count: int) -> torch.Tensor:
    """Which of so many windows the ridge is chosen on, the others being fitted: (windows,)."""
    mask = torch.zeros(count, dtype=torch.bool)
    mask[::_HELD_OUT] = True
    return mask


def _own(base: Base, count: int, length: int, progress: Progress) -> torch.Tensor:
    cache = ArrayCache(cache_folder() / "own-text", _KEPT, _VERSION)
    name = lasting_name(base, progress)
    group, entry = f"{name}:{length}:{_SEED}", f"{count}"
    if name and (kept := cache.get(group, entry)) is not None and "windows" in kept:
        found = torch.from_numpy(kept["windows"])
        if found.shape == (count, length):
            return found
    found = sampled(base, count, length, _SEED, progress)
    if name:
        cache.put(group, entry, {"windows": found.numpy()})
    return found
