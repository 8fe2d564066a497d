"""What a checkpoint of a base and a plan consists of: its tensors, and where their bytes come from.

Knows the plan, the base's stored tensors and dtypes. Reads and writes nothing by itself: saving
writes pieces, verifying holds a finished checkpoint against them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, BinaryIO

import torch

from .architecture import Anatomy, disk_names
from .architecture.initialise import begin, changes, random_layer
from .architecture.names import behind_number, disk_tables, loader_names, sibling
from .errors import Refused, SaveError
from .plan import Plan
from .source import Tensor
from .source.headers import BITS
from .transfer import fill

if TYPE_CHECKING:
    from .base import Base

# What can be saved in: safetensors' name and torch's.
DTYPES = {
    "float32": ("F32", torch.float32),
    "float16": ("F16", torch.float16),
    "bfloat16": ("BF16", torch.bfloat16),
}
# Stored dtypes that a conversion or a change of the beginning applies to.
_FLOATS = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}
_BLOCK = 4 << 20  # bytes of a tensor that are in memory at a time

# (file of the base, start, end) -> that part of it, opened for reading
Opener = Callable[[str, int, int], BinaryIO]


@dataclass(frozen=True)
class Piece:
    """A tensor of the new checkpoint: `size` bytes.

    Its bytes are the `stored` bytes at `start` in the base's `file`, as they are, or each value
    passed through `change`: a function of a stretch of values that gives as many. Or they are what
    `make` yields, one stretch after the other, from several places or from none.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    size: int
    file: str = ""
    start: int = 0
    stored: int = 0
    change: Callable[[bytearray], memoryview] | None = None
    copy: int = 0  # 0 for the first appearance of a stored tensor, 1 for the second, …
    make: Callable[[Opener], Iterator[memoryview]] | None = None
    trained: bool = False  # `make` yields what training made of it

    @property
    def width(self) -> int:
        """Bits of one value."""
        return BITS[self.dtype]

    @property
    def as_stored(self) -> bool:
        """Are its bytes the base's own?"""
        return self.change is None and self.make is None


def pieces(
    base: Base,
    plan: Plan,
    stored: Mapping[str, Tensor],
    dtype: str | None,
    healed: Mapping[str, torch.Tensor] | None = None,
) -> list[Piece]:
    """Every tensor of the new checkpoint. `healed` are those that training changed, by their names
    in the patient. Raises `Refused`, or `SaveError` for an unknown dtype."""
    if dtype is not None and dtype not in DTYPES:
        raise SaveError(f"“{str(dtype)[:40]}” is no dtype to save in: {', '.join(DTYPES)}.")
    if dtype and base.anatomy.quantized:
        raise Refused(
            f"The stored weights are quantized ({base.anatomy.quantized}), so they can only be "
            "copied as they are: save without a dtype."
        )
    unchanged = list(plan.sources) == list(range(base.depth))
    tables = {} if unchanged else disk_tables(base.anatomy, stored)
    translate = loader_names(base.anatomy)
    seen: dict[str, int] = {}
    found = []
    for name, (old, position) in disk_names(base.anatomy, stored, plan.sources).items():
        tensor = stored[old]
        convert = dtype is not None and tensor.dtype in _FLOATS and DTYPES[dtype][0] != tensor.dtype
        new = DTYPES[dtype][1] if convert else None
        word = DTYPES[dtype][0] if convert else tensor.dtype
        size = tensor.end - tensor.start
        after = math.prod(tensor.shape) * new.itemsize if convert else size
        kind = "copy" if position is None else plan.layers[position].init.kind
        if kind == "random":
            continue  # made below, under the model's own names
        begun = position is not None and changes(plan, position, behind_number(old))
        if position is not None and kind != "copy":
            _check_alike(base.anatomy, translate(old), plan, position, old, begun)
        if old in tables:
            dim, block = tables[old]
            shape = list(tensor.shape)
            shape[dim] = block * len(plan)
            after = after // tensor.shape[dim] * shape[dim]
            make = partial(_gathered, tensor, dim, block, plan, new)
            found.append(Piece(name, word, tuple(shape), after, make=make))
        elif begun and kind == "average" and tensor.dtype in _FLOATS:
            other = stored[sibling(old, plan.layers[position + 1].source)]
            make = partial(_averaged, tensor, other, plan, position, new)
            found.append(Piece(name, word, tensor.shape, after, make=make))
        else:
            changed = begun and tensor.dtype in _FLOATS
            at = position if changed else None
            change = None
            if changed or convert:
                change = partial(_changed, _FLOATS[tensor.dtype], plan, at, new)
            copy = seen.get(old, 0)
            place = (tensor.file, tensor.start, size)
            found.append(Piece(name, word, tensor.shape, after, *place, change=change, copy=copy))
            seen[old] = copy + 1
    found += _random(base, plan, dtype)
    return _with_healed(base, plan, stored, found, healed) if healed else found


def memory_of(base: Base, plan: Plan, stored: Mapping[str, Tensor]) -> dict[str, str]:
    """{name on disk: name in the patient} of the layers' tensors that are one tensor in both."""
    translate = loader_names(base.anatomy)
    names = {}
    for name, (old, position) in disk_names(base.anatomy, stored, plan.sources).items():
        if where := base.anatomy.layer_of(translate(old)):
            inside = f"{where[0]}.{position}.{where[2]}"
            same = tuple(base.anatomy.tensors[translate(old)].shape) == tuple(stored[old].shape)
            if same and stored[old].dtype in _FLOATS:
                names[name] = inside
    uses = Counter(names.values())  # experts that lie apart on disk are one tensor in memory
    return {name: inside for name, inside in names.items() if uses[inside] == 1}


def _with_healed(
    base: Base,
    plan: Plan,
    stored: Mapping[str, Tensor],
    found: list[Piece],
    healed: Mapping[str, torch.Tensor],
) -> list[Piece]:
    inside = memory_of(base, plan, stored)
    out, left = [], set(healed)
    for piece in found:
        name = inside.get(piece.name, piece.name)
        tensor = healed.get(name)
        if tensor is not None and tuple(tensor.shape) == tuple(piece.shape):
            left.discard(name)
            make = partial(_trained, tensor, _FLOATS[piece.dtype])
            piece = Piece(piece.name, piece.dtype, piece.shape, piece.size, make=make, trained=True)
        out.append(piece)
    if left:
        raise Refused(f"{min(left)} was trained, but no stored tensor stands for it alone.")
    return out


def _trained(tensor: torch.Tensor, kind: torch.dtype, open_: Opener) -> Iterator[memoryview]:
    """A tensor that training changed, in the dtype that it is saved in."""
    yield _bytes(tensor.detach().cpu(), kind)


def _check_alike(
    anatomy: Anatomy, name: str, plan: Plan, position: int, old: str, begun: bool
) -> None:
    """A tensor begins otherwise on disk if and only if it does in memory, where it may have another
    name."""
    where = anatomy.layer_of(name)
    if begun != (where is not None and changes(plan, position, where[2])):
        kind = plan.layers[position].init.kind
        raise Refused(
            f"@{kind} can't be saved here: {old} stands for another tensor in memory. Use @copy."
        )


def _changed(
    old: torch.dtype,
    plan: Plan,
    position: int | None,
    new: torch.dtype | None,
    values: bytearray,
) -> memoryview:
    """Values begun otherwise, converted, or both: each by itself, so any stretch will do."""
    tensor = torch.frombuffer(values, dtype=old)
    if position is not None:
        tensor = begin(plan, position, lambda layer: tensor)
    return _bytes(tensor, new)


def _averaged(
    tensor: Tensor, other: Tensor, plan: Plan, position: int, new: torch.dtype | None, open_: Opener
) -> Iterator[memoryview]:
    """The mean of a tensor and another layer's, value by value."""
    kind, size = _FLOATS[tensor.dtype], tensor.end - tensor.start
    own = plan.layers[position].source
    with (
        open_(tensor.file, tensor.start, tensor.end) as ours,
        open_(other.file, other.start, other.end) as theirs,
    ):
        for done in range(0, size, _BLOCK):
            values = []
            for file, start in ((ours, tensor.start), (theirs, other.start)):
                read = bytearray(min(_BLOCK, size - done))
                fill(file, start + done, read)
                values.append(torch.frombuffer(read, dtype=kind))
            mean = begin(plan, position, lambda layer, v=values: v[0 if layer == own else 1])
            yield _bytes(mean, new)


def _gathered(
    tensor: Tensor, dim: int, block: int, plan: Plan, new: torch.dtype | None, open_: Opener
) -> Iterator[memoryview]:
    """A packed per-layer table with its blocks in the plan's order, a few rows at a time."""
    row = (tensor.end - tensor.start) // tensor.shape[0]
    width = (tensor.end - tensor.start) // math.prod(tensor.shape)
    rows = max(1, _BLOCK // row)
    if dim == 0:
        stretches = [
            (i * block + first, min(rows, block - first))
            for i in plan.sources
            for first in range(0, block, rows)
        ]
    else:
        count = tensor.shape[0]
        stretches = [(first, min(rows, count - first)) for first in range(0, count, rows)]
    with open_(tensor.file, tensor.start, tensor.end) as file:
        for first, count in stretches:
            read = bytearray(count * row)
            fill(file, tensor.start + first * row, read)
            values = torch.frombuffer(read, dtype=torch.uint8).view(count, *tensor.shape[1:], width)
            if dim:
                blocks = [values.narrow(dim, i * block, block) for i in plan.sources]
                values = torch.cat(blocks, dim)
            flat = values.contiguous().view(-1)
            yield _bytes(flat if new is None else flat.view(_FLOATS[tensor.dtype]), new)


def _random(base: Base, plan: Plan, dtype: str | None) -> Iterator[Piece]:
    """The tensors of layers that begin at random; one layer at a time is in memory."""
    kind = DTYPES[dtype][1] if dtype else base.torch_dtype
    word = next(word for word, torch_dtype in _FLOATS.items() if torch_dtype == kind)
    translate = loader_names(base.anatomy)
    for position, layer in enumerate(plan.layers):
        if layer.init.kind != "random":
            continue
        made: dict[str, torch.Tensor] = {}
        for old, tensor in base.anatomy.tensors.items():
            where = base.anatomy.layer_of(old)
            if where is None or where[1] != layer.source or not tensor.is_floating_point():
                continue
            if translate(old) != old:
                raise Refused(
                    f"@random can't be saved here: {old} has another name on disk. Use @copy."
                )
            name = f"{where[0]}.{position}.{where[2]}"
            make = partial(_drawn, base.anatomy, plan, position, kind, made, name)
            size = tensor.numel() * kind.itemsize
            yield Piece(name, word, tuple(tensor.shape), size, make=make)


def _drawn(
    anatomy: Anatomy,
    plan: Plan,
    position: int,
    kind: torch.dtype,
    made: dict[str, torch.Tensor],
    name: str,
    open_: Opener,
) -> Iterator[memoryview]:
    """A tensor of a random layer; the others are kept in `made` until they are asked for."""
    tensor = made.pop(name, None)
    if tensor is None:
        made.update(random_layer(anatomy, plan, position, kind))
        tensor = made.pop(name)
    yield _bytes(tensor, None)


def _bytes(tensor: torch.Tensor, new: torch.dtype | None) -> memoryview:
    tensor = tensor if new is None else tensor.to(new)
    return tensor.contiguous().view(-1).view(torch.uint8).numpy().data
