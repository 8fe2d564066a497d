"""What dropping each layer costs, as far as it is known without measuring anything.

It is known from scans on this machine, and for the bundled model from figures in the package, which
`ship_costs` measures.
"""

from __future__ import annotations

import json
import math
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from surgery import texts
from surgery.errors import SurgeryError
from surgery.progress import silent
from surgery.sources.fingerprint import fingerprint

from .findings import breaking_cost
from .layer_scan import Scan, Work
from .sample import Sample

if TYPE_CHECKING:
    from surgery.base import Base

SHIPPED = Path(__file__).with_name("bundled_costs.json")


@dataclass(frozen=True)
class LayerCosts:
    """The cost of dropping each layer alone, on one of the project's texts.

    `costs[i]` is the increase of the mean loss in nats per token, infinite where losses are not
    finite, None where it isn't measured. `tokens` of `text` were scored. `shipped` is the date of
    figures that come with the package; empty for this machine's own.
    """

    costs: tuple[float | None, ...]
    text: str
    tokens: int
    shipped: str = ""

    @classmethod
    def of(cls, scan: Scan, text: str) -> LayerCosts:
        """The costs in a scan of `text`, finished or not."""
        costs: list[float | None] = [None] * scan.depth
        for variant in scan.drop_one:
            if variant.cost is not None:
                costs[variant.layer] = _finite(variant.cost.mean)
        return cls(tuple(costs), text, scan.tokens)

    @property
    def known(self) -> int:
        """For how many layers a cost is known."""
        return sum(cost is not None for cost in self.costs)

    @cached_property
    def breaking(self) -> tuple[int, ...]:
        """The layers without which the model breaks; see `breaking_cost`."""
        costs = {i: cost for i, cost in enumerate(self.costs) if cost is not None}
        much = breaking_cost(costs, len(self.costs))
        if much is None:
            much = math.inf
        return tuple(i for i, cost in costs.items() if cost > much or math.isinf(cost))


def known_costs(base: Base) -> LayerCosts | None:
    """The costs measured on this machine, on the text with most layers measured, or those shipped
    for the bundled model if they are more. None if nothing is known. No model is run."""
    found = [measured_costs(base, kind) for kind in texts.TEXTS] if base.has_tokenizer else []
    found += [shipped_costs(base)]
    best = max(filter(None, found), key=lambda one: one.known, default=None)
    return best if best and best.known else None


def measured_costs(base: Base, text: str) -> LayerCosts | None:
    """The cached costs on one of the project's texts; None if the base can't read it."""
    with suppress(SurgeryError):
        work = Work(base, Sample.of(base, texts.get(text)), ("drop_one",), None, progress=None)
        costs: list[float | None] = [None] * base.depth
        if (whole := work.losses(work.whole)) is not None:
            for (_, (layer, _)), plan in work.plans.items():
                if (losses := work.losses(plan)) is not None:
                    costs[layer] = _finite(np.subtract(losses, whole, dtype=np.float64).mean())
        return LayerCosts(tuple(costs), text, work.sample.tokens)
    return None


def shipped_costs(base: Base) -> LayerCosts | None:
    """The costs in the package, if they are of these weights; else None. Reads the bundled model's
    files once on each machine, to identify them."""
    if base.kind != "bundled":
        return None
    with suppress(OSError):
        record = json.loads(SHIPPED.read_text(encoding="utf-8"))
        if record["fingerprint"] == fingerprint(base.source, silent):
            costs = tuple(record["costs"])
            return LayerCosts(costs, record["text"], record["tokens"], record["date"])
    return None


def _finite(cost: float) -> float:
    """A mean of losses; infinite where they aren't finite."""
    return float(cost) if math.isfinite(cost) else math.inf
