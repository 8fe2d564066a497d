"""`weights`: how the weights are distributed."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.markup import escape

from surgery.plan import Plan

from ..common import (
    BaseArgument,
    JsonOption,
    UnionOption,
    WithOption,
    check_no_plan,
    open_base,
    open_operation,
    out,
    print_json,
    progress_bar,
)


def weights(
    base: BaseArgument,
    plan: Annotated[
        str, typer.Argument(metavar="[PLAN]", help="Layers in running order, or a preset.")
    ] = "",
    with_: WithOption = None,
    union_vocabulary: UnionOption = False,
    as_json: JsonOption = False,
) -> None:
    """Show how the weights are distributed. Every value is counted, by layer and kind of tensor."""
    from surgery.weight_stats import report, survey_base

    if plan:
        _, _, (made, flat) = open_operation(base, plan, with_, union=union_vocabulary)
    else:
        check_no_plan(with_, union_vocabulary)
        made = open_base(base)
        flat = Plan.whole(made.depth)
    with progress_bar() as progress:
        survey = survey_base(made, progress)
        picture = survey.picture(flat, made)
    if as_json:
        print_json(report.as_json(made, flat, survey, picture))
        return
    out.print(f"{escape(made.name)}  {escape(str(flat))}  ({flat.describe()})\n")
    for table in report.tables(flat, survey, picture):
        out.print(table)
