"""The heat map of layers against the tokens of a text, for `PlotlyView`."""

from __future__ import annotations

from typing import Any

_LONGEST = 14  # characters of a token at the axis
_LABELS = 70  # tokens, above which the axis has no room for them
# From the layers without which a token gets likelier to those that it needs. What matters little
# has the colour of the page, light or dark; the strip has the same colours.
_COLOURS = [
    [0, "rgba(43, 123, 186, 1)"],
    [0.5, "rgba(43, 123, 186, 0)"],
    [0.5, "rgba(235, 104, 20, 0)"],
    [1, "rgba(235, 104, 20, 1)"],
]


def tokens(side: str, view: dict, limit: float) -> dict:
    """What dropping each layer costs each piece of a side's text: `view` is that of
    `token_layers`; colours end at `limit` nats."""
    pieces, costs, sources = view["pieces"], view["costs"], view["sources"]
    columns, rows = list(range(len(pieces))), list(range(len(costs)))
    labels = [_label(piece) for piece in pieces]
    moved = sources != rows
    layers = [
        f"position {p}, layer {source}" if moved else f"layer {p}"
        for p, source in enumerate(sources)
    ]
    axis: dict[str, Any] = {"showgrid": False, "zeroline": False, "showticklabels": False}
    if len(columns) <= _LABELS:
        axis |= {
            "showticklabels": True,
            "tickvals": columns,
            "ticktext": labels,
            "tickangle": -90,
            "tickfont": {"size": 11},
        }
    return {
        "title": f"Layers that mattered: {side}",
        "hint": "How much less likely each token of the text becomes when one layer alone is "
        "dropped, in nats (1 nat: 2.7 times less likely). Blue: it becomes more likely. Select a "
        "column to see it on the strip.",
        "data": [
            {
                "type": "heatmap",
                "name": "nats",
                "x": columns,
                "y": rows,
                "z": costs,
                "text": [[f"“{label}”, {layer}" for label in labels] for layer in layers],
                "colorscale": _COLOURS,
                "zmin": -limit,
                "zmax": limit,
                "colorbar": {
                    "title": {"text": "nats", "side": "top"},
                    "tickvals": [-limit, 0, limit],
                    "ticktext": [f"≤ −{limit:g}", "0", f"≥ {limit:g}"],
                    "thickness": 12,
                    "outlinewidth": 0,
                    "x": 1.01,
                },
                "hovertemplate": "%{text}: %{z:+.2f} nats<extra></extra>",
                "hoverongaps": False,
            }
        ],
        "layout": {
            "xaxis": axis,
            "yaxis": {
                "title": {"text": "position" if moved else "layer"},
                "showgrid": False,
                "zeroline": False,
            },
            "showlegend": False,
        },
        "link": {"text": side},
    }


def _label(piece: str) -> str:
    """A piece of text at the axis: plotly reads a little markup, which text from outside must not
    be."""
    short = piece if len(piece) <= _LONGEST else piece[: _LONGEST - 1] + "…"
    short = short.replace("\n", "⏎").replace("&", "&amp;")
    return short.replace("<", "&lt;").replace(">", "&gt;")
