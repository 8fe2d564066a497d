"""The weights panel: how the weights of base and patient are distributed, layer by layer.

Knows when weights are counted and which pictures follow from what is chosen. Counting is the
library's affair, how pictures look is in weights_figures. A base is counted once; when the plan
changes, the patient's pictures are made of the same counts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import gradio as gr

from components.services import bases
from components.services.jobs import Job
from components.services.rates import admit
from components.sessions.session import Session
from components.widgets.plotly_view.plotly_view import PlotlyView
from components.widgets.status.status import Status, failed, note
from components.widgets.stop_button import stops
from surgery import Layer, Plan, SurgeryError
from surgery.progress import Cancelled
from surgery.weight_stats import ValueCounts
from surgery.weight_stats.depth import MEASURES

from . import figures
from .matrix import RAW, SINGULAR, draw_matrix

if TYPE_CHECKING:
    from surgery.weight_stats import Picture, Survey
    from surgery.weight_stats.matrix import Spectrum

TAB = "Weights"
ALL = "all weights"
_LOG, _LINEAR = "logarithmic", "linear"
_BIG = 1 << 30  # bytes of weights above which a sample is shown first
_STOPPED = note("Stopped. Open this panel again to go on.")
_HIDDEN = gr.update(visible=False)
_QUIET = {"show_progress": "hidden", "api_visibility": "private"}


class Look:
    """What one session looks at: whether the panel is in sight, and which layers are selected."""

    def __init__(self) -> None:
        self.open = False
        self.selected: tuple[str, int, int] | None = None
        self._selected_at = 0.0
        self.spectra: dict[str, Spectrum] = {}  # the last one, by its matrix's name
        self.turn = 0  # of drawing: an older drawing that ends late is not shown
        self.drawn: tuple | None = None  # what the pictures along depth were drawn of

    def __deepcopy__(self, memo: dict) -> Look:
        return Look()  # Gradio copies a state's first value for every page that is opened

    def select(self, request: object) -> None:
        """What the browser says is selected, unless it said so later already; nothing of it is
        trusted."""
        at = request.get("at") if isinstance(request, Mapping) else None
        if isinstance(at, (int, float)):
            if at < self._selected_at:
                return
            self._selected_at = at
        self.selected = None
        if isinstance(request, Mapping):
            strip, start, end = (request.get(key) for key in ("strip", "start", "end"))
            whole = type(start) is int and type(end) is int and 0 <= start < end
            if strip in ("base", "patient") and whole:
                self.selected = (strip, start, end)

    def positions(self, plan: Plan) -> tuple[list[int], list[int]]:
        """Layers of the base and positions of the patient that are selected; else all of them."""
        if self.selected is not None:
            strip, start, end = self.selected
            if strip == "patient" and end <= len(plan):
                here = list(range(start, end))
                return sorted({plan.layers[p].source for p in here}), here
            if strip == "base" and end <= plan.depth:
                here = [p for p, source in enumerate(plan.sources) if start <= source < end]
                return list(range(start, end)), here
        return list(range(plan.depth)), list(range(len(plan)))


@dataclass(frozen=True)
class WeightsPanel:
    """The panel's components."""

    kind: gr.Dropdown
    measure: gr.Dropdown
    scale: gr.Radio
    matrix: gr.Radio
    stop: gr.Button
    status: Status
    heat: PlotlyView
    detail: PlotlyView
    depth: PlotlyView
    raw: PlotlyView


def weights_panel() -> WeightsPanel:
    """Lay the panel out, where the page is being built."""
    with gr.Row(elem_id="weights-controls", equal_height=True):
        kind = gr.Dropdown([ALL], value=ALL, label="Tensors", elem_id="weights-kind")
        scale = gr.Radio([_LOG, _LINEAR], value=_LOG, label="Scale", elem_id="weights-scale")
        measure = gr.Dropdown(
            [(what.name, key) for key, what in MEASURES.items()],
            value="norm",
            label="Along depth",
            elem_id="weights-measure",
        )
        matrix = gr.Radio([RAW, SINGULAR], value=RAW, label="Matrix", elem_id="weights-matrix")
        stop = gr.Button(
            "Stop", scale=0, min_width=80, size="md", visible=False, elem_id="weights-stop"
        )
    status = Status(value={}, elem_id="weights-status")
    with gr.Row(elem_classes="weights-row"):
        heat = PlotlyView(value={}, elem_id="weights-heat")
        detail = PlotlyView(value={}, elem_id="weights-detail")
    with gr.Row(elem_classes="weights-row"):
        depth = PlotlyView(value={}, elem_id="weights-depth")
        raw = PlotlyView(value={}, elem_id="weights-raw")
    return WeightsPanel(kind, measure, scale, matrix, stop, status, heat, detail, depth, raw)


def wire(
    panel: WeightsPanel,
    session: gr.State,
    tabs: gr.Tabs,
    edited: gr.events.Dependency,
    opened: list[gr.events.Dependency],
    compute: dict,
) -> None:
    """Tie the panel to the page: `edited` ends when the plan changed, `opened` when the base did.

    `compute` are the options of events that take a turn at computing.
    """
    look = gr.State(Look())
    inputs = [session, look, panel.kind, panel.scale, panel.measure, panel.matrix]
    updates = Updates(panel)

    # Gradio looks for an event by its place among the arguments, so they are spelled out here.
    def turned(
        session: Session,
        look: Look,
        kind: str,
        scale: str,
        measure: str,
        matrix: str,
        event: gr.SelectData,
        request: gr.Request,
    ) -> Iterator:
        look.open = event.value == TAB
        work = updates.count(session, look, (kind, scale, measure, matrix))
        yield from updates.admitted("count", request, work) if look.open else work

    def began(session: Session, look: Look, request: gr.Request, *settings: str) -> Iterator:
        work = updates.count(session, look, settings)
        yield from updates.admitted("count", request, work)

    def picked(
        session: Session,
        look: Look,
        kind: str,
        scale: str,
        measure: str,
        matrix: str,
        event: gr.EventData,
        request: gr.Request,
    ) -> Iterator:
        look.select(event._data)
        settings = (kind, scale, measure, matrix)
        work = updates.redraw(session, look, settings, selection_only=True)
        # Selecting is quick and done often, unless a matrix is taken apart for it.
        what = "count" if matrix == SINGULAR else "edit"
        yield from updates.admitted(what, request, work)

    def chosen(session: Session, look: Look, request: gr.Request, *settings: str) -> Iterator:
        work = updates.redraw(session, look, settings)
        yield from updates.admitted("count", request, work)

    def followed(session: Session, look: Look, request: gr.Request, *settings: str) -> Iterator:
        work = updates.redraw(session, look, settings)
        yield from updates.admitted("draw", request, work)

    work = {"inputs": inputs, "outputs": updates.outputs, **_QUIET}
    counting = [tabs.select(turned, **work, **compute)]
    counting += [event.then(began, **work, **compute) for event in opened]
    choices = [panel.kind.input, panel.scale.input, panel.measure.input, panel.matrix.input]
    counting.append(gr.on(choices, chosen, **work, trigger_mode="always_last", **compute))
    counting.append(panel.heat.select(picked, **work, trigger_mode="multiple", **compute))
    edited.then(followed, **work, queue=False)
    stops(panel.stop, counting, lambda: (_STOPPED, _HIDDEN), None, [panel.status, panel.stop])


class Updates:
    """What the panel shows next: every method yields {component: value}."""

    def __init__(self, panel: WeightsPanel) -> None:
        self.panel = panel
        self.outputs = [
            *(panel.kind, panel.status, panel.stop),
            *(panel.heat, panel.detail, panel.depth, panel.raw),
        ]

    def admitted(self, what: str, request: gr.Request, work: Iterator[dict]) -> Iterator[dict]:
        """The work, unless whoever asks has asked too often lately."""
        try:
            admit(what, request)
        except SurgeryError as error:
            yield {self.panel.status: failed(error), self.panel.stop: _HIDDEN}
            return
        yield from work

    def count(self, session: Session, look: Look, settings: tuple) -> Iterator[dict]:
        """Count the base's weights if nobody has yet, and draw. A big one is sampled first."""
        if not look.open or not session.spec:
            yield {self.panel.status: gr.skip()}
            return
        spec = session.spec
        try:
            base = yield from self._watch(lambda progress: bases.get(spec, progress))
            from surgery.weight_stats import known_survey, survey_base

            known = known_survey(base)
            if known is None and base.counts.total * base.torch_dtype.itemsize > _BIG:
                yield from self._watch(lambda progress: survey_base(base, progress, sample=True))
                yield from self._draw(session, look, settings)
            if known is None or known.share < 1:
                yield from self._watch(lambda progress: survey_base(base, progress))
            if session.spec == spec:  # else another base was opened, and draws by itself
                yield from self._draw(session, look, settings)
        except Cancelled:
            yield {self.panel.status: _STOPPED, self.panel.stop: _HIDDEN}
        except SurgeryError as error:
            yield {self.panel.status: failed(error), self.panel.stop: _HIDDEN, **self._nothing()}

    def redraw(
        self, session: Session, look: Look, settings: tuple, selection_only: bool = False
    ) -> Iterator[dict]:
        """Draw anew from what is counted; nothing if that is nothing or the panel is not seen."""
        try:
            from surgery.weight_stats import known_survey

            known = known_survey(bases.get(session.spec)) if look.open and session.spec else None
            if known is None:
                yield {self.panel.status: gr.skip()}
                return
            yield from self._draw(session, look, settings, selection_only)
        except SurgeryError as error:
            yield {self.panel.status: failed(error), self.panel.stop: _HIDDEN, **self._nothing()}

    # ------------------------------------------------------------------ helpers

    def _watch(self, work) -> Iterator[dict]:
        """Run the work in a thread, say how far it is, and return what it returns."""
        job = Job(work)
        for report in job:
            shown = gr.update(visible=True)
            yield {self.panel.status: report.view(), self.panel.stop: shown}
        return job.result()

    def _draw(
        self, session: Session, look: Look, settings: tuple, selection_only: bool = False
    ) -> Iterator[dict]:
        from surgery.weight_stats import known_survey

        panel, (chosen, scale, measure, matrix) = self.panel, settings
        look.turn = turn = look.turn + 1
        spec, plan = session.spec, session.plan
        base = bases.get(spec)
        survey = known_survey(base)
        if all(layer.init.initialiser.from_source for layer in plan.layers):
            patient = yield from self._watch(lambda _: survey.picture(plan))
        else:  # such layers are counted from the patient's own weights

            def operated(progress):
                bases.load(spec, progress)
                return survey.picture(plan, base)

            patient = yield from self._watch(operated)
        whole = survey.base()
        kinds = whole.kinds()
        kind = chosen if chosen in kinds else None
        log = scale != _LINEAR
        sources, positions = look.positions(plan)
        shown = {
            panel.kind: gr.update(choices=[ALL, *kinds], value=kind or ALL),
            panel.status: _remark(survey),
            panel.stop: _HIDDEN,
            panel.detail: figures.detail(
                _together(whole, sources, kind),
                _together(patient, positions, kind),
                f"{_title(look, sources, positions, plan)}: {kind or ALL}",
                log,
            ),
        }
        # A drawing of all that was overtaken by a selection is made up for by it.
        of = (spec, plan, *settings)
        if not selection_only or look.drawn != of:
            measure = measure if measure in MEASURES else "norm"
            shown[panel.heat] = figures.heat(plan, patient, kind, log)
            shown[panel.depth] = figures.depth(plan, whole, patient, kind, measure, log)
        if turn == look.turn:
            look.drawn = of
            yield shown
        position = positions[0] if positions else None
        layer = plan.layers[position] if positions else Layer(sources[0])
        work = draw_matrix(base, layer, kind, matrix == SINGULAR, look.spectra)
        figure = yield from self._watch(work)
        if turn == look.turn:
            # A busy browser may have dropped what this follows closely: the last tells all of it.
            yield {**shown, panel.raw: figure}

    def _nothing(self) -> dict:
        panel = self.panel
        return {view: {} for view in (panel.heat, panel.detail, panel.depth, panel.raw)}


def _together(picture: Picture, positions: list[int], kind: str | None) -> ValueCounts:
    """The selected layers as one."""
    return ValueCounts.merged(picture.layer(p, kind) for p in positions)


def _title(look: Look, sources: list[int], positions: list[int], plan: Plan) -> str:
    if len(positions) == len(plan) and len(sources) != 1:
        return "All layers"
    names = [plan.sources[p] for p in positions] or sources
    if len(names) == 1:
        return f"Layer {names[0]}"
    return f"Layers {names[0]} … {names[-1]} ({len(names)})"


def _remark(survey: Survey) -> dict:
    words = []
    if survey.share < 1:
        words.append(f"A sample of {100 * survey.share:.2g} % of the weights.")
    if any(counts.rounded for counts in survey.parts.values()):
        words.append("Weights of more than 16 bits are counted at the nearest bfloat16.")
    if survey.skipped:
        words.append(f"Stored as codes, so not shown: {', '.join(survey.skipped)}.")
    return note(" ".join(words))
