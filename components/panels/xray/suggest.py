"""Suggestions: plans for a requested size, each with its expected and its measured cost.

One click makes a suggestion the plan.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

import gradio as gr

from components.parts import AT_ONCE, QUIET, PageParts
from components.services.client_address import Visitor, visitor
from components.services.run_job import JobPanel, run_job, watch_in_turn
from components.services.services import Services
from components.sessions.measurements import Entry
from components.sessions.session import Session, layers_text
from components.widgets.html_component import LiveHTML
from components.widgets.job_buttons import start_and_stop, stops
from components.widgets.status.status import Status, note
from surgery import Plan, SurgeryError
from surgery.analysis import METHODS
from surgery.numbers import number, perplexity
from surgery.operation import Operation
from surgery.progress import Cancelled

from .sample_picker import SamplePicker, judging_sample, name_of, sample_of

if TYPE_CHECKING:
    from surgery import Base
    from surgery.analysis import Judgement, Suggestion
    from surgery.known_base import KnownBase

_LAYERS, _PARAMETERS = "layers", "million parameters"
_SHARE = 0.85  # of the base's size: the target until another is entered
_JUDGED = "Sorted by measured perplexity, then measured on other text, which no plan was chosen on."
_NOT_JUDGED = (
    "Sorted by measured perplexity. A longer text would have a second half to check them on."
)
_ELSEWHERE = note("Stopped because another base was opened. Measurements are kept.")
_STOPPED = note("Stopped. Measurements are kept: Suggest resumes from here.")


class Suggestions(LiveHTML):
    """The list. Emits `select` with a plan's notation when one is to be applied."""

    stem = "suggestions"


@dataclass(frozen=True)
class SuggestPanel(JobPanel):
    """The panel's components."""

    size: gr.Number
    unit: gr.Radio
    start: gr.Button
    stop: gr.Button
    status: Status
    rows: Suggestions


def layout() -> SuggestPanel:
    """Lay the panel out in the current tab."""
    with gr.Row(elem_classes="xray-buttons fields"):
        size = gr.Number(
            label="Target size",
            scale=0,
            min_width=130,
            elem_id="suggest-size",
        )
        unit = gr.Radio(
            [_LAYERS, _PARAMETERS],
            value=_LAYERS,
            label="Unit",
            scale=0,
            min_width=300,
            elem_id="suggest-unit",
        )
        start, stop = start_and_stop("Suggest", "suggest", 130)
        status = Status(
            value=note(
                "Each method proposes a plan; all are measured, next to random ones as controls. "
                "Smaller targets drop layers, larger ones repeat them."
            ),
            elem_id="suggest-status",
        )
    rows = Suggestions(value={}, elem_id="suggestions")
    return SuggestPanel(size, unit, start, stop, status, rows)


def wire(panel: SuggestPanel, picker: SamplePicker, parts: PageParts) -> None:
    """Tie the panel to the page."""
    services = parts.services

    def begin(session: Session, size, unit, kind, own, request: gr.Request) -> Iterator[dict]:
        who = visitor(request)
        updates = run(panel, services, session, size, unit, kind, own, who)
        yield from run_job(services, "measure", request, updates, panel.ended, stopped=_STOPPED)

    finding = panel.start.click(
        begin,
        [parts.session, panel.size, panel.unit, *picker.inputs],
        [panel.status, panel.stop, panel.rows],
        **QUIET,
        **AT_ONCE,
    )
    hidden = gr.update(visible=False)
    stops(panel.stop, [finding], lambda: (_STOPPED, hidden), None, [panel.status, panel.stop])
    parts.changes_plan(panel.rows.select, plan_of)

    def offer(session: Session, unit: str, request: gr.Request) -> dict | float:
        if not session.spec or services.refused("draw", request):
            return gr.skip()
        return target(services.bases.numbers(session.spec), unit)

    sized: dict[str, Any] = {"inputs": [parts.session, panel.unit], "outputs": panel.size}
    panel.unit.input(offer, **sized, queue=False, **QUIET)
    for event in parts.opened:
        event.then(offer, **sized, queue=False, **QUIET)
    parts.measured.append(finding)
    parts.scanned.append(finding)  # a score that suggests is that of the strip


def run(
    panel: SuggestPanel,
    services: Services,
    session: Session,
    size,
    unit,
    kind: str,
    own: str,
    who: Visitor | str | None = None,
) -> Iterator[dict]:
    """Wait for a turn, find plans and list them as they come. `who` is the visitor, for fair
    queueing. Raises `SurgeryError`."""
    here, wanted = session.shown, _size(size, unit)
    spec = here.spec
    latest: list[list[Suggestion]] = []
    opened: list[Base] = []

    def work(progress) -> tuple[list[Suggestion], list[Judgement]]:
        from surgery.analysis import judge, random_controls, suggest

        base = services.bases.load(here, progress)
        opened.append(base)
        with services.bases.in_use(base):
            sample = sample_of(base, kind, own, services.deployment, progress)
            sample, other = judging_sample(base, kind, sample)
            found = suggest(base, sample, **wanted, on_update=latest.append, progress=progress)
            if other is None:
                return found, []
            latest.append(found)
            controls = random_controls(base, found, **wanted)
            return found, judge(base, [one.plan for one in found], other, controls, progress)

    def running(status: dict) -> dict:
        if session.spec != spec:
            raise Cancelled
        update = panel.running(status)
        if latest:
            update[panel.rows] = view(spec, opened[0], latest[-1])
            latest.clear()
        return update

    yield {panel.rows: {}}
    try:
        suggestions, judgements = yield from watch_in_turn(services.measuring, who, work, running)
    except Cancelled:
        if session.spec == spec:
            raise
        yield panel.ended(_ELSEWHERE)
        return
    for one, judged in zip_longest(suggestions, judgements):
        score = judged.score if judged else one.measured
        if score is not None:
            how = METHODS[one.method].label
            of = Operation(spec, one.plan)
            session.measurements.add(Entry.of(opened[0], of, score, name_of(kind, own), how))
    words = f"Text: {name_of(kind, own)}. {_JUDGED if judgements else _NOT_JUDGED}"
    yield {
        **panel.ended(note(words)),
        panel.rows: view(spec, opened[0], suggestions, judgements),
    }


def plan_of(session: Session, chosen: Mapping) -> str | None:
    """The plan of the row that the browser names; None if it was suggested for another base."""
    plan = chosen.get("plan")
    return plan if isinstance(plan, str) and chosen.get("spec") == session.spec else None


def view(
    spec: str, base: Base, suggestions: list[Suggestion], judgements: Sequence[Judgement] = ()
) -> dict:
    """The list as plain values, for the base that is opened as `spec`."""
    pairs = zip_longest(suggestions, judgements)
    return {"spec": spec, "rows": [_row(base, one, judged) for one, judged in pairs]}


def _row(base: Base, one: Suggestion, judged: Judgement | None) -> dict:
    after = base.preview(one.plan)
    return {
        "method": METHODS[one.method].label,
        "words": one.words,
        "plan": str(one.plan),
        "size": f"{layers_text(after.layers)}, {after.parameters / 1e6:,.1f} M",
        "expected": "" if one.expected is None else f"{one.scale} {number(one.expected)}",
        "measured": "" if one.measured is None else perplexity(one.measured.perplexity),
        "span": ""
        if one.measured is None
        else f"{perplexity(one.measured.low)} to {perplexity(one.measured.high)}",
        "control": one.method == "random",
        **(_judged(judged) if judged else {}),
    }


def _judged(one: Judgement) -> dict:
    cost = one.cost
    words = {
        None: "too short to tell" if one.gain else "",
        True: "better than random plans",
        False: "not shown to be better than random plans",
    }
    finite = math.isfinite(cost.mean)
    return {
        "cost": f"{cost.mean:+.2f} nats".replace("-", "−") if finite else "broken",
        "cost_span": f"{cost.low:+.2f} to {cost.high:+.2f}".replace("-", "−") if finite else "",
        "verdict": words[one.beats_control],
    }


def target(base: Base | KnownBase, unit: str) -> float:
    """A target size to begin with: somewhat smaller than the base, in the given unit."""
    if unit == _PARAMETERS:
        whole = base.preview(Plan.whole(base.depth)).parameters
        return float(f"{_SHARE * whole / 1e6:.3g}")
    return max(1, min(base.depth - 1, round(_SHARE * base.depth)))


def _size(size, unit: str) -> dict:
    """Arguments of `suggest`, from the two fields. Raises `SurgeryError`."""
    if not isinstance(size, (int, float)) or not math.isfinite(size) or size <= 0:
        raise SurgeryError("Enter a target size above zero.")
    if unit == _PARAMETERS:
        return {"parameters": int(size * 1e6)}
    if int(size) != size:
        raise SurgeryError("The number of layers must be a whole number.")
    return {"layers": int(size)}
