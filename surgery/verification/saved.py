"""Verify a checkpoint that was saved earlier, from the recipe in its folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from surgery.base import Base
from surgery.checkpoint.resize_record import Resizing, read_resized
from surgery.checkpoint.tensors import tensor_specs
from surgery.checkpoint.trained import digests
from surgery.checkpoint.verify import verify
from surgery.derived.resized import Resized
from surgery.derived.stacked import stack
from surgery.derived.united import stack_united
from surgery.errors import BaseError, SaveError
from surgery.io.atomic import restored
from surgery.plan import Plan
from surgery.progress import Progress
from surgery.recipes.recipe import layer_tensors, read_file


@dataclass(frozen=True)
class Recorded:
    """What the recipe in a saved folder says: the base, or the stack of several; the plan over its
    layers; and the dtype that weights were converted to, None if each kept its own."""

    base: Base
    plan: Plan
    dtype: str | None


def recorded(
    folder: Path,
    spec: str | None,
    open_base: Callable[[str], Base],
    others: Mapping[str, str] | None = None,
) -> Recorded:
    """Read a saved folder's recipe, and open its bases with `open_base`.

    `spec` names the base in place of the recipe's name for it, and `others` those that are stacked
    on it, by b, c, … in the order of the recipe. Raises `SaveError` for a folder that wasn't saved
    here, `BaseError` if a base can't be opened, or another `SurgeryError`.
    """
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
    resizing = read_resized(folder)
    join = stack_united if resizing and resizing.union else stack
    made, plan = join(base, bases, plan)
    if resizing:
        made = _resized(folder, made, resizing)
    return Recorded(made, plan, recipe.saved_dtype)


def _resized(folder: Path, base: Base, resizing: Resizing) -> Base:
    """The base with as many embeddings as the record in a saved folder says."""
    before, now = base.resized or (base.known_tokens, resizing.now)
    if (before, now) != (resizing.before, resizing.now) or (before == now and not base.union):
        raise SaveError(
            f"{folder} was saved from a base with {resizing.before:,} embeddings, which became "
            f"{resizing.now:,}, and {base.name} has {before:,}. Name the base that it was saved "
            "from."
        )
    return base if base.union else Resized(base, now)


def verify_saved(
    folder: Path,
    spec: str | None,
    progress: Progress,
    open_base: Callable[[str], Base],
    others: Mapping[str, str] | None = None,
) -> tuple[int, int]:
    """Verify a saved folder against the recipe in it, read as `recorded` does.

    Compares every tensor's name, shape, dtype and bytes, those that a repair or training changed by
    the SHA-256 in their record, and checks that transformers loads each of them. Returns the number
    of tensors and of their bytes. Raises `SaveError` that names the difference, or another
    `SurgeryError`.
    """
    return verify_recorded(folder, recorded(folder, spec, open_base, others), progress)


def verify_recorded(folder: Path, found: Recorded, progress: Progress) -> tuple[int, int]:
    """Verify a saved folder against what its recipe says, as `verify_saved` does. Returns the
    number of tensors and of their bytes."""
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
