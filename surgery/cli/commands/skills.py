"""`skills`: what a plan did to single skills of a base."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.markup import escape

from surgery.skills.registry import FEWEST, ITEMS, MOST

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
    print_disk_reads,
    print_json,
    progress_bar,
)
from ..reports.skills import skills_report


def skills(
    base: BaseArgument,
    plan: PlanArgument,
    with_: WithOption = None,
    union_vocabulary: UnionOption = False,
    items: Annotated[
        int, typer.Option(min=FEWEST, max=MOST, help="Number of items per skill.")
    ] = ITEMS,
    seed: Annotated[int, typer.Option(help="Random seed of the items.")] = 0,
    compute_dtype: ComputeDtypeOption = None,
    from_disk: FromDiskOption = False,
    as_json: JsonOption = False,
) -> None:
    """Probe what a plan did to single skills of a base.

    Copying, brackets, key lookup, sums, agreement, dates, JSON, and whether text repeats itself.
    The items are generated and graded by probabilities; nothing is downloaded.
    """
    from surgery.plan import Plan
    from surgery.skills import compare_skills, measured_repetition, profile, skills_json

    opened, written, (made, flat) = open_operation(
        base, plan, with_, from_disk, union=union_vocabulary
    )
    whole = Plan.whole(opened.depth)
    with progress_bar() as progress:
        made.load(progress)
        print_disk_reads(made, flat, passes=5)  # three show how layers are run, once
        before = profile(opened, whole, items=items, seed=seed, progress=progress)
        after = profile(made, flat, items=items, seed=seed, progress=progress)
        texts = None
        if not made.reads_from_disk:  # which would read all weights for every token
            texts = tuple(
                measured_repetition(one, of, progress)
                for one, of in ((opened, whole), (made, flat))
            )
    changes = compare_skills(before, after)
    if as_json:
        print_json(skills_json(opened, written, changes, texts, items=items, seed=seed))
        return
    out.print(f"{escape(opened.name)}  {escape(str(written))}  ({written.describe()})")
    out.print(f"{items:,} items of each skill, seed {seed}\n")
    for part in skills_report(changes, texts):
        out.print(part)
