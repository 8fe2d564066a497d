"""`generate`: text from the operated model."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from ..common import (
    BaseArgument,
    ComputeDtypeOption,
    FromDiskOption,
    PlanArgument,
    UnionOption,
    WithOption,
    err,
    open_operation,
    progress_bar,
)
from ..prompt import as_utf8


def generate(
    base: BaseArgument,
    plan: PlanArgument,
    prompt: Annotated[str, typer.Option(help="The text to continue.")],
    max_new_tokens: Annotated[int, typer.Option(help="Maximum number of tokens to generate.")] = 64,
    greedy: Annotated[
        bool, typer.Option("--greedy", help="Always take the most likely token.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Random seed; the same seed gives the same text.")] = 0,
    temperature: Annotated[float, typer.Option(help="0.01 to 100; higher is more random.")] = 0.8,
    top_p: Annotated[
        float,
        typer.Option(help="Nucleus sampling threshold: draw from the top tokens up to this sum."),
    ] = 0.95,
    chat: Annotated[
        bool, typer.Option("--chat", help="Apply the chat template to the prompt.")
    ] = False,
    image: Annotated[
        Path | None,
        typer.Option(help="An image that the prompt is about; for vision-language models."),
    ] = None,
    with_: WithOption = None,
    union_vocabulary: UnionOption = False,
    compute_dtype: ComputeDtypeOption = None,
    from_disk: FromDiskOption = False,
) -> None:
    """Generate text with the operated model. Text streams to stdout, statistics go to stderr."""
    from surgery.disk_reads import text_speed

    _, _, (made, flat) = open_operation(base, plan, with_, from_disk, union=union_vocabulary)
    with progress_bar() as progress:
        made.load(progress)
    if slow := text_speed(made, flat):
        err.print(f"[dim]{escape(slow)}[/dim]")
    patient = made.operate(flat)
    stream = patient.stream(
        as_utf8(prompt),
        max_new_tokens=max_new_tokens,
        greedy=greedy,
        seed=seed,
        temperature=temperature,
        top_p=top_p,
        chat=chat,
        image=image,
    )
    for piece in stream:
        sys.stdout.write(piece)
        sys.stdout.flush()
    sys.stdout.write("\n")
    stats = stream.stats
    speed = f", {stats.tokens_per_second:.1f} tokens/s" if stats.tokens_per_second else ""
    if stats.first_token_seconds is not None:
        first = f", first after {stats.first_token_seconds:.2f} s"
        err.print(f"[dim]{stats.tokens} tokens{speed}{first}[/dim]")
