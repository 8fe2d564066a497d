"""Figures of weight distributions, as plain values for `PlotlyView`.

The counts are made elsewhere; here they get axes, scales and captions. Colours that belong to the
page are left to it ($text, $faint, $line, $accent, $panel).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from components.widgets.colours import BASE, NORMAL, PATIENT, layer_colour
from surgery import Plan
from surgery.numbers import number
from surgery.weight_stats import ValueCounts
from surgery.weight_stats.depth import MEASURES, along, jump, seams
from surgery.weight_stats.value_counts import normal_beyond

if TYPE_CHECKING:
    from surgery.weight_stats import Picture

_BINS = 96
_FINE = 160
_MOST_TICKS = 30
_MOST_SEAMS = 12  # that are spelled out


def heat(plan: Plan, picture: Picture, kind: str | None, log: bool) -> dict:
    """Every layer of the patient: its values upwards, how many of them as colour."""
    low, high = _range([picture.layer(p, kind) for p in range(len(plan))])
    edges = np.linspace(low, high, _BINS + 1)
    counts = np.array([_clipped(picture.layer(p, kind), edges) for p in range(len(plan))]).T
    share = counts / np.maximum(counts.sum(axis=0, keepdims=True), 1)
    middle = (edges[1:] + edges[:-1]) / 2
    floor = -6.0
    with np.errstate(divide="ignore"):
        shown = np.maximum(np.log10(share), floor) if log else 100 * share
    ticks = list(range(int(floor), 1))
    bar = {
        "title": {"text": "share of<br>the layer" if log else "% of<br>the layer", "side": "top"},
        "thickness": 12,
        "outlinewidth": 0,
        "x": 1.01,
    }
    if log:
        labels = ["≤ 0.0001 %", "0.001 %", "0.01 %", "0.1 %", "1 %", "10 %", "100 %"]
        bar |= {"tickvals": ticks, "ticktext": labels}
    trace = {
        "type": "heatmap",
        "name": "log10 of the share" if log else "% of the layer",
        "x": list(range(len(plan))),
        "y": _plain(middle),
        "z": _plain(shown, 3),
        "customdata": counts.tolist(),
        "colorscale": "Viridis",
        "colorbar": bar,
        "hovertemplate": "position %{x}, layer %{text}<br>values near %{y:,.3~r}"
        "<br>%{customdata:,} weights<extra></extra>",
        "text": [list(plan.sources)] * _BINS,
    }
    if log:
        trace |= {"zmin": floor, "zmax": 0 if kind == "norms" else -0.5}
    return {
        "title": f"Distribution by layer: {_named(kind)}",
        "hint": "Each column is a layer; brighter means more weights with that value. Look for "
        "columns that are wider than their neighbours, and for breaks at the dotted seams. The "
        "outermost rows include everything beyond them.",
        "data": [trace, _ribbon(plan)],
        "layout": {
            "xaxis": _depth_axis(plan),
            "yaxis": {
                "title": {"text": "weight value"},
                "domain": [0.075, 1],
                "range": [low, high],
                "tickformat": ",.2~r",
            },
            "yaxis2": _RIBBON_AXIS,
            "shapes": _seam_lines(plan, "#ffffff"),
            "showlegend": False,
        },
        "link": {"sources": list(plan.sources), "emits": True},
    }


def detail(base: ValueCounts, patient: ValueCounts, name: str, log: bool) -> dict:
    """One selection: base, patient, and the normal distribution with the patient's moments."""
    low, high = _range([base, patient])
    edges = np.linspace(low, high, _FINE + 1)
    middle = _plain((edges[1:] + edges[:-1]) / 2)
    lines = []
    for label, weights, style in (
        ("base", base, {"color": BASE, "width": 6}),
        ("patient", patient, {"color": PATIENT, "width": 2}),
    ):
        percent = 100 * weights.histogram(edges) / max(1, weights.finite)
        lines.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": label,
                "x": middle,
                "y": _plain(np.where(percent > 0, percent, np.nan) if log else percent),
                "line": {**style, "shape": "hvh"},
                "hovertemplate": "%{y:,.3~r} % near %{x:,.3~r}",
            }
        )
    if not log:
        lines[1] |= {"fill": "tozeroy", "fillcolor": "rgba(230,159,0,0.22)"}
    if patient.deviation > 0:
        z = (edges - patient.mean) / patient.deviation
        area = np.diff([0.5 * math.erfc(-x / math.sqrt(2)) for x in z])
        expected = 100 * area
        least = 50 / max(1, patient.finite)
        lines.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": "normal",
                "x": middle,
                "y": _plain(np.where(expected > least, expected, np.nan) if log else expected),
                "line": {"color": NORMAL, "width": 2.5, "dash": "dash"},
                "hovertemplate": "%{y:,.3~r} % near %{x:,.3~r}",
            }
        )
    axis: dict[str, Any] = {"title": {"text": "% of weights per bin"}, "tickformat": ",.3~r"}
    axis |= {"type": "log", "exponentformat": "power"} if log else {"rangemode": "tozero"}
    if log:
        axis |= {"tickformat": "", "dtick": 1}
    return {
        "title": name,
        "hint": "Decoder layers only: embeddings, final norm and output head are not counted. "
        "Dashed: a normal distribution with the patient's mean and standard deviation. Tails above "
        "it are typical of trained weights. For a single layer, the curves of base and patient "
        "coincide unless it was reinitialised; for several, they also differ by dropped and "
        "repeated layers.",
        "data": lines,
        "layout": {
            "xaxis": {"title": {"text": "weight value"}, "tickformat": ",.2~r"},
            "yaxis": axis,
            "legend": {"orientation": "h", "x": 0, "y": 1.0, "yanchor": "bottom"},
            "hovermode": "x unified",
        },
        "table": _facts(base, patient),
    }


def depth(
    plan: Plan, base: Picture, patient: Picture, kind: str | None, measure: str, log: bool
) -> dict:
    """One measure along depth, with the plan's seams and the jump across each."""
    what = MEASURES[measure]
    values = along(patient, measure, kind)
    of_base = along(base, measure, kind)
    known = [v for v in (*values, *of_base) if v is not None]
    broken = seams(plan)
    notes: list[dict] = []
    for seam in broken if len(broken) <= _MOST_SEAMS else []:
        # Neighbours that would write over one another take turns in being lower.
        near = bool(notes) and seam.position - 0.5 - notes[-1]["x"] < len(plan) / 9
        height = 0.87 if near and notes[-1]["y"] == 1 else 1
        change = jump(values, seam.position)
        text = f"{seam.before}→{seam.after}"
        if change is not None:
            text += f"<br><b>{100 * change:+.1f} %</b>".replace("-", "−")
        notes.append(
            {
                "x": seam.position - 0.5,
                "y": height,
                "yref": "paper",
                "yanchor": "top",
                "text": text,
                "bgcolor": "$panel",
                "borderpad": 1,
                "showarrow": False,
            }
        )
    if measure == "kurtosis" and known and min(known) <= 0:
        log = False
    axis = {
        "title": {"text": what.unit},
        "domain": [0.09, 0.74 if notes else 1],
        "tickformat": ",.3~r",
    }
    if log and known and min(known) > 0:
        axis["type"] = "log"
    return {
        "title": f"{what.name} along depth: {_named(kind)}",
        "hint": f"{what.hint} "
        + (
            f"Dotted: the {len(broken)} seams of the plan, with the jump across each."
            if len(broken) > 1
            else "Dotted: the seam of the plan, with the jump across it."
            if broken
            else "The plan has no seams yet: drop, repeat or move layers above."
        ),
        "data": [
            {
                "type": "scatter",
                "mode": "lines",
                "name": "base",
                "x": list(range(len(of_base))),
                "y": _rounded(of_base),
                "line": {"color": "$faint", "width": 2, "dash": "dot"},
                "hovertemplate": "base, layer %{x}: %{y:,.4~r}<extra></extra>",
            },
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": "patient",
                "x": list(range(len(values))),
                "y": _rounded(values),
                "text": list(plan.sources),
                "line": {"color": "$text", "width": 1.5},
                "marker": {
                    "size": 10,
                    "color": [layer_colour(s, plan.depth) for s in plan.sources],
                    "line": {"color": "$text", "width": 1},
                },
                "hovertemplate": "position %{x}, layer %{text}: %{y:,.4~r}<extra></extra>",
            },
            _ribbon(plan),
        ],
        "layout": {
            "xaxis": _depth_axis(plan),
            "yaxis": axis,
            "yaxis2": _RIBBON_AXIS,
            "shapes": _seam_lines(plan, "$text"),
            "annotations": notes,
            "legend": {"orientation": "h", "x": 0, "y": 1.0, "yanchor": "bottom"},
        },
        "link": {"sources": list(plan.sources), "emits": False},
    }


# ---------------------------------------------------------------- parts of figures

_RIBBON_AXIS = {
    "domain": [0, 0.05],
    "range": [0, 1],
    "showticklabels": False,
    "showgrid": False,
    "zeroline": False,
}


def _ribbon(plan: Plan) -> dict:
    """The colours of the strip beneath the columns."""
    return {
        "type": "bar",
        "meta": "decoration",
        "x": list(range(len(plan))),
        "y": [1] * len(plan),
        "width": 0.9,
        "yaxis": "y2",
        "marker": {"color": [layer_colour(s, plan.depth) for s in plan.sources]},
        "showlegend": False,
        "hoverinfo": "skip",
    }


def _depth_axis(plan: Plan) -> dict:
    """Positions of the patient, labelled with the layers that run there."""
    every = max(1, math.ceil(len(plan) / _MOST_TICKS))
    at = list(range(0, len(plan), every))
    return {
        "title": {"text": "layer, in running order"},
        "tickvals": at,
        "ticktext": [str(plan.sources[p]) for p in at],
        "tickangle": 0,
        "range": [-0.5, len(plan) - 0.5],
        "anchor": "y2",
        "showgrid": False,
        "zeroline": False,
    }


def _seam_lines(plan: Plan, colour: str) -> list[dict]:
    return [
        {
            "type": "line",
            "xref": "x",
            "yref": "paper",
            "x0": seam.position - 0.5,
            "x1": seam.position - 0.5,
            "y0": 0,
            "y1": 1,
            "line": {"color": colour, "width": 1.5, "dash": "dot"},
        }
        for seam in seams(plan)
    ]


def _range(both: Sequence[ValueCounts]) -> tuple[float, float]:
    """From where to where nearly all values of nearly all layers lie."""
    known = [weights for weights in both if weights.finite]
    if not known:
        return -1.0, 1.0
    low = min(weights.quantile(0.0002) for weights in known)
    high = max(weights.quantile(0.9998) for weights in known)
    room = 0.15 * (high - low) or 0.1 * abs(high) or 1e-3
    return low - room, high + room


def _clipped(weights: ValueCounts, edges: np.ndarray) -> np.ndarray:
    """Counts between edges; what lies beyond is counted in the outermost bins."""
    counts = weights.histogram(edges)
    lower, upper = weights.outside(edges[0], edges[-1])
    counts[0] += lower
    counts[-1] += upper
    return counts


def _facts(base: ValueCounts, patient: ValueCounts) -> dict:
    columns = (
        ("weights", "values", "{:,}".format),
        ("σ", "deviation", _figure),
        ("kurtosis", "kurtosis", "{:.2f}".format),
        ("> 2σ", "beyond_2", _percent),
        ("> 4σ", "beyond_4", _percent),
        ("zeros", "zeros", "{:,}".format),
        ("min", "minimum", _figure),
        ("max", "maximum", _figure),
        ("mean", "mean", _figure),
        ("NaN", "nan", "{:,}".format),
        ("infinite", "infinite", "{:,}".format),
    )
    known = [base.facts().as_dict(), patient.facts().as_dict()]
    # Nobody misses a column of no NaN.
    shown = [c for c in columns if c[1] not in ("nan", "infinite") or any(f[c[1]] for f in known)]
    rows = []
    for label, facts in zip(("base", "patient"), known, strict=True):
        words = ["–" if facts[key] is None else form(facts[key]) for _, key, form in shown]
        rows.append([label, *(text.replace("-", "−") for text in words)])
    normal = {"kurtosis": "0", "beyond_2": _percent(normal_beyond(2))}
    normal["beyond_4"] = _percent(normal_beyond(4))
    rows.append(["normal", *(normal.get(key, "") for _, key, _ in shown)])
    return {"columns": ["", *(label for label, _, _ in shown)], "rows": rows}


def _figure(value: float) -> str:
    return number(value, 3)


def _percent(share: float) -> str:
    return f"{number(100 * share, 3)} %"


def _named(kind: str | None) -> str:
    return "all weights" if kind is None else kind


def _plain(values: np.ndarray, digits: int = 6) -> list:
    """JSON knows no NaN, and nobody sees the seventh digit."""
    rounded = np.round(values, digits) if values.ndim == 2 else values
    if rounded.ndim == 2:
        return [_plain(row) for row in rounded]
    return [float(f"{v:.6g}") if math.isfinite(v) else None for v in rounded]


def _rounded(values: Sequence[float | None]) -> list[float | None]:
    return [None if v is None else float(f"{v:.6g}") for v in values]
