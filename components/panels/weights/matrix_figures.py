"""Figures of one matrix, as plain values for `PlotlyView`: raw numbers, and singular values."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from components.widgets.colours import BASE


def corner(name: str, shape: Sequence[int], values: np.ndarray) -> dict:
    """The first raw values of a matrix."""
    most = float(np.nanmax(np.abs(values))) if np.isfinite(values).any() else 0.0
    rows, columns = values.shape
    return {
        "title": f"Raw values: {name}",
        "hint": f"The first {rows} rows and columns of {shape[0]:,} × {shape[1]:,}. Orange is "
        "positive, purple negative. Random and trained weights look alike at this scale, so the "
        "figures above count all of them.",
        "data": [
            {
                "type": "heatmap",
                "name": "value",
                "x": list(range(columns)),
                "y": list(range(rows)),
                "z": [[float(f"{v:.5g}") if math.isfinite(v) else None for v in r] for r in values],
                "text": [[f"{v:.3f}".replace("-", "−") for v in row] for row in values],
                "texttemplate": "%{text}",
                "colorscale": [[0, "#b2abd2"], [0.5, "#f7f7f7"], [1, "#fdb863"]],
                "zmin": -(most or 1),
                "zmax": most or 1,
                "showscale": False,
                "xgap": 2,
                "ygap": 2,
                "textfont": {"color": "#14181d", "family": "monospace"},
                "hovertemplate": "row %{y}, column %{x}: %{z}<extra></extra>",
            }
        ],
        "layout": {
            "xaxis": {"title": {"text": "column"}, "dtick": 1, "showgrid": False},
            "yaxis": {
                "title": {"text": "row"},
                "dtick": 1,
                "autorange": "reversed",
                "showgrid": False,
            },
        },
    }


def spectrum(name: str, shape: Sequence[int], values: np.ndarray, stable_rank: float) -> dict:
    """The singular values of a matrix, in descending order."""
    return {
        "title": f"Singular values: {name}",
        "hint": f"Stable rank {stable_rank:,.1f} of at most {min(shape):,}: roughly how many "
        "directions the matrix uses. A flat line uses all of them, as random weights do; a steep "
        "one could be compressed.",
        "data": [
            {
                "type": "scatter",
                "mode": "lines",
                "name": "singular value",
                "x": list(range(1, len(values) + 1)),
                "y": [float(f"{v:.5g}") for v in values],
                "line": {"color": BASE, "width": 3},
                "hovertemplate": "rank %{x}: %{y:,.4~r}<extra></extra>",
            }
        ],
        "layout": {
            "xaxis": {"title": {"text": "rank, in descending order"}},
            "yaxis": {"title": {"text": "singular value"}, "type": "log", "tickformat": ",.2~r"},
        },
    }
