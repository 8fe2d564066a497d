"""`heal`: train the operated model, and report how it goes.

Under `accelerate launch` or torchrun every process runs it, and the first one prints.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from surgery.errors import SurgeryError
from surgery.progress import silent
from surgery.repairing.settings import TOKENS

from ..common import (
    BaseArgument,
    ComputeDtypeOption,
    JsonOption,
    OutArgument,
    PlanArgument,
    UnionOption,
    WithOption,
    dtype_for,
    err,
    open_operation,
    out,
    print_json,
    progress_bar,
)
from ..heal_settings import read_settings, with_settings
from ..reports.heal import cost_lines, evaluation_line, sample_line

if TYPE_CHECKING:
    from pathlib import Path

    from surgery.base import Base
    from surgery.healing import EvalResult, Event, HealingRun, Settings
    from surgery.healing.records import RunRecord
    from surgery.plan import Plan
    from surgery.progress import Progress
    from surgery.repairing import Repaired

_FITTED = ("refit", "lstsq")  # repairs that take longer the more text they read
_REPAIRING = 1 / 3  # of the minutes of a run that begins with one of these


@with_settings
def heal(
    base: BaseArgument,
    plan: PlanArgument,
    folder: OutArgument,
    *,
    adapter: Annotated[
        bool, typer.Option("--adapter", help="Write a PEFT adapter instead of a model.")
    ] = False,
    dtype: Annotated[
        str | None, typer.Option(help="Write weights as float32, float16 or bfloat16.")
    ] = None,
    cost: Annotated[
        bool, typer.Option("--cost", help="Only estimate the cost; train nothing.")
    ] = False,
    accelerator: Annotated[
        str,
        typer.Option(
            help="With --cost: the accelerator, here (this machine), H100, A100, L40S or L4."
        ),
    ] = "here",
    devices: Annotated[int, typer.Option(help="With --cost: number of accelerators.")] = 1,
    mfu: Annotated[
        float | None,
        typer.Option(
            help="With --cost: share of the peak speed reached, by default 0.4, or 0.8 for float32 "
            "on a CPU."
        ),
    ] = None,
    tokens: Annotated[
        int | None, typer.Option(help="With --cost: number of tokens, instead of the steps.")
    ] = None,
    keep: Annotated[
        bool, typer.Option("--keep", help="Write the result of a stopped run; don't train on.")
    ] = False,
    repair: Annotated[
        str | None,
        typer.Option(help="Repair first, within the same minutes: refit, lstsq, alpha or damped."),
    ] = None,
    repair_tokens: Annotated[
        int | None,
        typer.Option(
            help="With --repair: tokens of text to read. By default as many as refit or lstsq "
            f"reads in a third of the minutes; {TOKENS:,} for other methods, with --steps, or in "
            "several processes."
        ),
    ] = None,
    with_: WithOption = None,
    union_vocabulary: UnionOption = False,
    compute_dtype: ComputeDtypeOption = None,
    as_json: JsonOption = False,
    **settings: Any,
) -> None:
    """Train the operated model to restore what it lost. By default it learns from the uncut base,
    on text that the base writes and on Python's library. Give the same command again to resume a
    run that was stopped or killed; until it is done, its states are in OUT.healing."""
    from surgery.checkpoint.save import saved_bytes
    from surgery.healing import HealingRun, estimate_cost, run_checkpoint
    from surgery.healing.settings import DEFAULT_MINUTES
    from surgery.io.output_target import check_no_cache, check_target, resolve

    if adapter and settings["train"] != "lora":
        raise SurgeryError("Only LoRA gives an adapter: add --train lora.")
    if adapter and repair in _FITTED:
        raise SurgeryError(
            "An adapter doesn't hold what a repair fitted: leave out --adapter, or choose --repair "
            "alpha or damped."
        )
    if not cost and (accelerator, devices, mfu, tokens) != ("here", 1, None, None):
        raise SurgeryError(
            "--tokens, --accelerator, --devices and --mfu are for an estimate: add --cost, or "
            "leave them out."
        )
    if repair is None and repair_tokens is not None:
        raise SurgeryError("--repair-tokens is for a repair: add --repair, such as --repair refit.")
    if adapter and dtype:
        raise SurgeryError(
            "An adapter is written in the dtype that it was trained in: leave out --dtype."
        )
    _, _, (made, flat) = open_operation(base, plan, with_, union=union_vocabulary)
    dtype = dtype_for(plan, dtype)
    saved_bytes(made, flat.unfitted, dtype)  # refuses what can't be saved, before it is made
    if settings["steps"] is None and settings["minutes"] is None:
        settings["minutes"] = DEFAULT_MINUTES
    chosen = read_settings(settings)
    if cost:
        before = _REPAIRING if repair in _FITTED else 0
        estimate = estimate_cost(
            made, flat, chosen, tokens, accelerator, mfu, devices, repair=before
        )
        if as_json:
            more = {"bytes": estimate.bytes, "fits": estimate.fits, "estimate": True}
            print_json({**asdict(estimate), **more})
            return
        for line in cost_lines(estimate):
            out.print(line)
        return
    target = resolve(folder)
    check_no_cache(target)
    check_target(target)
    place = target.parent / f"{target.name}.healing"
    if keep and not place.is_dir():
        raise SurgeryError(f"There is no stopped run in {place}.")
    with progress_bar() as bar:
        progress = bar if _prints() else silent
        start = None
        if repair is not None:
            flat, start = _begun(made, flat, repair, repair_tokens, chosen, place, progress)
        run = HealingRun(made, flat, chosen, place, start=start, progress=progress)
        start = None  # the run has its weights
        if run.unread and _prints():
            lost = ", ".join(f"{step:,}" for step in run.unread)
            err.print(f"The state saved after step {lost} can't be read; using an earlier one.")
        if run.step and _prints():
            err.print(f"[dim]resuming after step {run.step:,}[/dim]")
        with _stoppable(run):
            if not keep:
                _train(run)
        if not (run.finished or keep):
            if _prints():
                err.print(
                    f"Stopped after step {run.step:,}; saved in {escape(str(place))}. The same "
                    "command resumes it; with --keep it writes the result so far."
                )
            raise KeyboardInterrupt
        healed = run.result()
        run.accelerator.wait_for_everyone()
        if not _prints():
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
    out.print(f"{escape(str(target))}: {escape(healed.description)}")


def _begun(
    base: Base,
    plan: Plan,
    method: str,
    tokens: int | None,
    healing: Settings,
    place: Path,
    progress: Progress,
) -> tuple[Plan, Repaired | None]:
    """The plan of the run, and the repaired patient that it begins from. A run that is there
    already has both."""
    from surgery.healing import run_checkpoint
    from surgery.repairing import RepairSettings, repair
    from surgery.repairing.calibration import tokens_within

    if there := run_checkpoint.facts_of(place):
        return _resumed(there, plan, method, place), None
    if tokens is None:
        # Every process repairs by itself, so all must read the same amount.
        alone = int(os.environ.get("WORLD_SIZE", "1")) == 1
        minutes = healing.minutes if alone and method in _FITTED else None
        tokens = tokens_within(base, 60 * minutes * _REPAIRING) if minutes is not None else TOKENS
    # On the same text, so that base and cut patient are scored once.
    settings = RepairSettings(method, tokens=tokens, held_out=healing.held_out)
    start = repair(base, plan, settings, progress=progress)
    if not start.helps:
        raise SurgeryError("The repair doesn't improve the cut patient. Heal without --repair.")
    return start.plan, start


def _resumed(there: RunRecord, plan: Plan, method: str, place: Path) -> Plan:
    """The plan of the run in `place`, which is `there`, if it begins from this repair of `plan`. Of
    another plan, `plan`, which the run refuses. Raises `SurgeryError` if it begins from another
    repair, or from none."""
    from surgery.errors import PlanError
    from surgery.plan import Plan

    try:
        old = Plan.parse(there.plan, plan.depth)
    except PlanError:  # of another base
        return plan
    begun: str | None
    if there.repair:
        begun, cut = there.repair.method, there.repair.cut
    elif "repair" in there.model_fields_set:  # it says that there was none
        begun, cut = None, str(old)
    else:
        begun, cut = _repair_before(old, plan.unfitted, method, place)
    same = cut == str(plan.unfitted) and plan in (plan.unfitted, old)
    if not same and plan != old:
        return plan
    # Marks in a plan decide what is fitted, whatever the method.
    if not same or (begun != method and not (plan.fitted and method in _FITTED)):
        before = f"with --repair {begun}" if begun else "without --repair"
        raise SurgeryError(
            f"{place} holds a run that began {before}: give the same options to resume it, or "
            "choose another folder."
        )
    return old


def _repair_before(old: Plan, cut: Plan, method: str, place: Path) -> tuple[str | None, str]:
    """(method, plan before it) of the repair that a run of the plan `old` begins from, where its
    record doesn't have it; (None, `old`) without a repair. Earlier versions recorded it beside
    fitted weights alone. If `old` differs from `cut` in scales only, which method chose them is
    unknown, and `method` is taken."""
    from surgery.healing import run_checkpoint

    if facts := run_checkpoint.start_facts(place):
        return facts.get("method"), str(facts.get("cut"))
    pairs = zip(old.layers, cut.layers, strict=False)
    scaled = all(new == own or new.init.kind == "scale" for new, own in pairs)
    if old != cut and old.sources == cut.sources and scaled:
        return method, str(cut)
    return None, str(old)


def _train(run: HealingRun) -> None:
    """Train to the end, and print a line at every evaluation."""
    if run.evaluations:
        _report(run.evaluations[-1], None)
    for event in run:
        if event.evaluation:
            _report(event.evaluation, event)


def _report(evaluation: EvalResult, event: Event | None) -> None:
    if not _prints():
        return
    err.print(escape(evaluation_line(evaluation, event)))
    err.print(f"[dim]{escape(sample_line(evaluation))}[/dim]")
    sys.stderr.flush()


def _prints() -> bool:
    """Whether this process prints: of several that were launched together, only the first."""
    return int(os.environ.get("RANK", "0")) == 0


@contextmanager
def _stoppable(run: HealingRun) -> Iterator[None]:
    """Ctrl-C and SIGTERM end the run after its step; a second one ends it at once."""

    def stop(number, frame):
        run.stop()
        for each, handler in before.items():
            signal.signal(each, handler)

    before = {n: signal.signal(n, stop) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
