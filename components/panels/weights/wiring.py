"""Count the weights of base and patient, and draw how they are distributed, layer by layer.

A base is counted once; when the plan changes, the patient's pictures are made of the same counts.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import gradio as gr

from components.gradio_compat.event_data import event_data
from components.parts import AT_ONCE, QUIET, PageParts
from components.services.client_address import Visitor, visitor
from components.services.run_job import Replaced, in_turn, run_job, watch, watch_in_turn
from components.services.services import Services
from components.sessions.healed_store import HealedStore
from components.sessions.session import Session
from components.widgets.job_buttons import stops
from components.widgets.page_plan import of_base
from components.widgets.status.status import note
from surgery import Layer, Plan
from surgery.progress import Progress
from surgery.weight_stats import ValueCounts
from surgery.weight_stats.depth import MEASURES

from . import figures
from .look import Look
from .matrix import SINGULAR, draw_matrix
from .panel import ALL, LINEAR, TAB, WeightsPanel, choices

if TYPE_CHECKING:
    from surgery import Base
    from surgery.weight_stats import Picture, Survey

BIG = 1 << 30  # bytes of weights above which a sample is shown first
_STOPPED = note("Stopped. Open this panel again to continue.")


def wire(panel: WeightsPanel, parts: PageParts) -> None:
    """Tie the panel to the page."""
    services = parts.services
    look = gr.State(Look())
    chosen_now: list[Any] = [panel.kind, panel.scale, panel.measure, panel.matrix]
    updates = Updates(panel, services)

    def run(what: str, request: gr.Request, work: Iterator[dict]) -> Iterator[dict]:
        yield from run_job(
            services,
            what,
            request,
            work,
            panel.ended,
            stopped=_STOPPED,
            cleared={view: {} for view in panel.pictures},  # no picture of an older plan stays
        )

    # Gradio looks for an event by its place among the arguments, so they are spelled out here.
    def turned(
        session: Session,
        healed: HealedStore,
        look: Look,
        kind: str,
        scale: str,
        measure: str,
        matrix: str,
        event: gr.SelectData,
        request: gr.Request,
    ) -> Iterator:
        look.open = event.value == TAB
        look.settings = (kind, scale, measure, matrix)
        work = updates.count(session, look, healed, visitor(request))
        yield from run("count", request, work) if look.open else work

    def began(
        session: Session, healed: HealedStore, look: Look, request: gr.Request, *settings: str
    ) -> Iterator:
        look.settings = settings
        yield from run("count", request, updates.count(session, look, healed, visitor(request)))

    def chosen(
        session: Session, healed: HealedStore, look: Look, request: gr.Request, *settings: str
    ) -> Iterator:
        look.settings = settings
        work = updates.redraw(session, look, healed, who=visitor(request))
        yield from run("count", request, work)

    def picked(
        session: Session,
        healed: HealedStore,
        look: Look,
        event: gr.EventData,
        request: gr.Request,
    ) -> Iterator:
        look.select(event_data(event))
        who = visitor(request)
        work = updates.redraw(session, look, healed, selection_only=True, who=who)
        # Selecting is quick and done often, unless a matrix is decomposed for it.
        yield from run("count" if SINGULAR in look.settings else "edit", request, work)

    def followed(
        session: Session, healed: HealedStore, look: Look, request: gr.Request
    ) -> Iterator:
        work = updates.redraw(session, look, healed, who=visitor(request))
        yield from run("draw", request, work)

    quiet: dict[str, Any] = {"outputs": updates.outputs, **QUIET}
    follow: dict[str, Any] = {"inputs": [parts.session, parts.healed, look], **quiet}
    choose: dict[str, Any] = {**follow, "inputs": [*follow["inputs"], *chosen_now]}
    counting = [parts.tabs.select(turned, **choose, **AT_ONCE)]
    counting += [event.then(began, **choose, **AT_ONCE) for event in parts.opened]
    events = [component.input for component in chosen_now]
    counting.append(gr.on(events, chosen, **choose, trigger_mode="always_last", **AT_ONCE))
    counting.append(panel.heat.select(picked, **follow, trigger_mode="multiple", **AT_ONCE))
    # Through the queue, which alone carries on with a generator.
    counting += [
        event.then(followed, **follow, trigger_mode="multiple", **AT_ONCE) for event in parts.edits
    ]
    hidden = gr.update(visible=False)
    stops(panel.stop, counting, lambda: (_STOPPED, hidden), None, [panel.status, panel.stop])


class Updates:
    """What the panel shows next: every method yields updates, and raises `SurgeryError`."""

    def __init__(self, panel: WeightsPanel, services: Services) -> None:
        self.panel, self.services = panel, services
        self.outputs = [panel.kind, panel.status, panel.stop, *panel.pictures]

    def count(
        self,
        session: Session,
        look: Look,
        healed: HealedStore | None = None,
        who: Visitor | str | None = None,
    ) -> Iterator[dict]:
        """Wait for a turn and count the base's weights, unless they are counted already, and draw.
        `healed` has the session's healed patients; `who` is the visitor, for fair queueing."""
        if not look.open or not session.spec:
            yield {self.panel.status: gr.skip()}
            return
        here = session.shown
        spec = here.spec

        def running(status: dict) -> dict:
            if session.spec != spec:
                raise Replaced
            return self.panel.running(status)

        with suppress(Replaced):
            base = yield from watch(partial(self.services.bases.get, here), running)
            from surgery.weight_stats import known_survey

            known = known_survey(base)
            if known is None or known.share < 1:
                turn = self._turn(base, session, look, healed, running)
                yield from in_turn(self.services.measuring, who, turn, running)
            if session.spec == spec:
                yield from self._draw(session, look, healed, who=who)

    def _turn(
        self,
        base: Base,
        session: Session,
        look: Look,
        healed: HealedStore | None,
        running: Callable[[dict], dict],
    ) -> Iterator[dict]:
        """Count a base. For a big one, count a sample first and draw it."""
        from surgery.weight_stats import known_survey, survey_base

        known = known_survey(base)
        if known is None and base.counts.total * base.torch_dtype.itemsize > BIG:
            yield from watch(lambda progress: survey_base(base, progress, sample=True), running)
            yield from self._draw(session, look, healed, has_turn=True)
        yield from watch(lambda progress: survey_base(base, progress), running)

    def redraw(
        self,
        session: Session,
        look: Look,
        healed: HealedStore | None = None,
        selection_only: bool = False,
        who: Visitor | str | None = None,
    ) -> Iterator[dict]:
        """Draw again from the counts, if there are any and the panel is visible. `who` is the
        visitor, for fair queueing."""
        from surgery.weight_stats import known_survey

        visible = look.open and session.spec
        if not visible or known_survey(self.services.bases.get(session.shown)) is None:
            yield {self.panel.status: gr.skip()}
            return
        yield from self._draw(session, look, healed, selection_only, who)

    def _draw(
        self,
        session: Session,
        look: Look,
        healed: HealedStore | None,
        selection_only: bool = False,
        who: Visitor | str | None = None,
        has_turn: bool = False,
    ) -> Iterator[dict]:
        """Draw; `has_turn` says that the visitor has a turn already."""
        from surgery.weight_stats import known_survey

        panel, here = self.panel, session.shown
        spec = here.spec
        base = self.services.bases.get(here)
        survey = known_survey(base)
        if survey is None:  # another base was opened meanwhile, and is counted by its own event
            return
        turn = look.take_turn()
        chosen, scale, measure, matrix = settings = look.settings  # after the turn was taken
        plan = session.plan

        def running(status: dict) -> dict:
            # A drawing that was overtaken says nothing: it would cover the end of a newer one.
            return panel.running(status) if turn == look.turn else {panel.status: gr.skip()}

        if all(layer.init.initialiser.from_source for layer in plan.layers):
            patient = yield from watch(lambda _: survey.picture(plan), running)
        else:  # such layers are counted from the patient's own weights

            def operated(progress):
                base = self.services.bases.load(here, progress)
                with self.services.bases.in_use(base):
                    return survey.picture(plan, base)

            patient = yield from watch(operated, running)
        whole = survey.base()
        kinds = whole.kinds()
        kind = chosen if chosen in kinds else None
        log = scale != LINEAR
        sources, positions = look.positions(plan)
        shown = {
            **panel.ended(
                _remark(survey, plan, healed is not None and healed.is_healed(spec, plan))
            ),
            panel.detail: of_base(
                figures.detail(
                    _together(whole, sources, kind),
                    _together(patient, positions, kind),
                    f"{_title(look, sources, positions, plan)}: {kind or ALL}",
                    log,
                ),
                spec,
            ),
        }
        # What is chosen is sent only where it isn't offered any more, or it would undo a choice
        # that is made meanwhile.
        gone = kind is None and chosen != ALL
        if look.kinds != (offered := tuple(kinds)) or gone:
            shown[panel.kind] = choices(kinds, ALL if gone else "")
        if gone and look.settings is settings:
            look.settings = settings = (ALL, scale, measure, matrix)
        # A drawing of all that was overtaken by a selection is made up for by it.
        of = (spec, plan, *settings)
        if not selection_only or look.drawn != of:
            measure = measure if measure in MEASURES else "norm"
            shown[panel.heat] = of_base(figures.heat(plan, patient, kind, log), spec)
            shown[panel.depth] = of_base(
                figures.depth(plan, whole, patient, kind, measure, log), spec
            )
        if turn != look.turn:
            return
        look.drawn = of
        yield shown
        position = positions[0] if positions else None
        layer = plan.layers[position] if positions else Layer(sources[0])
        spectrum = look.spectrum if matrix == SINGULAR else None
        work = draw_matrix(base, layer, kind, spectrum)
        waits = spectrum is not None and not has_turn
        with suppress(Replaced):
            figure = yield from self._watch_latest(work, look, turn, waits, who)
            # A busy browser may have dropped what this follows closely: the last tells all of it.
            look.kinds = offered
            yield {**shown, panel.raw: of_base(figure, spec)}

    def _watch_latest(
        self,
        work: Callable[[Progress], dict],
        look: Look,
        turn: int,
        waits: bool,
        who: Visitor | str | None,
    ) -> Generator[dict, None, dict]:
        """`watch`, which raises `Replaced` once a newer drawing has begun. With `waits`, it waits
        for a turn at measuring first."""

        def check() -> None:
            if turn != look.turn:
                raise Replaced

        def running(status: dict) -> dict:
            check()
            return self.panel.running(status)

        def checked(progress: Progress) -> dict:
            def report(what: str, done: float, total: float) -> None:
                check()
                progress(what, done, total)

            return work(report)

        if waits:
            turns = self.services.measuring
            figure = yield from watch_in_turn(turns, who, checked, running)
        else:
            figure = yield from watch(checked, running)
        check()
        return figure


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


def _remark(survey: Survey, plan: Plan, is_healed: bool) -> dict:
    words = []
    if is_healed:
        words.append("Healed weights are counted as they were before healing.")
    if plan.fitted:
        words.append("Repaired layers are counted as they were before the repair.")
    if survey.share < 1:
        words.append(f"A sample of {100 * survey.share:.2g} % of the weights.")
    if any(counts.rounded for counts in survey.parts.values()):
        words.append("Weights of more than 16 bits are counted at the nearest bfloat16.")
    if survey.skipped:
        words.append(f"Stored as codes, so not shown: {', '.join(survey.skipped)}.")
    return note(" ".join(words))
