"""`verify`: compare a saved model with its base, and run it elsewhere."""

from __future__ import annotations

import warnings
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from surgery import __version__
from surgery.errors import Refused, SaveError

from ..common import (
    JsonOption,
    WithOption,
    named_bases,
    open_base,
    out,
    print_json,
    progress_bar,
)
from ..gguf import is_gguf, verify_file
from ..reports.verify import run_as_dict

if TYPE_CHECKING:
    from surgery.verification.runtimes import Runtime as Program
    from surgery.verification.saved import Recorded


class Runtime(StrEnum):
    """A program that a saved model can be run in."""

    TRANSFORMERS = "transformers"
    VLLM = "vllm"
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
        list[Runtime] | None,
        typer.Option(
            help="Also run it, and compare its greedy tokens with the patient's: a folder in "
            "transformers or vllm, a GGUF file in llama.cpp. May be repeated."
        ),
    ] = None,
    python: Annotated[
        Path | None,
        typer.Option(help="A Python that has transformers or vllm; defaults to this one."),
    ] = None,
    llama_cpp: Annotated[
        Path | None,
        typer.Option(
            help="llama.cpp's program (llama-completion), or a Python that has llama-cpp-python; "
            "defaults to this one."
        ),
    ] = None,
    card: Annotated[
        bool, typer.Option("--card", help="Record the result in the model card beside it, too.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Compare a saved model with its base. Following the model's recipe, check every tensor's name,
    shape, dtype and bytes, and that transformers loads each of them; in a GGUF file, check the
    metadata too."""
    asked = list(dict.fromkeys(runtime or ()))
    if is_gguf(folder) and not folder.is_dir():
        if with_:
            raise Refused("A GGUF file is made from one base: leave out --with.")
        if python or any(one != Runtime.LLAMA_CPP for one in asked):
            raise Refused("A GGUF file is run in llama.cpp: --runtime llama.cpp.")
        verify_file(folder, base, bool(asked), llama_cpp, card, as_json)
        return
    if llama_cpp or Runtime.LLAMA_CPP in asked:
        raise Refused("--runtime llama.cpp and --llama-cpp are for GGUF files.")
    if python and not asked:
        raise Refused("--python names what runs the folder: add --runtime transformers or vllm.")
    from surgery.checkpoint.card_proofs import Proof, check_card, withdraw, write_proof
    from surgery.verification.runtimes import find_runtime
    from surgery.verification.saved import recorded, verify_recorded

    programs = [find_runtime(one.value, python) for one in asked]  # before anything slow
    found = recorded(folder, base, open_base, named_bases(with_))
    if card:
        check_card(folder)
    try:
        with progress_bar() as progress:
            count, size = verify_recorded(folder, found, progress)
    except SaveError:
        if card:
            withdraw(folder)
        raise
    held = f"{count:,} tensors, {size / 1e6:,.1f} MB, all as planned"
    if card:
        write_proof(folder, Proof("Layer Surgery", __version__, held))
    if not as_json:
        out.print(f"{escape(str(folder))}: {held}")
    runs = [_run(folder, found, program, card, as_json) for program in programs]
    if as_json:
        print_json({"saved": str(folder), "tensors": count, "bytes": size, "runs": runs})


def _run(
    folder: Path, recorded: Recorded, program: Program, card: bool, as_json: bool
) -> dict[str, object]:
    """Run a folder, print what held unless JSON is asked for, and write it into the card if that
    is. Returns what JSON says of it."""
    from surgery.checkpoint.card_proofs import Proof, withdraw, write_proof
    from surgery.verification.folder import in_words, verify_folder

    warnings.simplefilter("ignore")  # libraries' advice to programmers
    try:
        with progress_bar() as progress:
            found, made = verify_folder(folder, recorded, program, progress)
    except SaveError:
        if card:
            withdraw(folder, program.package)
        raise
    held = in_words(found, made)
    if card:
        write_proof(folder, Proof(program.package, made.version, held))
    if not as_json:
        out.print(f"{program.package} {escape(made.version)}: {escape(held)}")
    return run_as_dict(program.package, made.version, found, made.dtype)
