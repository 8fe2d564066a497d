"""What `scan` prints: scores by layer, the best blocks, and what parts of a scan are missing."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Literal

from rich.markup import escape
from rich.table import Table

from surgery.analysis.findings import best_blocks, costs_by_layer, overlooked
from surgery.analysis.importance import SCORES
from surgery.analysis.json_values import base_score
from surgery.analysis.precision import median_precision, median_tokens
from surgery.numbers import about, percent
from surgery.numbers import perplexity as _perplexity
from surgery.plan import Layer, Plan

from .plain_table import plain_table

if TYPE_CHECKING:
    from surgery.analysis.layer_scan import Scan, Variant
    from surgery.analysis.parts import Part
    from surgery.base import Base

_BLOCKS = 10
_FINER = 0.1  # of a cost: what more text is proposed for
_Side = Literal["left", "right"]


def part_line(part: Part) -> str:
    """What one part of a scan did, and what to do next."""
    known = f", {part.known:,} were known" if part.known else ""
    what = f"Part {part.number} of {part.of}: {part.measured:,} variants measured{known}. "
    if part.missing:
        return what + (
            f"{part.missing:,} measurements of the whole scan are missing here: the same command "
            "without --part makes them and shows the scan."
        )
    return what + "The scan is complete here: the same command without --part shows it."


def scan_tables(base: Base, scan: Scan) -> Iterator[Table | str]:
    """The scores as tables and sentences for a terminal."""
    score = base_score(scan)
    yield (
        f"Perplexity {_perplexity(score.perplexity)} ({_perplexity(score.low)} to "
        f"{_perplexity(score.high)}), {scan.tokens:,} tokens scored in {scan.sequences:,} "
        f"sequence{'' if scan.sequences == 1 else 's'}.\n"
    )
    if precision := _precision(scan):
        yield precision
    suspects = overlooked(scan)
    if columns := _columns(base, scan):
        table = plain_table("layer")
        for heading, _, justify in columns:
            table.add_column(heading, justify=justify, no_wrap=True)
        for i in range(scan.depth):
            style = "red" if i in suspects else ""
            table.add_row(str(i), *(cell(i) for _, cell, _ in columns), style=style)
        yield table
    if suspects:
        yield (
            "\nBlock Influence is low for these layers, and the model breaks without them: "
            f"{', '.join(map(str, suspects))}."
        )
    if blocks := best_blocks(scan)[:_BLOCKS]:
        yield "\nBest blocks to drop, by angular distance:"
        table = plain_table("layers", "from:to")
        table.add_column("distance", justify="right")
        for block in blocks:
            table.add_row(str(block.n), f"{block.start}:{block.end}", f"{block.distance:.4f}")
        yield table
    for key, rows in scan.variants.items():
        if SCORES[key].of_blocks and rows:
            yield f"\nBest blocks to {SCORES[key].change}, by measured perplexity:"
            table = plain_table("from:to")
            for heading in ("perplexity", "nats/token"):
                table.add_column(heading, justify="right")
            measured = [
                (v.perplexity, span) for span, v in rows.items() if v.perplexity is not None
            ]
            for value, (i, j) in sorted(measured)[:_BLOCKS]:
                table.add_row(f"{i}:{j}", _perplexity(value), _cost(rows[i, j]))
            yield table
    yield from map(escape, _refusals(scan))
    if scan.naive_layer_forwards:
        share = scan.layer_forwards / scan.naive_layer_forwards
        yield (
            f"\n{scan.layer_forwards:,} layer-forwards, {percent(share)} of the "
            f"{scan.naive_layer_forwards:,} that whole passes would take."
        )


def _refusals(scan: Scan) -> Iterator[str]:
    """Why numbers are missing: each reason once, with the layers that it applies to. Reasons that
    differ only in numbers, such as the layer's, count as one."""
    first: dict[str, str] = {}
    layers: dict[str, set[int]] = {}
    for rows in scan.variants.values():
        for row in filter(lambda row: row.refused, rows.values()):
            key = re.sub(r"\d+", "0", row.refused)
            first.setdefault(key, row.refused)
            layers.setdefault(key, set()).add(row.layer)
    for key, reason in first.items():
        where = str(Plan(tuple(map(Layer, sorted(layers[key]))), scan.depth))
        if len(layers[key]) == 1:
            yield f"\nNot measured for layer {where}: {reason}"
        else:
            yield f"\nNot measured for layers {where}, for the same reason: {reason}"


def _precision(scan: Scan) -> str:
    """How precisely costs of single layers are known, and what more precision takes."""
    costs = costs_by_layer(scan)
    share, finer = median_precision(costs), median_tokens(costs, scan.tokens, _FINER)
    if share is None or finer is None:
        return ""
    known = f"Costs of single layers are known to ± {percent(share)} (median)."
    if share <= _FINER:
        return f"{known}\n"
    return f"{known} --precision {100 * _FINER:g} takes about {about(finer):,} tokens.\n"


def _columns(base: Base, scan: Scan) -> list[tuple[str, Callable[[int], str], _Side]]:
    """The columns of the table by layer: (heading, the cell of a layer, alignment)."""
    columns: list[tuple[str, Callable[[int], str], _Side]] = []
    if any(base.kinds):
        columns.append(("kind", lambda i: escape(base.kinds[i]), "left"))
    for key, values in scan.values.items():
        if not SCORES[key].of_blocks:
            form = SCORES[key].number

            def value(i: int, values=values, form=form) -> str:
                return "" if values[i] is None else format(values[i], form)

            columns.append((SCORES[key].heading, value, "right"))
    for key, rows in scan.variants.items():
        if not SCORES[key].of_blocks and rows:

            def value_of(i: int, rows=rows) -> str:
                return _perplexity(rows[i, i + 1].perplexity) if (i, i + 1) in rows else ""

            def cost_of(i: int, rows=rows) -> str:
                return _cost(rows[i, i + 1]) if (i, i + 1) in rows else ""

            columns.append((SCORES[key].heading, value_of, "right"))
            columns.append(("nats/token", cost_of, "right"))
    return columns


def _cost(row: Variant) -> str:
    if row.cost is None or not math.isfinite(row.cost.mean):
        return ""
    return f"{row.cost.mean:+.3f}"
