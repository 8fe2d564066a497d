"""Run a base and its patients over one sample, starting each at the first layer that differs.

A recorded pass keeps the hidden states after every layer. A variant goes on from those of the last
layer that it shares with the recorded plan, layer by layer. Where a model's layers can't be run one
by one (`architecture.inspect.chain`), every pass is run whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from surgery.architecture.inspect.chain import PROBED, Chain, is_shown
from surgery.architecture.inspect.hooks import by_token, hidden_out, layers_of, watched
from surgery.compute.contexts import compute_dtype, many_rows
from surgery.errors import Refused, SurgeryError
from surgery.memory.devices import HEADROOM, accelerators, free_on, gigabytes, main_memory
from surgery.memory.out_of_memory import memory_explained
from surgery.plan import COPY, Plan
from surgery.progress import Meter

from .layer_major import LayerMajor, Run
from .passes import SHORTER, batches_of, cannot_run, ids_of, nll, run
from .sample import Sample

if TYPE_CHECKING:
    from surgery.base import Base

_LOGITS_ROOM = 2 << 30  # bytes on an accelerator for the logits of a batch
_STATES = 0.25  # of free memory for the hidden states of plans in a sweep

# (batch, position, hidden states given, those returned), each by token, None where there are none
Watch = Callable[[int, int, torch.Tensor | None, torch.Tensor | None], None]


@dataclass(frozen=True)
class CachedForward:
    """A recorded pass of a plan: its losses, and for each batch the hidden states after every
    layer; none where passes are run whole."""

    plan: Plan
    nll: np.ndarray
    outputs: tuple[list[torch.Tensor], ...]


class ForwardRunner:
    """Passes over one sample, counted in layer-forwards: one layer over the whole sample is one.

    `meter` counts them as they are run, and may raise to stop between any two layers.
    """

    def __init__(self, base: Base, sample: Sample, meter: Meter | None = None) -> None:
        self.base, self.sample, self.meter = base, sample, meter
        self._whole = base.operate(Plan.whole(base.depth)).model
        self._batches = batches_of(self._whole, sample)
        self._size = sum(map(len, sample.windows))
        self._tokens = 0  # through one layer each
        self._device = _accelerator(base, sample)
        self.layer_major = self._layer_by_layer()

    @property
    def forwards(self) -> int:
        """Layer-forwards so far, rounded up, including the check that layers run one by one."""
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
        with self.computing():
            if self.layer_major is None:
                return CachedForward(plan, self._whole_pass(plan, watch), ())
            device = self._device or self._whole.device
            check_room(self.base, len(plan), self._size, device)
            try:
                return self._record(self.layer_major, plan, cached, watch)
            except (RuntimeError, IndexError) as error:  # shapes that don't match, no memory
                raise cannot_run(error) from error

    def each_losses(
        self, plans: Sequence[Plan], cached: CachedForward
    ) -> Iterator[tuple[Plan, np.ndarray | Refused]]:
        """−ln p of every scored token under each plan, in the order in which they are known. A plan
        that can't be operated has the refusal in its place."""
        with self.computing():
            if self.layer_major is None:
                for plan in plans:
                    try:
                        yield plan, self._whole_pass(plan)
                    except Refused as error:
                        yield plan, error
                return
            size = plans_at_once(self.base, self.sample)
            for first in range(0, len(plans), size):
                yield from self._sweep(self.layer_major, plans[first : first + size], cached)

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
        return len(plan) - (same_layers(plan, recorded) if self.layer_major else 0)

    # ------------------------------------------------------------------ inside

    def _whole_pass(self, plan: Plan, watch: Watch | None = None) -> np.ndarray:
        """Losses of a plan. Raises `Refused`."""
        model = self.model(plan)
        layers = layers_of(self.base.anatomy, model)
        losses = []
        for batch in self.batches:
            ids = self.ids(batch)

            def on_call(
                p: int, given: torch.Tensor | None, output: Any, ids=ids, batch=batch
            ) -> None:
                self._count(ids, 1)
                if watch:
                    watch(batch, p, by_token(given, ids), by_token(hidden_out(output), ids))

            with watched(layers or (), on_call):
                losses.append(nll(run(model, ids), ids))
            if layers is None:
                self._count(ids, len(plan))
        return np.concatenate(losses)

    def _record(
        self,
        layer_major: LayerMajor,
        plan: Plan,
        cached: CachedForward | None,
        watch: Watch | None,
    ) -> CachedForward:
        run = self._begin(layer_major, plan, cached)
        outputs = tuple(cached.outputs[b][: run.done] if cached else [] for b in self.batches)

        def called(batch: int, p: int, given: torch.Tensor, after: torch.Tensor) -> None:
            outputs[batch].append(after)
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
            raise cannot_run(error) from error

    def _begin(self, layer_major: LayerMajor, plan: Plan, cached: CachedForward | None) -> Run:
        """A plan after the layers that it shares with a cached pass. Raises `Refused`."""
        layers = layers_of(self.base.anatomy, self.model(plan)) or ()
        own = {p: layers[p] for p, layer in enumerate(plan.layers) if layer.init != COPY}
        run = layer_major.start(plan, own)
        if cached and (shared := same_layers(plan, cached.plan)):
            run.done = shared
            run.states = [states[shared - 1] for states in cached.outputs]
        return run

    def _count(self, ids: torch.Tensor, layers: int) -> None:
        self._tokens += ids.numel() * layers
        if self.meter:
            self.meter.add(ids.numel() * layers / self._size)

    def _layer_by_layer(self) -> LayerMajor | None:
        """None if this model's layers can't be run one by one."""
        batches = [self.ids(batch) for batch in self.batches]
        with self.computing(), memory_explained(SHORTER):
            self._tokens += 0 if is_shown(self.base.anatomy) else self.base.depth * PROBED
            chain = Chain.of(self.base.anatomy, self._whole, batches[0], range(self.base.depth))
            if chain is None:
                return None
            if self._device:
                chain.run_on(self._device, self.base.anatomy)
            return LayerMajor(chain, batches, lambda ids: self._count(ids, 1))


def _accelerator(base: Base, sample: Sample) -> torch.device | None:
    """An accelerator to run layers on whose weights didn't fit there together, if it has room for
    what lies outside the layers, for two of them, and for what they return."""
    rooms = accelerators() if base.device == "cpu" else []
    if not rooms:
        return None
    counts, size = base.counts, base.torch_dtype.itemsize
    layers = [layer.parameters.total() for layer in counts.layers]
    weights = counts.outside.parameters.total() + 2 * max(layers)
    states = (base.depth + 4) * _state_bytes(base, _tokens(sample))
    # One tensor at a time is converted: the head is large, and so are experts in one tensor.
    largest = max(tensor.numel() for tensor in base.anatomy.tensors.values())
    converted = 0 if base.compute_dtype == base.dtype else 4 * largest
    if weights * size + converted + states + _LOGITS_ROOM > rooms[0].free * HEADROOM:
        return None
    return torch.device(rooms[0].device)


def plans_at_once(base: Base, sample: Sample) -> int:
    """How many plans to run side by side: one after another while weights are in memory, so that
    results come early; as many as fit if weights are read anew for every sweep."""
    if not base.reads_from_disk:
        return 1
    return max(1, int(main_memory().free * _STATES / _state_bytes(base, _tokens(sample))))


def sweeps(base: Base, sample: Sample, plans: Sequence[Plan]) -> int:
    """How many times the layers of a base are gone through for the losses of some plans."""
    size = plans_at_once(base, sample)
    groups = [plans[first : first + size] for first in range(0, len(plans), size)]
    return sum(1 + max(map(_turns_back, group)) for group in groups)


def _turns_back(plan: Plan) -> int:
    """How often a layer follows a later one of the base."""
    return sum(after < before for before, after in pairwise(plan.sources))


def check_room(base: Base, layers: int, tokens: int, device: torch.device) -> None:
    """Raises `SurgeryError` if the hidden states of `tokens` after so many layers don't fit into
    the memory of a device."""
    need, free = layers * _state_bytes(base, tokens), free_on(device)
    if need > free * HEADROOM:
        raise SurgeryError(
            f"Recording what every layer returns takes {gigabytes(need)} and "
            f"{gigabytes(free)} are free: choose a shorter text, or a lower limit of tokens."
        )


def _state_bytes(base: Base, tokens: int) -> int:
    """Bytes of the hidden states of so many tokens after one layer."""
    width = getattr(base.anatomy.config.get_text_config(decoder=True), "hidden_size", 0) or 1
    return tokens * width * compute_dtype(base.model).itemsize


def _tokens(sample: Sample) -> int:
    return sum(map(len, sample.windows))


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
