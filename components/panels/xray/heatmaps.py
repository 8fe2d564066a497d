"""What a scan says of blocks, of parts of layers and of repeats: heat maps for `PlotlyView`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from surgery.numbers import perplexity

from .drawing import HALVES, interval, layer_axis

if TYPE_CHECKING:
    from surgery.analysis import Scan, Variant

_LAST_COLOUR = 0.5  # nats per token, and whatever costs more


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
        for key, name in HALVES.items()
        if scan.variants.get(key)
    }
    if not rows:
        return {}

    def cost(variant: Variant | None) -> float | None:
        if variant is None or variant.cost is None:
            return None
        mean = variant.cost.mean
        if not math.isfinite(mean):
            return _LAST_COLOUR
        return float(f"{mean:.4g}") if mean > above else None

    def words(variant: Variant | None) -> str:
        if variant is None or variant.cost is None:
            return ""
        if not math.isfinite(variant.cost.mean):
            return "the perplexity is not finite"
        cost = variant.cost
        return f"{cost.mean:+.3f} nats ({cost.low:+.3f} to {cost.high:+.3f})"

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
                "hovertemplate": "layer %{x}, %{y}: %{text}<extra></extra>",
                "hoverongaps": False,
            }
        ],
        "layout": {
            "xaxis": {**layer_axis(scan.depth), "anchor": "y"},
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
        return f"{perplexity(variant.perplexity)} ({interval(variant)})"

    hint = (
        "The model runs up to layer j, goes back to layer i and runs to the end. Dark blocks cost "
        "least to repeat. A negative cost is a gain, if its interval excludes zero."
    )
    if any(v.cost and not math.isfinite(v.cost.mean) for v in measured.values()):
        hint += " Blank: the perplexity is not finite."
    return {
        "title": "Cost of repeating a block",
        "hint": hint,
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


def _at(scan: Scan, start: int, n: int) -> float | None:
    value = scan.angular[start][n] if n < len(scan.angular[start]) else None
    return None if value is None else float(f"{value:.4g}")


def _bar(title: str) -> dict:
    return {"title": {"text": title, "side": "top"}, "thickness": 12, "outlinewidth": 0, "x": 1.01}
