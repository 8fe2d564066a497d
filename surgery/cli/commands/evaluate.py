"""`evaluate`: a base and its patient on tasks of lm-evaluation-harness."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from surgery.optional import require

from ..common import (
    BaseArgument,
    ComputeDtypeOption,
    FromDiskOption,
    JsonOption,
    PlanArgument,
    UnionOption,
    WithOption,
    open_operation,
    out,
    print_json,
    progress_bar,
)
from ..quiet_harness import quiet_harness
from ..reports.evaluate import result_json, result_table


def evaluate(
    base: BaseArgument,
    plan: PlanArgument,
    tasks: Annotated[
        str,
        typer.Option(
            metavar="TASK,…", help="Tasks or groups of lm-eval: `lm_eval ls tasks` lists them."
        ),
    ],
    with_: WithOption = None,
    union_vocabulary: UnionOption = False,
    include_path: Annotated[
        Path | None,
        typer.Option(
            exists=True, file_okay=False, help="A folder with more tasks, such as your own."
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="The first N items of each task; by default all.")
    ] = None,
    batch_size: Annotated[
        int, typer.Option(min=1, help="Number of requests in a forward pass.")
    ] = 1,
    compute_dtype: ComputeDtypeOption = None,
    from_disk: FromDiskOption = False,
    as_json: JsonOption = False,
) -> None:
    """Evaluate base and patient on tasks of lm-eval.

    Scores with their standard errors, and the difference item by item. The page's Log shows them,
    too. lm-eval is lm-evaluation-harness, which the extra “eval” installs. Tasks whose data is on
    this machine need no network.
    """
    from surgery.harness import evaluate as measure
    from surgery.harness import keep

    require("lm_eval", "Evaluation")  # before a base is downloaded
    opened, written, (made, flat) = open_operation(
        base, plan, with_, from_disk, union=union_vocabulary
    )
    with progress_bar() as progress:
        made.load(progress)
    with quiet_harness():
        results = measure(
            opened,
            made.operate(flat),
            [name.strip() for name in tasks.split(",") if name.strip()],
            include_path=include_path,
            limit=limit,
            batch_size=batch_size,
        )
    if made is opened:  # of a stack, the page's Log shows nothing
        keep(opened, flat, results, limit)
    if as_json:
        found = list(map(result_json, results))
        print_json({"base": opened.name, "plan": str(written), "results": found})
        return
    out.print(f"{escape(opened.name)}  {escape(str(written))}  ({written.describe()})\n")
    out.print(result_table(results))
