"""The figure of a healing run, as plain values for `PlotlyView`: loss and perplexities."""

from __future__ import annotations

from typing import TYPE_CHECKING

from components.widgets.colours import BASE, HEALED, NORMAL

if TYPE_CHECKING:
    from surgery.healing import EvalResult


def curve(losses: list[float], evaluations: list[EvalResult]) -> dict:
    """The loss of every step, and perplexities on held-out text."""
    steps = [evaluation.step for evaluation in evaluations]
    now = [evaluation.now.value for evaluation in evaluations]
    ends = [0, max(1, len(losses))]
    return {
        "title": "Healing",
        "hint": "Left axis: training loss per step. Right axis: perplexity of base, cut and "
        "patient on held-out text, with 95 % intervals; lower is better.",
        "data": [
            {
                "type": "scatter",
                "mode": "lines",
                "name": "loss",
                "x": list(range(1, len(losses) + 1)),
                "y": [round(loss, 5) for loss in losses],
                "line": {"color": NORMAL, "width": 1.5},
            },
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": "patient",
                "yaxis": "y2",
                "x": steps,
                "y": [round(value, 3) for value in now],
                "error_y": {
                    "type": "data",
                    "symmetric": False,
                    "array": [
                        round(evaluation.now.high - evaluation.now.value, 3)
                        for evaluation in evaluations
                    ],
                    "arrayminus": [
                        round(evaluation.now.value - evaluation.now.low, 3)
                        for evaluation in evaluations
                    ],
                },
                "line": {"color": HEALED},
            },
            *(
                {
                    "type": "scatter",
                    "mode": "lines",
                    "name": name,
                    "yaxis": "y2",
                    "x": ends,
                    "y": [round(value, 3)] * 2,
                    "line": {"color": colour, "dash": "dot"},
                }
                for name, value, colour in (
                    (
                        ("base", evaluations[0].base.value, BASE),
                        ("cut", evaluations[0].cut.value, "$faint"),
                    )
                    if evaluations
                    else ()
                )
            ),
        ],
        "layout": {
            "xaxis": {
                "title": {"text": "step"},
                "tickformat": ",d",
                **({"dtick": 1} if len(losses) < 10 else {}),  # no ticks between steps
            },
            "yaxis": {"title": {"text": "loss (nats)"}, "rangemode": "tozero"},
            "yaxis2": {
                "title": {"text": "perplexity"},
                "overlaying": "y",
                "side": "right",
                "type": "log",
                "tickmode": "auto",
                "dtick": "D1" if _close(evaluations) else "D2",
                "tickformat": ",.4~r",
                "showgrid": False,
            },
            "legend": {"orientation": "h", "x": 0, "y": 1.0, "yanchor": "bottom"},
        },
    }


def _close(evaluations: list[EvalResult]) -> bool:
    """Whether perplexities are so close to one another that an axis needs all its ticks."""
    levels = [
        level
        for evaluation in evaluations
        for level in (evaluation.base.value, evaluation.now.high)
    ]
    return bool(levels) and max(levels) < 4 * min(levels)
