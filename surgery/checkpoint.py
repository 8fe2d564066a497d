"""A base and a plan on disk: a folder that `AutoModelForCausalLM.from_pretrained` loads.

Knows which files a checkpoint has and that they appear together or not at all. Bytes go from the
base's files to the new ones by name, so what the plan doesn't change is the same to the last bit.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import torch
from safetensors import SafetensorError, safe_open

from .appear import appearing, check_target, resolve
from .architecture import Anatomy, disk_names, rewrite, skeleton
from .architecture.identity import output_projections
from .architecture.initialise import begin, changes, check_supported, random_layer
from .architecture.names import behind_number, disk_tables, loader_names, sibling
from .card import card
from .errors import BaseError, Refused, SaveError
from .plan import COPY, Plan
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
        outputs = output_projections(base.anatomy.tensors)
        recipe = to_yaml(hub_id or base.name, plan, dtype or base.dtype, outputs)
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
    translate = loader_names(base.anatomy)
    for name, (old, position) in names.items():
        tensor = stored[old]
        if old in tables:
            yield _gathered(name, folder / tensor.file, tensor, tables[old], plan, dtype)
            continue
        if position is not None and plan.layers[position].init.kind == "random":
            continue  # written under the model's own names, below
        changed = position is not None and changes(plan, position, behind_number(old))
        if changed:
            _check_alike(base.anatomy, translate(old), plan, position, old)
        convert = dtype is not None and tensor.dtype in _FLOATS and DTYPES[dtype][0] != tensor.dtype
        if not changed and not convert:
            write = from_file(folder / tensor.file, tensor.start, tensor.end)
            yield Piece(name, tensor.dtype, tensor.shape, tensor.end - tensor.start, write)
            continue
        new = DTYPES[dtype][0] if convert else tensor.dtype
        size = math.prod(tensor.shape) * (
            DTYPES[dtype][1].itemsize if convert else _size_of(tensor)
        )

        def compute(old=old, position=position, changed=changed, convert=convert) -> torch.Tensor:
            def read(layer: int) -> torch.Tensor:
                return _read(folder, stored, sibling(old, layer))

            begun = begin(plan, position, read) if changed else _read(folder, stored, old)
            return begun.to(DTYPES[dtype][1]) if convert else begun

        yield Piece(name, new, tensor.shape, size, _computed(compute))
    yield from _random_pieces(base, plan, dtype)


def _random_pieces(base: Base, plan: Plan, dtype: str | None) -> Iterator[Piece]:
    """The tensors of layers that begin at random; one layer at a time is in memory."""
    at = [p for p, layer in enumerate(plan.layers) if layer.init.kind == "random"]
    kind = DTYPES[dtype][1] if dtype else base.torch_dtype
    word = next(name for name, torch_dtype in DTYPES.values() if torch_dtype == kind)
    translate = loader_names(base.anatomy)
    made: dict[str, torch.Tensor] = {}
    for position in at:
        source = plan.layers[position].source
        for old, tensor in base.anatomy.tensors.items():
            where = base.anatomy.layer_of(old)
            if where is None or where[1] != source:
                continue
            if translate(old) != old:
                raise Refused(f"@random can't be saved here: {old} has another name on disk.")
            name = f"{where[0]}.{position}.{where[2]}"

            def compute(name=name, position=position) -> torch.Tensor:
                if name not in made:
                    made.clear()
                    made.update(random_layer(base.anatomy, plan, position, kind))
                return made.pop(name)

            size = tensor.numel() * kind.itemsize
            yield Piece(name, word, tuple(tensor.shape), size, _computed(compute))


def _check_alike(anatomy: Anatomy, name: str, plan: Plan, position: int, old: str) -> None:
    """A tensor that begins otherwise on disk does so in memory, where it may have another name."""
    where = anatomy.layer_of(name)
    if where is None or not changes(plan, position, where[2]):
        kind = plan.layers[position].init.kind
        raise Refused(f"@{kind} can't be saved here: {old} stands for another tensor in memory.")


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


def _read(folder: Path, stored: dict[str, Tensor], name: str) -> torch.Tensor:
    """A stored tensor, whole in memory. Raises `BaseError`."""
    path = folder / stored[name].file
    try:
        with reading(path), safe_open(path, framework="pt") as file:
            return file.get_tensor(name)
    except SafetensorError as error:
        raise BaseError(f"{path} changed while it was read: {error}.") from error


def _computed(compute: Callable[[], torch.Tensor]) -> Callable[[BinaryIO], None]:
    """For a tensor that passes through memory: begun otherwise, converted, or both."""

    def write(out: BinaryIO) -> None:
        out.write(compute().contiguous().view(-1).view(torch.uint8).numpy().data)

    return write


def _write_config(base: Base, plan: Plan, folder: Path, dtype: str | None) -> None:
    config = rewrite(base.anatomy.whole, plan.sources, base.depth)
    config.architectures = [type(base.anatomy.model).__name__]
    config.dtype = DTYPES[dtype][1] if dtype else base.torch_dtype
    config.save_pretrained(folder)
