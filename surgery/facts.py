"""Describe a base or a plan as plain values, for the command line and the app's endpoints."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from . import presets
from .plan import Plan

if TYPE_CHECKING:
    from .base import Base
    from .known_base import KnownBase
    from .recipes.recipe import Recipe


def of_base(base: Base | KnownBase) -> dict[str, Any]:
    """Describe a base. Reads no weights."""
    return {
        "name": base.name,
        "kind": base.kind,
        "architecture": base.architecture,
        "dtype": base.dtype,
        "compute_dtype": base.compute_dtype,
        "depth": base.depth,
        "layer_kinds": list(base.kinds) if any(base.kinds) else None,
        "has_tokenizer": base.has_tokenizer,
        "has_chat_template": base.has_chat_template,
        "takes_images": base.takes_images,
        "licence": base.licence,
        "note": base.note or None,
        **asdict(base.preview(Plan.whole(base.depth))),
    }


def dtypes(base: Base | KnownBase) -> str:
    """In a few words, the dtypes that a base is stored and computed in, as far as known."""
    computed = base.compute_dtype
    if computed is None:
        return f"stored {base.dtype}"
    if computed == base.dtype:
        return f"stored and computed in {base.dtype}"
    return f"stored {base.dtype}, computed in {computed}"


def of_plan(base: Base | KnownBase, wanted: Plan, before: Any, after: Any) -> dict[str, Any]:
    """Describe a plan for a base, from the previews of both."""
    return {
        "base": base.name,
        "plan": str(wanted),
        "changes": wanted.describe(),
        "dtype": base.dtype,
        **asdict(after),
        "before": asdict(before),
    }


def read_plan(text: str, base: Base) -> Plan:
    """Parse a plan in any form: the notation, a preset, or mergekit's YAML. Raises `PlanError`, or
    `Refused` for a recipe that no plan can express."""
    if recipe := read_recipe(text):
        from .recipes.recipe import layer_tensors

        return recipe.plan(base.depth, layer_tensors(base))
    return presets.parse(text, base.depth) or Plan.parse(text, base.depth)


def read_recipe(text: str) -> Recipe | None:
    """Parse the text as a mergekit recipe; None if it is another form of plan. Raises the errors
    of `read_plan`."""
    if "\n" not in text.strip() and not any(key in text for key in ("slices:", "merge_method:")):
        return None
    from .recipes.recipe import read

    return read(text)
