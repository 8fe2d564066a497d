"""`save`: write the operated model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from surgery.errors import Refused

from ..common import (
    BaseArgument,
    JsonOption,
    PlanArgument,
    ResizeOption,
    UnionOption,
    WithOption,
    dtype_for,
    open_operation,
    out,
    print_json,
    progress_bar,
    resized,
)
from ..gguf import convert_base, is_gguf, save_file


def save(
    base: BaseArgument,
    plan: PlanArgument,
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="OUT", help="The folder to write, or a file.gguf; must not exist yet."
        ),
    ],
    dtype: Annotated[
        str | None, typer.Option(help="Convert weights to float32, float16 or bfloat16.")
    ] = None,
    shard_size: Annotated[
        str | None,
        typer.Option(help="Maximum size of each file of weights: 5GB in a folder, none in GGUF."),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace OUT if it exists.")
    ] = False,
    unverified: Annotated[
        bool,
        typer.Option("--unverified", help="Skip the verification of what is written."),
    ] = False,
    with_: WithOption = None,
    union_vocabulary: UnionOption = False,
    resize_embeddings: ResizeOption = False,
    converter: Annotated[
        Path | None,
        typer.Option(
            help="llama.cpp's convert_hf_to_gguf.py, to write file.gguf from a base that isn't one."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write the operated model. A folder loads in transformers and other tools. From one GGUF file
    to another, tensors are copied without being dequantized. The output appears whole or not at
    all."""
    if is_gguf(folder) and (resize_embeddings or union_vocabulary):
        option = "--resize-embeddings" if resize_embeddings else "--union-vocabulary"
        raise Refused(f"{option} is for folders: save a folder with it, and convert that to GGUF.")
    if is_gguf(folder) and is_gguf(base):
        if dtype or with_ or converter:
            raise Refused(
                "From GGUF to GGUF tensors are only copied, from one base: leave out --dtype, "
                "--with and --converter, or save a folder."
            )
        save_file(
            base,
            plan,
            folder,
            shard_size=shard_size,
            overwrite=overwrite,
            verified=not unverified,
            as_json=as_json,
        )
        return
    dtype = dtype_for(plan, dtype)
    if is_gguf(folder):
        if shard_size:
            raise Refused("The converter writes one file: leave out --shard-size.")
        verified = not unverified
        convert_base(base, plan, folder, with_, converter, dtype, overwrite, verified, as_json)
        return
    _, _, (made, flat) = open_operation(base, plan, with_, union=union_vocabulary)
    if resize_embeddings:
        made = resized(made)
    with progress_bar() as progress:
        path = made.save(
            flat,
            folder,
            dtype=dtype,
            shard_size=shard_size or "5GB",
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
