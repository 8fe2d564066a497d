"""The command that heals: trains the operated model, and says how it goes.

Knows arguments, output and signals, as `cli` does, whose app it belongs to; the rest is the
library's. Under `accelerate launch` or torchrun every process runs it, and the first one speaks.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from ..common import (
    BaseArgument,
    JsonOption,
    PlanArgument,
    WithOption,
    err,
    open_operation,
    out,
    print_json,
    progress_bar,
)

if TYPE_CHECKING:
    from surgery.healing import Cost, Healing

_SPEAKS = int(os.environ.get("RANK", "0")) == 0


def heal(
    base: BaseArgument,
    plan: PlanArgument,
    folder: Annotated[
        Path, typer.Argument(metavar="OUT", help="The folder to write; must not exist yet.")
    ],
    text: Annotated[str, typer.Option(help="Train on the text of this file.")] = "",
    data: Annotated[
        str, typer.Option(help="Train on a Hub data set: org/name, or org/name:subset.")
    ] = "",
    held_out: Annotated[
        str, typer.Option(help="Judge by the text of this file; else by texts that come along.")
    ] = "",
    objective: Annotated[str, typer.Option(help="distill, or next-token.")] = "distill",
    temperature: Annotated[float, typer.Option(help="Of the distillation.")] = 1.0,
    hidden: Annotated[
        float, typer.Option(help="Weight of the hidden states' distance before seams.")
    ] = 0.0,
    train: Annotated[
        str, typer.Option(help="seams, new or all: whole weights of such layers; or lora.")
    ] = "seams",
    layers: Annotated[
        str, typer.Option(help="Train the layers at these positions, such as 11:15, instead.")
    ] = "",
    radius: Annotated[int, typer.Option(help="Layers to each side of a seam.")] = 4,
    rank: Annotated[int, typer.Option(help="Of LoRA.")] = 16,
    alpha: Annotated[float | None, typer.Option(help="Of LoRA; else the rank.")] = None,
    dropout: Annotated[float, typer.Option(help="Of LoRA.")] = 0.0,
    steps: Annotated[int | None, typer.Option(help="Stop after so many steps.")] = None,
    minutes: Annotated[
        float | None, typer.Option(help="Or after about so many minutes; 10 if nothing is said.")
    ] = None,
    batch: Annotated[int, typer.Option(help="Windows of text a step, over all processes.")] = 2,
    window: Annotated[int, typer.Option(help="Tokens of a window.")] = 256,
    accumulate: Annotated[
        int, typer.Option(help="Do a process's share in so many parts, to save memory.")
    ] = 1,
    lr: Annotated[float, typer.Option(help="The highest learning rate.")] = 5e-4,
    schedule: Annotated[str, typer.Option(help="cosine, linear or constant.")] = "cosine",
    warmup: Annotated[int, typer.Option(help="Steps until the rate is at its highest.")] = 10,
    sampled_tokens: Annotated[
        int, typer.Option(help="Have the base write so much text; 0 for what fits the run.")
    ] = 0,
    seed: Annotated[int, typer.Option(help="The same seed gives the same run.")] = 0,
    save_every: Annotated[
        int | None, typer.Option(help="Keep a state after so many steps; else once a minute.")
    ] = None,
    evaluate_every: Annotated[
        int | None, typer.Option(help="Look at held-out text so often; else ten times.")
    ] = None,
    adapter: Annotated[
        bool, typer.Option("--adapter", help="Write a PEFT adapter instead of a model.")
    ] = False,
    dtype: Annotated[
        str | None, typer.Option(help="Write weights as float32, float16 or bfloat16.")
    ] = None,
    cost: Annotated[
        bool, typer.Option("--cost", help="Only say what it would cost, on what is here.")
    ] = False,
    accelerator: Annotated[
        str, typer.Option(help="With --cost: here, H100, A100, L40S or L4.")
    ] = "here",
    devices: Annotated[int, typer.Option(help="With --cost: how many of them.")] = 1,
    mfu: Annotated[float, typer.Option(help="With --cost: share of the peak speed reached.")] = 0.4,
    tokens: Annotated[
        int | None, typer.Option(help="With --cost: read so many tokens, whatever the steps.")
    ] = None,
    keep: Annotated[
        bool, typer.Option("--keep", help="Train no further: write what a stopped run has.")
    ] = False,
    with_: WithOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train the operated model until it is better again. By default it learns from the uncut base,
    on text that the base writes. A run that was stopped or killed goes on when the same command is
    given again; until it is done, its states are in OUT.healing."""
    from surgery.errors import SurgeryError
    from surgery.healing import Healing, Settings, run_checkpoint
    from surgery.io.output_target import check_target, resolve

    if adapter and train != "lora":
        raise SurgeryError("Only LoRA gives an adapter: add --train lora.")
    _, _, (found, wanted) = open_operation(base, plan, with_)
    if steps is None and minutes is None:
        minutes = 10.0
    settings = Settings(
        objective=objective,
        temperature=float(temperature),
        hidden=float(hidden),
        train=train,
        layers=_positions(layers),
        radius=radius,
        rank=rank,
        alpha=alpha,
        dropout=float(dropout),
        text=text,
        data=data,
        held_out=held_out,
        sampled_tokens=sampled_tokens,
        steps=steps,
        minutes=minutes,
        batch=batch,
        window=window,
        accumulate=accumulate,
        learning_rate=float(lr),
        schedule=schedule,
        warmup=warmup,
        seed=seed,
        save_every=save_every,
        evaluate_every=evaluate_every,
    )
    if cost:
        from surgery.healing import cost as estimate

        _say_cost(estimate(found, wanted, settings, tokens, accelerator, mfu, devices), as_json)
        return
    target = resolve(folder)
    check_target(target)
    place = target.parent / f"{target.name}.healing"
    if keep and not place.is_dir():
        raise SurgeryError(f"There is no stopped run in {place}.")
    with progress_bar() as progress:
        report = progress if _SPEAKS else _quiet
        run = Healing(found, wanted, settings, place, progress=report)
        if run.unread and _SPEAKS:
            lost = ", ".join(f"{step:,}" for step in run.unread)
            err.print(f"The state saved after step {lost} can't be read; using an earlier one.")
        if run.step and _SPEAKS:
            err.print(f"[dim]going on after step {run.step:,}[/dim]")
        with _stoppable(run):
            _watch(run, keep)
        if not (run.finished or keep):
            if _SPEAKS:
                err.print(
                    f"Stopped after step {run.step:,}; kept in {escape(str(place))}. The same "
                    "command goes on, with --keep it writes what there is."
                )
            raise KeyboardInterrupt
        healed = run.result()
        run.accelerator.wait_for_everyone()
        if not _SPEAKS:
            return
        if adapter:
            healed.save_adapter(target)
        else:
            healed.save(target, dtype=dtype, progress=progress)
    with suppress(OSError):  # the result is written; the run is no longer needed
        run_checkpoint.remove(place)
    if as_json:
        print_json({"folder": str(target), "losses": run.losses, **healed.facts})
        return
    out.print(f"{escape(str(target))}: {escape(healed.words)}")


def _watch(run: Healing, keep: bool) -> None:
    """Train, and say how it goes: a line at every look at held-out text."""
    if keep:
        return
    if _SPEAKS and run.looks:
        _say_look(run.looks[-1], None)
    for event in run:
        if event.look and _SPEAKS:
            _say_look(event.look, event)


def _say_look(look, event) -> None:
    steps = f"/{event.steps:,}" if event and event.steps else ""
    words = [f"step {look.step:,}{steps}"]
    if event:
        words.append(f"loss {event.loss:.4f}")
    words.append(
        f"perplexity base {look.base.value:.2f}, cut {look.cut.value:.2f}, "
        f"now {look.now.value:.2f} ({look.now.low:.2f} to {look.now.high:.2f})"
    )
    if look.recovered:
        share, low, high = look.recovered
        words.append(f"{share:.0%} recovered ({low:.0%} to {high:.0%})")
    if event:
        words.append(f"{event.tokens_per_second:,.0f} tokens/s")
        if event.seconds_left is not None:
            words.append(f"{event.seconds_left / 60:.1f} min left")
    err.print(escape("  ".join(words)))
    err.print(f"[dim]  {escape(' '.join(look.text.split())[:200])}[/dim]")
    sys.stderr.flush()


def _say_cost(cost: Cost, as_json: bool) -> None:
    from surgery.healing import REFERENCES
    from surgery.healing.cost import SAVING

    if as_json:
        print_json({**asdict(cost), "bytes": cost.bytes, "fits": cost.fits, "estimate": True})
        return
    out.print("An estimate:")
    out.print(f"  tokens        {cost.tokens:,}")
    out.print(f"  parameters    {cost.parameters:,}, of which {cost.trained:,} train")
    out.print(f"  compute       {cost.flops:.3g} FLOPs (6·N·D, and 2·N·D for the teacher)")
    out.print(f"  time          {cost.hours:,.2f} h")
    if cost.dollars is not None:
        out.print(f"  price         ${cost.dollars:,.2f}")
    for name, size in cost.memory.items():
        out.print(f"  {name:<20}{size / 1e6:>12,.1f} MB")
    if cost.room is not None:
        fits = "fits" if cost.fits else "does not fit"
        out.print(f"  {'together':<20}{cost.bytes / 1e6:>12,.1f} MB, {fits}")
    out.print("For comparison, as published (estimates too):")
    for what, amount, price in REFERENCES:
        out.print(f"  {what}: {amount:.0e} tokens, about ${price:,.0f}")
    out.print(f"  {SAVING}")


def _positions(text: str) -> tuple[int, ...]:
    """“11:15, 20” as numbers. Raises `PlanError`."""
    if not text.strip():
        return ()
    from surgery.plan import MAX_LAYERS, Plan

    return Plan.parse(text, MAX_LAYERS).sources


def _quiet(what: str, done: float, total: float) -> None:
    """For all processes but the first."""


@contextmanager
def _stoppable(run: Healing) -> Iterator[None]:
    """Ctrl-C and a polite kill end the run after its step; a second one at once."""

    def ask(number, frame):
        run.stop()
        for each, handler in before.items():
            signal.signal(each, handler)

    before = {n: signal.signal(n, ask) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
