"""A whole base, counted by layer and kind of tensor; and the patient's picture, made of the same.

A layer that is only moved, repeated or dropped keeps its counts, and zeroing or scaling its output
projections maps every value alike, so its counts follow too. Only layers that begin otherwise
(random, average) are counted anew, from the patient.
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

from surgery.architecture.inspect.identity_proof import is_output_projection
from surgery.architecture.inspect.names import disk_layers
from surgery.plan import COPY, Init, Plan
from surgery.progress import Cancelled, Progress, silent
from surgery.sources import Tensor

from .counting import DTYPES, count_stored, count_tensor, sampled_bytes
from .kinds import KINDS, kind_in_layer, kind_outside
from .value_counts import Tally

if TYPE_CHECKING:
    from surgery.base import Base

_MOST_THREADS = 8
SAMPLE = 1 << 24  # values in all that a sample looks at
_SAMPLE_EACH = 1 << 16  # of one tensor at most


@dataclass(frozen=True, order=True)
class Part:
    """Tensors that are counted together. `layer` is None outside the layers; `output` tells output
    projections, which @identity and @scale change, from the rest of their kind."""

    layer: int | None
    kind: str
    output: bool = False


@dataclass(frozen=True, eq=False)
class Picture:
    """Tallies by kind, of each layer in running order and of what lies outside the layers."""

    layers: tuple[Mapping[str, Tally], ...]
    outside: Mapping[str, Tally]
    _all: dict[int, Tally] = field(default_factory=dict, repr=False)

    def kinds(self) -> tuple[str, ...]:
        """The kinds that its layers have, in reading order."""
        found = {kind for layer in self.layers for kind in layer}
        return tuple(kind for kind in KINDS if kind in found)

    def layer(self, position: int, kind: str | None = None) -> Tally:
        """The layer at a position: one kind of tensor, or all of them."""
        tallies = self.layers[position]
        if kind is not None:
            return tallies.get(kind, Tally())
        # Layers that are repeated share their tallies; merging them once is enough.
        key = id(tallies)
        if key not in self._all:
            self._all[key] = Tally.merged(tallies.values())
        return self._all[key]


@dataclass(frozen=True, eq=False)
class Survey:
    """A base's tallies. `share` is the part of its values that was looked at: 1.0 is every one.

    `skipped` names the stored types whose values are codes and not weights.
    """

    depth: int
    dtype: torch.dtype
    parts: Mapping[Part, Tally]
    share: float = 1.0
    skipped: tuple[str, ...] = ()
    _begun: dict[tuple, Mapping[str, Tally]] = field(default_factory=dict, repr=False)
    _merged: dict[int, Tally] = field(default_factory=dict, repr=False)

    @property
    def values(self) -> int:
        """How many values were counted."""
        return sum(part.size for part in self.parts.values())

    def base(self) -> Picture:
        """The base's picture."""
        return self.picture(Plan.whole(self.depth))

    def picture(self, plan: Plan, base: Base | None = None) -> Picture:
        """The patient's picture, from the base's counts. `base` is asked for the weights of layers
        that begin as no layer of it is; without one such a plan raises `ValueError`."""
        layers = []
        for position, layer in enumerate(plan.layers):
            if layer.init.kind in ("copy", "identity", "scale"):
                key = (layer.source, layer.init)
                if key not in self._begun:
                    self._begun[key] = self._layer(layer.source, layer.init)
            else:
                after = plan.layers[position + 1 : position + 2]
                key = (layer, after, position)
                if key not in self._begun:
                    if base is None:
                        raise ValueError(f"{layer.init} needs the base's weights")
                    self._begun[key] = _counted(base, plan, position)
            layers.append(self._begun[key])
        return Picture(tuple(layers), self._layer(None, COPY), self._merged)

    def _layer(self, layer: int | None, init: Init) -> Mapping[str, Tally]:
        found: dict[str, list[Tally]] = {}
        for part in sorted((p for p in self.parts if p.layer == layer), key=_reading_order):
            tally = self.parts[part]
            if part.output and init != COPY:
                tally = begun(tally, init, self.dtype)
            found.setdefault(part.kind, []).append(tally)
        return {kind: Tally.merged(tallies) for kind, tallies in found.items()}


def begun(tally: Tally, init: Init, dtype: torch.dtype) -> Tally:
    """The counts of a tensor once it was zeroed or scaled, in the dtype in which it is stored."""
    if init.kind == "identity":
        return Tally(np.zeros(1, np.float32), np.array([tally.size]), rounded=tally.rounded)
    special = np.array([np.nan, np.inf, -np.inf], np.float32)
    values = torch.from_numpy(np.concatenate([tally.values, special])).to(dtype) * init.factor
    counts = np.concatenate([tally.counts, [tally.nan, tally.above, tally.below]])
    return Tally.of(values.float().numpy(), counts, tally.rounded)


def take(
    base: Base, progress: Progress = silent, *, sample: bool = False, threads: int | None = None
) -> Survey:
    """Count every weight of a base, straight from its files; or only a sample of each tensor.

    Raises `SurgeryError`; `progress` hears of bytes and may raise to stop.
    """
    folder, stored = base.stored(progress)
    parts, skipped = sort_tensors(base, stored)
    each = None
    if sample:
        count = sum(map(len, parts.values()))
        each = max(1024, min(_SAMPLE_EACH, SAMPLE // max(1, count)))
    sizes = {p: sum(sampled_bytes(t, each) for t in tensors) for p, tensors in parts.items()}
    whole = sum(t.end - t.start for tensors in parts.values() for t in tensors)
    tallies = _count_all(folder, parts, sizes, each, progress, threads)
    base.source.check()
    share = sum(sizes.values()) / whole if whole else 1.0
    return Survey(base.depth, base.torch_dtype, tallies, share, skipped)


def sort_tensors(
    base: Base, stored: Mapping[str, Tensor]
) -> tuple[dict[Part, list[Tensor]], tuple[str, ...]]:
    """The stored tensors by part, and the dtypes that are not looked at.

    Layers behind the stack (heads that predict further tokens) are no part of the model.
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
    """The part that a tensor belongs to; `where` as `disk_layers` says."""
    if where is None:
        return Part(None, kind_outside(name))
    _, layer, rest = where
    return Part(layer, kind_in_layer(rest), is_output_projection(rest.lstrip(".")))


def _count_all(
    folder: Path,
    parts: Mapping[Part, list[Tensor]],
    sizes: Mapping[Part, int],
    each: int | None,
    progress: Progress,
    threads: int | None,
) -> dict[Part, Tally]:
    total, done = sum(sizes.values()), 0
    lock, stop = threading.Lock(), threading.Event()

    def heard(size: int) -> None:
        nonlocal done
        if stop.is_set():
            raise Cancelled
        with lock:
            done += size

    # The large ones first, so that no thread is left alone with one at the end.
    order = sorted(parts, key=lambda part: -sizes[part])
    workers = threads or min(_MOST_THREADS, os.cpu_count() or 1)
    what = "Sampling the weights" if each else "Counting the weights"
    with ThreadPoolExecutor(workers) as pool:
        jobs: dict[Part, Future[Tally]] = {
            part: pool.submit(count_stored, folder, parts[part], each, heard) for part in order
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


def _counted(base: Base, plan: Plan, position: int) -> Mapping[str, Tally]:
    """The layer at a position of the patient, counted from its own weights."""
    patient = base.operate(plan)
    found: dict[str, list[Tally]] = {}
    for name, tensor in patient.model.state_dict().items():
        where = base.anatomy.layer_of(name)
        if where and where[1] == position and tensor.is_floating_point():
            found.setdefault(kind_in_layer(where[2]), []).append(count_tensor(tensor))
    order = sorted(found, key=KINDS.index)
    return {kind: Tally.merged(found[kind]) for kind in order}


def _reading_order(part: Part) -> tuple[int, bool]:
    return KINDS.index(part.kind), part.output
