"""What commands share: arguments and options, opening bases and plans, progress and output."""

from __future__ import annotations

import json
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from surgery import presets
from surgery.compute.choice import Choice, set_compute_dtype
from surgery.errors import PlanError
from surgery.io.finite_json import plain
from surgery.plan import Plan

from . import interrupts

if TYPE_CHECKING:
    from surgery.base import Base
    from surgery.known_base import KnownBase
    from surgery.progress import Progress
    from surgery.recipes.recipe import Recipe

err = Console(stderr=True, highlight=False, soft_wrap=True)
out = Console(highlight=False, soft_wrap=True)

BaseArgument = Annotated[
    str, typer.Argument(metavar="BASE", help="“bundled”, a Hub id, a folder or a file.")
]
PlanArgument = Annotated[
    str, typer.Argument(metavar="PLAN", help="Layers in running order, a preset, or @recipe.yaml.")
]
OutArgument = Annotated[
    Path, typer.Argument(metavar="OUT", help="The folder to write; must not exist yet.")
]
SavedArgument = Annotated[Path, typer.Argument(metavar="OUT", help="A folder that `save` wrote.")]
WithOption = Annotated[
    list[str] | None,
    typer.Option(
        "--with",
        metavar="NAME=BASE",
        help="Name another base of the same shape, for plans such as 0:16, b/8:24.",
    ),
]
UnionOption = Annotated[
    bool,
    typer.Option(
        "--union-vocabulary",
        help="With several bases: append the tokens that the others added to those of the first.",
    ),
]
ResizeOption = Annotated[
    bool,
    typer.Option(
        "--resize-embeddings",
        help="Crop or extend embeddings and head to the tokenizer's highest id.",
    ),
]
# For this process: the commands that take it need not pass it on.
ComputeDtypeOption = Annotated[
    Choice | None,
    typer.Option(
        metavar="DTYPE",
        callback=set_compute_dtype,
        help="The dtype of prompts, scores and training: auto, float32 or stored. auto is float32 "
        "where this machine's CPU is clearly faster in it.",
    ),
]
FromDiskOption = Annotated[
    bool,
    typer.Option(
        "--from-disk",
        help="Read weights that are larger than memory from disk as they are used. Slow.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for other programs.")]


def open_base(spec: str, from_disk: bool = False) -> Base:
    """Open a base, with a progress bar and without the libraries' warnings."""
    from transformers.utils import logging

    from surgery.base import Base

    logging.set_verbosity_error()
    warnings.simplefilter("ignore")  # libraries' advice to programmers
    with progress_bar() as progress:
        return Base.open(spec, progress, from_disk=from_disk)


def describe(spec: str) -> KnownBase:
    """What a base is: as remembered, or found out by opening it."""
    from surgery import known_base

    return known_base.recall(spec) or known_base.remember(spec, open_base(spec))


def open_operation(
    base: str,
    plan: str,
    with_: list[str] | None,
    from_disk: bool = False,
    union: bool = False,
) -> tuple[Base, Plan, tuple[Base, Plan]]:
    """(base, plan as written, (base, plan) as they are carried out).

    The last pair differs from the first two where layers of several bases are stacked: then it is
    the stack, and the plan over its layers, and with a `union` with the added tokens of all.
    """
    from surgery.derived.stacked import stack
    from surgery.derived.united import stack_united

    opened, recipe = open_base(base, from_disk), read_recipe(plan)
    specs = named_bases(with_)
    if recipe:
        for note in recipe.notes:
            err.print(escape(note))
        specs = {name: model for model, name in recipe.names.items() if name} | specs
    others = {name: open_base(spec, from_disk) for name, spec in specs.items()}
    depths = {name: other.depth for name, other in others.items()}
    if recipe:
        from surgery.recipes.recipe import layer_tensors

        bases = {"": opened, **others}
        recipe.check_adapters({name: bool(base.source.merged) for name, base in bases.items()})
        written = recipe.plan(opened.depth, layer_tensors(opened), depths)
    else:
        written = presets.parse(plan, opened.depth) or Plan.parse(plan, opened.depth, depths)
    join = stack_united if union else stack
    made = join(opened, others, written)
    if made[0].union:
        err.print(f"[dim]{escape(made[0].note)}.[/dim]")
    return opened, written, made


def resized(base: Base) -> Base:
    """The base with as many embeddings as its tokenizer has ids. Says what that changes."""
    from surgery.derived.resized import in_words, resize_embeddings

    made = resize_embeddings(base)
    if made.resized:
        err.print(f"[dim]{in_words(*made.resized).capitalize()}.[/dim]")
    else:
        err.print(f"[dim]Not resized: the tokenizer has as many ids, {made.known_tokens:,}.[/dim]")
    return made


def check_no_plan(with_: list[str] | None, union: bool) -> None:
    """Raise `PlanError` for options that only mean something with a plan, where there is none."""
    if with_ or union:
        option = "--with" if with_ else "--union-vocabulary"
        raise PlanError(f"{option} is for a plan with layers of other bases: give PLAN.")


def named_bases(with_: list[str] | None) -> dict[str, str]:
    """The bases named with --with. Raises `PlanError`."""
    specs = {}
    for word in with_ or ():
        name, equals, spec = word.partition("=")
        if not equals or not re.fullmatch(r"[A-Za-z_][\w.-]*", name):
            raise PlanError(f"“{word[:60]}” should be NAME=BASE, as in --with b=org/name.")
        specs[name] = spec
    return specs


def read_recipe(text: str) -> Recipe | None:
    """The recipe in @plan.yaml; None for a plan that is written out."""
    if not text.startswith("@"):
        return None
    from surgery.recipes.recipe import read_file

    return read_file(Path(text[1:]).expanduser())


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """A progress function that draws a bar on stderr, if that is a terminal, and that stops the
    command if a signal has asked for it."""
    bars = Bars(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeRemainingColumn(),
        console=err,
        transient=True,
        disable=not err.is_terminal,
    )
    tasks: dict[str, TaskID] = {}

    def report(what: str, done: float, total: float) -> None:
        interrupts.check()
        if what not in tasks:
            tasks[what] = bars.add_task(escape(what), total=total or None)
        bars.update(tasks[what], completed=done, total=total or None)

    with bars:
        yield report


def print_disk_reads(base: Base, plan: Plan, passes: int) -> None:
    """Say what reading the weights from disk for some passes over the layers takes, before it
    starts, if they are read so."""
    from surgery.disk_reads import disk_reads

    if reads := disk_reads(base, plan):
        rest = f"about {passes} passes, {passes * reads.seconds:,.0f} s of reading"
        err.print(f"[dim]{escape(str(reads))}: {rest}.[/dim]")


def print_json(value: dict) -> None:
    """Print to stdout, as wide as it comes. NaN and infinities become null."""
    sys.stdout.write(json.dumps(plain(value), indent=2, allow_nan=False) + "\n")
