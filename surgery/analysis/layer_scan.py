"""Measure the importance of a base's layers on a sample, by the scores of `importance`.

Scores of the hidden states come from one pass of the base; each variant (a layer left out or run
twice) is a pass that starts at the first layer that differs. Every measurement is cached, so that a
scan that was stopped resumes where it was.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from surgery.architecture.inspect.chain import PASSES_SHOWING, is_shown
from surgery.errors import Refused, SurgeryError
from surgery.plan import Plan
from surgery.progress import Meter, Progress, silent

from .cache import MeasurementCache
from .forward_cache import ForwardRunner, same_layers, sweeps
from .importance import DEFAULT, SCORES, Span
from .sample import Sample
from .score import LossIncrease, Score, interval

if TYPE_CHECKING:
    from surgery.base import Base


@dataclass(frozen=True)
class Variant:
    """The base with one change, and its perplexity with a 95 % interval.

    `layer` is the first that is changed. `cost` is the increase over the base's loss.
    All numbers are None, and `refused` is the reason, for a plan that can't be operated.
    """

    layer: int
    plan: Plan
    perplexity: float | None
    low: float | None
    high: float | None
    cost: LossIncrease | None
    refused: str = ""


@dataclass(frozen=True)
class Scan:
    """The scores measured so far; those not asked for, or not measured yet, are missing.

    `tokens` are scored, in `sequences` windows. Scores go by their key in `SCORES`. `values[key]`
    has one value for each layer, or rows of values by a block's first layer and its size: None for
    layers that text alone doesn't run, and beyond the depth. `intervals[key]` has the 95 % interval
    (low, high) of each layer's value where tokens can be resampled. `variants[key]` has the
    variants by the block [start, end) that each changes.

    `layer_forwards` counts one layer over the whole sample; `naive_layer_forwards` is what the same
    measurements take without reuse. Both leave out what was cached.
    """

    depth: int
    tokens: int
    sequences: int
    perplexity: Score | None
    values: Mapping[str, tuple] = field(default_factory=dict)
    intervals: Mapping[str, tuple[tuple[float, float] | None, ...]] = field(default_factory=dict)
    variants: Mapping[str, Mapping[Span, Variant]] = field(default_factory=dict)
    layer_forwards: int = 0
    naive_layer_forwards: int = 0
    finished: bool = False

    @property
    def block_influence(self) -> tuple[float | None, ...] | None:
        """Block Influence by layer."""
        return self.values.get("block_influence")

    @property
    def angular(self) -> tuple[tuple[float | None, ...], ...] | None:
        """Angular distances d(l, n), at `[l][n]`."""
        return self.values.get("angular")

    @property
    def taylor(self) -> tuple[float, ...] | None:
        """Taylor scores by layer."""
        return self.values.get("taylor")

    @property
    def drop_one(self) -> tuple[Variant, ...]:
        """The variants without one layer, in the order of layers."""
        return tuple(self.variants.get("drop_one", {}).values())

    @property
    def repeat_one(self) -> tuple[Variant, ...]:
        """The variants with one layer run twice, in the order of layers."""
        return tuple(self.variants.get("repeat_one", {}).values())

    @property
    def repeat_map(self) -> Mapping[Span, Variant] | None:
        """The variants with a block run twice, by (start, end)."""
        return self.variants.get("repeat_map")


def scan(
    base: Base,
    sample: Sample,
    *,
    scores: Sequence[str] = DEFAULT,
    within: Span | None = None,
    on_update: Callable[[Scan], None] | None = None,
    progress: Progress = silent,
) -> Scan:
    """Measure a base on a sample.

    `scores` are keys of `SCORES`. `within` bounds the layers of the repeat map, half-open; without
    it all are mapped. `on_update` gets what is measured so far whenever something is added.
    `progress` counts layer-forwards and may raise to stop; what is measured by then stays cached,
    and `known_scan` returns it. Raises `SurgeryError`.
    """
    work = Work(base, sample, scores, within, progress)
    work.measure(on_update=on_update, progress=progress)
    return work.result(finished=True)


def known_scan(
    base: Base,
    sample: Sample,
    *,
    scores: Sequence[str] = DEFAULT,
    within: Span | None = None,
) -> Scan:
    """What is cached of a scan; nothing is measured. Raises `SurgeryError`."""
    work = Work(base, sample, scores, within, progress=None)
    return work.result(finished=not work.missing() and not work.missing_arrays())


def disk_passes(
    base: Base,
    sample: Sample,
    *,
    scores: Sequence[str] = DEFAULT,
    within: Span | None = None,
    part: tuple[int, int] = (0, 1),
    progress: Progress = silent,
) -> int:
    """About how many times a scan, or part (k, n) of it, reads all weights, where they are read
    from disk. Reads them once to identify a base that was never measured. Raises `SurgeryError`."""
    work = Work(base, sample, scores, within, progress)
    plans = work.missing(part)
    arrays = work.missing_arrays() if part[0] == 0 else set()
    if not plans and not arrays:
        return 0
    base.load(progress)
    shown = 0 if is_shown(base.anatomy) else PASSES_SHOWING
    extra = sum(SCORES[key].forwards for key in arrays if key in SCORES)
    return shown + 1 + extra + sweeps(base, sample, plans)


def check_scan(depth: int, scores: Sequence[str], within: Span | None) -> Span:
    """The span that a scan's repeat map covers. Raises `SurgeryError` for an unknown score or a
    span outside the base."""
    if unknown := [s for s in scores if s not in SCORES]:
        raise SurgeryError(
            f"“{str(unknown[0])[:40]}” is not a score: choose from {', '.join(SCORES)}."
        )
    start, end = within or (0, depth)
    if not 0 <= start < end <= depth:
        raise SurgeryError(
            f"{start}:{end} is not a span of this base: it has to lie within 0:{depth} and not be "
            "empty."
        )
    return start, end


class Work:
    """One scan: the plans and arrays it takes, which of them are cached, and what they say.

    Variants go by (score, (start, end)). `progress` is that of `MeasurementCache`.
    """

    def __init__(
        self,
        base: Base,
        sample: Sample,
        scores: Sequence[str],
        within: Span | None,
        progress: Progress | None = silent,
    ) -> None:
        depth = base.depth
        start, end = check_scan(depth, scores, within)
        self.base, self.sample, self.depth = base, sample, depth
        self.cache = MeasurementCache(base, sample, progress)
        self.whole = Plan.whole(depth)
        self._scores = [score for key, score in SCORES.items() if key in scores]
        self.plans = {
            (score.key, span): plan
            for score in self._scores
            if score.plans
            for span, plan in score.plans(depth, start, end).items()
        }
        self._arrays = {score.key: score for score in self._scores if not score.plans}
        self._size = sum(map(len, sample.windows))
        self.refused: dict[Plan, str] = {}
        self.forwards = self.naive = 0
        self._variants: dict[tuple[str, Span], Variant] = {}
        self._base_score: Score | None = None
        self._intervals: dict[str, tuple[tuple[float, float] | None, ...]] = {}

    def missing(self, part: tuple[int, int] = (0, 1)) -> list[Plan]:
        """The plans of a part still to be measured, without the base's own."""
        plans = self.plans_of(part)
        return [p for p in plans if self.losses(p) is None and p not in self.refused]

    def plans_of(self, part: tuple[int, int]) -> list[Plan]:
        """The plans of part (k, n), without the base's own: every n-th from the k-th on."""
        return list(dict.fromkeys(self.plans.values()))[part[0] :: part[1]]

    def missing_arrays(self) -> set[str]:
        """The scores still to be read off the base's own passes, “perplexity” among them."""
        missing = {key for key in self._arrays if self._array(key) is None}
        return missing if self.losses(self.whole) is not None else missing | {"perplexity"}

    def measure(
        self,
        part: tuple[int, int] = (0, 1),
        on_update: Callable[[Scan], None] | None = None,
        progress: Progress = silent,
    ) -> None:
        """Measure what is missing of a part; the base's own passes belong to the first."""
        plans = self.missing(part)
        arrays = self.missing_arrays() if part[0] == 0 else set()
        if not plans and not arrays:
            return
        self.base.load(progress)
        extra = [score for key, score in self._arrays.items() if key in arrays and score.measure]
        todo = len(self.whole) + self.depth * sum(score.forwards for score in extra)
        todo += sum(len(plan) - same_layers(plan, self.whole) for plan in plans)
        meter = Meter(progress, "Measuring layers", todo)
        runner = ForwardRunner(self.base, self.sample, meter)
        if runner.layer_major is None:
            meter.what = "Measuring whole passes: this model's layers can't be run one by one"
            meter.total = todo + sum(same_layers(plan, self.whole) for plan in plans)

        def updated() -> None:
            self.forwards = runner.forwards
            if on_update:
                on_update(self.result())

        probes = {
            key: score.probe(self.depth, self.sample)
            for key, score in self._arrays.items()
            if key in arrays and score.probe
        }

        def watch(*call) -> None:
            for probe in probes.values():
                probe(*call)

        with runner.computing():
            whole = runner.record(self.whole, watch=watch)
            self.cache.put(self.whole, whole.nll)
            self.naive += self.depth
            for key, probe in probes.items():
                self.cache.put(key, probe.result())
            updated()
            for plan, losses in runner.each_losses(plans, whole):
                if isinstance(losses, Refused):
                    self.refused[plan] = str(losses)
                else:
                    self.cache.put(plan, losses)
                    self.naive += len(plan)
                updated()
            for score in extra:
                assert score.measure
                self.cache.put(score.key, score.measure(runner))
                self.naive += score.forwards * self.depth
                updated()

    def losses(self, plan: Plan) -> np.ndarray | None:
        """The cached losses of a plan."""
        return self.cache.get(plan, (self.sample.tokens,))

    def result(self, finished: bool = False) -> Scan:
        """What is measured so far."""
        values: dict[str, tuple] = {}
        intervals: dict[str, tuple[tuple[float, float] | None, ...]] = {}
        for key, score in self._arrays.items():
            if (array := self._array(key)) is None:
                continue
            if score.of_blocks:
                values[key] = tuple(map(_numbers, array))
            else:
                values[key] = _numbers(array.mean(axis=1) if score.per_token else array)
            if score.per_token:
                intervals[key] = self._interval(key, array)
        variants: dict[str, dict[Span, Variant]] = {s.key: {} for s in self._scores if s.plans}
        for (key, span), plan in self.plans.items():
            if (variant := self._variant(key, span, plan)) is not None:
                variants[key][span] = variant
        return Scan(
            depth=self.depth,
            tokens=self.sample.tokens,
            sequences=len(self.sample),
            perplexity=self._base(),
            values=values,
            intervals=intervals,
            variants=variants,
            layer_forwards=self.forwards,
            naive_layer_forwards=self.naive,
            finished=finished,
        )

    # ------------------------------------------------------------------ inside

    def _array(self, key: str) -> np.ndarray | None:
        return self.cache.get(key, SCORES[key].shape(self.depth, self._size))

    def _base(self) -> Score | None:
        if self._base_score is None and (losses := self.losses(self.whole)) is not None:
            self._base_score = Score.of(losses)
        return self._base_score

    def _interval(self, key: str, rows: np.ndarray) -> tuple[tuple[float, float] | None, ...]:
        if key not in self._intervals:
            self._intervals[key] = tuple(
                None if np.isnan(row).any() else interval(row) for row in rows
            )
        return self._intervals[key]

    def _variant(self, key: str, span: Span, plan: Plan) -> Variant | None:
        if (key, span) in self._variants:
            return self._variants[key, span]
        base = self._base()
        if plan in self.refused:
            made = Variant(span[0], plan, None, None, None, None, self.refused[plan])
        elif base is None or (losses := self.losses(plan)) is None:
            return None
        else:
            score = Score.of(losses)
            cost = LossIncrease.of(score, base)
            made = Variant(span[0], plan, score.perplexity, score.low, score.high, cost)
        self._variants[key, span] = made
        return made


def _numbers(row: np.ndarray) -> tuple[float | None, ...]:
    return tuple(None if math.isnan(x) else x for x in row.tolist())
