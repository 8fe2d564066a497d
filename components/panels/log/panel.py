"""The log: every plan that was measured in this session, size against perplexity.

Knows entries, which of them can be compared, and the Pareto line of those. It survives a change of
base, but a picture has the entries of one base and one text: others can't be compared.
"""

from __future__ import annotations

import math
import threading
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import gradio as gr

from components.sessions.session import Session
from components.widgets.colours import BASE, HEALED, PATIENT
from components.widgets.html_component import LiveHTML
from components.widgets.plotly_view.plotly_view import PlotlyView
from surgery import Plan

if TYPE_CHECKING:
    from surgery import Base
    from surgery.analysis import Score
    from surgery.healing import Healed

_MOST = 500  # entries of a session


@dataclass(frozen=True)
class Entry:
    """A plan and what was measured of it. `identity` is the base's, `text` what it was measured on.
    `note` says how the plan came about, where it was suggested. `healing` is there for a patient
    that was healed: the same for the same healing, and for no other."""

    identity: str
    base: str
    plan: str
    layers: int
    parameters: int
    perplexity: float
    low: float
    high: float
    tokens: int
    text: str
    note: str = ""
    healing: str = ""

    @classmethod
    def of(
        cls,
        base: Base,
        spec: str,
        of: Plan | Healed,
        score: Score | Measure,
        text: str,
        note: str = "",
    ) -> Entry:
        """What is kept of a measurement of a plan's patient, or of a healed one."""
        plan, healing = (of, "") if isinstance(of, Plan) else (of.plan, of.key)
        if healing:
            note = f"healed, {of.facts['steps']:,} steps"
        elif plan.is_whole:
            note = "the base"
        parameters = base.preview(plan).parameters
        numbers = (score.perplexity, score.low, score.high, score.tokens)
        return cls(spec, base.name, str(plan), len(plan), parameters, *numbers, text, note, healing)


@dataclass(frozen=True)
class Measure:
    """A perplexity that was measured elsewhere, with its 95 % interval."""

    perplexity: float
    low: float
    high: float
    tokens: int


class LogBook:
    """Keeps each session's entries in the session; the same measurement is kept once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def add(self, session: Session, entry: Entry) -> None:
        """Keep an entry; the oldest goes if there are too many."""
        with self._lock:
            entries = session.log
            entries.pop(self._key(entry), None)
            entries[self._key(entry)] = entry
            while len(entries) > _MOST:
                entries.pop(next(iter(entries)))

    @staticmethod
    def _key(entry: Entry) -> tuple:
        return entry.identity, entry.plan, entry.healing, entry.text, entry.tokens


class LogTable(LiveHTML):
    """The entries in rows, to take away as CSV or JSON. Emits `select` with a row's index."""

    stem = "log"


@dataclass(frozen=True)
class LogPanel:
    """The panel's components."""

    picture: PlotlyView
    table: LogTable


def log_panel() -> LogPanel:
    """Lay the panel out, where the page is being built."""
    with gr.Row(elem_classes="weights-row halves"):
        picture = PlotlyView(value={}, elem_id="log-picture")
        table = LogTable(value=view({}), elem_id="log-table")
    return LogPanel(picture, table)


def drawn(session: Session) -> tuple[dict, dict]:
    """Values of picture and table."""
    return picture(session), view(session.log)


def plan_at(session: Session, request: object) -> str | None:
    """The plan of the row or point that the browser names; None for what isn't there or belongs to
    another base."""
    index = request.get("index") if isinstance(request, dict) else None
    entries = list(session.log.values())
    if type(index) is not int or not 0 <= index < len(entries):
        return None
    entry = entries[index]
    return entry.plan if entry.identity == session.spec else None


def view(log: dict) -> dict:
    """The rows, newest last."""
    return {"entries": [_plain(entry) for entry in log.values()]}


def picture(session: Session) -> dict:
    """Size against perplexity, of the base that is open and the text that was measured last."""
    entries = list(session.log.values())
    mine = [(i, e) for i, e in enumerate(entries) if e.identity == session.spec]
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
        "hint": f"Each point is a plan that was measured on {last.text} ({last.tokens:,} tokens), "
        "with its 95 % interval; to the left is smaller, below is better. Nothing that was tried "
        "is better than the plans on the line"
        + ("; diamonds were healed" if any(e.healing for _, e in shown) else "")
        + ". Click a point to bring its plan back.",
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
            "xaxis": {"title": {"text": "parameters, millions"}, "zeroline": False},
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
