"""Commands that take a plan elsewhere: save, verify, push, and recipes for other tools.

Knows arguments and output, as `cli` does, whose app they belong to; everything else is the
library's.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from surgery.errors import PlanError

from .main import (
    _MORE,
    BaseArgument,
    JsonOption,
    PlanArgument,
    WithOption,
    _named,
    _open,
    _operation,
    _print_json,
    _progress,
    _recipe,
    app,
    out,
)

OutArgument = Annotated[Path, typer.Argument(metavar="OUT", help="A folder that `save` wrote.")]
FORMATS = ("mergekit", "peft", "python")


@app.command(epilog=_MORE)
def save(
    base: BaseArgument,
    plan: PlanArgument,
    folder: Annotated[
        Path, typer.Argument(metavar="OUT", help="The folder to write; must not exist yet.")
    ],
    dtype: Annotated[
        str | None, typer.Option(help="Convert weights to float32, float16 or bfloat16.")
    ] = None,
    shard_size: Annotated[
        str, typer.Option(help="Split weights into files that hold this much at most.")
    ] = "5GB",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace OUT if it exists.")
    ] = False,
    unverified: Annotated[
        bool, typer.Option("--unverified", help="Don't compare what was written with the base.")
    ] = False,
    with_: WithOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write the operated model. OUT is a folder that transformers and other tools load. It appears
    when it is whole, or not at all."""
    _, _, (found, wanted) = _operation(base, plan, with_)
    if dtype is None and (recipe := _recipe(plan)):
        dtype = recipe.saved_dtype
    with _progress() as progress:
        path = found.save(
            wanted,
            folder,
            dtype=dtype,
            shard_size=shard_size,
            overwrite=overwrite,
            verified=not unverified,
            progress=progress,
        )
    written = (p for p in path.rglob("*") if p.is_file())
    files = sorted((p.relative_to(path).as_posix(), p.stat().st_size) for p in written)
    if as_json:
        _print_json({"folder": str(path), "files": dict(files)})
        return
    after = found.preview(wanted)
    out.print(
        f"{escape(str(path))}: {after.layers} layers, {after.parameters:,} parameters, "
        f"{sum(size for _, size in files) / 1e6:,.1f} MB in {len(files)} files"
    )


@app.command(epilog=_MORE)
def recipe(
    base: BaseArgument,
    plan: PlanArgument,
    format_: Annotated[
        str, typer.Option("--format", help="mergekit (YAML), peft (JSON) or python.")
    ] = "mergekit",
    dtype: Annotated[
        str | None, typer.Option(help="Have mergekit convert to float32, float16 or bfloat16.")
    ] = None,
    with_: WithOption = None,
) -> None:
    """Print a plan for other tools. What mergekit's YAML says can be read back: PLAN may be
    @file.yaml."""
    from surgery import recipe as recipes
    from surgery.checkpoint.tensors import DTYPES

    if format_ not in FORMATS:
        raise PlanError(f"“{format_[:40]}” is no format: {', '.join(FORMATS)}.")
    if dtype is not None and dtype not in DTYPES:
        raise PlanError(f"“{dtype[:40]}” is no dtype: {', '.join(DTYPES)}.")
    _, written, (found, wanted) = _operation(base, plan, with_)
    match format_:
        case "peft":
            text = recipes.to_peft(written)
        case "python":
            text = recipes.to_python(base, written)
        case _:
            text = recipes.of_base(found, wanted, found.pinned_id or base, dtype)
    sys.stdout.write(text)


@app.command(epilog=_MORE)
def verify(
    folder: OutArgument,
    base: Annotated[
        str | None, typer.Argument(metavar="[BASE]", help="The base; else the recipe's model.")
    ] = None,
    with_: WithOption = None,
) -> None:
    """Compare a saved model with its base. By the recipe in it: every tensor's name, shape, dtype
    and bytes, and whether transformers finds a place for each."""
    from surgery.checkpoint.verify import verify_saved

    with _progress() as progress:
        count, size = verify_saved(folder, base, progress, _open, _named(with_))
    out.print(f"{escape(str(folder))}: {count:,} tensors, {size / 1e6:,.1f} MB, all as planned")


@app.command(epilog=_MORE)
def push(
    folder: OutArgument,
    repository: Annotated[
        str, typer.Argument(metavar="ORG/NAME", help="Where on the Hub; made if it isn't there.")
    ],
    public: Annotated[
        bool, typer.Option("--public", help="Let everyone see it, if it is made now.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Add to a repository that has files already.")
    ] = False,
) -> None:
    """Upload a saved model to the Hub. It is private unless --public is given. The new files appear
    there together; after a broken upload, run it again: what has arrived is not sent twice."""
    from surgery.checkpoint.push import push as push_folder

    with _progress() as progress:
        url = push_folder(folder, repository, not public, overwrite, progress)
    out.print(escape(url))
