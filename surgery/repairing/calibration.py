"""Calibration text: what hidden states are compared on, as windows of tokens.

By default it is half text that the base writes, and half source code of Python's own library:
neither needs a network, and together they do better than each alone (docs/explanation/repair.md).
What the base writes is kept in the cache for its next repair.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

from surgery.analysis.cache import lasting_name
from surgery.errors import SurgeryError
from surgery.healing.cost import measured_peak, room
from surgery.healing.own_text import sampled
from surgery.healing.text import alternating, of_data_set, of_file, of_library
from surgery.io.array_cache import ArrayCache
from surgery.io.cache_folder import cache_folder
from surgery.plan import Plan
from surgery.progress import Progress, silent
from surgery.texts.default_text import MIXED, OWN, PYTHON

from .memory import bytes_per_token, largest_fit_bytes
from .settings import TOKENS

if TYPE_CHECKING:
    from surgery.base import Base

_WINDOW = 128  # tokens: more windows are written at once than with longer ones
# A short text is written in windows of so many tokens: a few rows side by side take about as long
# as twice as many, and repairs come out the same (docs/explanation/repair.md).
_SHORT, _SHORT_TEXT = 64, 16_384
_HELD_OUT = 5  # one window in so many is held out of the fits; odd, so that two texts take turns
_FEWEST = 2 * _HELD_OUT  # windows
FEWEST_IN_TIME, MOST_IN_TIME = 2048, 131_072  # tokens
_KEPT, _VERSION = 16, 2  # bases in the cache; files of another version are ignored
_SEED = 0
# Operations per parameter and token, as if all ran at the peak speed: half of the tokens are
# written, all run through base and patient. Measured on the bundled model, on a CPU.
_OPERATIONS = 4.6
# Operations per parameter for the perplexities of base, cut and repaired patient.
_EVALUATIONS = 3 * 2 * 2850
_TOGETHER = 2048  # tokens: a repair in a given time reads a multiple, so that the cache is of use


def tokens_within(base: Base, seconds: float) -> int:
    """About how many tokens a repair can read in `seconds`, including the time to write half of
    them and to measure what it gained: 2,048 to 131,072, and no more than half of the memory holds
    that is free beside a fit."""
    parameters = base.preview(Plan.whole(base.depth)).active_parameters
    operations = seconds * measured_peak(base) - _EVALUATIONS * parameters
    free = room(base) - base.counts.total * base.torch_dtype.itemsize - largest_fit_bytes(base)
    most = min(MOST_IN_TIME, free / 2 / bytes_per_token(base))
    tokens = int(min(most, operations / (_OPERATIONS * parameters)))
    return max(FEWEST_IN_TIME, tokens // _TOGETHER * _TOGETHER)


class CalibrationText(NamedTuple):
    """`windows` of tokens, (count, length), and those of them that the base has `written`."""

    windows: torch.Tensor
    written: torch.Tensor | None = None


def calibration_text(
    base: Base, text: str = MIXED, tokens: int = TOKENS, progress: Progress = silent
) -> CalibrationText:
    """About `tokens` tokens of `text`, one of those that `RepairSettings` names. Raises
    `SurgeryError` if it can't be read or is too short."""
    length = _WINDOW if tokens >= _SHORT_TEXT else _SHORT
    length = min(length, base.context or length)
    count = max(_FEWEST, tokens // length)
    if text == MIXED:
        half = count // 2
        own = _own(base, half, length, progress)
        mixed = alternating(own, of_library(base, count - half, length))
        return CalibrationText(mixed.long(), own)
    if text == OWN:
        own = _own(base, count, length, progress)
        return CalibrationText(own.long(), own)
    if text == PYTHON:
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
    return CalibrationText(found[spread].long())


def held_out(count: int) -> torch.Tensor:
    """Which of so many windows the ridge is chosen on, the others being fitted: (windows,)."""
    mask = torch.zeros(count, dtype=torch.bool)
    mask[::_HELD_OUT] = True
    return mask


def _own(base: Base, count: int, length: int, progress: Progress) -> torch.Tensor:
    cache = ArrayCache(cache_folder() / "own-text", _KEPT, _VERSION)
    name = lasting_name(base, progress)
    group, entry = f"{name}:{length}:{_SEED}:{base.compute_dtype}", f"{count}"
    if name and (kept := cache.get(group, entry)) is not None and "windows" in kept:
        found = torch.from_numpy(kept["windows"])
        if found.shape == (count, length):
            return found
    found = sampled(base, count, length, _SEED, progress)
    if name:
        cache.put(group, entry, {"windows": found.numpy()})
    return found
