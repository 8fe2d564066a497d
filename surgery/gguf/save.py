"""Save a plan of a GGUF file as a GGUF file: tensors byte for byte, never dequantized."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from surgery.checkpoint.writer import write_files
from surgery.errors import SaveError
from surgery.io.atomic import atomic_files
from surgery.io.copy import opener_of
from surgery.io.output_target import check_file_target, resolve
from surgery.plan import Plan
from surgery.progress import Meter, Progress, silent

from .file import GgufFile
from .layout import lay_out
from .verify import check_files

SUFFIX = ".gguf"
MAGIC = b"GGUF"


@dataclass(frozen=True)
class Saved:
    """What a save has written: its files, and the numbers of layers, values and bytes."""

    files: tuple[Path, ...]
    layers: int
    values: int
    bytes: int


def save_gguf(
    base: GgufFile,
    plan: Plan,
    out: Path,
    *,
    shard_size: int | None = None,
    overwrite: bool = False,
    verified: bool = True,
    progress: Progress = silent,
) -> Saved:
    """Write `out`: metadata, tokenizer and tensors of the base, with its layers as the plan says.

    Each tensor has the base's own bytes, except output projections that an initialiser zeroes or
    scales exactly. A split base becomes one file; with a `shard_size` in bytes, a larger model
    becomes pieces beside one another, named as llama.cpp looks for them. `verified` reads what was
    written and compares it with the base before it gets its name. Nothing appears unless all does,
    and the memory used doesn't grow with the model. Raises `Refused` where llama.cpp would compute
    another model than the plan says, `BaseError` or `SaveError`, and then `out` is unchanged.
    """
    out = resolve(out)
    if out.suffix.lower() != SUFFIX:
        raise SaveError(f"{out.name} should end in {SUFFIX}.")
    layout = lay_out(base, plan)
    shards = layout.shards(out, shard_size)
    outs = [out.with_name(shard.name) for shard in shards]
    opener = opener_of(Path())
    size = sum(shard.size for shard in shards)
    if len(outs) > 1 and (there := next((path for path in outs if path.exists()), None)):
        raise SaveError(f"{there} exists already, and pieces are not replaced. Remove them first.")
    check = partial(check_file_target, begins=MAGIC, overwrite=overwrite, base_files=base.files)
    with atomic_files(outs, size, check, overwrite) as folder:
        write_files(folder, shards, opener, Meter(progress, "Writing weights", layout.size))
        base.check_unchanged()
        if verified:
            check_files(folder / outs[0].name, layout, opener, progress)
            base.check_unchanged()
    return Saved(tuple(outs), len(plan), layout.values, size)
