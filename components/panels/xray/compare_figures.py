"""Figures of base against patient for `PlotlyView`: norms, similarity, logit lens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from components.widgets.colours import BASE, PATIENT
from surgery import Plan

if TYPE_CHECKING:
    from surgery.analysis import Guess, Norms

_LONGEST = 12  # characters of a token in a cell


def norms(plan: Plan, measured: Norms | None) -> dict:
    """The mean norm of the hidden states after each layer."""
    if measured is None:
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
            "hovertemplate": f"{name}, position %{{x}}: %{{y:,.4~r}}<extra></extra>",
        }
        for name, values, colour, width, dash in (
            ("base", measured.base, BASE, 4, "solid"),
            ("patient", measured.patient, PATIENT, 2, "solid"),
        )
    ]
    return {
        "title": "Hidden-state norm",
        "hint": "Mean L2 norm of the hidden states after each layer. The patient’s layers stand "
        "where they run, so compare a layer with its source in the base. Most models normalise "
        "the states before each layer: a layer reads the same scale, but its share of the sum "
        "changes.",
        "data": lines,
        "layout": {
            "xaxis": {"title": {"text": "position in running order"}, "zeroline": False},
            "yaxis": {
                "title": {"text": "L2 norm"},
                "type": "log",
                "dtick": "D2",
                "tickformat": ",.3~r",
            },
            "legend": {"orientation": "h", "x": 0, "y": 1.0, "yanchor": "bottom"},
        },
        "link": {"sources": list(plan.sources), "emits": False},
    }


def similarity(plan: Plan, rows: Sequence[Sequence[float | None]]) -> dict:
    """How similar each layer's output is to that of every layer of the base."""
    return {
        "title": "Representation similarity",
        "hint": "Cosine similarity of the hidden states after layer i of the base (vertical) and "
        "after position p of the patient. On a bright diagonal the patient follows the base; check "
        "whether it continues after a seam.",
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
    """Logit lens: what each layer predicts after each of the tokens `given`."""
    columns = list(range(len(given)))
    likely = [[cell[0].probability if cell else None for cell in row] for row in rows]
    return {
        "title": f"Logit lens: {who}",
        "hint": "Columns are tokens of the text, rows are layers, the first at the bottom. A cell "
        "shows the next token that the layer's hidden state predicts when it goes straight to the "
        "output head.",
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
                "hovertemplate": "layer at position %{y}<br>predicts “%{text}” "
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
