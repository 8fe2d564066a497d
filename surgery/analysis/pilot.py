"""A few variants of a scan, measured on a short text to find out how much text the scan takes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from surgery.plan import Plan
from surgery.progress import Progress, silent

from .importance import DEFAULT, SCORES, Span
from .layer_scan import check_scan
from .sample import Sample
from .score import LossIncrease
from .search import measure_all
from .suggestions import measured_score

if TYPE_CHECKING:
    from surgery.base import Base

VARIANTS = 8


@dataclass(frozen=True)
class Pilot:
    """Variants that change one layer, evenly spaced among those of a scan: about `VARIANTS`, or
    none if it has none. `share` is their share of all its variants.

    They depend on the scan's options alone, so that processes that share a scan take the same text.
    """

    plans: tuple[Plan, ...]
    share: float

    @classmethod
    def of(cls, depth: int, scores: Sequence[str] = DEFAULT, within: Span | None = None) -> Pilot:
        """The pilot of a scan with these options. Raises `SurgeryError`, as the scan would."""
        start, end = check_scan(depth, scores, within)
        single: list[Plan] = []
        variants = 0
        for key in scores:
            score = SCORES[key]
            plans = score.plans(depth, start, end) if score.plans else {}
            variants += len(plans)
            if not score.of_blocks:
                single += plans.values()
        every = max(1, math.ceil(len(single) / VARIANTS))
        chosen = tuple(single[every // 2 :: every])
        return cls(chosen, len(chosen) / variants if chosen else 1.0)

    def costs(self, base: Base, sample: Sample, progress: Progress = silent) -> list[LossIncrease]:
        """Their costs on a sample, without those that can't be operated. Raises `SurgeryError`."""
        if not self.plans:
            return []
        scores = measure_all(base, self.plans, sample, progress)
        whole = measured_score(base, Plan.whole(base.depth), sample, progress)
        return [LossIncrease.of(score, whole) for score in scores.values()]
