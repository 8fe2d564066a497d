"""Pictures of what a plan did, as plain values for `PlotlyView`: norms along depth, likeness of
hidden states, and what each layer would say.

Knows axes, scales and sentences; the numbers come measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from components.widgets.colours import BASE, PATIENT
from surgery import Plan

if TYPE_CHECKING:
    from surgery.analysis import Guess, Norms

_LONGEST = 12  # characters of a token in a cell


def norms(plan: Plan, found: Norms | None) -> dict:
    """How long the hidden states are behind each layer."""
    if found is None:
        return {}
    lines = [
        {
            "type": "scatter",
            "mode": "lines+markers",
            "name": name,
            "x": list(range(len(values))),
            "y": [None if x is None else float(f"{x:.5g}") for x in values],
            "line": {"color": colour, "width": width, "dash": dash},
            "marker": {"size": 5},
            "hovertemplate": f"{name}, position %{{x}}: %{{y:,.4g}}<extra></extra>",
        }
        for name, values, colour, width, dash in (
            ("base", found.base, BASE, 4, "solid"),
            ("patient", found.patient, PATIENT, 2, "solid"),
        )
    ]
    return {
        "title": "Length of the hidden states",
        "hint": "Mean length of what each layer hands on. Where the patient's line leaves the "
        "base's, later layers are given something that they never saw in training.",
        "data": lines,
        "layout": {
            "xaxis": {"title": {"text": "position in running order"}, "zeroline": False},
            "yaxis": {
                "title": {"text": "length"},
                "type": "log",
                "dtick": "D2",
                "tickformat": ",.3~g",
            },
            "legend": {"orientation": "h", "x": 0, "y": 1.0, "yanchor": "bottom"},
        },
        "link": {"sources": list(plan.sources), "emits": False},
    }


def similarity(plan: Plan, rows: Sequence[Sequence[float | None]]) -> dict:
    """Which layer of the base each of the patient's is still like."""
    return {
        "title": "Which layer of the base is each like?",
        "hint": "Cosine of the hidden states behind layer i of the base (upwards) and position p "
        "of the patient. A bright diagonal says that the patient still goes the base's way; look "
        "how it continues after a seam.",
        "data": [
            {
                "type": "heatmap",
                "name": "cosine",
                "x": list(range(len(plan))),
                "y": list(range(len(rows))),
                "z": [[None if x is None else round(x, 4) for x in row] for row in rows],
                "colorscale": "Viridis",
                "zmax": 1,
                "colorbar": {
                    "title": {"text": "cosine", "side": "top"},
                    "thickness": 12,
                    "outlinewidth": 0,
                    "x": 1.01,
                },
                "hovertemplate": "base layer %{y}, position %{x}: %{z:.3f}<extra></extra>",
                "hoverongaps": False,
            }
        ],
        "layout": {
            "xaxis": {"title": {"text": "position in the patient"}, "showgrid": False},
            "yaxis": {"title": {"text": "layer of the base"}, "showgrid": False},
            "showlegend": False,
        },
        "link": {"sources": list(plan.sources), "emits": False},
    }


def lens(who: str, rows: Sequence[Sequence[tuple[Guess, ...]]], given: Sequence[str]) -> dict:
    """What each layer would say after each of the tokens `given`, if it were the last."""
    columns = list(range(len(given)))
    likely = [[cell[0].probability if cell else None for cell in row] for row in rows]
    return {
        "title": f"What each layer would say: {who}",
        "hint": "Each column is a token of the text, each row a layer, from the first below to the "
        "last above; a cell has the word that this layer would say next. Watch how far up an "
        "answer takes shape.",
        "data": [
            {
                "type": "heatmap",
                "name": "probability",
                "x": columns,
                "y": list(range(len(rows))),
                "z": [[None if x is None else round(x, 4) for x in row] for row in likely],
                "text": [[_cell(cell[0].text) if cell else "" for cell in row] for row in rows],
                "texttemplate": "%{text}",
                "textfont": {"size": 11},
                "zmin": 0,
                "zmax": 1,
                "colorscale": "Cividis",
                "colorbar": {
                    "title": {"text": "probability", "side": "top"},
                    "thickness": 12,
                    "outlinewidth": 0,
                    "x": 1.01,
                },
                "hovertemplate": "layer at position %{y}<br>says “%{text}” "
                "(%{z:.1%})<extra></extra>",
            }
        ],
        "layout": {
            "xaxis": {
                "title": {"text": "after the token"},
                "tickvals": columns,
                "ticktext": [_cell(text) for text in given],
                "tickangle": -35,
                "showgrid": False,
            },
            "yaxis": {"title": {"text": "position of the layer"}, "showgrid": False},
            "showlegend": False,
        },
    }


def _cell(text: str) -> str:
    """A token in a cell: plotly reads a little markup, which text from outside must not be."""
    short = text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
    short = short.replace("\n", "⏎").replace("&", "&amp;")
    return short.replace("<", "&lt;").replace(">", "&gt;")
