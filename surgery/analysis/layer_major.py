"""Run several plans over a sample in layer-major order.

In a sweep over depth each of the base's layers is taken once, and every plan that has come to it
runs through it. So weights that lie in a file are read once for all plans.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from surgery.architecture.inspect.chain import Chain
from surgery.plan import Plan

Watch = Callable[[int, int, torch.Tensor, torch.Tensor], None]


@dataclass
class Run:
    """A plan under way. `states` are the hidden states of each batch after `done` layers; `own` are
    the patient's layers by position where they aren't plain copies of the base's."""

    plan: Plan
    done: int
    states: list[torch.Tensor]
    own: Mapping[int, nn.Module]

    @property
    def source(self) -> int | None:
        """The base's layer that comes next; None at the end."""
        return self.plan.sources[self.done] if self.done < len(self.plan) else None


class LayerMajor:
    """Runs plans of the base that `chain` belongs to over batches of tokens, (windows, length).

    `count(tokens)` is called for every layer that runs over a batch, and may raise to stop.
    """

    def __init__(
        self, chain: Chain, batches: Sequence[torch.Tensor], count: Callable[[torch.Tensor], None]
    ) -> None:
        self._chain, self._batches, self._count = chain, batches, count
        self._calls = [chain.calls(ids) for ids in batches]

    def start(self, plan: Plan, own: Mapping[int, nn.Module]) -> Run:
        """A plan before its first layer."""
        return Run(plan, 0, [calls.first for calls in self._calls], own)

    def step(self, run: Run, watch: Watch | None = None) -> None:
        """Run one layer. `watch` gets the batch, the position, and hidden states before and after,
        in the form that the model has them."""
        source = run.plan.sources[run.done]
        layer = run.own.get(run.done, self._chain.layers[source])
        for batch, (ids, calls) in enumerate(zip(self._batches, self._calls, strict=True)):
            before = run.states[batch]
            after = self._chain.run(calls, source, layer, before)
            self._count(ids)
            if watch:
                watch(batch, run.done, before, after)
            run.states[batch] = after
        run.done += 1

    def logits(self, run: Run) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """(logits, tokens) of each batch after the last layer."""
        for ids, hidden in zip(self._batches, run.states, strict=True):
            yield self._chain.logits(ids, hidden), ids

    def sweep(
        self, runs: Sequence[Run], losses: Callable[[Run], np.ndarray]
    ) -> Iterator[tuple[Plan, np.ndarray]]:
        """Run all to their ends: each plan with its `losses`, as soon as they are known."""
        under_way = list(runs)
        while under_way:
            for source in range(len(self._chain.layers)):
                for run in under_way:
                    while run.source == source:
                        self.step(run)
            for run in [run for run in under_way if run.source is None]:
                yield run.plan, losses(run)
                run.states = []
            under_way = [run for run in under_way if run.source is not None]
