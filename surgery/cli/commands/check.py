"""`check`: check a saved model against limits, for CI."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from surgery.errors import BaseError, SurgeryError
from surgery.optional import require
from surgery.progress import Progress

from ..common import (
    ComputeDtypeOption,
    FromDiskOption,
    JsonOption,
    SavedArgument,
    open_base,
    out,
    print_json,
    progress_bar,
)
from ..quiet_harness import quiet_harness
from ..sample import (
    DatasetOption,
    KindOption,
    LimitOption,
    PrecisionOption,
    TextOption,
    WindowOption,
    read_text,
    sized_sample,
)

if TYPE_CHECKING:
    from surgery.base import Base


def check(
    folder: SavedArgument,
    base: Annotated[
        str | None,
        typer.Argument(metavar="[BASE]", help="The base; defaults to the recipe's."),
    ] = None,
    max_cost: Annotated[
        float | None,
        typer.Option(
            metavar="NATS",
            help="Largest increase of the loss per token, its whole 95 % interval included.",
        ),
    ] = None,
    keep: Annotated[
        list[str] | None,
        typer.Option(metavar="SKILL", help="A skill that must be kept. May be repeated."),
    ] = None,
    tasks: Annotated[
        str, typer.Option(metavar="TASK,…", help="Tasks of lm-eval, as for `evaluate`.")
    ] = "",
    max_drop: Annotated[
        float,
        typer.Option(
            metavar="X",
            help="Largest drop of any metric of the tasks, its whole 95 % interval included.",
        ),
    ] = 0.02,
    include_path: Annotated[
        Path | None,
        typer.Option(exists=True, file_okay=False, help="A folder with more tasks."),
    ] = None,
    items: Annotated[
        int | None, typer.Option(min=1, help="The first N items of each task; by default all.")
    ] = None,
    card: Annotated[
        bool, typer.Option("--card", help="Write the result into OUT's model card, too.")
    ] = False,
    text: TextOption = None,
    kind: KindOption = None,
    dataset: DatasetOption = None,
    window: WindowOption = None,
    limit: LimitOption = None,
    precision: PrecisionOption = None,
    compute_dtype: ComputeDtypeOption = None,
    from_disk: FromDiskOption = False,
    as_json: JsonOption = False,
) -> None:
    """Check a saved model against limits. The exit status is 0 if it passes and 1 if not."""
    from surgery.analysis import LossIncrease, Sample
    from surgery.analysis.cache import lasting_name
    from surgery.checkpoint.card_check import write_check
    from surgery.verification.check_saved import check_saved, cost_of

    names = [name.strip() for name in tasks.split(",") if name.strip()]
    if max_cost is None and not keep and not names:
        raise SurgeryError("Give a limit: --max-cost NATS, --keep SKILL or --tasks TASK.")
    if names:
        require("lm_eval", "Evaluation")  # before anything is measured
    if not folder.is_dir():
        raise SurgeryError(f"There is no folder {folder}.")
    opened = open_base(base, from_disk) if base else _recorded(folder, from_disk)
    saved = open_base(str(folder), from_disk)
    with progress_bar() as progress:
        sample, name = None, ""
        if max_cost is not None:
            wanted = (text, kind, dataset, window, limit)
            words = read_text(*wanted, progress, "judge", precision)
            for model in (opened, saved):  # so that no estimate counts it
                lasting_name(model, progress)
                model.load(progress)

            def cost(short: Sample, progress: Progress) -> list[LossIncrease]:
                return [cost_of(saved, opened, short, progress)]

            sample, name = sized_sample(opened, words, precision, cost, progress)
        with quiet_harness():
            requirements = check_saved(
                saved,
                opened,
                sample,
                max_cost=max_cost,
                keep=keep or (),
                tasks=names,
                max_drop=max_drop,
                task_options={"include_path": include_path, "limit": items},
                progress=progress,
            )
    if card:
        where = f"{opened.name} on {name}" if name else opened.name
        rows = ((one.name, one.limit, one.measured, one.passed) for one in requirements)
        write_check(folder, where, rows)
    passed = all(one.passed for one in requirements)
    if as_json:
        facts = {"model": str(folder), "base": opened.name, "text": name or None, "passed": passed}
        print_json({**facts, "requirements": [asdict(one) for one in requirements]})
    else:
        where = f", {escape(name)}" if name else ""
        out.print(f"{escape(str(folder))} against {escape(opened.name)}{where}\n")
        table = Table("", "limit", "measured", "", box=None, padding=(0, 2, 0, 0), pad_edge=False)
        for one in requirements:
            verdict = "[green]passes[/green]" if one.passed else "[red]fails[/red]"
            table.add_row(one.name, one.limit, one.measured, verdict)
        out.print(table)
        for one in requirements:
            if one.reason:
                out.print(f"\n{one.name}: {escape(one.reason)}")
    if not passed:
        raise typer.Exit(1)


def _recorded(folder: Path, from_disk: bool) -> Base:
    """The base that the recipe in a saved folder names."""
    from surgery.recipes.recipe import read_file

    if not (folder / "recipe.yaml").is_file():
        raise SurgeryError(f"{folder} has no recipe.yaml. Name the base: check OUT BASE.")
    model = read_file(folder / "recipe.yaml").model
    try:
        return open_base(model, from_disk)
    except BaseError as error:
        raise BaseError(
            f"The recipe's base, {model[:80]}, can't be opened ({error}) Name the base: "
            "check OUT BASE."
        ) from error
