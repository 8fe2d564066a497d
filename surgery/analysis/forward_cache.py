"""Run a base and its patients over one sample, starting each at the first layer that differs.

A recorded pass keeps what every layer returned. A variant is an ordinary patient whose first
layers, as long as they are the recorded plan's, return what was recorded and compute nothing; the
model's own code does the rest. Where that can't be shown to be right (`hooks.skippable`), every
pass is run whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from surgery.architecture.inspect.chain import PROBED, Chain
from surgery.architecture.inspect.embedding import input_embedding
from surgery.architecture.inspect.hooks import (
    CHECK,
    by_token,
    copied,
    hidden_out,
    layers_of,
    skippable,
    standing_in,
    watched,
)
from surgery.compute import compute_dtype, many_rows
from surgery.devices import HEADROOM, gigabytes, main_memory
from surgery.errors import Refused, SurgeryError, one_line
from surgery.plan import COPY, Plan
from surgery.progress import Meter, Progress, silent

from .layer_major import LayerMajor, Run
from .sample import Sample
from .score import Score

if TYPE_CHECKING:
    from surgery.base import Base

_STATES = 0.25  # of free memory for the hidden states of plans in a sweep
_LOGITS = 1 << 26  # values in the logits of one batch, at most

# (batch, position, hidden states given, those returned), each by token, None where there are none
Watch = Callable[[int, int, torch.Tensor | None, torch.Tensor | None], None]


def perplexity(model: PreTrainedModel, sample: Sample, progress: Progress = silent) -> Score:
    """The perplexity of any causal language model of transformers on a sample, without its cache.

    `progress` counts tokens and may raise. Raises `SurgeryError` if it can't be computed.
    """
    meter = Meter(progress, "Measuring perplexity", sum(map(len, sample.windows)))
    losses = []
    for start, end in batches_of(model, sample):
        ids = ids_of(model, sample, start, end)
        losses.append(nll(run(model, ids), ids))
        meter.add(ids.numel())
    return Score.of(np.concatenate(losses))


@torch.no_grad()
def run(model: PreTrainedModel, ids: torch.Tensor) -> torch.Tensor:
    """Logits of a pass without the cache: (windows, length, vocabulary). Raises `SurgeryError`."""
    try:
        with many_rows(model, ids.numel()):
            return model(input_ids=ids, use_cache=False).logits
    except (RuntimeError, IndexError) as error:  # shapes that don't go together, no memory left
        raise _cannot_run(error) from error


def _cannot_run(error: Exception) -> SurgeryError:
    return SurgeryError(f"The model can't run over this text: {one_line(error, 200)}")


def nll(logits: torch.Tensor, ids: torch.Tensor) -> np.ndarray:
    """−ln p of every token but each window's first, in reading order: (windows · (length − 1),).

    Computed in float32, window by window.
    """
    losses = [
        torch.nn.functional.cross_entropy(row[:-1].float(), tokens[1:], reduction="none")
        for row, tokens in zip(logits, ids.to(logits.device), strict=True)
    ]
    return torch.cat(losses).cpu().numpy()


@dataclass(frozen=True)
class CachedForward:
    """A recorded pass of a plan: its losses, and for each batch what every layer returned, by
    position."""

    plan: Plan
    nll: np.ndarray
    outputs: tuple[dict[int, Any], ...]


class ForwardRunner:
    """Passes over one sample, counted in layer-forwards: one layer over the whole sample is one.

    `meter` counts them as they are run, and may raise to stop between any two layers. Without
    `reuse` nothing is recorded and every pass is run whole.
    """

    def __init__(
        self, base: Base, sample: Sample, meter: Meter | None = None, reuse: bool = True
    ) -> None:
        self.base, self.sample, self.meter = base, sample, meter
        self._whole = base.operate(Plan.whole(base.depth)).model
        self._batches = batches_of(self._whole, sample)
        self._size = sum(map(len, sample.windows))
        self._tokens = 0  # through one layer each
        self.layer_major = self._layer_by_layer() if reuse else None
        self.skips = reuse and (self.layer_major is not None or self._may_skip())

    @property
    def forwards(self) -> int:
        """Layer-forwards so far, rounded up, including the check that layers may be skipped."""
        return -(-self._tokens // self._size)

    def ids(self, batch: int) -> torch.Tensor:
        """The tokens of a batch: (windows, length)."""
        return ids_of(self._whole, self.sample, *self._batches[batch])

    @property
    def batches(self) -> range:
        """The batches by number."""
        return range(len(self._batches))

    def model(self, plan: Plan) -> PreTrainedModel:
        """The patient of a plan. Raises `Refused`."""
        return self._whole if plan.is_whole else self.base.operate(plan).model

    # ------------------------------------------------------------------ passes

    def record(
        self, plan: Plan, cached: CachedForward | None = None, watch: Watch | None = None
    ) -> CachedForward:
        """Run a plan and record what its layers return, starting where it differs from a `cached`
        pass. `watch` is called for the layers that are computed."""
        model = self.model(plan)
        start = self._start(plan, cached)
        self._check_room(model, len(plan))
        with self.computing():
            try:
                if self.layer_major:
                    return self._record_by_layer(self.layer_major, plan, start, cached, watch)
                return self._record_whole(plan, model, start, cached, watch)
            except (RuntimeError, IndexError) as error:  # shapes that don't match, no memory
                raise _cannot_run(error) from error

    def each_losses(
        self, plans: Sequence[Plan], cached: CachedForward
    ) -> Iterator[tuple[Plan, np.ndarray | Refused]]:
        """−ln p of every scored token under each plan, in the order in which they are known. A plan
        that can't be operated has the refusal in its place."""
        with self.computing():
            if self.layer_major:
                for group in _groups(plans, self._at_once(cached)):
                    yield from self._sweep(self.layer_major, group, cached)
            else:
                for group in _together(plans, cached.plan):
                    yield from zip(group, self._losses_together(group, cached), strict=True)

    def computing(self) -> AbstractContextManager:
        """The context of passes over the sample, in the dtype for many rows. To hold it over
        several calls saves converting the weights again for each."""
        return many_rows(self._whole)

    @contextmanager
    def counting(
        self, layers: Sequence[nn.Module] | nn.ModuleList, ids: torch.Tensor, times: int = 1
    ) -> Iterator[None]:
        """Within, every call of a layer on `ids` counts as `times` layer-forwards."""
        with watched(layers, lambda *_: self._count(ids, times)):
            yield

    def cost(self, plan: Plan, recorded: Plan) -> int:
        """The layer-forwards that `plan` takes once a pass of another is recorded."""
        return len(plan) - (same_layers(plan, recorded) if self.skips else 0)

    # ------------------------------------------------------------------ inside

    def _record_by_layer(
        self,
        layer_major: LayerMajor,
        plan: Plan,
        start: int,
        cached: CachedForward | None,
        watch: Watch | None,
    ) -> CachedForward:
        run = self._begin(layer_major, plan, cached)
        outputs = tuple(
            {p: cached.outputs[batch][p] for p in range(start)} if cached else {}
            for batch in self.batches
        )

        def called(batch: int, p: int, given: torch.Tensor, after: torch.Tensor) -> None:
            outputs[batch][p] = after
            if watch:
                ids = self.ids(batch)
                watch(batch, p, by_token(given, ids), by_token(after, ids))

        while run.source is not None:
            layer_major.step(run, called)
        return CachedForward(plan, _nll_of(layer_major, run), outputs)

    def _sweep(
        self, layer_major: LayerMajor, plans: Sequence[Plan], cached: CachedForward
    ) -> Iterator[tuple[Plan, np.ndarray | Refused]]:
        runs = []
        for plan in plans:
            try:
                runs.append(self._begin(layer_major, plan, cached))
            except Refused as error:
                yield plan, error
        try:
            yield from layer_major.sweep(runs, partial(_nll_of, layer_major))
        except (RuntimeError, IndexError) as error:  # shapes that don't match, no memory
            raise _cannot_run(error) from error

    def _begin(self, layer_major: LayerMajor, plan: Plan, cached: CachedForward | None) -> Run:
        """A plan after the layers that it shares with a cached pass. Raises `Refused`."""
        layers = layers_of(self.base.anatomy, self.model(plan)) or ()
        own = {p: layers[p] for p, layer in enumerate(plan.layers) if layer.init != COPY}
        run = layer_major.start(plan, own)
        if cached and (start := self._start(plan, cached)):
            run.done = start
            run.states = [cached.outputs[batch][start - 1] for batch in self.batches]
        return run

    def _at_once(self, cached: CachedForward) -> int:
        """How many plans to run side by side: one after another while weights are in memory, so
        that results come early; as many as fit if weights are read anew for every sweep."""
        if not self.base.from_disk:
            return 1
        state = sum(outputs[0].nbytes for outputs in cached.outputs)
        return max(1, int(main_memory().free * _STATES / max(1, state)))

    def _record_whole(
        self,
        plan: Plan,
        model: PreTrainedModel,
        start: int,
        cached: CachedForward | None,
        watch: Watch | None,
    ) -> CachedForward:
        losses, outputs = [], []
        for batch in self.batches:
            ids = self.ids(batch)
            before = cached.outputs[batch] if cached else {}
            known = {p: x for p, x in before.items() if p < start}

            def called(
                p: int, given: torch.Tensor | None, output: Any, ids=ids, batch=batch, known=known
            ):
                if self.skips:
                    known[p] = copied(output)
                if watch:
                    watch(batch, p, by_token(given, ids), by_token(hidden_out(output), ids))

            losses.append(nll(self._run(model, ids, dict(known), start, called), ids))
            outputs.append(known)
        return CachedForward(plan, np.concatenate(losses), tuple(outputs))

    def _losses_together(
        self, plans: Sequence[Plan], cached: CachedForward
    ) -> list[np.ndarray | Refused]:
        """The losses of plans that leave `cached` at different places and go on with the same
        layers, which then run once over all of them. A plan that can't be operated has the refusal
        in its place."""
        results: dict[Plan, np.ndarray | Refused] = {}
        models: dict[Plan, PreTrainedModel] = {}
        for plan in plans:
            try:
                models[plan] = self.model(plan)
            except Refused as error:
                results[plan] = error
        starts = {plan: self._start(plan, cached) for plan in models}
        tails = {plan.layers[start:] for plan, start in starts.items()}
        together = len(tails) == 1 and min(starts.values()) > 0 and self._only_states(cached)
        for group in [list(models)] if together else [[plan] for plan in models]:
            losses = self._losses(models[group[0]], group, [starts[p] for p in group], cached)
            results |= zip(group, losses, strict=True)
        return [results[plan] for plan in plans]

    def _losses(
        self,
        model: PreTrainedModel,
        plans: Sequence[Plan],
        starts: Sequence[int],
        cached: CachedForward,
    ) -> list[np.ndarray]:
        """Losses of plans that differ only before `starts`; `model` is the patient of the first."""
        losses: list[list[np.ndarray]] = [[] for _ in plans]
        for batch in self.batches:
            ids, outputs = self.ids(batch), cached.outputs[batch]
            most = max(1, _most_tokens(model) // ids.numel())
            for first in range(0, len(plans), most):
                group = range(first, min(first + most, len(plans)))
                before = {p: x for p, x in outputs.items() if p < starts[0]}
                if len(group) > 1 or starts[first] != starts[0]:
                    before = {p: torch.cat([x] * len(group)) for p, x in before.items()}
                    ends = [outputs[starts[g] - 1] for g in group]
                    before[starts[0] - 1] = torch.cat(ends)
                logits = self._run(model, ids.repeat(len(group), 1), before, starts[0])
                for g, rows in zip(group, logits.split(len(ids)), strict=True):
                    losses[g].append(nll(rows, ids))
        return [np.concatenate(parts) for parts in losses]

    def _run(self, model, ids: torch.Tensor, before: dict, start: int, called=None) -> torch.Tensor:
        layers = layers_of(self.base.anatomy, model)
        if layers is None:
            logits = run(model, ids)
            self._count(ids, len(model.get_submodule(self.base.anatomy.stack.paths[0])))
            return logits

        def on_call(p: int, given: torch.Tensor | None, output: Any) -> None:
            self._count(ids, 1)
            if called:
                called(p, given, output)

        with ExitStack() as stack:
            stack.enter_context(standing_in(layers, before))
            stack.enter_context(watched(layers, on_call, start))
            return run(model, ids)

    def _count(self, ids: torch.Tensor, layers: int) -> None:
        self._tokens += ids.numel() * layers
        if self.meter:
            self.meter.add(ids.numel() * layers / self._size)

    def _start(self, plan: Plan, cached: CachedForward | None) -> int:
        return same_layers(plan, cached.plan) if cached and self.skips else 0

    def _only_states(self, cached: CachedForward) -> bool:
        """Whether layers return hidden states (windows, length, width) and nothing else."""
        return all(
            isinstance(x, torch.Tensor) and x.dim() == 3 and len(x) == len(self.ids(batch))
            for batch in self.batches
            for x in cached.outputs[batch].values()
        ) and all(len(outputs) == len(cached.plan) for outputs in cached.outputs)

    def _layer_by_layer(self) -> LayerMajor | None:
        """None if this model's layers can't be run one by one."""
        batches = [self.ids(batch) for batch in self.batches]
        with self.computing():
            self._tokens += self.base.depth * PROBED
            chain = Chain.of(self.base.anatomy, self._whole, batches[0])
            return LayerMajor(chain, batches, lambda ids: self._count(ids, 1)) if chain else None

    def _may_skip(self) -> bool:
        ids = self.ids(0)
        self._tokens += self.base.depth * CHECK
        return skippable(self.base.anatomy, self._whole, ids)

    def _check_room(self, model: PreTrainedModel, depth: int) -> None:
        """Raises `SurgeryError` if what the layers return doesn't fit in memory."""
        width = getattr(model.config.get_text_config(decoder=True), "hidden_size", 0) or 0
        need = depth * self._size * width * compute_dtype(model).itemsize
        free = main_memory().free
        if self.skips and need > free * HEADROOM:
            raise SurgeryError(
                f"Recording what every layer returns takes {gigabytes(need)} and "
                f"{gigabytes(free)} are free: choose a shorter text, or a lower limit of tokens."
            )


def same_layers(plan: Plan, other: Plan) -> int:
    """How many layers at the start compute the same in both plans."""
    count = 0
    for a, b in zip(plan.layers, other.layers, strict=False):
        if a != b or a.init.initialiser.drawn:  # drawn for its place in its plan
            break
        count += 1
    # An average with the next layer differs if that layer does.
    while count and plan.layers[count - 1].init.initialiser.reads_next:
        count -= 1
    return count


def _nll_of(layer_major: LayerMajor, run: Run) -> np.ndarray:
    return np.concatenate([nll(logits, ids) for logits, ids in layer_major.logits(run)])


def _together(plans: Sequence[Plan], whole: Plan) -> list[list[Plan]]:
    """Plans in groups that go on with the same layers once they leave another."""
    groups: dict[tuple, list[Plan]] = {}
    for plan in plans:
        groups.setdefault(plan.layers[same_layers(plan, whole) :], []).append(plan)
    return list(groups.values())


def _groups(plans: Sequence[Plan], size: int) -> list[Sequence[Plan]]:
    return [plans[i : i + size] for i in range(0, len(plans), size)]


def _most_tokens(model: PreTrainedModel) -> int:
    return max(1, _LOGITS // len(input_embedding(model)))


def batches_of(model: PreTrainedModel, sample: Sample, share: int = 1) -> list[tuple[int, int]]:
    """Ranges of windows that a model runs over together; `share` divides the usual batch size."""
    return sample.batches(_most_tokens(model) // share)


def ids_of(model: PreTrainedModel, sample: Sample, start: int, end: int) -> torch.Tensor:
    """The tokens of windows of one length, on the model's device: (windows, length)."""
    return torch.tensor(sample.windows[start:end], device=input_embedding(model).device)
