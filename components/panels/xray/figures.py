"""The importance of the base's layers, as plain values for `PlotlyView`.

Colours that belong to the page are left to it ($text, …).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from components.widgets.colours import BASE, NORMAL, PATIENT, layer_colour
from surgery.analysis import SCORES
from surgery.numbers import listed, perplexity
from surgery.plan import Layer, Plan

from .drawing import HALVES, interval, layer_axis

if TYPE_CHECKING:
    from surgery.analysis import ImportanceScore, Scan, Variant

_SYMBOLS = ((PATIENT, "circle"), (BASE, "diamond"), (NORMAL, "square"))  # of scores in turn


def layers(scan: Scan) -> dict:
    """Each layer's perplexity without it and with it twice, above its Block Influence."""
    depth = scan.depth
    variants = [
        (SCORES[key], rows.values())
        for key, rows in scan.variants.items()
        if not SCORES[key].of_blocks and key not in HALVES
    ]
    shown = [variant for _, rows in variants for variant in rows]
    is_wide = _is_wide(scan.block_influence)
    hint = (
        _influence_hint(scan)
        if scan.drop_one
        else (
            "Block Influence: how far a layer rotates the hidden state (1 − cosine similarity). A "
            "low value is often assumed safe to drop."
        )
    )
    hint += _not_drawn(scan, shown)
    data = [
        *(_variants(score, rows, at) for at, (score, rows) in enumerate(variants)),
        {
            "type": "bar",
            "name": "Block Influence",
            "x": list(range(depth)),
            "y": [None if x is None else float(f"{x:.4g}") for x in scan.block_influence or ()],
            "yaxis": "y3",
            "marker": {"color": [layer_colour(i, depth) for i in range(depth)]},
            "error_y": _spread(scan),
            "showlegend": False,
            "hovertemplate": "layer %{x}: Block Influence %{y:.3f}<extra></extra>",
        },
        _ribbon(depth),
    ]
    data += [
        _share_of_largest(SCORES[key], values)
        for key, values in scan.values.items()
        if key != "block_influence" and not SCORES[key].of_blocks
    ]
    layout = {
        "xaxis": layer_axis(depth),
        "yaxis": {
            "title": {"text": "perplexity"},
            "domain": [0.44, 1] if shown else [0.9, 1],
            "type": "log",
            "dtick": 1 if _decades(shown) > 1.5 else None,
            "tickformat": ",.4~r",
            "showticklabels": bool(shown),
        },
        "yaxis2": {
            "domain": [0, 0.045],
            "range": [0, 1],
            "showticklabels": False,
            "showgrid": False,
            "zeroline": False,
        },
        "yaxis3": {
            "title": {"text": "Block<br>Influence"},
            "domain": [0.075, 0.36] if shown else [0.075, 1],
            "rangemode": "tozero",
            "type": "log" if is_wide else "linear",
            "dtick": 1 if is_wide else None,  # the axis is low: more labels would collide
            "tickformat": ",.2~r",
        },
        "yaxis4": {"overlaying": "y3", "side": "right", "range": [0, 1.05], "showgrid": False},
        "shapes": _base_line(scan, depth) if shown else [],
        "annotations": _called_out(scan),
        "legend": {"orientation": "h", "x": 0, "y": 1.0, "yanchor": "bottom"},
        "bargap": 0.15,
    }
    return {
        "title": "Layer importance",
        "hint": hint,
        "data": data,
        "layout": layout,
        "link": {"sources": list(range(depth)), "strip": "base", "emits": False},
    }


# ---------------------------------------------------------------- parts of figures


def _variants(score: ImportanceScore, rows: Iterable[Variant], at: int) -> dict:
    name, (colour, symbol) = score.heading, _SYMBOLS[at % len(_SYMBOLS)]
    known = [v for v in rows if v.perplexity is not None and math.isfinite(v.perplexity)]
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": [v.layer for v in known],
        "y": [float(f"{v.perplexity:.5g}") for v in known],
        "error_y": {
            "type": "data",
            "array": [v.high - v.perplexity for v in known],
            "arrayminus": [v.perplexity - v.low for v in known],
            "thickness": 1.2,
            "width": 3,
            "color": colour,
        },
        "marker": {
            "size": 10,
            "symbol": symbol,
            "color": colour,
            "line": {"color": "$text", "width": 1},
        },
        "text": [interval(v) for v in known],
        "hovertemplate": f"layer %{{x}} {name}: %{{y:,.4~r}} (%{{text}})<extra></extra>",
    }


def _not_drawn(scan: Scan, variants: Sequence[Variant]) -> str:
    """Which layers the axis has no place for; nothing if it has one for all."""
    beyond = {
        v.layer for v in variants if v.perplexity is not None and not math.isfinite(v.perplexity)
    }
    if not beyond:
        return ""
    named = Plan(tuple(map(Layer, sorted(beyond))), scan.depth)
    word = "layer" if len(beyond) == 1 else "layers"
    return f" Not drawn, because the perplexity is not finite: {word} {named}."


def _share_of_largest(score: ImportanceScore, values: Sequence[float | None]) -> dict:
    largest = max((x for x in values if x is not None), default=1.0) or 1.0
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": f"{score.label} (share of the largest)",
        "x": list(range(len(values))),
        "y": [None if x is None else float(f"{x / largest:.4g}") for x in values],
        "yaxis": "y4",
        "line": {"color": NORMAL, "width": 1.5},
        "marker": {"size": 6},
        "hovertemplate": "layer %{x}: %{y:.3f} of the largest<extra></extra>",
    }


def _influence_hint(scan: Scan) -> str:
    from surgery.analysis import overlooked

    killers = overlooked(scan)
    base = (
        f" Dashed: the base, {perplexity(scan.perplexity.perplexity)}." if scan.perplexity else ""
    )
    if not killers:
        return (
            "Top: perplexity with one layer dropped or repeated, with its 95 % interval; lower is "
            f"better. Bottom: Block Influence, a cheap estimate from one pass.{base}"
        )
    named = listed([str(i) for i in sorted(killers[:4])], "and")
    several = len(killers) > 1
    return (
        f"Block Influence rates layer{'s' if several else ''} {named} as harmless as the others, "
        f"yet the model breaks without {'them' if several else 'it'}: measure before you "
        f"cut.{base}"
    )


def _called_out(scan: Scan) -> list[dict]:
    from surgery.analysis import overlooked

    rows = {v.layer: v for v in scan.drop_one}
    return [
        {
            "x": layer,
            "y": math.log10(rows[layer].perplexity),
            "text": f"<b>{layer}</b>",
            "showarrow": True,
            "arrowhead": 0,
            "ax": 0,
            "ay": -22,
            "font": {"color": "$text"},
        }
        for layer in overlooked(scan)
        if math.isfinite(rows[layer].perplexity)
    ]


def _base_line(scan: Scan, depth: int) -> list[dict]:
    if scan.perplexity is None:
        return []
    level = scan.perplexity.perplexity
    return [
        {
            "type": "line",
            "xref": "x",
            "yref": "y",
            "x0": -0.5,
            "x1": depth - 0.5,
            "y0": level,
            "y1": level,
            "line": {"color": "$faint", "width": 1.5, "dash": "dash"},
        }
    ]


def _spread(scan: Scan) -> dict:
    intervals = scan.intervals.get("block_influence", ())
    rows = list(zip(scan.block_influence or (), intervals, strict=False))
    known = [(x, span) for x, span in rows if x is not None and span is not None]
    if len(known) != scan.depth:
        return {"visible": False}
    return {
        "type": "data",
        "array": [span[1] - x for x, span in known],
        "arrayminus": [x - span[0] for x, span in known],
        "thickness": 1,
        "width": 2,
        "color": "$text",
    }


def _ribbon(depth: int) -> dict:
    return {
        "type": "bar",
        "meta": "decoration",
        "x": list(range(depth)),
        "y": [1] * depth,
        "width": 0.9,
        "yaxis": "y2",
        "marker": {"color": [layer_colour(i, depth) for i in range(depth)]},
        "showlegend": False,
        "hoverinfo": "skip",
    }


def _is_wide(values: Sequence[float | None] | None) -> bool:
    values = values or ()
    known = [x for x in values if x is not None and x > 0]
    return bool(known) and len(known) == len(values) and max(known) > 30 * min(known)


def _decades(rows: Sequence[Variant]) -> float:
    known = [v.perplexity for v in rows if v.perplexity and math.isfinite(v.perplexity)]
    return math.log10(max(known) / min(known)) if known else 0.0
