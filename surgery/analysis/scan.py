"""Evidence for where to cut: every score of a base on one sample, each variant begun at the first
layer that differs.

Block Influence, angular distances and perplexity come from one pass of the base, Taylor from one
with gradients. Drop-one and repeat-one perplexity (Shortened LLaMA, arXiv 2402.02834; SLEB, arXiv
2402.09025) and the repeat map (RYS: the layers 0:j, then i:L) take a variant each. What was
measured is kept, so a scan that is stopped goes on where it was.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from surgery.errors import Refused, SurgeryError
from surgery.plan import Plan
from surgery.progress import Meter, Progress, silent

from .cache import MeasurementCache
from .forward_cache import Passes, same_layers
from .sample import Sample
from .score import Cost, Score, interval
from .similarity import TAYLOR_FORWARDS, Likeness, taylor

if TYPE_CHECKING:
    from surgery.base import Base

SCORES = ("block_influence", "angular", "drop_one", "repeat_one", "repeat_map", "taylor")
DEFAULT = SCORES[:4]


@dataclass(frozen=True)
class Variant:
    """The base with one change, and its perplexity with a 95 % interval.

    `layer` is the one that is dropped or repeated, or j of a pair. `cost` is the difference to the
    base's loss. All numbers are None, and `refused` says why, for a plan that can't be operated.
    """

    layer: int
    plan: Plan
    perplexity: float | None
    low: float | None
    high: float | None
    cost: Cost | None
    refused: str = ""


@dataclass(frozen=True)
class Scan:
    """What was found so far; what wasn't asked for, or isn't there yet, is None or missing.

    `tokens` are scored, in `sequences` windows. `block_influence[i]` is of layer i (None where text
    doesn't run it), `influence_intervals[i]` its (low, high). `angular[l][n]` is d(l, n), None
    where l + n is beyond the depth. `drop_one` and `repeat_one` are in the order of layers;
    `repeat_map[i, j]` runs 0:j, then i:depth. `layer_forwards` counts one layer over the whole
    sample; `naive_layer_forwards` is what the same measurements take without reuse. Both leave out
    what was kept from before.
    """

    depth: int
    tokens: int
    sequences: int
    perplexity: Score | None
    block_influence: tuple[float | None, ...] | None = None
    influence_intervals: tuple[tuple[float, float] | None, ...] | None = None
    angular: tuple[tuple[float | None, ...], ...] | None = None
    drop_one: tuple[Variant, ...] = ()
    repeat_one: tuple[Variant, ...] = ()
    repeat_map: Mapping[tuple[int, int], Variant] | None = None
    taylor: tuple[float, ...] | None = None
    layer_forwards: int = 0
    naive_layer_forwards: int = 0
    finished: bool = False


@dataclass(frozen=True)
class Block:
    """The layers [start, start + n) and the angular distance across them."""

    start: int
    n: int
    distance: float

    @property
    def end(self) -> int:
        """One past its last layer."""
        return self.start + self.n


def best_blocks(scan: Scan, first: int = 0) -> list[Block]:
    """For each n from 1 the block of n layers with the least angular distance across it: the one to
    drop. It never holds the last layer (arXiv 2403.17887), nor one below `first`."""
    if scan.angular is None:
        return []
    found = []
    for n in range(1, scan.depth):
        blocks = [
            Block(start, n, d)
            for start in range(first, scan.depth - n)
            if (d := scan.angular[start][n]) is not None
        ]
        if blocks:
            found.append(min(blocks, key=lambda block: block.distance))
    return found


def drop_plan(depth: int, layer: int) -> Plan:
    """The base without a layer."""
    return Plan.whole(depth).drop(layer, layer + 1)


def repeat_plan(depth: int, start: int, end: int) -> Plan:
    """The base with the layers [start, end) twice: 0:end, then start:depth."""
    return Plan.whole(depth).repeat(start, end)


def overlooked(scan: Scan) -> list[int]:
    """Layers that Block Influence calls harmless and that hurt when they are gone, worst first:
    their influence is at most 1.5 times the median, and dropping them costs more than three times
    the median. On SmolLM2-135M 8 and 11 are among them."""
    if scan.block_influence is None or not scan.drop_one:
        return []
    costs = {v.layer: v.cost.mean for v in scan.drop_one if v.cost is not None}
    scores = {i: x for i, x in enumerate(scan.block_influence) if x is not None}
    if len(costs) < scan.depth / 2:  # too few are measured yet
        return []
    much, low = 3 * float(np.median(list(costs.values()))), float(np.median(list(scores.values())))
    found = [i for i in costs if costs[i] > max(much, 0) and scores.get(i, math.inf) <= 1.5 * low]
    return sorted(found, key=lambda i: -costs[i])


def scan(
    base: Base,
    sample: Sample,
    *,
    scores: Sequence[str] = DEFAULT,
    within: tuple[int, int] | None = None,
    heard: Callable[[Scan], None] | None = None,
    progress: Progress = silent,
) -> Scan:
    """Measure a base on a sample.

    `scores` are some of `SCORES`. `within` bounds the layers i and j of the repeat map, half-open;
    without it all are mapped. `heard` gets what there is whenever something was added. `progress`
    hears of layer-forwards and may raise to stop; what was measured by then stays, and
    `known_scan` has it. Raises `SurgeryError`.
    """
    work = Work(base, sample, scores, within)
    work.measure(heard=heard, progress=progress)
    return work.result(finished=True)


def known_scan(
    base: Base,
    sample: Sample,
    *,
    scores: Sequence[str] = DEFAULT,
    within: tuple[int, int] | None = None,
) -> Scan:
    """What was measured before, without measuring anything: as instant as it is possibly empty."""
    work = Work(base, sample, scores, within)
    return work.result(finished=not work.missing() and not work.missing_facts())


class Work:
    """One scan under way: which variants it takes, what of them is known, and what is said of it.

    A variant goes by (score, i, j): layer i, or layers i to j of the repeat map.
    """

    def __init__(
        self, base: Base, sample: Sample, scores: Sequence[str], within: tuple[int, int] | None
    ) -> None:
        depth = base.depth
        if unknown := [s for s in scores if s not in SCORES]:
            raise SurgeryError(f"“{str(unknown[0])[:40]}” is no score: {', '.join(SCORES)} are.")
        start, end = within or (0, depth)
        if not 0 <= start < end <= depth:
            raise SurgeryError(
                f"{start}:{end} is no span of this base: it lies within 0:{depth} and isn't empty."
            )
        self.base, self.sample, self.scores, self.depth = base, sample, set(scores), depth
        self.kept = MeasurementCache(base, sample)
        self.whole = Plan.whole(depth)
        self.plans: dict[tuple[str, int, int], Plan] = {}
        if "drop_one" in scores and depth > 1:
            for i in range(depth):
                self.plans["drop_one", i, 0] = drop_plan(depth, i)
        if "repeat_one" in scores:
            for i in range(depth):
                self.plans["repeat_one", i, 0] = repeat_plan(depth, i, i + 1)
        if "repeat_map" in scores:
            for i in range(start, end):
                for j in range(i + 1, end + 1):
                    self.plans["repeat_map", i, j] = repeat_plan(depth, i, j)
        size = sum(map(len, sample.windows))
        self._shapes = {
            name: shape
            for name, shape in (
                ("block_influence", (depth, size)),
                ("angular", (depth, depth + 1)),
                ("taylor", (depth,)),
            )
            if name in self.scores
        }
        self.refused: dict[Plan, str] = {}
        self.forwards = self.naive = 0
        self._variants: dict[tuple[str, int, int], Variant] = {}
        self._facts: dict[str, object] = {}

    def missing(self, part: tuple[int, int] = (0, 1)) -> list[Plan]:
        """The plans that are still to be measured, the base's own left out; of part (k, n) every
        n-th plan from the k-th on."""
        plans = list(dict.fromkeys(self.plans.values()))[part[0] :: part[1]]
        return [p for p in plans if self.losses(p) is None and p not in self.refused]

    def missing_facts(self) -> set[str]:
        """Which scores of the base's own pass are still to be had."""
        found = {name for name in self._shapes if self._array(name) is None}
        return found if self.losses(self.whole) is not None else found | {"perplexity"}

    def measure(
        self,
        part: tuple[int, int] = (0, 1),
        heard: Callable[[Scan], None] | None = None,
        progress: Progress = silent,
    ) -> None:
        """Measure what is missing of a part; whatever the base's own pass says belongs to the
        first."""
        plans = self.missing(part)
        facts = self.missing_facts() if part[0] == 0 else set()
        if not plans and not facts:
            return
        self.base.load(progress)
        todo = len(self.whole) + TAYLOR_FORWARDS * self.depth * ("taylor" in facts)
        todo += sum(len(plan) - same_layers(plan, self.whole) for plan in plans)
        meter = Meter(progress, "Measuring layers", todo)
        passes = Passes(self.base, self.sample, meter, reuse=bool(plans))
        if not passes.skips:
            meter.total = todo + sum(same_layers(plan, self.whole) for plan in plans)

        def tell() -> None:
            self.forwards = passes.forwards
            if heard:
                heard(self.result())

        likeness = Likeness(self.depth, self.sample)
        whole = passes.keep(self.whole, watch=likeness)
        self.kept.put(self.whole, whole.nll)
        self.naive += self.depth
        for name in ("block_influence", "angular"):
            if name in facts:
                get = likeness.influence if name == "block_influence" else likeness.angular
                self.kept.put(name, get())
        tell()
        for group in _together(plans, self.whole):
            found = passes.losses_together(group, whole)
            for plan, losses in zip(group, found, strict=True):
                if isinstance(losses, Refused):
                    self.refused[plan] = str(losses)
                else:
                    self.kept.put(plan, losses)
                    self.naive += len(plan)
            tell()
        if "taylor" in facts:
            self.kept.put("taylor", taylor(passes))
            self.naive += TAYLOR_FORWARDS * self.depth
            tell()

    def losses(self, plan: Plan) -> np.ndarray | None:
        """What was measured of a plan."""
        return self.kept.get(plan, (self.sample.tokens,))

    def result(self, finished: bool = False) -> Scan:
        """What is there now."""
        base = self._base()
        angular, influence, slopes = map(self._array, ("angular", "block_influence", "taylor"))
        rows: dict[str, dict[tuple[int, int], Variant]] = {s: {} for s in SCORES}
        for key, plan in self.plans.items():
            if (variant := self._variant(key, plan)) is not None:
                rows[key[0]][key[1:]] = variant
        return Scan(
            depth=self.depth,
            tokens=self.sample.tokens,
            sequences=len(self.sample),
            perplexity=base,
            block_influence=None if influence is None else _numbers(influence.mean(axis=1)),
            influence_intervals=self._intervals(influence),
            angular=None if angular is None else tuple(map(_numbers, angular)),
            drop_one=tuple(rows["drop_one"].values()),
            repeat_one=tuple(rows["repeat_one"].values()),
            repeat_map=rows["repeat_map"] if "repeat_map" in self.scores else None,
            taylor=None if slopes is None else tuple(slopes.tolist()),
            layer_forwards=self.forwards,
            naive_layer_forwards=self.naive,
            finished=finished,
        )

    # ------------------------------------------------------------------ inside

    def _array(self, name: str) -> np.ndarray | None:
        return self.kept.get(name, self._shapes[name]) if name in self._shapes else None

    def _base(self) -> Score | None:
        if "perplexity" not in self._facts and (losses := self.losses(self.whole)) is not None:
            self._facts["perplexity"] = Score.of(losses)
        return self._facts.get("perplexity")

    def _intervals(self, influence: np.ndarray | None):
        if influence is None:
            return None
        if "intervals" not in self._facts:
            self._facts["intervals"] = tuple(
                None if np.isnan(row).any() else interval(row) for row in influence
            )
        return self._facts["intervals"]

    def _variant(self, key: tuple[str, int, int], plan: Plan) -> Variant | None:
        if key in self._variants:
            return self._variants[key]
        layer, base = key[2] or key[1], self._base()
        if plan in self.refused:
            made = Variant(layer, plan, None, None, None, None, self.refused[plan])
        elif base is None or (losses := self.losses(plan)) is None:
            return None
        else:
            score = Score.of(losses)
            cost = Cost.of(score, base)
            made = Variant(layer, plan, score.perplexity, score.low, score.high, cost)
        self._variants[key] = made
        return made


def _together(plans: Sequence[Plan], whole: Plan) -> list[list[Plan]]:
    """Plans that go on with the same layers once they leave the base, in groups."""
    groups: dict[tuple, list[Plan]] = {}
    for plan in plans:
        groups.setdefault(plan.layers[same_layers(plan, whole) :], []).append(plan)
    return list(groups.values())


def _numbers(row: np.ndarray) -> tuple[float | None, ...]:
    return tuple(None if math.isnan(x) else x for x in row.tolist())
