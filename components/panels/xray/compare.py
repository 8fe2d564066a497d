"""What the cut did: base and patient on the same text, token by token and along depth.

The patient is the healed one if this plan was healed. The numbers are computed and drawn first,
then what takes longer.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import gradio as gr

from components.gradio_compat.event_data import event_data
from components.parts import AT_ONCE, QUIET, PageParts
from components.services.client_address import Visitor, visitor
from components.services.run_job import JobPanel, in_turn, run_job, watch
from components.services.services import Services
from components.sessions.healed_store import HealedStore
from components.sessions.measurements import Entry
from components.sessions.session import Session
from components.widgets.job_buttons import start_and_stop, stops
from components.widgets.page_plan import made_of
from components.widgets.plotly_view.plotly_view import PlotlyView
from components.widgets.status.status import Status, note
from components.widgets.teaching import teaching
from surgery import Plan
from surgery.operation import Operation

from . import compare_figures, damage
from .damage import Damage
from .sample_picker import SamplePicker, name_of, sample_of

if TYPE_CHECKING:
    from surgery import Base
    from surgery.analysis import Comparison, Sample

_COLUMNS = 10  # tokens that the lens shows, the picked one last


@dataclass(frozen=True)
class Compared:
    """A comparison, and what it was made of. `text` is the sample's name."""

    operation: Operation
    sample: Sample
    result: Comparison
    text: str

    @property
    def words(self) -> str:
        """What the pictures show."""
        what = self.operation.plan.describe()
        return (
            f"Compared with the plan {self.operation} ({what}), on {self.text}. Select a token for "
            "details."
        )


class Seen:
    """The last comparison of a session, for looking closer at one of its tokens."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._turn = 0  # of drawing the lens: what an older one draws late is not shown
        self.of: Compared | None = None

    def take(self, new: Compared | None = None) -> tuple[int, Compared | None]:
        """Begin to draw the lens, of a new comparison if one is given. Returns the turn, and the
        comparison."""
        with self._lock:
            self.of = new or self.of
            self._turn += 1
            return self._turn, self.of

    def is_latest(self, turn: int) -> bool:
        """Whether no later turn was taken."""
        return turn == self._turn

    def __deepcopy__(self, memo: dict) -> Seen:
        return Seen()  # Gradio copies a state's first value for every page that is opened


@dataclass(frozen=True)
class ComparePanel(JobPanel):
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
    def lenses(self) -> list[PlotlyView]:
        """The logit lens of both models."""
        return [self.base_lens, self.patient_lens]

    @property
    def pictures(self) -> list:
        """All that is drawn."""
        return [self.damage, self.norms, self.similarity, *self.lenses]


def layout() -> ComparePanel:
    """Lay the panel out in the current tab."""
    with gr.Row(elem_classes="xray-buttons"):
        start, stop = start_and_stop("Compare base and patient", "compare", 240)
        status = Status(
            value=note("Runs both models on the text and shows where the patient does worse."),
            elem_id="compare-status",
        )
    teaching(
        "The text in colours: which tokens the patient predicts worse than the base, and better.",
        "The hidden states: their norm after each layer, and which layer of the base it resembles.",
        "The logit lens: what each layer of both models would predict, at a token that you select.",
    )
    shown = Damage(value={}, elem_id="damage")
    with gr.Row(elem_classes="weights-row halves"):
        norms = PlotlyView(value={}, elem_id="compare-norms")
        likeness = PlotlyView(value={}, elem_id="compare-similarity")
    with gr.Row(elem_classes="weights-row halves lens"):
        base_lens = PlotlyView(value={}, elem_id="lens-base")
        patient_lens = PlotlyView(value={}, elem_id="lens-patient")
    return ComparePanel(start, stop, status, shown, norms, likeness, base_lens, patient_lens)


def wire(panel: ComparePanel, picker: SamplePicker, parts: PageParts) -> None:
    """Tie the panel to the page."""
    services = parts.services
    seen = gr.State(Seen())
    outputs = [panel.status, panel.stop, *panel.pictures]

    def begin(
        session: Session, healed: HealedStore, seen: Seen, kind: str, own: str, request: gr.Request
    ) -> Iterator[dict]:
        updates = run(panel, services, session, healed, seen, kind, own, visitor(request))
        yield from run_job(services, "measure", request, updates, panel.ended)

    def pick(
        session: Session, seen: Seen, event: gr.EventData, request: gr.Request
    ) -> Iterator[dict]:
        who, wanted = visitor(request), event_data(event)
        updates = look_closer(panel, services, session, seen, wanted, who)
        yield from run_job(services, "count", request, updates, panel.ended)

    inputs = [parts.session, parts.healed, seen, *picker.inputs]
    comparing = panel.start.click(begin, inputs, outputs, **QUIET, **AT_ONCE)
    looking = panel.damage.select(
        pick, [parts.session, seen], outputs, trigger_mode="always_last", **QUIET, **AT_ONCE
    )
    stops(
        panel.stop,
        [comparing, looking],
        lambda: (note("Stopped."), gr.update(visible=False)),
        None,
        [panel.status, panel.stop],
    )
    parts.measured.append(comparing)


def run(
    panel: ComparePanel,
    services: Services,
    session: Session,
    healed: HealedStore,
    seen: Seen,
    kind: str,
    own: str,
    who: Visitor | str | None = None,
) -> Iterator[dict]:
    """Wait for a turn, compare, and draw one picture after the other. `who` is the visitor, for
    fair queueing. Raises `SurgeryError`."""
    operation = session.operation(healed)

    def turn() -> Iterator[dict]:
        load = partial(services.bases.load, operation)
        base = yield from watch(load, panel.running)
        with services.bases.in_use(base):
            yield from _compare(panel, services, session, operation, base, seen, kind, own)

    yield from in_turn(services.measuring, who, turn(), panel.running)


def _compare(
    panel: ComparePanel,
    services: Services,
    session: Session,
    operation: Operation,
    base: Base,
    seen: Seen,
    kind: str,
    own: str,
) -> Iterator[dict]:
    from surgery.analysis.comparison import compare, similarity

    of = operation.healed or operation.plan

    def work(progress) -> tuple[Sample, Comparison]:
        sample = sample_of(base, kind, own, services.deployment, progress, "judge")
        return sample, compare(base, of, sample, progress)

    sample, result = yield from watch(work, panel.running)
    made = Compared(operation, sample, result, name_of(kind, own))
    turn, _ = seen.take(made)
    whole = Operation(operation.spec, Plan.whole(base.depth))
    for measured, score in ((whole, result.base), (operation, result.patient)):
        session.measurements.add(Entry.of(base, measured, score, made.text))
    at = damage.worst(result)
    drawn = {
        panel.damage: {**damage.view(result, at), "of": made_of(operation)},
        panel.norms: _made(compare_figures.norms(operation.plan, result.norms), operation),
    }
    yield drawn
    lenses: dict = {}
    for shown in _lenses(panel, base, made, at):
        if seen.is_latest(turn):
            lenses |= {key: value for key, value in shown.items() if key in panel.lenses}
            yield shown
    rows = yield from watch(lambda p: similarity(base, of, sample, p), panel.running)
    # A busy browser may have dropped what something else followed closely: the last tells all, but
    # for the lens where another token was picked meanwhile.
    yield {
        **drawn,
        **(lenses if seen.is_latest(turn) else {}),
        panel.similarity: _made(compare_figures.similarity(operation.plan, rows), operation),
        **panel.ended(note(made.words)),
    }


def look_closer(
    panel: ComparePanel,
    services: Services,
    session: Session,
    seen: Seen,
    request,
    who: Visitor | str | None = None,
) -> Iterator[dict]:
    """The logit lens at the token that was picked, once it is the turn of `who`; nothing of the
    request is trusted. Raises `SurgeryError`."""
    index = request.get("index")
    if type(index) is not int:
        yield {panel.status: gr.skip()}
        return
    turn, last = seen.take()
    if last is None or last.operation.spec != session.spec:
        yield {panel.status: gr.skip()}
        return
    if not 0 <= index < len(last.result.tokens):
        yield {panel.status: gr.skip()}
        return
    drawn: dict = {}

    def draw() -> Iterator[dict]:
        load = partial(services.bases.load, last.operation)
        base = yield from watch(load, panel.running)
        with services.bases.in_use(base):
            for shown in _lenses(panel, base, last, index):
                if not seen.is_latest(turn):
                    return
                drawn.update(shown)
                yield shown

    yield from in_turn(services.measuring, who, draw(), panel.running)
    # What was compared meanwhile has drawn a lens of its own, and this one's progress may cover it.
    now = seen.of or last
    yield {**(drawn if seen.is_latest(turn) else {}), **panel.ended(note(now.words))}


def _lenses(panel: ComparePanel, base: Base, made: Compared, index: int) -> Iterator[dict]:
    """Both models at the tokens up to the picked one: the last column says what comes in its
    place."""
    operation, tokens = made.operation, made.result.tokens
    window = tokens[index].window
    place = index - next(i for i, t in enumerate(tokens) if t.window == window)
    ids = made.sample.windows[window][: place + 1]  # what stands before the token
    from surgery.analysis import logit_lens, token_texts

    given = token_texts(base, ids)[-_COLUMNS:]
    patient = yield from watch(lambda _: operation.patient(base), panel.running)
    for who, view, whose in (
        ("base", panel.base_lens, base),
        ("healed patient" if operation.healed else "patient", panel.patient_lens, patient),
    ):
        work = partial(logit_lens, whose, ids, 1)
        rows = yield from watch(work, panel.running)
        figure = compare_figures.lens(who, [row[-_COLUMNS:] for row in rows], given)
        yield {view: _made(figure, operation)}


def _made(figure: dict, operation: Operation) -> dict:
    """The figure, which says once it is outdated; an empty one stays empty."""
    return figure and {**figure, "of": made_of(operation)}
