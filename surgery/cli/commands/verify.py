"""`verify`: compare a saved model with its base."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from surgery.errors import Refused

from ..common import WithOption, named_bases, open_base, out, progress_bar
from ..gguf import is_gguf, verify_file


class Runtime(StrEnum):
    """A program that a saved model can be run in."""

    LLAMA_CPP = "llama.cpp"


def verify(
    folder: Annotated[
        Path, typer.Argument(metavar="OUT", help="A folder or a GGUF file that `save` wrote.")
    ],
    base: Annotated[
        str | None,
        typer.Argument(metavar="[BASE]", help="The base; defaults to the recipe's."),
    ] = None,
    with_: WithOption = None,
    runtime: Annotated[
        Runtime | None,
        typer.Option(help="Also run a GGUF file in llama.cpp, and compare with the patient."),
    ] = None,
    llama_cpp: Annotated[
        Path | None,
        typer.Option(
            help="llama.cpp's program (llama-completion), or a Python that has llama-cpp-python; "
            "defaults to this one."
        ),
    ] = None,
) -> None:
    """Compare a saved model with its base. Following the model's recipe, check every tensor's name,
    shape, dtype and bytes, and that transformers loads each of them; of a GGUF file also its
    metadata."""
    if is_gguf(folder) and not folder.is_dir():
        if with_:
            raise Refused("A GGUF file is made from one base: leave out --with.")
        verify_file(folder, base, runtime is not None, llama_cpp)
        return
    if runtime or llama_cpp:
        raise Refused("--runtime and --llama-cpp are for GGUF files.")
    from surgery.verify_saved import verify_saved

    with progress_bar() as progress:
        count, size = verify_saved(folder, base, progress, open_base, named_bases(with_))
    out.print(f"{escape(str(folder))}: {count:,} tensors, {size / 1e6:,.1f} MB, all as planned")
