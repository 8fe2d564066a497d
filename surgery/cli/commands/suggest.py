"""`suggest`: plans for a target size, each measured."""

from __future__ import annotations

import re
from typing import Annotated

import typer
from rich.markup import escape

from surgery.analysis import GROW, SHRINK
from surgery.errors import SurgeryError
from surgery.progress import Progress

from ..common import (
    BaseArgument,
    ComputeDtypeOption,
    FromDiskOption,
    JsonOption,
    open_base,
    out,
    print_json,
    progress_bar,
)
from ..sample import (
    DatasetOption,
    KindOption,
    LimitOption,
    PrecisionOption,
    Text,
    TextOption,
    WindowOption,
    read_halves,
    sized_sample,
)

_SIZES = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9}


def suggest(
    base: BaseArgument,
    layers: Annotated[int | None, typer.Option(help="Target number of layers.")] = None,
    parameters: Annotated[
        str | None, typer.Option(metavar="P", help="Maximum number of parameters, such as 110M.")
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help=f"To shrink: {', '.join(SHRINK)}; to grow: {', '.join(GROW)}. All by default; may "
            "be repeated.",
        ),
    ] = None,
    protect: Annotated[
        tuple[int, int],
        typer.Option(
            metavar="FIRST LAST", help="How many layers to leave as they are at either end."
        ),
    ] = (1, 1),
    seed: Annotated[int, typer.Option(help="Random seed of the controls.")] = 0,
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
    """Propose plans for a target size, each with its measured cost.

    Plans are chosen on one half of the text and judged on the other, where random plans of the
    same size serve as controls.
    """
    from surgery.analysis import (
        LossIncrease,
        Sample,
        judge,
        measured_score,
        random_controls,
    )
    from surgery.analysis import suggest as propose
    from surgery.analysis.json_values import suggest_json
    from surgery.plan import Plan

    from ..reports.suggest import suggest_tables

    opened = open_base(base, from_disk)
    with progress_bar() as progress:
        halves = read_halves(opened, text, kind, dataset, window, limit, progress, precision)
        (sample, name), rest = halves
        count = None if parameters is None else _count(parameters)
        plans = propose(
            opened,
            sample,
            layers=layers,
            parameters=count,
            methods=method or None,
            protect=protect,
            seed=seed,
            progress=progress,
        )
        whole = measured_score(opened, Plan.whole(opened.depth), sample, progress)
        controls = random_controls(
            opened, plans, layers=layers, parameters=count, protect=protect, seed=seed
        )

        def cost(short: Sample, progress: Progress) -> list[LossIncrease]:
            before = measured_score(opened, Plan.whole(opened.depth), short, progress)
            return [
                LossIncrease.of(measured_score(opened, one.plan, short, progress), before)
                for one in plans[:1]
            ]

        if isinstance(rest, Text):
            rest = sized_sample(opened, rest, precision, cost, progress)
        other, other_name = rest
        judged = judge(opened, [one.plan for one in plans], other, controls, progress)
    if as_json:
        print_json(suggest_json(opened, name, whole, plans, other_name, judged, controls))
        return
    out.print(f"{escape(opened.name)}. Chosen on {escape(name)}; judged on {escape(other_name)}.")
    for part in suggest_tables(opened, whole, plans, judged):
        out.print(part)


def _count(text: str) -> int:
    """125,000,000, 125M or 1.2B."""
    m = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([kmb]?)", text.replace(",", "").strip().lower())
    if not m:
        raise SurgeryError(f"“{text[:40]}” is not a number of parameters: write 125000000 or 125M.")
    return round(float(m[1]) * _SIZES[m[2]])
