"""`repair`: close the gap that a cut leaves in the hidden states, without training."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.markup import escape

from surgery.errors import SurgeryError
from surgery.repairing.settings import METHODS, TOKENS, RepairSettings
from surgery.texts.default_text import MIXED

from ..common import (
    BaseArgument,
    ComputeDtypeOption,
    FromDiskOption,
    JsonOption,
    OutArgument,
    PlanArgument,
    UnionOption,
    WithOption,
    dtype_for,
    open_operation,
    out,
    print_json,
    progress_bar,
)
from ..reports.repair import repair_lines

_METHODS = "; ".join(f"{name}: {hint}" for name, hint in METHODS.items())


def repair(
    base: BaseArgument,
    plan: PlanArgument,
    folder: OutArgument,
    method: Annotated[str, typer.Option(help=f"How to repair. {_METHODS}.")] = "refit",
    text: Annotated[
        str,
        typer.Option(
            help="Text to compare hidden states on: own (the base writes it), python (source of "
            "Python's library), mixed (half of each), a file, or data:org/name (on the Hub)."
        ),
    ] = MIXED,
    tokens: Annotated[int, typer.Option(help="Tokens of that text.")] = TOKENS,
    held_out: Annotated[
        str, typer.Option(help="Measure the gain on this file instead of the short texts.")
    ] = "",
    dtype: Annotated[
        str | None, typer.Option(help="Write weights as float32, float16 or bfloat16.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace OUT if it exists.")
    ] = False,
    anyway: Annotated[
        bool, typer.Option("--anyway", help="Write the result even if it is no better.")
    ] = False,
    with_: WithOption = None,
    union_vocabulary: UnionOption = False,
    from_disk: FromDiskOption = False,
    compute_dtype: ComputeDtypeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Repair the operated model without training. Weights beside each seam are fitted, so that the
    hidden states match the base's. Nothing is written unless that lowers the perplexity on held-out
    text."""
    from surgery.checkpoint.save import saved_bytes
    from surgery.io.output_target import check_no_cache, check_target, resolve
    from surgery.repairing import repair as repaired_of

    settings = RepairSettings(method, text, tokens, held_out)
    _, _, (made, flat) = open_operation(base, plan, with_, from_disk, union=union_vocabulary)
    dtype = dtype_for(plan, dtype)
    saved_bytes(made, flat.unfitted, dtype)  # refuses what can't be saved, before it is made
    target = resolve(folder)
    check_no_cache(target)
    check_target(target, overwrite, base_files=made.local_files())
    with progress_bar() as progress:
        repaired = repaired_of(made, flat, settings, progress=progress)
        worth = repaired.helps or anyway
        if worth:
            repaired.save(target, dtype=dtype, overwrite=overwrite, progress=progress)
    if as_json:
        print_json(
            {"folder": str(target) if worth else None, "helps": repaired.helps, **repaired.facts}
        )
    else:
        for line in repair_lines(repaired):
            out.print(escape(line))
    if not worth:
        raise SurgeryError(
            "The repair is no better than the patient without it, so nothing was written. Try "
            "another method, heal the patient, or add --anyway."
        )
    if not as_json:
        out.print(f"{escape(str(target))}: {repaired.plan}", soft_wrap=True)
