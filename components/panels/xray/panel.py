"""The X-ray panel: evidence for where to cut, on a text of one's choice.

Knows when a base is measured and which pictures follow. Measuring is the library's affair; how
pictures look is in xray_figures. What was measured before is shown as soon as the panel is opened.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import gradio as gr

from components.services import bases
from components.services.deployment import current
from components.services.jobs import Job
from components.services.rates import admit
from components.sessions.session import Session
from components.widgets.plotly_view.plotly_view import PlotlyView
from components.widgets.sample_picker import DATASET, SamplePicker, sample_of
from components.widgets.status.status import Status, failed, note
from components.widgets.stop_button import stops
from surgery import SurgeryError
from surgery.analysis import DEFAULT, SCORES
from surgery.progress import Cancelled

from . import figures

if TYPE_CHECKING:
    from surgery.analysis import Scan

TAB = "X-ray"
_EXTRAS = {score.label: key for key, score in SCORES.items() if not score.default}
_EVERY = 0.7  # seconds between drawings while it is measured
_SPAN = 8  # layers of the repeat map unless it is said: 36 variants
_STOPPED = note("Stopped. What was measured is kept: Measure goes on from here.")
_QUIET = {"show_progress": "hidden", "api_visibility": "private"}


@dataclass(frozen=True)
class XrayPanel:
    """The panel's components."""

    extras: gr.CheckboxGroup
    span: gr.Textbox
    start: gr.Button
    stop: gr.Button
    status: Status
    layers: PlotlyView
    blocks: PlotlyView
    repeats: PlotlyView


def xray_panel() -> XrayPanel:
    """Lay the panel out, where the page is being built."""
    with gr.Row(elem_classes="xray-controls fields", equal_height=True):
        extras = gr.CheckboxGroup(
            list(_EXTRAS),
            value=[],
            label="Also measure",
            info=" ".join(SCORES[key].description for key in _EXTRAS.values()),
            scale=2,
            elem_id="xray-extras",
        )
        span = gr.Textbox(
            label="Span of the map",
            placeholder="the middle",
            info="Layers start:end.",
            max_length=12,
            scale=1,
            min_width=150,
            elem_id="xray-span",
        )
        start = gr.Button(
            "Measure", variant="primary", scale=0, min_width=130, size="md", elem_id="xray-start"
        )
        stop = gr.Button(
            "Stop", scale=0, min_width=80, size="md", visible=False, elem_id="xray-stop"
        )
    status = Status(value={}, elem_id="xray-status")
    with gr.Row(elem_classes="weights-row"):
        layers = PlotlyView(value={}, elem_id="xray-layers")
        blocks = PlotlyView(value={}, elem_id="xray-blocks")
    repeats = PlotlyView(value={}, elem_id="xray-repeats", visible=False)
    return XrayPanel(extras, span, start, stop, status, layers, blocks, repeats)


def wire(
    panel: XrayPanel,
    picker: SamplePicker,
    session: gr.State,
    tabs: gr.Tabs,
    opened: list[gr.events.Dependency],
    compute: dict,
) -> None:
    """Tie the panel to the page; `opened` end when another base is open."""
    outputs = [panel.status, panel.stop, panel.layers, panel.blocks, panel.repeats]
    inputs = [session, *picker.inputs, panel.extras, panel.span]

    def turned(
        session: Session, kind, own, extras, span, event: gr.SelectData, request: gr.Request
    ) -> Iterator:
        if event.value == TAB:
            yield again(session, request, kind, own, extras, span)
        else:
            yield {panel.status: gr.skip()}

    def again(session: Session, request: gr.Request, *settings) -> dict:
        try:
            admit("count", request)
        except SurgeryError as error:
            return {panel.status: failed(error)}
        return look(panel, session, *settings)

    def begin(session: Session, request: gr.Request, *settings) -> Iterator[dict]:
        try:
            admit("measure", request)
        except SurgeryError as error:
            yield {panel.status: failed(error)}
            return
        yield from measure(panel, session, *settings)

    work = {"inputs": inputs, "outputs": outputs, **_QUIET}
    tabs.select(turned, **work, **compute)
    for event in opened:
        event.then(again, **work, **compute)
    picker.kind.input(again, **work, trigger_mode="always_last", **compute)
    measuring = panel.start.click(begin, **work, **compute)
    stops(
        panel.stop,
        [measuring],
        lambda: (_STOPPED, gr.update(visible=False)),
        None,
        [panel.status, panel.stop],
    )


def look(panel: XrayPanel, session: Session, kind, own, extras, span) -> dict:
    """What was measured before of this base and text; nothing is computed."""
    if not session.spec or kind == DATASET or not str(kind):
        return {panel.status: gr.skip()}
    try:
        base = bases.get(session.spec)
        sample = sample_of(base, kind, own, lambda *_: None)
        from surgery.analysis import known_scan

        found = known_scan(base, sample, **_asked(base.depth, extras, span))
    except SurgeryError as error:
        return {panel.status: note(current().words(error)), **_nothing(panel)}
    if found.perplexity is None:
        words = f"{sample.tokens:,} tokens to measure on. Measure begins with the whole model."
        return {panel.status: note(words), **_nothing(panel)}
    return {panel.status: note(_words(found)), **_drawn(panel, found)}


def measure(panel: XrayPanel, session: Session, kind, own, extras, span) -> Iterator[dict]:
    """Measure, and draw what there is every now and then."""
    latest: list[Scan] = []
    spec = session.spec
    try:

        def work(progress):
            base = bases.load(spec, progress)
            sample = sample_of(base, kind, own, progress)
            from surgery.analysis import scan

            asked = _asked(base.depth, extras, span)
            return scan(base, sample, **asked, on_update=latest.append, progress=progress)

        job, drawn = Job(work), 0.0
        for report in job:
            shown = {panel.status: report.view(), panel.stop: gr.update(visible=True)}
            if latest and time.monotonic() - drawn > _EVERY:
                shown |= _drawn(panel, latest[-1])
                latest.clear()
                drawn = time.monotonic()
            yield shown
        found = job.result()
        yield {
            panel.status: note(_words(found)),
            panel.stop: gr.update(visible=False),
            **_drawn(panel, found),
        }
    except Cancelled:
        yield {panel.status: _STOPPED, panel.stop: gr.update(visible=False)}
    except SurgeryError as error:
        yield {panel.status: failed(error), panel.stop: gr.update(visible=False)}


def _asked(depth: int, extras: list[str], span: str) -> dict:
    """What to measure, from what was ticked. Raises `SurgeryError`."""
    chosen = [_EXTRAS[name] for name in extras or () if name in _EXTRAS]
    asked: dict = {"scores": (*DEFAULT, *chosen)}
    if "repeat_map" in chosen:
        asked["within"] = _span(depth, str(span or ""))
    return asked


def _span(depth: int, text: str) -> tuple[int, int]:
    if not text.strip():
        start = max(0, (depth - _SPAN) // 2)
        return start, min(depth, start + _SPAN)
    start, colon, end = (part.strip() for part in text.partition(":"))
    if not (colon and start.isdecimal() and end.isdecimal()):
        raise SurgeryError(f"Write the span of the map as start:end, such as 0:{depth}.")
    return int(start), int(end)


def _words(found: Scan) -> str:
    score = found.perplexity
    words = (
        f"Perplexity {score.perplexity:.4g} ({score.low:.4g} to {score.high:.4g}, 95 %) "
        f"on {found.tokens:,} tokens in {found.sequences} sequences."
    )
    if found.naive_layer_forwards:
        share = found.layer_forwards / found.naive_layer_forwards
        words += f" Layers run: {share:.0%} of what one pass for each variant takes."
    return words


def _drawn(panel: XrayPanel, found: Scan) -> dict:
    repeats = figures.repeats(found)
    return {
        panel.layers: figures.layers(found),
        panel.blocks: figures.blocks(found),
        panel.repeats: gr.update(value=repeats, visible=bool(repeats)),
    }


def _nothing(panel: XrayPanel) -> dict:
    return {panel.layers: {}, panel.blocks: {}, panel.repeats: gr.update(value={}, visible=False)}
