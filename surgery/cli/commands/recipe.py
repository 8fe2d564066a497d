"""`recipe`: print a plan for other tools."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from surgery.errors import PlanError

from ..common import BaseArgument, PlanArgument, WithOption, open_operation

FORMATS = ("mergekit", "peft", "python")


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
    _, written, (made, flat) = open_operation(base, plan, with_)
    match format_:
        case "peft":
            text = export.to_peft(written)
        case "python":
            text = export.to_python(base, written)
        case _:
            text = export.of_base(made, flat, made.pinned_id or base, dtype)
    sys.stdout.write(text)
