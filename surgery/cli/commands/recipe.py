"""`recipe`: print a plan for other tools."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from surgery.errors import PlanError

from ..common import (
    BaseArgument,
    PlanArgument,
    UnionOption,
    WithOption,
    dtype_for,
    err,
    open_operation,
    other_bases,
    read_recipe,
)

if TYPE_CHECKING:
    from surgery.base import Base
    from surgery.plan import Plan

FORMATS = ("mergekit", "peft", "python")
_NO_UNION = "mergekit's recipes can't add tokens: mergekit keeps those of the first base alone."


def recipe(
    base: BaseArgument,
    plan: PlanArgument,
    format_: Annotated[
        str, typer.Option("--format", help="mergekit (YAML), peft (JSON) or python.")
    ] = "mergekit",
    dtype: Annotated[
        str | None, typer.Option(help="Tell mergekit to convert to float32, float16 or bfloat16.")
    ] = None,
    with_: WithOption = None,
    union_vocabulary: UnionOption = False,
) -> None:
    """Print a plan for other tools. mergekit's YAML can be read back: PLAN may be @file.yaml."""
    from surgery.checkpoint.tensors import DTYPES
    from surgery.recipes import export

    if format_ not in FORMATS:
        raise PlanError(f"“{format_[:40]}” is not a format: {', '.join(FORMATS)}.")
    if dtype is not None and dtype not in DTYPES:
        raise PlanError(f"“{dtype[:40]}” is not a dtype: {', '.join(DTYPES)}.")
    if dtype is not None and format_ != "mergekit":
        raise PlanError(f"--dtype is for mergekit's recipes: leave it out for {format_}.")
    _, written, (made, flat) = open_operation(base, plan, with_, union=union_vocabulary)
    others, dtype = other_bases(with_, read_recipe(plan)), dtype_for(plan, dtype)
    match format_:
        case "peft":
            text = export.to_peft(written)
        case "python":
            text = export.to_python(base, written, others, union_vocabulary, dtype)
        case _:
            if made.union:
                err.print(f"[dim]{_NO_UNION}[/dim]")
            parts = _parts(made, written, {"": base, **others})
            text = export.of_base(made, flat, parts[0][0], dtype, parts)
    sys.stdout.write(text)


def _parts(made: Base, written: Plan, specs: Mapping[str, str]) -> list[tuple[str, int]]:
    """(name, first layer) of each base, in the order of the plan. The name is the Hub id, or else
    the one given here, so that mergekit finds the base."""
    from surgery.derived.stacked import Stack

    stacked = made.original  # what a union is made of
    if not isinstance(stacked, Stack):
        (name,) = {layer.base for layer in written.layers}
        return [(made.pinned_id or specs[name], 0)]
    bases = stacked.bases.items()
    return [(one.pinned_id or specs[name], stacked.offset[name]) for name, one in bases]
