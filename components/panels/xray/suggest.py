"""Suggestions: plans for a size that is asked for, with what each was expected to cost and does.

Knows how they are asked for and listed; finding and measuring them is the library's affair. One
click makes a suggestion the plan.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import gradio as gr

from components.panels.log.panel import Entry, LogBook
from components.services import bases
from components.services.jobs import Job
from components.services.rates import admit
from components.sessions.session import Session
from components.widgets.html_component import LiveHTML
from components.widgets.sample_picker import SamplePicker, name_of, sample_of
from components.widgets.status.status import Status, failed, note
from components.widgets.stop_button import stops
from surgery import SurgeryError
from surgery.analysis import METHODS
from surgery.progress import Cancelled

if TYPE_CHECKING:
    from surgery import Base
    from surgery.analysis import Suggestion

_LAYERS, _PARAMETERS = "layers", "million parameters"
_STOPPED = note("Stopped. What was measured is kept: Suggest goes on from here.")
_HIDDEN = gr.update(visible=False)
_QUIET = {"show_progress": "hidden", "api_visibility": "private"}


class Suggestions(LiveHTML):
    """The list. Emits `select` with a plan's notation when one is to be applied."""

    stem = "suggestions"


@dataclass(frozen=True)
class SuggestPanel:
    """The panel's components."""

    size: gr.Number
    unit: gr.Radio
    start: gr.Button
    stop: gr.Button
    status: Status
    found: Suggestions


def suggest_panel() -> SuggestPanel:
    """Lay the panel out, where the page is being built."""
    with gr.Row(elem_classes="xray-buttons fields"):
        size = gr.Number(
            value=26,
            label="Down or up to",
            minimum=1,
            scale=0,
            min_width=130,
            elem_id="suggest-size",
        )
        unit = gr.Radio(
            [_LAYERS, _PARAMETERS],
            value=_LAYERS,
            label="of",
            scale=0,
            min_width=300,
            elem_id="suggest-unit",
        )
        start = gr.Button(
            "Suggest", variant="primary", scale=0, min_width=130, size="md", elem_id="suggest-start"
        )
        stop = gr.Button(
            "Stop", scale=0, min_width=80, size="md", visible=False, elem_id="suggest-stop"
        )
    status = Status(
        value=note(
            "Several methods each find a plan; all are measured, beside a random one as control. "
            "Fewer layers than the base are dropped to, more are repeated to."
        ),
        elem_id="suggest-status",
    )
    found = Suggestions(value={}, elem_id="suggestions")
    return SuggestPanel(size, unit, start, stop, status, found)


def wire(
    panel: SuggestPanel, picker: SamplePicker, session: gr.State, book: LogBook, compute: dict
) -> gr.events.Dependency:
    """Tie the panel to the page. The event that comes back ends when plans were measured."""

    def begin(session: Session, size, unit, kind, own, request: gr.Request) -> Iterator[dict]:
        try:
            admit("measure", request)
        except SurgeryError as error:
            yield {panel.status: failed(error)}
            return
        yield from run(panel, session, book, size, unit, kind, own)

    finding = panel.start.click(
        begin,
        [session, panel.size, panel.unit, *picker.inputs],
        [panel.status, panel.stop, panel.found],
        **_QUIET,
        **compute,
    )
    stops(panel.stop, [finding], lambda: (_STOPPED, _HIDDEN), None, [panel.status, panel.stop])
    return finding


def run(
    panel: SuggestPanel, session: Session, book: LogBook, size, unit, kind: str, own: str
) -> Iterator[dict]:
    """Find plans and list them as they come."""
    spec = session.spec
    latest: list[list[Suggestion]] = []
    opened: list[Base] = []
    try:
        wanted = _size(size, unit)

        def work(progress) -> list[Suggestion]:
            from surgery.analysis import suggest

            base = bases.load(spec, progress)
            opened.append(base)
            sample = sample_of(base, kind, own, progress)
            return suggest(base, sample, **wanted, on_update=latest.append, progress=progress)

        yield {panel.found: {}}
        job = Job(work)
        for report in job:
            shown = {panel.status: report.view(), panel.stop: gr.update(visible=True)}
            if latest:
                shown[panel.found] = view(opened[0], latest[-1])
                latest.clear()
            yield shown
        found = job.result()
        for one in found:
            if one.measured is not None:
                how = METHODS[one.method].label
                entry = Entry.of(opened[0], spec, one.plan, one.measured, name_of(kind, own), how)
                book.add(session, entry)
        yield {
            panel.status: note("Lowest measured perplexity first. Apply makes a plan yours."),
            panel.stop: _HIDDEN,
            panel.found: view(opened[0], found),
        }
    except Cancelled:
        yield {panel.status: _STOPPED, panel.stop: _HIDDEN}
    except SurgeryError as error:
        yield {panel.status: failed(error), panel.stop: _HIDDEN}


def view(base: Base, found: list[Suggestion]) -> dict:
    """The list as plain values."""
    return {"rows": [_row(base, one) for one in found]}


def _row(base: Base, one: Suggestion) -> dict:
    after = base.preview(one.plan)
    return {
        "method": METHODS[one.method].label,
        "words": one.words,
        "plan": str(one.plan),
        "size": f"{after.layers} layers, {after.parameters / 1e6:,.1f} M",
        "expected": "" if one.expected is None else f"{one.scale} {_short(one.expected)}",
        "measured": "" if one.measured is None else _short(one.measured.perplexity),
        "span": ""
        if one.measured is None
        else f"{_short(one.measured.low)} to {_short(one.measured.high)}",
        "control": one.method == "random",
    }


def _size(size, unit: str) -> dict:
    """What to ask for, from the two fields. Raises `SurgeryError`."""
    if not isinstance(size, (int, float)) or not math.isfinite(size) or size <= 0:
        raise SurgeryError("Say how large: a number above zero.")
    if unit == _PARAMETERS:
        return {"parameters": int(size * 1e6)}
    if int(size) != size:
        raise SurgeryError("A number of layers is a whole number.")
    return {"layers": int(size)}


def _short(x: float) -> str:
    return "∞" if math.isinf(x) else f"{x:,.4g}" if abs(x) < 1e6 else f"{x:.2e}"
