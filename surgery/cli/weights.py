"""The command that counts weights.

Knows arguments and output, as `cli` does, whose app it belongs to; the rest is the library's.
"""

from __future__ import annotations

from typing import Annotated

import typer
from rich.markup import escape

from surgery.plan import Plan

from .main import (
    _MORE,
    BaseArgument,
    JsonOption,
    WithOption,
    _open,
    _operation,
    _print_json,
    _progress,
    app,
    out,
)


@app.command(epilog=_MORE)
def weights(
    base: BaseArgument,
    plan: Annotated[
        str, typer.Argument(metavar="[PLAN]", help="Layers in running order, or a preset.")
    ] = "",
    with_: WithOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show how the weights are distributed. Every value is counted, by layer and kind of tensor."""
    from surgery.weight_stats import report, survey_base

    if plan:
        _, _, (found, wanted) = _operation(base, plan, with_)
    else:
        found = _open(base)
        wanted = Plan.whole(found.depth)
    with _progress() as progress:
        survey = survey_base(found, progress)
        picture = survey.picture(wanted, found)
    if as_json:
        _print_json(report.as_json(found, wanted, survey, picture))
        return
    out.print(f"{escape(found.name)}  {escape(str(wanted))}  ({wanted.describe()})\n")
    for table in report.tables(wanted, survey, picture):
        out.print(table)
