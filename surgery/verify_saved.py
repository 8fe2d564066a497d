"""Verify a checkpoint that was saved earlier, from the recipe in its folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from .base import Base
from .checkpoint.resize_record import read_resized
from .checkpoint.tensors import tensor_specs
from .checkpoint.trained import digests
from .checkpoint.verify import verify
from .errors import BaseError, SaveError
from .io.atomic import restored
from .plan import Plan
from .progress import Progress
from .recipe import layer_tensors, read_file
from .resized import Resized
from .stacked import stack


@dataclass(frozen=True)
class Recorded:
    """What the recipe in a saved folder says: base, plan, and the dtype that weights were converted
    to."""

    base: Base
    plan: Plan
    dtype: str | None


def recorded(
    folder: Path,
    spec: str | None,
    open_base: Callable[[str], Base],
    others: Mapping[str, str] | None = None,
) -> Recorded:
    """Read a saved folder's recipe. `open_base` opens bases; `spec` names the base if the recipe's
    name for it can't be opened, and `others` those that are stacked on it, by b, c, … in the order
    of the recipe. Raises `SurgeryError`."""
    if not (restored(folder) and folder.is_dir()):
        raise SaveError(f"There is no folder {folder}.")
    if not (folder / "recipe.yaml").is_file():
        raise SaveError(f"{folder} has no recipe.yaml: only what was saved here can be verified.")
    recipe = read_file(folder / "recipe.yaml")
    specs = {"": spec} if spec else {}
    specs |= others or {}
    bases = {
        name: _opened(model, specs.get(name), open_base) for model, name in recipe.names.items()
    }
    depths = {name: base.depth for name, base in bases.items()}
    recipe.check_adapters({name: bool(base.source.merged) for name, base in bases.items()})
    base = bases.pop("")
    plan = recipe.plan(base.depth, layer_tensors(base), depths)
    made, plan = stack(base, bases, plan)
    return Recorded(_as_resized(folder, made), plan, recipe.saved_dtype)


def _as_resized(folder: Path, base: Base) -> Base:
    """The base with as many embeddings as a saved folder's record says, if there is one."""
    if (resized := read_resized(folder)) is None:
        return base
    before, rows = resized
    if before != base.known_tokens or before == rows:
        raise SaveError(
            f"{folder} was saved from a base with {before:,} embeddings, which were resized, and "
            f"{base.name} has {base.known_tokens:,}. Name the base that it was saved from."
        )
    return Resized(base, rows)


def verify_saved(
    folder: Path,
    spec: str | None,
    progress: Progress,
    open_base: Callable[[str], Base],
    others: Mapping[str, str] | None = None,
) -> tuple[int, int]:
    """Verify a saved folder against the recipe in it, read as `recorded` does. Returns the number
    of tensors and of bytes. Raises `SurgeryError` that names the difference.
    """
    return verify_recorded(folder, recorded(folder, spec, open_base, others), progress)


def verify_recorded(folder: Path, found: Recorded, progress: Progress) -> tuple[int, int]:
    """Verify a saved folder against what its recipe says. Returns the number of tensors and of
    bytes. Raises `SurgeryError` that names the difference."""
    _, stored, opener = found.base.open_stored(progress)
    expected = tensor_specs(found.base, found.plan, stored, found.dtype)
    verify(found.base, folder, expected, opener, progress, digests(folder))
    return len(expected), sum(tensor.size for tensor in expected)


def _opened(model: str, spec: str | None, open_base: Callable[[str], Base]) -> Base:
    try:
        return open_base(spec or model)
    except BaseError as error:
        if spec:
            raise
        raise BaseError(
            f"The recipe's base, {model[:80]}, can't be opened ({error}) Name the base: "
            "verify OUT BASE, and --with b=BASE for a second one."
        ) from error
