"""Plans for a size that is asked for, by several methods, each with what it is expected to cost.

To shrink: the contiguous block with the least angular distance across it (arXiv 2403.17887), the
layers of least Block Influence (ShortGPT, arXiv 2403.03853), those whose loss alone costs least
perplexity (Shortened LLaMA, arXiv 2402.02834), and a greedy search that measures anew after every
layer (SLEB, arXiv 2402.09025). To grow: repeats where they cost least. A random plan of the same
size stands beside them as the control. The ends are protected: scores misjudge them.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from surgery.errors import SurgeryError
from surgery.plan import Plan
from surgery.progress import Progress, silent

from .cache import MeasurementCache
from .forward_cache import perplexity
from .sample import Sample
from .scan import Scan, Variant, scan
from .score import Score
from .search import greedy, measure_all
from .target import Target

if TYPE_CHECKING:
    from surgery.base import Base

SHRINK = ("block", "influence", "drop_one", "greedy", "random")
GROW = ("repeat_one", "repeat_block", "random")
PROTECTED = (1, 1)  # layers at the beginning and at the end that stay as they are


@dataclass(frozen=True)
class Suggestion:
    """A plan, how it was found, and what it costs.

    `expected` is what the method goes by, a `scale` of “perplexity”, “angular distance” or “sum of
    Block Influence”; None for the random control. An expected perplexity adds up losses that were
    measured one at a time, so it takes layers not to depend on one another, which they do.
    `measured` is the plan's own score, once it was taken. `words` say it in a sentence.
    """

    plan: Plan
    method: str
    expected: float | None
    scale: str
    measured: Score | None
    words: str


def suggest(
    base: Base,
    sample: Sample,
    *,
    layers: int | None = None,
    parameters: int | None = None,
    methods: Sequence[str] | None = None,
    protect: tuple[int, int] = PROTECTED,
    seed: int = 0,
    measured: bool = True,
    heard: Callable[[list[Suggestion]], None] | None = None,
    progress: Progress = silent,
) -> list[Suggestion]:
    """Plans with `layers` layers, or with at most `parameters` parameters; cheapest first.

    `methods` are some of `SHRINK` or `GROW`; without them all that fit. `protect` says how many
    layers at the beginning and the end stay as they are. `seed` is the control's. Each plan is
    measured unless `measured` is False. `heard` gets what there is whenever something was added;
    what was measured is kept when `progress` raises to stop. Raises `SurgeryError` where no plan
    fits.
    """
    target = Target.of(base, layers, parameters, protect)
    allowed = GROW if target.grows else SHRINK
    methods = tuple(methods or allowed)
    if unknown := [m for m in methods if m not in allowed]:
        raise SurgeryError(
            f"“{str(unknown[0])[:40]}” doesn't lead to {target.words}: {', '.join(allowed)} do."
        )
    found: list[Suggestion] = []
    tell = heard or (lambda _: None)
    needed = dict.fromkeys(_NEEDS[m] for m in methods if m in _NEEDS)
    evidence = scan(base, sample, scores=tuple(needed), progress=progress)  # at least the base
    for method in methods:
        one = _FINDERS[method](_Case(base, sample, evidence, target, seed, progress))
        if one is None:
            continue
        found.append(one)
        tell(list(found))
        if measured and one.measured is None:
            found[-1] = measure(base, one, sample, progress)
            tell(list(found))
    if not found:
        raise SurgeryError(f"No method found a plan of {target.words} for this base.")
    found.sort(key=lambda one: one.measured.perplexity if one.measured else math.inf)
    return found


def measure(
    base: Base, suggestion: Suggestion, sample: Sample, progress: Progress = silent
) -> Suggestion:
    """The suggestion with its measured score. Raises `Refused` if it can't be operated."""
    return replace(suggestion, measured=measured_score(base, suggestion.plan, sample, progress))


def measured_score(base: Base, plan: Plan, sample: Sample, progress: Progress = silent) -> Score:
    """The perplexity of a plan on a sample; what was measured before is not measured again."""
    kept = MeasurementCache(base, sample)
    losses = kept.get(plan, (sample.tokens,))
    if losses is None:
        score = perplexity(base.operate(plan).model, sample, progress)
        kept.put(plan, np.array(score.nll, np.float32))
        return score
    return Score.of(losses)


# ---------------------------------------------------------------------- the methods


@dataclass(frozen=True)
class _Case:
    """What a method has to go by."""

    base: Base
    sample: Sample
    evidence: Scan
    target: Target
    seed: int
    progress: Progress


def _block(case: _Case) -> Suggestion | None:
    """The shortest block that is enough, and of its length the one the states turn least over."""
    target, angular = case.target, case.evidence.angular
    for n in range(1, len(target.touchable) + 1):
        starts = range(target.first, target.last - n + 1)
        starts = [start for start in starts if angular[start][n] is not None]
        for start in sorted(starts, key=lambda start: angular[start][n]):
            plan = Plan.whole(case.base.depth).drop(start, start + n)
            if target.reached(plan) and target.operable(plan):
                distance = angular[start][n]
                words = (
                    f"Without {_list(range(start, start + n))}: of all blocks of {n}, the hidden "
                    f"states turn least across this one."
                )
                return Suggestion(plan, "block", distance, "angular distance", None, words)
    return None


def _influence(case: _Case) -> Suggestion | None:
    scores = case.evidence.block_influence
    layers = [i for i in case.target.touchable if scores[i] is not None]
    plan = case.target.dropping(sorted(layers, key=lambda i: scores[i]))
    if plan is None:
        return None
    total = sum(scores[i] for i in plan.dropped)
    words = f"Without {_list(plan.dropped)}, the layers of least Block Influence."
    return Suggestion(plan, "influence", total, "sum of Block Influence", None, words)


def _drop_one(case: _Case) -> Suggestion | None:
    costs = _costs(case.evidence.drop_one)
    plan = case.target.dropping(sorted(set(costs) & set(case.target.touchable), key=costs.get))
    if plan is None:
        return None
    expected = _added(case.evidence, (costs[i] for i in plan.dropped))
    words = f"Without {_list(plan.dropped)}, the layers that alone cost least perplexity."
    return Suggestion(plan, "drop_one", expected, "perplexity", None, words)


def _greedy(case: _Case) -> Suggestion | None:
    found = greedy(case.base, case.sample, case.target, case.progress)
    if found is None:
        return None
    plan, dropped = found
    score = measured_score(case.base, plan, case.sample, case.progress)
    words = f"Without {_list(sorted(dropped))}, dropped one after the other and measured anew."
    return Suggestion(plan, "greedy", score.perplexity, "perplexity", score, words)


def _repeat_one(case: _Case) -> Suggestion | None:
    costs = _costs(case.evidence.repeat_one)
    order = sorted(set(costs) & set(case.target.touchable), key=costs.get)
    plan = case.target.repeating(order)
    if plan is None:
        return None
    again = _extra(plan)
    expected = _added(case.evidence, (costs[i] for i in again))
    words = f"With {_list(again)} run twice in place, where a repeat alone costs least."
    return Suggestion(plan, "repeat_one", expected, "perplexity", None, words)


def _repeat_block(case: _Case) -> Suggestion | None:
    """The longest block that may be repeated, and of its length the one that costs least."""
    target, depth = case.target, case.base.depth
    for n in range(len(target.touchable), 0, -1):
        starts = range(target.first, target.last - n + 1)
        plans = [Plan.whole(depth).repeat(start, start + n) for start in starts]
        plans = [p for p in plans if target.fits(p) and target.operable(p)]
        if not plans:
            continue
        scores = measure_all(case.base, plans, case.sample, case.progress)
        best = min(plans, key=lambda plan: scores[plan].perplexity)
        layers = _list(_extra(best))
        words = f"With {layers} run twice as a block: of all blocks of {n} it costs least."
        return Suggestion(
            best, "repeat_block", scores[best].perplexity, "perplexity", scores[best], words
        )
    return None


def _random(case: _Case) -> Suggestion | None:
    order = list(case.target.touchable)
    random.Random(case.seed).shuffle(order)
    grows = case.target.grows
    plan = case.target.repeating(order) if grows else case.target.dropping(order)
    if plan is None:
        return None
    layers = _list(_extra(plan)) if grows else _list(plan.dropped)
    words = f"{'With' if grows else 'Without'} {layers}, drawn at random: the control."
    return Suggestion(plan, "random", None, "", None, words)


_FINDERS = {
    "block": _block,
    "influence": _influence,
    "drop_one": _drop_one,
    "greedy": _greedy,
    "repeat_one": _repeat_one,
    "repeat_block": _repeat_block,
    "random": _random,
}
_NEEDS = {
    "block": "angular",
    "influence": "block_influence",
    "drop_one": "drop_one",
    "repeat_one": "repeat_one",
}


def _costs(variants: Sequence[Variant]) -> dict[int, float]:
    return {v.layer: v.cost.mean for v in variants if v.cost is not None}


def _added(evidence: Scan, costs) -> float:
    total = evidence.perplexity.mean + sum(costs)
    return math.exp(total) if total < 700 else math.inf


def _extra(plan: Plan) -> list[int]:
    """The layers that are there more than once, as often as they are repeated."""
    return sorted(i for i in set(plan.sources) for _ in range(plan.sources.count(i) - 1))


def _list(layers: Sequence[int]) -> str:
    layers = [str(i) for i in layers]
    word = "layer" if len(layers) == 1 else "layers"
    return f"{word} {', '.join(layers[:-1])}{' and ' if layers[1:] else ''}{layers[-1]}"
