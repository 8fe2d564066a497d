"""Methods that find a plan of a target size, one entry per method.

To shrink: drop the block, or the layers, with the lowest score, or search greedily. To grow: repeat
layers or a block where that costs least. A random plan is the control. The suggestions, the command
line and the page read `METHODS`; to add a method, add an entry and its function.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from surgery.numbers import listed
from surgery.plan import Plan

if TYPE_CHECKING:
    from surgery.base import Base
    from surgery.progress import Progress

    from .layer_scan import Scan, Variant
    from .sample import Sample
    from .score import Score
    from .target import Target


@dataclass(frozen=True)
class Suggestion:
    """A plan, the method that found it, and what it costs.

    `expected` is the quantity that the method minimises, on a `scale` of “perplexity”, “angular
    distance” or “sum of Block Influence”; None for the random control. An expected perplexity adds
    up losses measured one layer at a time, as if layers were independent, which they aren't.
    `measured` is the plan's own perplexity, once it was measured. `words` is a sentence about it.
    """

    plan: Plan
    method: str
    expected: float | None
    scale: str
    measured: Score | None
    words: str


@dataclass(frozen=True)
class Case:
    """What a method works from. `scan` has the scores that it needs."""

    base: Base
    sample: Sample
    scan: Scan
    target: Target
    seed: int
    progress: Progress


@dataclass(frozen=True)
class Method:
    """How a plan is found: `find` returns None where the method reaches no plan of the size.

    `score` is the key of the score in `SCORES` that it needs measured, if any.
    """

    key: str
    label: str
    description: str
    find: Callable[[Case], Suggestion | None]
    score: str = ""
    shrinks: bool = False
    grows: bool = False


def _block(case: Case) -> Suggestion | None:
    """The shortest block that is enough, and of its length the one with the least distance."""
    target, angular = case.target, case.scan.values["angular"]
    for n in range(1, len(target.touchable) + 1):
        starts = [
            start
            for start in range(target.first, target.last - n + 1)
            if angular[start][n] is not None
        ]
        for start in sorted(starts, key=lambda start: angular[start][n]):
            plan = Plan.whole(case.base.depth).drop(start, start + n)
            if target.reached(plan) and target.operable(plan):
                distance = angular[start][n]
                words = (
                    f"Without {_list(range(start, start + n))}: of all blocks of {n}, the hidden "
                    f"state rotates least across this one."
                )
                return Suggestion(plan, "block", distance, "angular distance", None, words)
    return None


def _influence(case: Case) -> Suggestion | None:
    scores = case.scan.values["block_influence"]
    layers = [i for i in case.target.touchable if scores[i] is not None]
    plan = case.target.dropping(sorted(layers, key=lambda i: scores[i]))
    if plan is None:
        return None
    total = sum(scores[i] for i in plan.dropped)
    words = f"Without {_list(plan.dropped)}, the layers with the lowest Block Influence."
    return Suggestion(plan, "influence", total, "sum of Block Influence", None, words)


def _drop_one(case: Case) -> Suggestion | None:
    costs = _costs(case.scan.drop_one)
    plan = case.target.dropping(
        sorted(set(costs) & set(case.target.touchable), key=costs.__getitem__)
    )
    if plan is None:
        return None
    expected = _added(case.scan, (costs[i] for i in plan.dropped))
    words = f"Without {_list(plan.dropped)}, the layers that each cost least perplexity alone."
    return Suggestion(plan, "drop_one", expected, "perplexity", None, words)


def _greedy(case: Case) -> Suggestion | None:
    from .search import greedy, measure_all

    result = greedy(case.base, case.sample, case.target, case.progress)
    if result is None:
        return None
    plan, dropped = result
    score = measure_all(case.base, [plan], case.sample, case.progress)[plan]
    words = f"Without {_list(sorted(dropped))}, dropped one at a time, all measured each time."
    return Suggestion(plan, "greedy", score.perplexity, "perplexity", score, words)


def _repeat_one(case: Case) -> Suggestion | None:
    costs = _costs(case.scan.repeat_one)
    order = sorted(set(costs) & set(case.target.touchable), key=costs.__getitem__)
    plan = case.target.repeating(order)
    if plan is None:
        return None
    again = _extra(plan)
    expected = _added(case.scan, (costs[i] for i in again))
    words = f"With {_list(again)} run twice in place, where one repeat alone costs least."
    return Suggestion(plan, "repeat_one", expected, "perplexity", None, words)


def _repeat_block(case: Case) -> Suggestion | None:
    """The longest block that may be repeated, and of its length the one that costs least."""
    from .search import measure_all

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


def random_plan(target: Target, seed: int = 0) -> Plan | None:
    """Drop or repeat layers drawn at random until the target is reached; None if it never is."""
    order = list(target.touchable)
    random.Random(seed).shuffle(order)
    return target.repeating(order) if target.grows else target.dropping(order)


def _random(case: Case) -> Suggestion | None:
    plan, grows = random_plan(case.target, case.seed), case.target.grows
    if plan is None:
        return None
    layers = _list(_extra(plan)) if grows else _list(plan.dropped)
    words = f"{'With' if grows else 'Without'} {layers}, drawn at random as a control."
    return Suggestion(plan, "random", None, "", None, words)


_ENTRIES = (
    Method(
        key="block",
        label="best block",
        description="drop the contiguous block with the least angular distance across it "
        "(arXiv 2403.17887)",
        find=_block,
        score="angular",
        shrinks=True,
    ),
    Method(
        key="influence",
        label="lowest Block Influence",
        description="drop the layers with the lowest Block Influence (ShortGPT, arXiv 2403.03853)",
        find=_influence,
        score="block_influence",
        shrinks=True,
    ),
    Method(
        key="drop_one",
        label="lowest drop-one loss",
        description="drop the layers that cost the least perplexity when dropped alone "
        "(Shortened LLaMA, arXiv 2402.02834)",
        find=_drop_one,
        score="drop_one",
        shrinks=True,
    ),
    Method(
        key="greedy",
        label="greedy search",
        description="drop the layer that costs least, measure all others again, and repeat (SLEB, "
        "arXiv 2402.09025)",
        find=_greedy,
        shrinks=True,
    ),
    Method(
        key="repeat_one",
        label="lowest repeat-one loss",
        description="repeat, in place, the layers that cost least when repeated alone",
        find=_repeat_one,
        score="repeat_one",
        grows=True,
    ),
    Method(
        key="repeat_block",
        label="best repeated block",
        description="repeat the block that costs least; all blocks of its size are measured",
        find=_repeat_block,
        grows=True,
    ),
    Method(
        key="random",
        label="random (control)",
        description="drop or repeat as many layers, drawn at random: the control",
        find=_random,
        shrinks=True,
        grows=True,
    ),
)

METHODS: dict[str, Method] = {method.key: method for method in _ENTRIES}
SHRINK: tuple[str, ...] = tuple(method.key for method in _ENTRIES if method.shrinks)
GROW: tuple[str, ...] = tuple(method.key for method in _ENTRIES if method.grows)


def _costs(variants: Sequence[Variant]) -> dict[int, float]:
    return {v.layer: v.cost.mean for v in variants if v.cost is not None}


def _added(scan: Scan, costs: Iterable[float]) -> float:
    """The perplexity if these costs added up."""
    assert scan.perplexity  # a scan begins with the base
    total = scan.perplexity.mean + sum(costs)
    return math.exp(total) if total < 700 else math.inf


def _extra(plan: Plan) -> list[int]:
    """The repeated layers, each as often as it is repeated."""
    return sorted(i for i in set(plan.sources) for _ in range(plan.sources.count(i) - 1))


def _list(layers: Sequence[int]) -> str:
    word = "layer" if len(layers) == 1 else "layers"
    return f"{word} {listed([str(i) for i in layers], 'and')}"
