"""`preview`: what a plan would make of a base."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.markup import escape

from surgery import facts, presets
from surgery.plan import Plan

from ..common import (
    BaseArgument,
    JsonOption,
    PlanArgument,
    ResizeOption,
    UnionOption,
    WithOption,
    describe,
    open_operation,
    out,
    print_json,
    resized,
)
from ..reports.preview import change_table

if TYPE_CHECKING:
    from surgery.base import Base
    from surgery.known_base import KnownBase


def preview(
    base: BaseArgument,
    plan: PlanArgument,
    with_: WithOption = None,
    union_vocabulary: UnionOption = False,
    resize_embeddings: ResizeOption = False,
    as_json: JsonOption = False,
) -> None:
    """Show what a plan would make of a base. Reads no weights."""
    opened: Base | KnownBase
    made: Base | KnownBase
    if with_ or resize_embeddings or plan.startswith("@"):
        opened, written, (made, flat) = open_operation(base, plan, with_, union=union_vocabulary)
        if resize_embeddings:
            made = resized(made)
    else:
        opened = made = describe(base)
        written = flat = presets.parse(plan, opened.depth) or Plan.parse(plan, opened.depth)
    before, after = opened.preview(Plan.whole(opened.depth)), made.preview(flat)
    if as_json:
        print_json(facts.of_plan(opened, written, before, after))
        return
    out.print(f"{escape(str(written))}  ({written.describe()})\n")
    out.print(change_table(opened.name, before, after))
