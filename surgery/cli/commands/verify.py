"""`verify`: compare a saved model with its base."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.markup import escape

from ..common import SavedArgument, WithOption, named_bases, open_base, out, progress_bar


def verify(
    folder: SavedArgument,
    base: Annotated[
        str | None,
        typer.Argument(metavar="[BASE]", help="The base; defaults to the recipe's."),
    ] = None,
    with_: WithOption = None,
) -> None:
    """Compare a saved model with its base. Following the model's recipe, check every tensor's name,
    shape, dtype and bytes, and that transformers loads each of them."""
    from surgery.verify_saved import verify_saved

    with progress_bar() as progress:
        count, size = verify_saved(folder, base, progress, open_base, named_bases(with_))
    out.print(f"{escape(str(folder))}: {count:,} tensors, {size / 1e6:,.1f} MB, all as planned")
