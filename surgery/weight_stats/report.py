"""Output of the `weights` command: weight statistics as JSON or as tables for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from surgery.plan import COPY, Plan

from . import Picture, Survey, ValueCounts
from .depth import along, jump, seams
from .kinds import KINDS

if TYPE_CHECKING:
    from surgery.base import Base

# As many as fit into 80 columns; the JSON output has all statistics.
_COLUMNS = ("values", "σ", "kurtosis", "largest", "norm", "zeros", ">2σ %", ">4σ %")


def as_json(base: Base, plan: Plan, survey: Survey, picture: Picture) -> dict:
    """All statistics by layer and kind, as plain values."""
    norms = along(picture, "norm")
    return {
        "base": base.name,
        "plan": str(plan),
        "changes": plan.describe(),
        "dtype": base.dtype,
        "share_counted": survey.share,
        "types_not_counted": list(survey.skipped),
        "layers": [
            {
                "position": p,
                "source": layer.source,
                "init": str(layer.init),
                "rounded_to_bfloat16": picture.layer(p).rounded,
                "all": picture.layer(p).facts().as_dict(),
                "kinds": {kind: c.facts().as_dict() for kind, c in picture.layers[p].items()},
            }
            for p, layer in enumerate(plan.layers)
        ],
        "outside": {kind: counts.facts().as_dict() for kind, counts in picture.outside.items()},
        "seams": [
            {
                "position": seam.position,
                "before": seam.before,
                "after": seam.after,
                "norm_change": jump(norms, seam.position),
            }
            for seam in seams(plan)
        ],
    }


def tables(plan: Plan, survey: Survey, picture: Picture) -> Iterator[Table | str]:
    """The most important ones as tables: layers in running order, then kinds of tensor."""
    yield _layers(plan, picture)
    yield ""
    yield _kinds(picture)
    yield ""
    yield "σ: standard deviation. Normal: kurtosis 0, 4.55 % beyond 2σ, 0.006 % beyond 4σ."
    if any(counts.rounded for counts in survey.parts.values()):
        yield "Values of more than 16 bits are counted at the nearest bfloat16 (within 1/256)."
    nan = sum(counts.nan for counts in survey.parts.values())
    infinite = sum(counts.above + counts.below for counts in survey.parts.values())
    if nan or infinite:
        yield f"The base holds {nan:,} NaN and {infinite:,} infinities; --json shows where."
    if survey.skipped:
        yield f"Not counted (codes of a quantization, not weights): {', '.join(survey.skipped)}."


def _layers(plan: Plan, picture: Picture) -> Table:
    table = _table("at", "layer")
    norms, breaks = along(picture, "norm"), {seam.position: seam for seam in seams(plan)}
    for p, layer in enumerate(plan.layers):
        if p in breaks:
            change = jump(norms, p)
            seam = f"{breaks[p].before} → {breaks[p].after}"
            jumped = "" if change is None else f"{100 * change:+.1f} %"
            table.add_row("", seam, "seam", "", "", "", jumped, style="yellow")
        init = "" if layer.init == COPY else f"@{layer.init}"
        table.add_row(str(p), f"{layer.source}{escape(init)}", *_cells(picture.layer(p)))
    return table


def _kinds(picture: Picture) -> Table:
    table = _table("tensors", "")
    for kind in picture.kinds():
        counts = ValueCounts.merged(picture.layer(p, kind) for p in range(len(picture.layers)))
        table.add_row(kind, "layers", *_cells(counts))
    for kind in sorted(picture.outside, key=KINDS.index):
        table.add_row(kind, "outside", *_cells(picture.outside[kind]))
    return table


def _table(*first: str) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0))
    for heading in (*first, *_COLUMNS):
        table.add_column(heading, justify="left" if heading in first else "right", no_wrap=True)
    return table


def _cells(counts: ValueCounts) -> Iterable[str]:
    facts = counts.facts()
    largest = None if facts.minimum is None else max(-facts.minimum, facts.maximum)
    return (
        _short(facts.values),
        _number(facts.deviation, ".4f"),
        _number(facts.kurtosis, ".2f"),
        _number(largest, ".4g"),
        _number(facts.norm, ".4g"),
        _short(facts.zeros),
        "" if facts.beyond_2 is None else f"{100 * facts.beyond_2:.2f}",
        "" if facts.beyond_4 is None else f"{100 * facts.beyond_4:.3f}",
    )


def _short(count: int) -> str:
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**4)):
        if count >= size:
            size = min(size, 10**3) if unit == "k" else size
            return f"{count / size:.4g} {unit}"
    return f"{count:,}"


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)
