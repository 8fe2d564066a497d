"""The log as a table and as a picture, with the Pareto front of its plans.

A picture has the entries of one base and one text: others can't be compared.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict

from components.sessions.measurements import Entry
from components.widgets.colours import BASE, HEALED, PATIENT


def table(entries: Iterable[Entry]) -> dict:
    """The rows of the table, newest last."""
    return {"entries": [_plain(entry) for entry in entries]}


def picture(entries: Iterable[Entry], identity: str) -> dict:
    """Size against perplexity, of one base and the text that was measured last."""
    mine = [(i, e) for i, e in enumerate(entries) if e.identity == identity]
    if not mine:
        return {}
    last = mine[-1][1]
    alike = (last.text, last.tokens)
    shown = [(i, e) for i, e in mine if (e.text, e.tokens) == alike and math.isfinite(e.perplexity)]
    if not shown:
        return {}
    best = pareto([(e.parameters, e.perplexity) for _, e in shown])
    levels = [e.perplexity for _, e in shown]
    marks = [_mark(e) for _, e in shown]
    return {
        "title": "Size against perplexity",
        "hint": f"Each point is a plan measured on {last.text} ({last.tokens:,} tokens), with its "
        "95 % interval. Further left is smaller, lower is better. No measured plan beats those on "
        "the line"
        + ("; diamonds are healed patients" if any(e.healing for _, e in shown) else "")
        + ". Click a point to apply its plan.",
        "data": [
            {
                "type": "scatter",
                "mode": "lines",
                "name": "best so far",
                "x": [x / 1e6 for x, _ in best],
                "y": [y for _, y in best],
                "line": {"color": "$faint", "width": 2, "shape": "hv"},
                "hoverinfo": "skip",
            },
            {
                "type": "scatter",
                "mode": "markers",
                "name": "plans",
                "x": [e.parameters / 1e6 for _, e in shown],
                "y": [float(f"{e.perplexity:.5g}") for _, e in shown],
                "customdata": [i for i, _ in shown],
                "text": [_short(e.plan) + (f"<br>{e.note}" if e.healing else "") for _, e in shown],
                "error_y": {
                    "type": "data",
                    "array": [e.high - e.perplexity for _, e in shown],
                    "arrayminus": [e.perplexity - e.low for _, e in shown],
                    "thickness": 1.2,
                    "width": 4,
                    "color": "$faint",
                },
                "marker": {
                    "size": [14 if e.healing else 13 for _, e in shown],
                    "symbol": [symbol for symbol, _ in marks],
                    "color": [colour for _, colour in marks],
                    "line": {"color": "$text", "width": 1},
                },
                "hovertemplate": "%{text}<br>%{x:,.1f} M parameters<br>perplexity %{y:,.4g}"
                "<extra></extra>",
            },
        ],
        "layout": {
            "xaxis": {"title": {"text": "parameters (millions)"}, "zeroline": False},
            "yaxis": {"title": {"text": "perplexity"}, "type": "log", "tickformat": ",.4~g"}
            | ({"dtick": "D2"} if max(levels) > 4 * min(levels) else {}),
            "showlegend": False,
        },
        "points": True,
    }


def pareto(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Those that nothing smaller is as good as, from small to large."""
    best: list[tuple[float, float]] = []
    for size, loss in sorted(points):
        if not best or loss < best[-1][1]:
            best.append((size, loss))
    return best


def _plain(entry: Entry) -> dict:
    row = asdict(entry)
    for key in ("perplexity", "low", "high"):
        row[key] = float(f"{row[key]:.6g}") if math.isfinite(row[key]) else None
    del row["identity"], row["healing"]
    return row


def _mark(entry: Entry) -> tuple[str, str]:
    """Symbol and colour of its point."""
    if entry.healing:
        return "diamond", HEALED
    return "circle", BASE if entry.note == "the base" else PATIENT


def _short(plan: str) -> str:
    return plan if len(plan) <= 60 else plan[:57] + "…"
