"""`save`: write the operated model."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.markup import escape

from ..common import (
    BaseArgument,
    JsonOption,
    OutArgument,
    PlanArgument,
    WithOption,
    open_operation,
    out,
    print_json,
    progress_bar,
    read_recipe,
)


def save(
    base: BaseArgument,
    plan: PlanArgument,
    folder: OutArgument,
    dtype: Annotated[
        str | None, typer.Option(help="Convert weights to float32, float16 or bfloat16.")
    ] = None,
    shard_size: Annotated[str, typer.Option(help="Maximum size of each file of weights.")] = "5GB",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace OUT if it exists.")
    ] = False,
    unverified: Annotated[
        bool,
        typer.Option("--unverified", help="Don't compare the written tensors with the base."),
    ] = False,
    with_: WithOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write the operated model. The folder loads in transformers and other tools, and appears whole
    or not at all."""
    _, _, (made, flat) = open_operation(base, plan, with_)
    if dtype is None and (recipe := read_recipe(plan)):
        dtype = recipe.saved_dtype
    with progress_bar() as progress:
        path = made.save(
            flat,
            folder,
            dtype=dtype,
            shard_size=shard_size,
            overwrite=overwrite,
            verified=not unverified,
            progress=progress,
        )
    paths = (p for p in path.rglob("*") if p.is_file())
    files = sorted((p.relative_to(path).as_posix(), p.stat().st_size) for p in paths)
    if as_json:
        print_json({"folder": str(path), "files": dict(files)})
        return
    after = made.preview(flat)
    out.print(
        f"{escape(str(path))}: {after.layers} layers, {after.parameters:,} parameters, "
        f"{sum(size for _, size in files) / 1e6:,.1f} MB in {len(files)} files"
    )
