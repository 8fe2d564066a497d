"""What a scan says: blocks that may be dropped, and layers without which the model breaks."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .importance import SCORES

if TYPE_CHECKING:
    from .layer_scan import Scan
    from .score import LossIncrease


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
    """The block to drop for each size n from 1: the one with the least angular distance across it.
    It never includes the last layer (arXiv 2403.17887), nor one before `first`."""
    if scan.angular is None:
        return []
    best = []
    for n in range(1, scan.depth):
        blocks = [
            Block(start, n, d)
            for start in range(first, scan.depth - n)
            if (d := scan.angular[start][n]) is not None
        ]
        if blocks:
            best.append(min(blocks, key=lambda block: block.distance))
    return best


_MUCH = 4.0  # times the median cost
_LITTLE = 1.6  # times the median influence, at most: Block Influence takes it for harmless
_LEAST_COST = 0.01  # nats per token; medians below it are noise
_ENDS = (2, 1)  # layers at the start and end, which always cost much


def breaking_cost(costs: Mapping[int, float], depth: int) -> float | None:
    """The cost, in nats per token, above which dropping a layer breaks the model: a multiple of the
    median of the layers between the ends. None while fewer than half of them are measured."""
    inner = range(_ENDS[0], depth - _ENDS[1])
    known = [cost for layer, cost in costs.items() if layer in inner]
    if len(known) < max(4, len(inner) / 2):
        return None
    return _MUCH * max(statistics.median(known), _LEAST_COST)


def overlooked(scan: Scan) -> list[int]:
    """Layers that Block Influence calls harmless although the model breaks without them, worst
    first. Medians are those of the layers between the ends; so are the layers returned."""
    if scan.block_influence is None:
        return []
    inner = range(_ENDS[0], scan.depth - _ENDS[1])
    influence = {i: x for i, x in enumerate(scan.block_influence) if i in inner and x is not None}
    costs = {v.layer: v.cost.mean for v in scan.drop_one if v.layer in influence and v.cost}
    much = breaking_cost(costs, scan.depth)
    if much is None:
        return []
    little = _LITTLE * statistics.median(influence[i] for i in costs)
    chosen = [i for i in costs if costs[i] > much and influence[i] <= little]
    return sorted(chosen, key=lambda i: -costs[i])


def costs_by_layer(scan: Scan) -> list[LossIncrease]:
    """The cost of each change to one layer that was measured: dropped, repeated, or without half of
    it."""
    return [
        row.cost
        for key, rows in scan.variants.items()
        if not SCORES[key].of_blocks
        for row in rows.values()
        if row.cost is not None
    ]
