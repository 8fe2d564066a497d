"""A base and a plan on disk: a folder that `AutoModelForCausalLM.from_pretrained` loads.

Knows which files a checkpoint has and that they appear together or not at all. Bytes go from the
base's files to the new ones by name, so what the plan doesn't change is the same to the last bit.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import torch
from safetensors import SafetensorError, safe_open

from .appear import appearing, check_target, resolve
from .architecture import disk_names, rewrite, skeleton
from .architecture.initialise import OUTPUT_PROJECTIONS, begin, changes, check_supported
from .architecture.names import disk_tables
from .card import card
from .errors import BaseError, Refused, SaveError
from .plan import COPY, Init, Plan
from .progress import Progress
from .recipe import to_yaml
from .shards import Piece, from_file, reading, split, write_shards
from .source import Tensor

if TYPE_CHECKING:
    from .base import Base

DTYPES = {
    "float32": ("F32", torch.float32),
    "float16": ("F16", torch.float16),
    "bfloat16": ("BF16", torch.bfloat16),
}
_FLOATS = {"F64", "F32", "F16", "BF16"}
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
# What a checkpoint has besides weights and config: carried along as it is.
_COMPANIONS = (
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "*.model",
    "*.tiktoken",
    "chat_template*",
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "LICENSE*",
    "NOTICE*",
)


def save(
    base: Base,
    plan: Plan,
    out: Path,
    dtype: str | None,
    shard_size: str | int,
    overwrite: bool,
    progress: Progress,
) -> Path:
    """Write `out`: config, safetensors, tokenizer, generation config, recipe, model card.

    It is written beside the target and renamed when whole. `dtype` converts the floating-point
    tensors; `shard_size` is the most that one file holds ("5GB", decimal units). `progress` hears
    of bytes and may raise to cancel. Raises `Refused` or `SaveError`, and then `out` is as before.
    """
    if dtype is not None and dtype not in DTYPES:
        raise SaveError(f"“{str(dtype)[:40]}” is no dtype to save in: {', '.join(DTYPES)}.")
    limit = parse_size(shard_size)
    out = resolve(out)
    check_supported(base.anatomy, plan)
    _check_stored_form(base, plan, dtype)
    skeleton(base.anatomy, plan.sources)  # refuses before anything is written
    base.stored_bytes  # noqa: B018  checks that config and stored tensors belong together
    check_target(out, overwrite)
    if base.source.home and base.source.home.is_relative_to(out):
        raise SaveError(f"The base itself lies in {out}: choose another name.")
    if out.is_dir() and any(out.iterdir()) and not (out / "config.json").is_file():
        raise SaveError(f"{out} holds no model, so it is not replaced: choose another name.")
    folder, stored = base.stored(progress)
    pieces = list(_pieces(base, plan, folder, stored, dtype))
    total = sum(piece.size for piece in pieces)
    done = 0

    def written(size: int) -> None:
        nonlocal done
        done += size
        progress("Writing weights", done, total)

    with appearing(out, total, overwrite) as partial:
        progress("Writing weights", 0, total)
        write_shards(partial, split(pieces, limit), written)
        base.source.check()
        _write_config(base, plan, partial, dtype)
        for pattern in _COMPANIONS:
            for path in folder.glob(pattern):
                if path.is_file():
                    with reading(path):
                        content = path.read_bytes()
                    (partial / path.name).write_bytes(content)
        hub_id = base.source.hub_id
        recipe = to_yaml(hub_id or base.name, plan, dtype or base.dtype, OUTPUT_PROJECTIONS)
        (partial / "recipe.yaml").write_text(recipe, encoding="utf-8", errors="replace")
        text = card(
            title=out.name,
            base=base.name,
            hub_id=hub_id,
            licence=base.source.licence,
            note=base.note,
            plan=plan,
            old=base.preview(Plan.whole(base.depth)),
            new=base.preview(plan),
        )
        (partial / "README.md").write_text(text, encoding="utf-8", errors="replace")
    return out


def _check_stored_form(base: Base, plan: Plan, dtype: str | None) -> None:
    """Quantized tensors can be carried over, but not computed with."""
    if base.anatomy.quantized and (dtype or any(layer.init != COPY for layer in plan.layers)):
        raise Refused(
            f"The stored weights are quantized ({base.anatomy.quantized}), so they can only be "
            "copied as they are: save without a dtype, and with @copy layers only."
        )


def parse_size(size: str | int) -> int:
    """Bytes from “5GB”, “500 MB” or a number. Raises `SaveError`."""
    m = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([KMGT]?)B?\s*", str(size), re.I)
    value = float(m[1]) * _UNITS[m[2].upper()] if m else 0
    if not 0 < value < math.inf or int(value) < 1:
        raise SaveError(f"“{str(size)[:40]}” is no shard size: write it as 5GB or 500MB.")
    return int(value)


def _pieces(
    base: Base, plan: Plan, folder: Path, stored: dict[str, Tensor], dtype: str | None
) -> Iterator[Piece]:
    """Every tensor of the new checkpoint, in the order in which the base's files hold them."""
    names = disk_names(base.anatomy, stored, plan.sources)
    unchanged = list(plan.sources) == list(range(base.depth))
    tables = {} if unchanged else disk_tables(base.anatomy, stored)
    for name, (old, position) in names.items():
        tensor = stored[old]
        if old in tables:
            yield _gathered(name, folder / tensor.file, tensor, tables[old], plan, dtype)
            continue
        init = COPY if position is None else plan.layers[position].init
        rest = name.split(".", 1)[-1] if position is None else _behind_number(name)
        changed = changes(rest, init)
        convert = dtype is not None and tensor.dtype in _FLOATS and DTYPES[dtype][0] != tensor.dtype
        path = folder / tensor.file
        if not changed and not convert:
            write = from_file(path, tensor.start, tensor.end)
            yield Piece(name, tensor.dtype, tensor.shape, tensor.end - tensor.start, write)
            continue
        new = DTYPES[dtype][0] if convert else tensor.dtype
        width = {"F64": 8, "F32": 4}.get(new, 2)
        size = math.prod(tensor.shape) * width
        write = _computed(path, old, init if changed else COPY, dtype if convert else None)
        yield Piece(name, new, tensor.shape, size, write)


def _gathered(
    name: str, path: Path, tensor: Tensor, table: tuple[int, int], plan: Plan, dtype: str | None
) -> Piece:
    """A packed per-layer table with its blocks in the plan's order, a few rows at a time."""
    dim, block = table
    convert = dtype is not None and tensor.dtype in _FLOATS and DTYPES[dtype][0] != tensor.dtype
    shape = list(tensor.shape)
    shape[dim] = block * len(plan)
    width = DTYPES[dtype][1].itemsize if convert else _size_of(tensor)

    def write(out: BinaryIO) -> None:
        with safe_open(path, framework="pt") as file:
            rows = file.get_slice(name)
            if dim == 0:
                parts = ([rows[i * block : (i + 1) * block]] for i in plan.sources)
            else:
                starts = range(0, tensor.shape[0], 4096)
                parts = (
                    [part.narrow(dim, i * block, block) for i in plan.sources]
                    for part in (rows[start : start + 4096] for start in starts)
                )
            for pieces in parts:
                whole = torch.cat(pieces, dim)
                if convert:
                    whole = whole.to(DTYPES[dtype][1])
                out.write(whole.contiguous().view(-1).view(torch.uint8).numpy().data)

    return Piece(
        name,
        DTYPES[dtype][0] if convert else tensor.dtype,
        tuple(shape),
        math.prod(shape) * width,
        write,
    )


def _size_of(tensor: Tensor) -> int:
    """Bytes of one value, as it is stored."""
    return (tensor.end - tensor.start) // max(1, math.prod(tensor.shape))


def _behind_number(name: str) -> str:
    return re.split(r"\.\d+\.|^\d+\.", name, maxsplit=1)[-1]


def _computed(path: Path, name: str, init: Init, dtype: str | None):
    """A tensor that passes through memory: begun otherwise, converted, or both."""

    def write(out: BinaryIO) -> None:
        try:
            with reading(path), safe_open(path, framework="pt") as file:
                tensor = file.get_tensor(name)
        except SafetensorError as error:
            raise BaseError(f"{path} changed while it was read: {error}.") from error
        if init != COPY:
            tensor = begin(tensor, init)
        if dtype is not None:
            tensor = tensor.to(DTYPES[dtype][1])
        out.write(tensor.contiguous().view(-1).view(torch.uint8).numpy().data)

    return write


def _write_config(base: Base, plan: Plan, folder: Path, dtype: str | None) -> None:
    config = rewrite(base.anatomy.whole, plan.sources, base.depth)
    config.architectures = [type(base.anatomy.model).__name__]
    config.dtype = DTYPES[dtype][1] if dtype else base.torch_dtype
    config.save_pretrained(folder)
