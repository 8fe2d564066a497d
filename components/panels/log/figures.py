"""The log as a table and as a picture, with the Pareto front of its plans.

A picture has the entries of one base and one text: others can't be compared.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING

from components.sessions.measurements import Entry
from components.widgets.colours import BASE, HEALED, PATIENT

if TYPE_CHECKING:
    from surgery.harness import KeptResult
    from surgery.harness.evaluation import Score

_MOST_NAMED = 5  # plans of the front that the caption names


def table(entries: Iterable[Entry], identity: str, tasks: Iterable[KeptResult] = ()) -> dict:
    """The rows of the tables, newest last: of measured plans, and of `tasks` on which the open base
    was evaluated, whose `identity` is given."""
    rows = list(entries)
    best = {entry.index for entry in _front(_comparable(rows, identity))}
    return {
        "entries": [
            {**_plain(row), "here": row.identity == identity, "front": row.index in best}
            for row in rows
        ],
        "tasks": [_task(one) for one in tasks],
    }


def _task(one: KeptResult) -> dict:
    """A result of a task in words: scores with their standard errors, and what became of it by the
    95 % interval of the difference."""
    result, verdict = one.result, ""
    if result.drop:
        drop, margin = result.drop
        verdict = "same" if abs(drop) <= margin else "worse" if drop > 0 else "better"
    return {
        "plan": one.plan,
        "task": result.task,
        "metric": result.metric,
        "base": _with_error(result.base),
        "patient": _with_error(result.patient),
        "difference": _with_error(result.difference, "+"),
        "verdict": verdict,
        "items": "" if one.limit is None else f"first {one.limit:,} items",
        "date": one.date,
    }


def _with_error(score: Score, sign: str = "") -> str:
    digits = 3 if abs(score.value) < 10 else 2
    error = "" if score.stderr is None else f" ± {score.stderr:,.{digits}f}"
    return f"{score.value:{sign},.{digits}f}{error}".replace("-", "−")


def picture(entries: Iterable[Entry], identity: str) -> dict:
    """Size against perplexity, of one base and the text that was measured last."""
    shown = _comparable(list(entries), identity)
    if not shown:
        return {}
    best = _front(shown)
    levels = [e.perplexity for e in shown]
    marks = [_mark(e) for e in shown]
    return {
        "title": "Size against perplexity",
        "hint": _hint(shown, best),
        "data": [
            {
                "type": "scatter",
                "mode": "lines",
                "name": "Pareto front: none is smaller and better",
                "x": [e.parameters / 1e6 for e in best],
                "y": [e.perplexity for e in best],
                "line": {"color": "$accent", "width": 2, "shape": "hv"},
                "showlegend": len(best) > 1,
                "hoverinfo": "skip",
            },
            {
                "type": "scatter",
                "mode": "markers",
                "name": "plans",
                "showlegend": False,
                "x": [e.parameters / 1e6 for e in shown],
                "y": [float(f"{e.perplexity:.5g}") for e in shown],
                "customdata": [e.index for e in shown],
                "text": [_words(e) for e in shown],
                "error_y": {
                    "type": "data",
                    "array": [e.high - e.perplexity for e in shown],
                    "arrayminus": [e.perplexity - e.low for e in shown],
                    "thickness": 1.2,
                    "width": 4,
                    "color": "$faint",
                },
                "marker": {
                    "size": [14 if e.healing else 13 for e in shown],
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
            "legend": {"orientation": "h", "x": 0, "y": 1.0, "yanchor": "bottom"},
        },
        "points": True,
    }


def _comparable(entries: list[Entry], identity: str) -> list[Entry]:
    """The finite ones of one base, on the text that was measured last."""
    mine = [entry for entry in entries if entry.identity == identity]
    return [
        entry
        for entry in mine
        if (entry.text, entry.tokens) == (mine[-1].text, mine[-1].tokens)
        and math.isfinite(entry.perplexity)
    ]


def _front(entries: list[Entry]) -> list[Entry]:
    """The Pareto front: those that nothing smaller is as good as, from small to large."""
    best: list[Entry] = []
    for entry in sorted(entries, key=lambda entry: (entry.parameters, entry.perplexity)):
        if not best or entry.perplexity < best[-1].perplexity:
            best.append(entry)
    return best


def _hint(shown: list[Entry], best: list[Entry]) -> str:
    """What the picture shows, in words; of the line only if there is one."""
    last = shown[-1]
    words = [
        f"Each point is a plan measured on {last.text} ({last.tokens:,} tokens), with its 95 % "
        "interval. Further left is smaller, lower is better."
    ]
    if len(best) > 1:
        named = "; ".join(_short(entry.name or entry.plan, 30) for entry in best[:_MOST_NAMED])
        more = f" and {len(best) - _MOST_NAMED} more" if len(best) > _MOST_NAMED else ""
        words.append(f"On the Pareto front, from small to large: {named}{more}.")
    elif len(shown) > 1:
        only = _short(best[0].name or best[0].plan, 30)
        words.append(f"No other measured plan is smaller or better than {only}.")
    if any(entry.healing for entry in shown):
        words.append("Diamonds are healed or repaired patients.")
    return " ".join([*words, "Click a point to apply its plan."])


def _plain(entry: Entry) -> dict:
    row = asdict(entry)
    for key in ("perplexity", "low", "high"):
        row[key] = float(f"{row[key]:.6g}") if math.isfinite(row[key]) else None
    del row["identity"], row["healing"]  # the browser has no use for them
    return row


def _mark(entry: Entry) -> tuple[str, str]:
    """Symbol and colour of its point."""
    if entry.healing:
        return "diamond", HEALED
    return "circle", BASE if entry.note == "the base" else PATIENT


def _words(entry: Entry) -> str:
    """A point in words. Plotly reads them as markup, so a name loses what would be some."""
    name = entry.name.replace("<", "‹")
    note = entry.note if entry.healing else ""
    return "<br>".join(filter(None, [name, _short(entry.plan), note]))


def _short(text: str, most: int = 60) -> str:
    return text if len(text) <= most else text[: most - 3] + "…"
