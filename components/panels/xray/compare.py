"""What the plan did: base and patient on the same text, token by token and along depth.

The patient is the healed one where this plan was healed. Knows in which order it is computed and
drawn: the numbers first, then what takes longer. Measuring is the library's affair; pictures are in
compare_figures, the coloured text in damage.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import gradio as gr

from components.panels.log.panel import Entry, LogBook
from components.services import bases
from components.services.jobs import Job
from components.services.rates import admit
from components.sessions.healed_store import Clinic
from components.sessions.session import Session
from components.widgets.plotly_view.plotly_view import PlotlyView
from components.widgets.sample_picker import SamplePicker, name_of, sample_of
from components.widgets.status.status import Status, failed, note
from components.widgets.stop_button import stops
from surgery import Plan, SurgeryError
from surgery.progress import Cancelled

from . import compare_figures, damage
from .damage import Damage

if TYPE_CHECKING:
    from surgery import Base
    from surgery.analysis import Comparison, Sample
    from surgery.healing import Healed

_COLUMNS = 10  # tokens that the lens shows, the picked one last
_STOPPED = note("Stopped.")
_HIDDEN = gr.update(visible=False)
_QUIET = {"show_progress": "hidden", "api_visibility": "private"}


class Seen:
    """The last comparison of a session, for looking closer at one of its tokens."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.of: tuple[str, Plan | Healed, Sample, Comparison] | None = None
        self.turn = 0

    def __deepcopy__(self, memo: dict) -> Seen:
        return Seen()  # Gradio copies a state's first value for every page that is opened


@dataclass(frozen=True)
class ComparePanel:
    """The panel's components."""

    start: gr.Button
    stop: gr.Button
    status: Status
    damage: Damage
    norms: PlotlyView
    similarity: PlotlyView
    base_lens: PlotlyView
    patient_lens: PlotlyView

    @property
    def pictures(self) -> list:
        """All that is drawn."""
        return [
            *(self.damage, self.norms, self.similarity),
            *(self.base_lens, self.patient_lens),
        ]


def compare_panel() -> ComparePanel:
    """Lay the panel out, where the page is being built."""
    with gr.Row(elem_classes="xray-buttons"):
        start = gr.Button(
            "Compare base and patient",
            variant="primary",
            scale=0,
            min_width=240,
            size="md",
            elem_id="compare-start",
        )
        stop = gr.Button(
            "Stop", scale=0, min_width=80, size="md", visible=False, elem_id="compare-stop"
        )
        status = Status(
            value=note("Both read the text; you see where the patient stumbles."),
            elem_id="compare-status",
        )
    shown = Damage(value={}, elem_id="damage")
    with gr.Row(elem_classes="weights-row halves"):
        norms = PlotlyView(value={}, elem_id="compare-norms")
        likeness = PlotlyView(value={}, elem_id="compare-similarity")
    with gr.Row(elem_classes="weights-row halves lens"):
        base_lens = PlotlyView(value={}, elem_id="lens-base")
        patient_lens = PlotlyView(value={}, elem_id="lens-patient")
    return ComparePanel(start, stop, status, shown, norms, likeness, base_lens, patient_lens)


def wire(
    panel: ComparePanel,
    picker: SamplePicker,
    session: gr.State,
    clinic: gr.State,
    book: LogBook,
    compute: dict,
) -> gr.events.Dependency:
    """Tie the panel to the page. The event that comes back ends when a plan was measured."""
    seen = gr.State(Seen())
    outputs = [panel.status, panel.stop, *panel.pictures]

    def begin(
        session: Session, clinic: Clinic, seen: Seen, kind: str, own: str, request: gr.Request
    ) -> Iterator[dict]:
        try:
            admit("measure", request)
        except SurgeryError as error:
            yield {panel.status: failed(error)}
            return
        yield from run(panel, session, clinic, seen, book, kind, own)

    def pick(
        session: Session, seen: Seen, event: gr.EventData, request: gr.Request
    ) -> Iterator[dict]:
        try:
            admit("count", request)
        except SurgeryError as error:
            yield {panel.status: failed(error)}
            return
        yield from look_closer(panel, session, seen, event._data)

    comparing = panel.start.click(
        begin, [session, clinic, seen, *picker.inputs], outputs, **_QUIET, **compute
    )
    looking = panel.damage.select(
        pick, [session, seen], outputs, trigger_mode="always_last", **_QUIET, **compute
    )
    stops(
        panel.stop,
        [comparing, looking],
        lambda: (_STOPPED, _HIDDEN),
        None,
        [panel.status, panel.stop],
    )
    return comparing


def run(
    panel: ComparePanel,
    session: Session,
    clinic: Clinic,
    seen: Seen,
    book: LogBook,
    kind: str,
    own: str,
) -> Iterator[dict]:
    """Compare, and draw one picture after the other."""
    spec = session.spec
    try:
        plan = session.plan
        of = clinic.patient(spec, plan) or plan

        from surgery.analysis.comparison import compare, similarity

        def work(progress) -> tuple[Base, Sample, Comparison]:
            base = bases.load(spec, progress)
            sample = sample_of(base, kind, own, progress)
            return base, sample, compare(base, of, sample, progress)

        base, sample, found = yield from _watch(panel, work)
        with seen.lock:
            seen.of = (spec, of, sample, found)
        for measured, score in ((Plan.whole(base.depth), found.base), (of, found.patient)):
            book.add(session, Entry.of(base, spec, measured, score, name_of(kind, own)))
        at = damage.worst(found)
        drawn = {
            panel.damage: damage.view(found, at),
            panel.norms: compare_figures.norms(plan, found.norms),
        }
        yield drawn
        for shown in _lenses(panel, base, of, sample, found, at):
            drawn |= shown
            yield shown
        rows = yield from _watch(panel, lambda p: similarity(base, of, sample, p))
        # A busy browser may have dropped what something else followed closely: the last tells all.
        yield {
            **drawn,
            panel.similarity: compare_figures.similarity(plan, rows),
            panel.status: note(_words(of)),
            panel.stop: _HIDDEN,
        }
    except Cancelled:
        yield {panel.status: _STOPPED, panel.stop: _HIDDEN}
    except SurgeryError as error:
        yield {panel.status: failed(error), panel.stop: _HIDDEN}


def look_closer(panel: ComparePanel, session: Session, seen: Seen, request) -> Iterator[dict]:
    """The logit lens at the token that was picked; nothing of the request is trusted."""
    index = request.get("index") if isinstance(request, dict) else None
    with seen.lock:
        last = seen.of
        seen.turn = turn = seen.turn + 1
    if last is None or last[0] != session.spec or type(index) is not int:
        yield {panel.status: gr.skip()}
        return
    spec, of, sample, found = last
    if not 0 <= index < len(found.tokens):
        yield {panel.status: gr.skip()}
        return
    try:
        base = yield from _watch(panel, lambda progress: bases.load(spec, progress))
        drawn: dict = {}
        for shown in _lenses(panel, base, of, sample, found, index):
            drawn |= shown
            if turn == seen.turn:
                yield shown
        drawn = drawn if turn == seen.turn else {}
        yield {**drawn, panel.status: note(_words(of)), panel.stop: _HIDDEN}
    except Cancelled:
        yield {panel.status: _STOPPED, panel.stop: _HIDDEN}
    except SurgeryError as error:
        yield {panel.status: failed(error), panel.stop: _HIDDEN}


def _lenses(
    panel: ComparePanel,
    base: Base,
    of: Plan | Healed,
    sample: Sample,
    found: Comparison,
    index: int,
) -> Iterator[dict]:
    """Both models at the tokens up to the picked one: the last column says what comes in its
    place."""
    window = found.tokens[index].window
    place = index - next(i for i, t in enumerate(found.tokens) if t.window == window)
    ids = sample.windows[window][: place + 1]  # what stands before the token
    from surgery.analysis import logit_lens, token_texts

    given = token_texts(base, ids)[-_COLUMNS:]
    bare = isinstance(of, Plan)
    patient = of
    if bare:
        patient = yield from _watch(panel, lambda _: base.operate(of))
    for who, view, whose in (
        ("base", panel.base_lens, base),
        ("patient" if bare else "healed patient", panel.patient_lens, patient),
    ):
        rows = yield from _watch(panel, lambda p, whose=whose: logit_lens(whose, ids, 1, p))
        yield {view: compare_figures.lens(who, [row[-_COLUMNS:] for row in rows], given)}


def _watch(panel: ComparePanel, work) -> Iterator[dict]:
    """Run the work in a thread, say how far it is, and return what it returns."""
    job = Job(work)
    for report in job:
        yield {panel.status: report.view(), panel.stop: gr.update(visible=True)}
    return job.result()


def _words(of: Plan | Healed) -> str:
    plan, healed = (of, "") if isinstance(of, Plan) else (of.plan, ", healed")
    return (
        f"Compared with the plan {plan}{healed} ({plan.describe()}). Pick a token to look closer."
    )
