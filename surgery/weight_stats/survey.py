"""Count a base by layer and kind of tensor, and derive a patient's counts from its base's.

A layer that is moved or repeated keeps its counts, and zeroing or scaling its output projections
maps every value alike, so those counts follow too. Only layers initialised in another way (random,
average) are counted from the patient.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from surgery.architecture.inspect.identity_proof import output_block
from surgery.architecture.inspect.names import disk_layers
from surgery.initialisers import Block
from surgery.plan import COPY, Init, Plan
from surgery.progress import Cancelled, Progress, silent
from surgery.sources import Tensor

from .counting import DTYPES, count_stored, count_tensor, sampled_bytes
from .kinds import KINDS, kind_in_layer, kind_outside
from .value_counts import ValueCounts

if TYPE_CHECKING:
    from surgery.base import Base

_MOST_THREADS = 8
SAMPLE = 1 << 24  # values read in all for a sample
_SAMPLE_EACH = 1 << 16  # of one tensor, at most


@dataclass(frozen=True)
class Part:
    """Tensors that are counted together. `layer` is None outside the layers; `output` is the
    block that they end if they are output projections, which some initialisers change."""

    layer: int | None
    kind: str
    output: Block | None = None


@dataclass(frozen=True, eq=False)
class Picture:
    """Counts by kind of tensor: of each layer in running order, and outside the layers."""

    layers: tuple[Mapping[str, ValueCounts], ...]
    outside: Mapping[str, ValueCounts]
    _all: dict[int, ValueCounts] = field(default_factory=dict, repr=False)

    def kinds(self) -> tuple[str, ...]:
        """The kinds of tensor in its layers, in the order of `KINDS`."""
        present = {kind for layer in self.layers for kind in layer}
        return tuple(kind for kind in KINDS if kind in present)

    def layer(self, position: int, kind: str | None = None) -> ValueCounts:
        """The counts of the layer at a position, of one kind of tensor or of all."""
        layer = self.layers[position]
        if kind is not None:
            return layer.get(kind, ValueCounts())
        # Repeated layers share one mapping, so that it is merged once.
        key = id(layer)
        if key not in self._all:
            self._all[key] = ValueCounts.merged(layer.values())
        return self._all[key]


@dataclass(frozen=True, eq=False)
class Survey:
    """A base's counts by part. `share` is the share of its values that were read; 1.0 means all.

    `skipped` names the stored types that hold the codes of a quantization and were not counted.
    """

    depth: int
    dtype: torch.dtype
    parts: Mapping[Part, ValueCounts]
    share: float = 1.0
    skipped: tuple[str, ...] = ()
    _initialised: dict[tuple, Mapping[str, ValueCounts]] = field(default_factory=dict, repr=False)
    _merged: dict[int, ValueCounts] = field(default_factory=dict, repr=False)

    @property
    def values(self) -> int:
        """The number of values counted."""
        return sum(part.size for part in self.parts.values())

    def base(self) -> Picture:
        """The base's counts."""
        return self.picture(Plan.whole(self.depth))

    def picture(self, plan: Plan, base: Base | None = None) -> Picture:
        """A patient's counts. `base` is needed for layers initialised at random or as an average,
        which are counted from the patient; without it such a plan raises `ValueError`. Layers that
        a repair fitted are counted as the copies that they were."""
        plan, layers = plan.unfitted, []
        key: tuple
        for position, layer in enumerate(plan.layers):
            if layer.init.initialiser.from_source:
                key = (layer.source, layer.init)
                if key not in self._initialised:
                    self._initialised[key] = self._layer(layer.source, layer.init)
            else:
                after = plan.layers[position + 1 : position + 2]
                key = (layer, after, position)
                if key not in self._initialised:
                    if base is None:
                        raise ValueError(f"{layer.init} needs the base's weights")
                    self._initialised[key] = _counted(base, plan, position)
            layers.append(self._initialised[key])
        return Picture(tuple(layers), self._layer(None, COPY), self._merged)

    def _layer(self, layer: int | None, init: Init) -> Mapping[str, ValueCounts]:
        by_kind: dict[str, list[ValueCounts]] = {}
        for part in sorted((p for p in self.parts if p.layer == layer), key=_reading_order):
            counts = self.parts[part]
            if init.initialiser.changes_tensor(part.output):
                counts = initialised(counts, init, self.dtype)
            by_kind.setdefault(part.kind, []).append(counts)
        return {kind: ValueCounts.merged(parts) for kind, parts in by_kind.items()}


def initialised(before: ValueCounts, init: Init, dtype: torch.dtype) -> ValueCounts:
    """The counts of a tensor of `dtype` that is initialised from its own values alone."""
    special = np.array([np.nan, np.inf, -np.inf], np.float32)
    values = torch.from_numpy(np.concatenate([before.values, special])).to(dtype)
    values = init.initialiser.new_values(values, None, init.factor)
    counts = np.concatenate([before.counts, [before.nan, before.above, before.below]])
    return ValueCounts.of(values.float().numpy(), counts, before.rounded)


def take(
    base: Base, progress: Progress = silent, *, sample: bool = False, threads: int | None = None
) -> Survey:
    """Count every weight of a base in its files, or with `sample` a sample of each tensor.

    `progress` counts bytes and may raise to stop. Raises `SurgeryError`.
    """
    folder, stored = base.stored(progress)
    parts, skipped = sort_tensors(base, stored)
    each = None
    if sample:
        count = sum(map(len, parts.values()))
        each = max(1024, min(_SAMPLE_EACH, SAMPLE // max(1, count)))
    sizes = {p: sum(sampled_bytes(t, each) for t in tensors) for p, tensors in parts.items()}
    whole = sum(t.end - t.start for tensors in parts.values() for t in tensors)
    counts = _count_all(folder, parts, sizes, each, progress, threads)
    base.source.check()
    share = sum(sizes.values()) / whole if whole else 1.0
    return Survey(base.depth, base.torch_dtype, counts, share, skipped)


def sort_tensors(
    base: Base, stored: Mapping[str, Tensor]
) -> tuple[dict[Part, list[Tensor]], tuple[str, ...]]:
    """The stored tensors by part, and the dtypes that are not counted.

    Layers after the stack (heads for multi-token prediction) are left out.
    """
    parts: dict[Part, list[Tensor]] = {}
    skipped = set()
    where = disk_layers(base.anatomy, stored)
    for name, tensor in stored.items():
        if tensor.dtype not in DTYPES:
            skipped.add(tensor.dtype)
            continue
        part = part_of(name, where[name])
        if part.layer is None or part.layer < base.depth:
            parts.setdefault(part, []).append(tensor)
    return parts, tuple(sorted(skipped))


def part_of(name: str, where: tuple[str, int, str] | None) -> Part:
    """The part that a tensor belongs to; `where` is its entry of `disk_layers`."""
    if where is None:
        return Part(None, kind_outside(name))
    _, layer, rest = where
    return Part(layer, kind_in_layer(rest), output_block(rest.lstrip(".")))


def _count_all(
    folder: Path,
    parts: Mapping[Part, list[Tensor]],
    sizes: Mapping[Part, int],
    each: int | None,
    progress: Progress,
    threads: int | None,
) -> dict[Part, ValueCounts]:
    total, done = sum(sizes.values()), 0
    lock, stop = threading.Lock(), threading.Event()

    def on_read(size: int) -> None:
        nonlocal done
        if stop.is_set():
            raise Cancelled
        with lock:
            done += size

    # Largest first, so that no thread is left alone with a large one at the end.
    order = sorted(parts, key=lambda part: -sizes[part])
    workers = threads or min(_MOST_THREADS, os.cpu_count() or 1)
    what = "Sampling the weights" if each else "Counting the weights"
    with ThreadPoolExecutor(workers) as pool:
        jobs: dict[Part, Future[ValueCounts]] = {
            part: pool.submit(count_stored, folder, parts[part], each, on_read) for part in order
        }
        try:
            waiting: Iterable[Future] = jobs.values()
            while waiting:
                progress(what, done, total)
                waiting = wait(waiting, timeout=0.1).not_done
            progress(what, total, total)
            return {part: job.result() for part, job in jobs.items()}
        except BaseException:
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _counted(base: Base, plan: Plan, position: int) -> Mapping[str, ValueCounts]:
    """The layer at a position of the patient, counted from the patient's weights."""
    patient = base.operate(plan)
    by_kind: dict[str, list[ValueCounts]] = {}
    for name, tensor in patient.model.state_dict().items():
        where = base.anatomy.layer_of(name)
        if where and where[1] == position and tensor.is_floating_point():
            by_kind.setdefault(kind_in_layer(where[2]), []).append(count_tensor(tensor))
    order = sorted(by_kind, key=KINDS.index)
    return {kind: ValueCounts.merged(by_kind[kind]) for kind in order}


def _reading_order(part: Part) -> tuple[int, str]:
    return KINDS.index(part.kind), part.output.value if part.output else ""
