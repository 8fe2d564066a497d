"""Lay out the GGUF files of a plan: their headers, and where each tensor's bytes come from."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from surgery.checkpoint.tensor_spec import TensorSpec
from surgery.checkpoint.writer import Shard
from surgery.errors import Refused
from surgery.plan import Plan

from . import pieces
from .fields import Field, packed
from .file import GgufFile, layer_of
from .header import ALIGNMENT, MAX_NAME, TensorInfo
from .initialised import factors, maker
from .layer_kinds import check_kinds
from .metadata import check_metadata, is_expert, record, rewritten


@dataclass(frozen=True)
class Placed:
    """A tensor of the new file: its name, the base's tensor, and where its bytes come from."""

    spec: TensorSpec
    source: TensorInfo


@dataclass(frozen=True)
class Layout:
    """What a plan makes of a GGUF file: its metadata and its tensors, in their order."""

    base: GgufFile
    plan: Plan
    fields: Mapping[str, Field] = field(repr=False)
    tensors: tuple[Placed, ...] = field(repr=False)

    @property
    def values(self) -> int:
        """The number of values of all tensors."""
        return sum(placed.source.values for placed in self.tensors)

    @property
    def size(self) -> int:
        """Bytes of all tensors."""
        return sum(placed.spec.size for placed in self.tensors)

    def shards(self, out: Path, limit: int | None) -> list[Shard]:
        """The files to write: `out` alone, or pieces with at most `limit` bytes of tensors each."""
        groups = [list(self.tensors)]
        if limit is not None:
            groups = _grouped(self.tensors, limit)
        if len(groups) > pieces.MOST:
            raise Refused(f"This makes {len(groups):,} files. Choose a larger size.")
        if len(groups) == 1:
            return [self._shard(out.name, self.fields, groups[0])]
        count, total = len(groups), len(self.tensors)
        shards = []
        for index, group in enumerate(groups):
            mark = pieces.fields(index, count, total)
            kept = {key: self.fields[key] for key in (ALIGNMENT,) if key in self.fields}
            own = self.fields if index == 0 else kept
            shards.append(self._shard(pieces.piece(out.stem, index, count), {**own, **mark}, group))
        return shards

    def _shard(self, name: str, fields: Mapping[str, Field], group: Sequence[Placed]) -> Shard:
        alignment = self.base.alignment
        parts = [b"GGUF", struct.pack("<IQQ", self.base.version, len(group), len(fields))]
        for key, value in fields.items():
            parts += [packed(key), value.encoded]
        offset, places = 0, []
        for placed in group:
            shape = placed.source.shape
            parts += [
                packed(placed.spec.name),
                struct.pack(f"<I{len(shape)}Q", len(shape), *shape),
                struct.pack("<IQ", placed.source.type.number, offset),
            ]
            places.append((placed.spec, offset))
            offset += placed.spec.size + -placed.spec.size % alignment
        head = b"".join(parts)
        head += bytes(-len(head) % alignment)
        last = group[-1].spec.size
        return Shard(name, head, [(spec, len(head) + at) for spec, at in places], -last % alignment)


def lay_out(base: GgufFile, plan: Plan) -> Layout:
    """The layout of a plan's GGUF file. Raises `Refused` or `BaseError`."""
    check_metadata(base)
    check_kinds(base, plan.sources)
    tensors = tuple(_placed(base, plan))
    total = sum(placed.source.values for placed in tensors)
    experts = sum(placed.source.values for placed in tensors if is_expert(placed.source.name))
    fields = record(rewritten(base, plan.sources, (total, experts)), base, str(plan))
    return Layout(base, plan, fields, tensors)


def _placed(base: GgufFile, plan: Plan) -> list[Placed]:
    """The new tensors: those before the base's first layer, the plan's layers, all others."""
    outer = [tensor for tensor in base.tensors if layer_of(tensor.name) is None]
    first = min(base.tensors.index(tensor) for tensor in base.layers[0].values())
    before = set(base.tensors[:first])
    if odd := next((tensor.name for tensor in outer if "blk." in tensor.name), None):
        raise Refused(f"{odd[:80]} belongs to layers that this plan doesn't name.")
    placed = [_whole(tensor, tensor.name) for tensor in outer if tensor in before]
    seen: dict[int, int] = {}
    for position, layer in enumerate(plan.layers):
        if layer.base:
            raise Refused("Layers of several bases can't be saved as one GGUF file.")
        times = factors(base, layer.source, layer.init)
        copy = seen[layer.source] = seen.get(layer.source, -1) + 1
        for rest, tensor in base.layers[layer.source].items():
            name = f"blk.{position}.{rest}"
            if len(name.encode()) > MAX_NAME:
                raise Refused(f"{name[:80]} is longer than llama.cpp's names of tensors.")
            placed.append(_whole(tensor, name, times.get(rest, 1.0), copy))
    return placed + [_whole(tensor, tensor.name) for tensor in outer if tensor not in before]


def _whole(tensor: TensorInfo, name: str, factor: float = 1.0, copy: int = 0) -> Placed:
    file, kind, shape = str(tensor.file), tensor.type.name, tensor.shape
    if factor != 1.0:
        spec = TensorSpec(name, kind, shape, tensor.size, make=maker(tensor, factor))
    else:
        place = (file, tensor.start, tensor.size)
        spec = TensorSpec(name, kind, shape, tensor.size, *place, copy=copy)
    return Placed(spec, tensor)


def _grouped(tensors: Sequence[Placed], limit: int) -> list[list[Placed]]:
    groups: list[list[Placed]] = [[]]
    filled = 0
    for placed in tensors:
        if groups[-1] and filled + placed.spec.size > limit:
            groups.append([])
            filled = 0
        groups[-1].append(placed)
        filled += placed.spec.size
    return groups
