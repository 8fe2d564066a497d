"""List the tensors of a new checkpoint: name, dtype, shape, and where each one's bytes come from.

Reads and writes no tensor data itself: `save` writes the list, `verify` compares a finished
checkpoint with it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import torch

from surgery.architecture import Anatomy, disk_names
from surgery.architecture.apply.initialise import changes, new_values, random_layer
from surgery.architecture.inspect.dtypes import loaded_dtypes
from surgery.architecture.inspect.names import behind_number, disk_tables, loader_names, sibling
from surgery.errors import Refused, SaveError
from surgery.initialisers import Initialiser
from surgery.io.copy import fill
from surgery.plan import COPY, Plan
from surgery.sources import Tensor

from .tensor_spec import Opener, TensorSpec

if TYPE_CHECKING:
    from surgery.model import Model

# What can be saved in: safetensors' name and torch's.
DTYPES = {
    "float32": ("F32", torch.float32),
    "float16": ("F16", torch.float16),
    "bfloat16": ("BF16", torch.bfloat16),
}
# Stored dtypes that can be converted or changed. They include float8: without a quantization config
# transformers loads it like any other float.
_FLOATS = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E4M3FNUZ": torch.float8_e4m3fnuz,
    "F8_E5M2FNUZ": torch.float8_e5m2fnuz,
    "F8_E8M0": torch.float8_e8m0fnu,
}
# Stored dtypes that transformers converts when the model has a float there.
_NUMBERS = {
    **_FLOATS,
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "I16": torch.int16,
    "I32": torch.int32,
    "I64": torch.int64,
}
_NAMES = {kind: word for word, kind in _NUMBERS.items()}
_BLOCK = 4 << 20  # bytes of a tensor that are in memory at a time


def check_dtype(base: Model, dtype: str | None) -> None:
    """Raise `SaveError` for a dtype that nothing is saved in, and `Refused` if this base can only
    be saved without one."""
    if dtype is not None and dtype not in DTYPES:
        raise SaveError(f"“{str(dtype)[:40]}” is not a dtype: choose {', '.join(DTYPES)}.")
    if dtype and base.anatomy.quantized:
        raise Refused(
            f"The stored weights are quantized ({base.anatomy.quantized}), so they can only be "
            "copied as they are: save without a dtype."
        )


def tensor_specs(
    base: Model,
    plan: Plan,
    stored: Mapping[str, Tensor],
    dtype: str | None,
    healed: Mapping[str, torch.Tensor] | None = None,
) -> list[TensorSpec]:
    """List every tensor of the new checkpoint. `healed` are those that training changed, by their
    names in the patient. Raises `Refused`, or `SaveError` for an unknown dtype."""
    check_dtype(base, dtype)
    unchanged = list(plan.sources) == list(range(base.depth))
    tables = {} if unchanged else disk_tables(base.anatomy, stored)
    translate = loader_names(base.anatomy)
    inside = base.anatomy.tensors
    loaded = _loaded(base, plan)
    seen: dict[str, int] = {}
    specs = []
    for name, (old, position) in disk_names(base.anatomy, stored, plan.sources).items():
        tensor, here = stored[old], translate(old)
        is_float = inside[here].is_floating_point() if here in inside else tensor.dtype in _FLOATS
        initialiser = COPY.initialiser
        if position is not None:
            initialiser = plan.layers[position].init.initialiser
        if initialiser.drawn and (is_float or here not in inside):
            continue  # made below, under the model's own names
        begun = position is not None and changes(plan, position, behind_number(old))
        if position is not None and initialiser is not COPY.initialiser:
            _check_alike(base.anatomy, here, plan, position, old, begun)
        changed = begun and is_float
        convert = dtype is not None and is_float and DTYPES[dtype][0] != tensor.dtype
        size, as_stored = tensor.end - tensor.start, _NUMBERS.get(tensor.dtype)
        word, after, cast = tensor.dtype, size, None
        if changed or convert:
            if as_stored is None:
                raise Refused(f"{old} is stored as {tensor.dtype}, which can only be copied.")
            at = loaded.get(here, base.torch_dtype) if changed else as_stored
            new = DTYPES[dtype][1] if dtype else _written(as_stored, at, initialiser)
            word, after = _NAMES[new], math.prod(tensor.shape) * new.itemsize
            cast = _Cast(as_stored, at, new, strict=here in inside)
        if old in tables:
            dim, block = tables[old]
            shape = list(tensor.shape)
            shape[dim] = block * len(plan)
            after = after // tensor.shape[dim] * shape[dim]
            make = partial(_gathered, tensor, dim, block, plan, cast)
            specs.append(TensorSpec(name, word, tuple(shape), after, make=make))
        elif changed and initialiser.reads_next and position is not None and cast is not None:
            other = stored[sibling(old, plan.layers[position + 1].source)]
            make = partial(_from_two, tensor, other, plan, position, cast)
            specs.append(TensorSpec(name, word, tensor.shape, after, make=make))
        else:
            at_position = position if changed else None
            change = partial(_changed, plan, at_position, cast) if cast is not None else None
            copy = seen.get(old, 0)
            place = (tensor.file, tensor.start, size)
            spec = TensorSpec(name, word, tensor.shape, after, *place, change=change, copy=copy)
            specs.append(spec)
            seen[old] = copy + 1
    specs += _random(base, plan, dtype)
    return _with_healed(base, plan, stored, dtype, specs, healed) if healed else specs


def _written(stored: torch.dtype, inside: torch.dtype, initialiser: Initialiser) -> torch.dtype:
    """The dtype to write a changed tensor in: the stored one, if it can hold the result."""
    if not initialiser.rounds:
        return inside if stored == torch.float8_e8m0fnu else stored  # it has no zero
    plain = stored.is_floating_point and stored.itemsize > 1
    return stored if plain and torch.promote_types(stored, inside) == stored else inside


def _loaded(base: Model, plan: Plan) -> Mapping[str, torch.dtype]:
    """{name in the model: dtype in memory}; empty if all have the base's dtype."""
    changed = any(layer.init.initialiser.rounds for layer in plan.layers)
    one_dtype = base.torch_dtype == torch.float32 or not changed
    return {} if one_dtype else loaded_dtypes(base.anatomy, base.torch_dtype)


@dataclass(frozen=True)
class _Cast:
    """The dtypes of a changed tensor: as stored, as computed (its dtype in memory), as written.
    `strict` refuses values that the last can't represent."""

    stored: torch.dtype
    inside: torch.dtype
    written: torch.dtype
    strict: bool = True

    def read(self, values: bytearray) -> torch.Tensor:
        """Stored bytes as values to compute with."""
        return torch.frombuffer(values, dtype=torch.uint8).view(self.stored).to(self.inside)

    def bytes(self, tensor: torch.Tensor) -> memoryview:
        """Computed values as bytes to write. Raises `Refused`."""
        if self.strict:
            check_range(tensor, self.written)
        return _bytes(tensor, self.written)


def check_range(tensor: torch.Tensor, new: torch.dtype) -> None:
    """Raise `Refused` if a finite value would become infinite in the dtype `new`."""
    if tensor.dtype == new or new.itemsize == 1:
        return
    lost = ~torch.isfinite(tensor.to(new))
    if lost.any() and torch.isfinite(tensor.double()[lost]).any():
        word = str(new).removeprefix("torch.")
        raise Refused(f"Some weights are too large for {word}: choose another dtype, or none.")


def memory_of(base: Model, plan: Plan, stored: Mapping[str, Tensor]) -> dict[str, str]:
    """{name on disk: name in the patient} of the layers' tensors that are one tensor in both."""
    translate = loader_names(base.anatomy)
    names = {}
    for name, (old, position) in disk_names(base.anatomy, stored, plan.sources).items():
        if where := base.anatomy.layer_of(translate(old)):
            inside = f"{where[0]}.{position}.{where[2]}"
            tensor = base.anatomy.tensors.get(translate(old))
            if tensor is None:
                continue  # an old buffer
            same = tuple(tensor.shape) == tuple(stored[old].shape)
            if same and stored[old].dtype in _FLOATS:
                names[name] = inside
    uses = Counter(names.values())  # experts that lie apart on disk are one tensor in memory
    return {name: inside for name, inside in names.items() if uses[inside] == 1}


def _with_healed(
    base: Model,
    plan: Plan,
    stored: Mapping[str, Tensor],
    dtype: str | None,
    specs: list[TensorSpec],
    healed: Mapping[str, torch.Tensor],
) -> list[TensorSpec]:
    inside = memory_of(base, plan, stored)
    out, left = [], set(healed)
    for spec in specs:
        name = inside.get(spec.name, spec.name)
        tensor = healed.get(name)
        if tensor is not None and tuple(tensor.shape) == tuple(spec.shape):
            left.discard(name)
            kind = DTYPES[dtype][1] if dtype else _FLOATS[spec.dtype]
            if kind.itemsize == 1:  # trained values need more precision
                kind = base.torch_dtype
            make, size = partial(_trained, tensor, kind), tensor.numel() * kind.itemsize
            spec = TensorSpec(spec.name, _NAMES[kind], spec.shape, size, make=make, trained=True)
        out.append(spec)
    if left:
        raise Refused(f"{min(left)} was trained, but no stored tensor stands for it alone.")
    return out


def _trained(tensor: torch.Tensor, kind: torch.dtype, open_: Opener) -> Iterator[memoryview]:
    """A tensor that training changed, in the dtype that it is saved in."""
    values = tensor.detach().cpu()
    check_range(values, kind)
    yield _bytes(values, kind)


def _check_alike(
    anatomy: Anatomy, name: str, plan: Plan, position: int, old: str, begun: bool
) -> None:
    """Check that a tensor changes on disk if and only if it does in memory, where it may have
    another name."""
    where = anatomy.layer_of(name)
    if begun != (where is not None and changes(plan, position, where[2])):
        kind = plan.layers[position].init.kind
        raise Refused(
            f"@{kind} can't be saved here: {old} maps to a different tensor in memory. Use @copy."
        )


def _changed(plan: Plan, position: int | None, cast: _Cast, values: bytearray) -> memoryview:
    """Values that are initialised, converted, or both, each by itself, so that any stretch will
    do."""
    tensor = cast.read(values)
    if position is not None:
        tensor = new_values(plan, position, lambda layer: tensor)
    return cast.bytes(tensor)


def _from_two(
    tensor: Tensor, other: Tensor, plan: Plan, position: int, cast: _Cast, open_: Opener
) -> Iterator[memoryview]:
    """New values from those of a tensor and of another layer's, value by value."""
    own = plan.layers[position].source
    theirs = replace(cast, stored=_NUMBERS[other.dtype])
    step = _BLOCK // max(cast.stored.itemsize, theirs.stored.itemsize)  # values
    with (
        open_(tensor.file, tensor.start, tensor.end) as one,
        open_(other.file, other.start, other.end) as two,
    ):
        for done in range(0, math.prod(tensor.shape), step):
            values = []
            for file, at, kind in ((one, tensor, cast), (two, other, theirs)):
                width = kind.stored.itemsize
                read = bytearray(min(step * width, at.end - at.start - done * width))
                fill(file, at.start + done * width, read)
                values.append(kind.read(read))
            yield cast.bytes(
                new_values(plan, position, partial(_of_two, own, values[0], values[1]))
            )


def _of_two(own: int, one: torch.Tensor, two: torch.Tensor, layer: int) -> torch.Tensor:
    return one if layer == own else two


def _gathered(
    tensor: Tensor, dim: int, block: int, plan: Plan, cast: _Cast | None, open_: Opener
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
            yield _bytes(flat, None) if cast is None else cast.bytes(flat.view(cast.stored))


def _random(base: Model, plan: Plan, dtype: str | None) -> Iterator[TensorSpec]:
    """The tensors of randomly initialised layers; only one layer at a time is in memory.

    They are drawn in the patient's dtype, since another dtype gives other values, then converted.
    """
    kind = DTYPES[dtype][1] if dtype else base.torch_dtype
    translate = loader_names(base.anatomy)
    for position, layer in enumerate(plan.layers):
        if not layer.init.initialiser.drawn:
            continue
        made: dict[str, torch.Tensor] = {}
        for old, tensor in base.anatomy.tensors.items():
            where = base.anatomy.layer_of(old)
            if where is None or where[1] != layer.source or not tensor.is_floating_point():
                continue
            if translate(old) != old:
                raise Refused(
                    f"@random can't be saved here: {old} has a different name on disk. Use @copy."
                )
            name = f"{where[0]}.{position}.{where[2]}"
            make = partial(_drawn, base.anatomy, plan, position, base.torch_dtype, kind, made, name)
            size = tensor.numel() * kind.itemsize
            yield TensorSpec(name, _NAMES[kind], tuple(tensor.shape), size, make=make)


def _drawn(
    anatomy: Anatomy,
    plan: Plan,
    position: int,
    drawn: torch.dtype,
    kind: torch.dtype,
    made: dict[str, torch.Tensor],
    name: str,
    open_: Opener,
) -> Iterator[memoryview]:
    """A tensor of a random layer; the others are kept in `made` until they are asked for."""
    tensor = made.pop(name, None)
    if tensor is None:
        made.update(random_layer(anatomy, plan, position, drawn))
        tensor = made.pop(name)
    check_range(tensor, kind)
    yield _bytes(tensor, kind)


def _bytes(tensor: torch.Tensor, new: torch.dtype | None) -> memoryview:
    tensor = tensor if new is None else tensor.to(new)
    return tensor.contiguous().view(-1).view(torch.uint8).numpy().data
