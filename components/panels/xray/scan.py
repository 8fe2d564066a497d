"""Where to cut: the scores of a base's layers, on the chosen text.

What was measured before is shown as soon as the panel is opened.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import gradio as gr

from components import importance
from components.parts import AT_ONCE, QUIET, PageParts
from components.services.client_address import Visitor, visitor
from components.services.run_job import JobPanel, Replaced, run_job, watch, watch_in_turn
from components.services.services import Services
from components.sessions.session import Session
from components.widgets.job_buttons import start_and_stop, stops
from components.widgets.page_plan import of_base
from components.widgets.plotly_view.plotly_view import PlotlyView
from components.widgets.status.status import Status, failed, note
from components.widgets.teaching import teaching
from surgery import SurgeryError
from surgery.analysis import DEFAULT, SCORES
from surgery.numbers import perplexity

from . import figures, heatmaps
from .sample_picker import DATASET, OWN, SamplePicker, name_of, sample_of

if TYPE_CHECKING:
    from surgery.analysis import Scan

_EXTRAS = {score.label: key for key, score in SCORES.items() if not score.default}
_EVERY = 0.7  # seconds between drawings while it is measured
_SPAN = 8  # layers of the repeat map unless given: 36 variants
_STOPPED = note("Stopped. Measurements are kept: Measure resumes from here.")
_REPLACED = "The scan of another base or text was stopped; its measurements are kept."


class Fields:
    """What the fields of a page's panel say now. A scan may have begun with other values."""

    def __init__(self, *values: Any) -> None:
        self.values = values  # the arguments of `look` from `kind` on

    def __deepcopy__(self, memo: dict) -> Fields:
        return Fields()  # Gradio copies a state's first value for every page that is opened

    @property
    def text(self) -> tuple[str, str]:
        """Equal for equal texts."""
        kind, own, *_ = self.values
        return str(kind), str(own or "") if kind in (OWN, DATASET) else ""

    @property
    def above(self) -> float:
        """The threshold of the figure of half layers."""
        return _threshold(self.values[-1])


@dataclass(frozen=True)
class ScanPanel(JobPanel):
    """The panel's components."""

    extras: gr.CheckboxGroup
    span: gr.Textbox
    start: gr.Button
    stop: gr.Button
    status: Status
    layers: PlotlyView
    blocks: PlotlyView
    repeats: PlotlyView
    halves: PlotlyView
    above: gr.Slider


def layout() -> ScanPanel:
    """Lay the panel out in the current tab."""
    with gr.Row(elem_classes="xray-buttons fields"):
        extras = gr.CheckboxGroup(
            list(_EXTRAS),
            value=[],
            label="Also measure",
            info=" ".join(SCORES[key].description for key in _EXTRAS.values()),
            scale=0,
            elem_id="xray-extras",
        )
        span = gr.Textbox(
            label="Range of the repeat map",
            placeholder="middle layers",
            info="As start:end, end excluded.",
            max_length=12,
            scale=0,
            min_width=150,
            elem_id="xray-span",
        )
        start, stop = start_and_stop("Measure", "xray", 130)
        status = Status(value={}, elem_id="xray-status")
    teaching(
        "Layer importance: the perplexity when each layer of the base is dropped, and when it is "
        "repeated, with 95 % intervals. Layers with low values are candidates to drop.",
        "Block Influence: how far each layer rotates the hidden state, and the layers that it "
        "misjudges.",
        "Blocks: which run of n layers changes the hidden state least, for every n.",
    )
    with gr.Row(elem_classes="weights-row"):
        layers = PlotlyView(value={}, elem_id="xray-layers")
        blocks = PlotlyView(value={}, elem_id="xray-blocks")
    halves = PlotlyView(value={}, elem_id="xray-halves", visible=False)
    above = gr.Slider(
        0,
        1,
        value=0,
        step=0.01,
        label="Show what costs more than",
        info="nats per token",
        visible=False,
        elem_id="xray-above",
    )
    repeats = PlotlyView(value={}, elem_id="xray-repeats", visible=False)
    return ScanPanel(extras, span, start, stop, status, layers, blocks, repeats, halves, above)


def wire(panel: ScanPanel, picker: SamplePicker, parts: PageParts, tab: str) -> None:
    """Tie the panel to the page. It is visible in the tab called `tab`."""
    services, fields = parts.services, gr.State(Fields())
    pictures = [panel.layers, panel.blocks, panel.repeats, panel.halves, panel.above]
    outputs = [panel.status, panel.stop, *pictures]
    inputs = [parts.session, fields, *picker.inputs, panel.extras, panel.span, panel.above]

    # Gradio looks for an event by its place among the arguments, so they are spelled out here.
    def turned(
        session: Session,
        fields: Fields,
        kind,
        own,
        extras,
        span,
        above,
        event: gr.SelectData,
        request: gr.Request,
    ) -> Iterator:
        if event.value == tab:
            yield again(session, fields, request, kind, own, extras, span, above)
        else:
            yield {panel.status: gr.skip()}

    def again(session: Session, fields: Fields, request: gr.Request, *values) -> dict:
        fields.values = values
        try:
            services.admit("count", request)
        except SurgeryError as error:  # no figure of another base or text stays
            return {panel.status: failed(str(error)), **_nothing(panel)}
        return look(panel, services, session, *values)

    def filtered(session: Session, fields: Fields, request: gr.Request, *values) -> dict:
        fields.values = values
        if services.refused("count", request):
            return {panel.halves: gr.skip()}
        updates = look(panel, services, session, *values)
        return {panel.halves: updates.get(panel.halves, gr.skip())}

    def begin(session: Session, fields: Fields, request: gr.Request, *values) -> Iterator[dict]:
        fields.values = values
        kind, own, *_ = values
        spec, text = session.spec, name_of(kind, own)

        def on_strip(result: Scan) -> dict:
            from surgery.analysis import LayerCosts

            return {parts.strip: importance.follow(session, spec, LayerCosts.of(result, text))}

        updates = measure(panel, services, session, fields, on_strip, visitor(request))
        yield from run_job(services, "measure", request, updates, panel.ended, stopped=_STOPPED)

    work: dict[str, Any] = {"inputs": inputs, "outputs": outputs, **QUIET}
    parts.tabs.select(turned, **work, **AT_ONCE)
    for event in parts.opened:
        event.then(again, **work, **AT_ONCE)
    for other_text in (picker.kind.input, picker.own.blur):
        other_text(again, **work, trigger_mode="always_last", **AT_ONCE)
    panel.above.input(
        filtered, inputs, panel.halves, **QUIET, trigger_mode="always_last", **AT_ONCE
    )
    pressed = (panel.start.click, parts.strip.measure)
    work["outputs"] = [*outputs, parts.strip]
    measuring = [event(begin, **work, **AT_ONCE) for event in pressed]
    parts.scanned.extend(measuring)
    hidden = gr.update(visible=False)
    stops(panel.stop, measuring, lambda: (_STOPPED, hidden), None, [panel.status, panel.stop])


def look(
    panel: ScanPanel, services: Services, session: Session, kind, own, extras, span, above=0.0
) -> dict:
    """An update with what was measured before of this base and text; nothing is computed."""
    spec = session.spec
    if not spec or kind == DATASET or not str(kind):
        return {panel.status: gr.skip()}
    try:
        base = services.bases.get(session.shown)
        sample = sample_of(base, kind, own, services.deployment, lambda *_: None)
        from surgery.analysis import known_scan

        result = known_scan(base, sample, **_request(base.depth, extras, span))
    except SurgeryError as error:
        return {panel.status: note(services.deployment.words(error)), **_nothing(panel)}
    if result.perplexity is None:
        words = f"{sample.tokens:,} tokens to measure on. Measure starts with the unmodified base."
        return {panel.status: note(words), **_nothing(panel)}
    found = note(_words(result, name_of(kind, own)))
    return {panel.status: found, **_drawn(panel, spec, result, _threshold(above))}


def measure(
    panel: ScanPanel,
    services: Services,
    session: Session,
    fields: Fields,
    also: Callable[[Scan], dict] = lambda result: {},
    who: Visitor | str | None = None,
) -> Iterator[dict]:
    """Wait for a turn and measure what the fields say; draw the results so far now and then. `also`
    returns what else shows them; `who` is the visitor, for fair queueing. Raises `SurgeryError`.
    """
    latest: list[Scan] = []
    here, text, drawn = session.shown, fields.text, 0.0
    spec = here.spec
    kind, own, extras, span, _ = fields.values

    def work(progress) -> Scan:
        base = services.bases.load(here, progress)
        with services.bases.in_use(base):
            sample = sample_of(base, kind, own, services.deployment, progress)
            from surgery.analysis import scan

            request = _request(base.depth, extras, span)
            return scan(base, sample, **request, on_update=latest.append, progress=progress)

    def check() -> None:
        if (session.spec, fields.text) != (spec, text):
            raise Replaced

    def running(status: dict) -> dict:
        nonlocal drawn
        check()
        update = panel.running(status)
        if latest and time.monotonic() - drawn > _EVERY:
            update |= {**_drawn(panel, spec, latest[-1], fields.above), **also(latest[-1])}
            latest.clear()
            drawn = time.monotonic()
        return update

    try:
        result = yield from watch_in_turn(services.measuring, who, work, running)
        check()
    except Replaced:
        # Show what is known of the base and text that are chosen now, since the scan's last drawing
        # may have come after that.
        now = partial(look, panel, services, session, *fields.values)
        known = yield from watch(lambda _: now(), lambda _: {panel.status: gr.skip()})
        yield _replaced(panel, known)
        return
    words = note(_words(result, name_of(kind, own)))
    yield {**panel.ended(words), **_drawn(panel, spec, result, fields.above), **also(result)}


def _replaced(panel: ScanPanel, known: dict) -> dict:
    """The end of a scan that another base or text has replaced, with what is `known` of that."""
    words = f"{known[panel.status].get('text', '')} {_REPLACED}".strip()
    return {**_nothing(panel), **known, **panel.ended(note(words))}


def _request(depth: int, extras: list[str], span: str) -> dict:
    """Arguments of `scan`, from what was ticked. Raises `SurgeryError`."""
    chosen = [_EXTRAS[name] for name in extras or () if name in _EXTRAS]
    request: dict = {"scores": (*DEFAULT, *chosen)}
    if "repeat_map" in chosen:
        request["within"] = _span(depth, str(span or ""))
    return request


def _span(depth: int, text: str) -> tuple[int, int]:
    if not text.strip():
        start = max(0, (depth - _SPAN) // 2)
        return start, min(depth, start + _SPAN)
    first, colon, end = (part.strip() for part in text.partition(":"))
    if not (colon and first.isdecimal() and end.isdecimal()):
        raise SurgeryError(f"Write the range of the repeat map as start:end, such as 0:{depth}.")
    return int(first), int(end)


def _words(result: Scan, text: str) -> str:
    """What the figures rest on. The text comes first: a scan may end once another one is chosen."""
    from surgery.analysis.findings import costs_by_layer
    from surgery.analysis.precision import median_precision

    score, count = result.perplexity, result.sequences
    words = (
        f"Text: {text}. Perplexity {perplexity(score.perplexity)} (95 % interval "
        f"{perplexity(score.low)} to {perplexity(score.high)}) on {result.tokens:,} tokens in "
        f"{count:,} sequence{'s' if count > 1 else ''}."
    )
    if (share := median_precision(costs_by_layer(result))) is not None:
        known = f"±\N{NO-BREAK SPACE}{100 * share:.0f}\N{NO-BREAK SPACE}%"
        words += f" Half of the costs of single layers are known to {known} or better."
    if result.naive_layer_forwards:
        share = result.layer_forwards / result.naive_layer_forwards
        words += f" Layer evaluations: {100 * share:.0f} % of those of a full pass per variant."
    return words


def _drawn(panel: ScanPanel, spec: str, result: Scan, above: float) -> dict:
    repeats = of_base(heatmaps.repeats(result), spec)
    halves = of_base(heatmaps.half_layers(result, above), spec)
    return {
        panel.layers: of_base(figures.layers(result), spec),
        panel.blocks: of_base(heatmaps.blocks(result), spec),
        panel.repeats: gr.update(value=repeats, visible=bool(repeats)),
        panel.halves: gr.update(value=halves, visible=bool(halves)),
        panel.above: gr.update(visible=bool(halves)),
    }


def _threshold(above: object) -> float:
    return above if isinstance(above, (int, float)) else 0.0


def _nothing(panel: ScanPanel) -> dict:
    hidden = gr.update(value={}, visible=False)
    return {
        panel.layers: {},
        panel.blocks: {},
        panel.repeats: hidden,
        panel.halves: hidden,
        panel.above: gr.update(visible=False),
    }
