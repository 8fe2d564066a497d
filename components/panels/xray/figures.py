"""Figures of a scan of the base, as plain values for `PlotlyView`: layers, blocks and repeats.

Colours that belong to the page are left to it ($text, …).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from components.widgets.colours import BASE, NORMAL, PATIENT, layer_colour
from surgery.analysis import SCORES
from surgery.numbers import listed, perplexity

if TYPE_CHECKING:
    from surgery.analysis import ImportanceScore, Scan, Variant

_MOST_TICKS = 30
_HALVES = {"drop_attention": "attention", "drop_mlp": "MLP"}
_LAST_COLOUR = 0.5  # nats per token, and whatever costs more
_SYMBOLS = ((PATIENT, "circle"), (BASE, "diamond"), (NORMAL, "square"))  # of scores in turn


def layers(scan: Scan) -> dict:
    """Each layer's perplexity without it and with it twice, above its Block Influence."""
    depth = scan.depth
    variants = [
        (SCORES[key], rows.values())
        for key, rows in scan.variants.items()
        if not SCORES[key].of_blocks and key not in _HALVES
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
        "xaxis": _layer_axis(depth),
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


def blocks(scan: Scan) -> dict:
    """The angular-distance triangle, with the best block for each size."""
    if scan.angular is None:
        return {}
    from surgery.analysis import best_blocks

    depth = scan.depth
    sizes = list(range(1, depth + 1))
    rows = [[_at(scan, start, n) for start in range(depth)] for n in sizes]
    best = best_blocks(scan)
    return {
        "title": "Angular distance of blocks",
        "hint": "The angle between the hidden states before and after a block of n layers, at the "
        "last token of each sequence (0: same direction, 0.5: orthogonal). Dark blocks change "
        "least; the line marks the best block of each size. The last layer is always kept.",
        "data": [
            {
                "type": "heatmap",
                "name": "angular distance",
                "x": list(range(depth)),
                "y": sizes,
                "z": rows,
                "colorscale": "Viridis",
                "colorbar": _bar("angle / π"),
                "hovertemplate": "layers %{x} … +%{y}<br>distance %{z:.3f}<extra></extra>",
                "hoverongaps": False,
            },
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": "best block",
                "x": [block.start for block in best],
                "y": [block.n for block in best],
                "text": [f"drop {block.start}:{block.end}" for block in best],
                "line": {"color": "#ffffff", "width": 1.5},
                "marker": {"size": 6, "color": "#ffffff"},
                "hovertemplate": "%{text}<br>size %{y}<extra></extra>",
            },
        ],
        "layout": {
            "xaxis": {"title": {"text": "first layer of the block"}, "showgrid": False},
            "yaxis": {"title": {"text": "layers in the block"}, "showgrid": False},
            "showlegend": False,
        },
    }


def half_layers(scan: Scan, above: float = 0.0) -> dict:
    """What the attention and the MLP of each layer cost when they are left out alone, where it is
    more than `above` nats per token."""
    rows = {
        name: [scan.variants[key].get((i, i + 1)) for i in range(scan.depth)]
        for key, name in _HALVES.items()
        if scan.variants.get(key)
    }
    if not rows:
        return {}

    def cost(variant: Variant | None) -> float | None:
        mean = variant.cost.mean if variant and variant.cost else math.nan
        return float(f"{mean:.4g}") if math.isfinite(mean) and mean > above else None

    def words(variant: Variant | None) -> str:
        if variant is None or variant.cost is None:
            return ""
        return f"{variant.cost.mean:+.3f} ({variant.cost.low:+.3f} to {variant.cost.high:+.3f})"

    return {
        "title": "Attention and MLP of each layer",
        "hint": "What it costs to leave out one half of a layer, with all others in place. Blank: "
        "no more than the slider says. A plan does it as 7@no-attention or 7@no-mlp.",
        "data": [
            {
                "type": "heatmap",
                "name": "cost in nats per token",
                "x": list(range(scan.depth)),
                "y": list(rows),
                "z": [list(map(cost, row)) for row in rows.values()],
                "text": [list(map(words, row)) for row in rows.values()],
                "colorscale": "Cividis",
                "zmin": 0,
                "zmax": _LAST_COLOUR,
                "xgap": 2,
                "ygap": 4,
                "colorbar": _bar("nats<br>per token"),
                "hovertemplate": "layer %{x}, %{y}: %{text} nats<extra></extra>",
                "hoverongaps": False,
            }
        ],
        "layout": {
            "xaxis": {**_layer_axis(scan.depth), "anchor": "y"},
            "yaxis": {"autorange": "reversed", "showgrid": False},
            "showlegend": False,
        },
        "link": {"sources": list(range(scan.depth)), "strip": "base", "emits": False},
    }


def repeats(scan: Scan) -> dict:
    """What running layers i to j twice costs, for every pair."""
    measured = scan.repeat_map
    if not measured:
        return {}
    starts = sorted({i for i, _ in measured})
    ends = sorted({j for _, j in measured})

    def cost(i: int, j: int) -> float | None:
        variant = measured.get((i, j))
        ok = variant is not None and variant.cost is not None
        return (
            float(f"{variant.cost.mean:.4g}") if ok and math.isfinite(variant.cost.mean) else None
        )

    def words(i: int, j: int) -> str:
        variant = measured.get((i, j))
        if variant is None or variant.perplexity is None:
            return ""
        return f"{perplexity(variant.perplexity)} ({_interval(variant)})"

    return {
        "title": "Cost of repeating a block",
        "hint": "The model runs up to layer j, goes back to layer i and runs to the end. Dark "
        "blocks cost least to repeat. A negative cost is a gain, if its interval excludes zero.",
        "data": [
            {
                "type": "heatmap",
                "name": "cost in nats per token",
                "x": ends,
                "y": starts,
                "z": [[cost(i, j) for j in ends] for i in starts],
                "text": [[words(i, j) for j in ends] for i in starts],
                "colorscale": "Cividis",
                "colorbar": _bar("nats<br>per token"),
                "hovertemplate": "0:%{x}, %{y}:"
                f"{scan.depth}<br>perplexity %{{text}}<br>cost %{{z:.3f}} nats<extra></extra>",
                "hoverongaps": False,
            }
        ],
        "layout": {
            "xaxis": {"title": {"text": "j: end of the first pass"}, "showgrid": False},
            "yaxis": {"title": {"text": "i: start of the second pass"}, "showgrid": False},
            "showlegend": False,
        },
    }


# ---------------------------------------------------------------- parts of figures


def _interval(variant: Variant) -> str:
    return f"{perplexity(variant.low)} to {perplexity(variant.high)}"


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
        "text": [_interval(v) for v in known],
        "hovertemplate": f"layer %{{x}} {name}: %{{y:,.4~r}} (%{{text}})<extra></extra>",
    }


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


def _layer_axis(depth: int) -> dict:
    every = max(1, math.ceil(depth / _MOST_TICKS))
    at = list(range(0, depth, every))
    return {
        "title": {"text": "layer of the base"},
        "tickvals": at,
        "ticktext": [str(i) for i in at],
        "tickangle": 0,
        "range": [-0.5, depth - 0.5],
        "anchor": "y2",
        "showgrid": False,
        "zeroline": False,
    }


def _at(scan: Scan, start: int, n: int) -> float | None:
    value = scan.angular[start][n] if n < len(scan.angular[start]) else None
    return None if value is None else float(f"{value:.4g}")


def _is_wide(values: Sequence[float | None] | None) -> bool:
    values = values or ()
    known = [x for x in values if x is not None and x > 0]
    return bool(known) and len(known) == len(values) and max(known) > 30 * min(known)


def _decades(rows: Sequence[Variant]) -> float:
    known = [v.perplexity for v in rows if v.perplexity and math.isfinite(v.perplexity)]
    return math.log10(max(known) / min(known)) if known else 0.0


def _bar(title: str) -> dict:
    return {"title": {"text": title, "side": "top"}, "thickness": 12, "outlinewidth": 0, "x": 1.01}
