"""Heal a session's patient; while the panel is open, show what that would cost.

A run has a folder of its own until the session ends, so that it can be paused and resumed. The
healed patient is kept in the session's `HealedStore`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import gradio as gr

from components.parts import AT_ONCE, QUIET, PageParts, tiles_of
from components.services.client_address import Visitor, visitor
from components.services.deployment import Deployment
from components.services.run_job import in_turn, run_job, watch
from components.services.services import Services
from components.sessions.healed_store import HealedStore
from components.sessions.measurements import ALL_KINDS, altered_entries
from components.sessions.session import Session
from components.widgets.status.status import note
from surgery import SurgeryError
from surgery.operation import Operation
from surgery.progress import Cancelled

from . import board as heal_board
from .figures import curve
from .panel import LONGEST, OBJECTIVE, TAB, TRAIN, HealPanel
from .text_choice import MIXED, with_text

if TYPE_CHECKING:
    from surgery.healing import EvalResult, Healed, HealingRun, Settings

_EVERY = 0.5  # seconds between drawings
PAUSED = note("Paused after the current step. Heal resumes from there.")
_NOT_BEGUN = note("Stopped before the first step.")
_UNCHANGED = (
    "The plan is the unchanged base, so there is nothing to recover. Drop, repeat or move layers "
    "first: healing then trains the layers next to the changes."
)
_DONE = note(
    "Healed. Talk, X-ray, Log and Save use the healed patient as long as the plan stays the same."
)
_DONE_ELSEWHERE = note(
    "Healed, but the page shows another plan or base now. Talk, X-ray, Log and Save use the healed "
    "patient once you return to its plan."
)


class Costs:
    """Whether a session has the panel open: costs are estimated only then."""

    def __init__(self) -> None:
        self.open = False

    def __deepcopy__(self, memo: dict) -> Costs:
        return Costs()  # Gradio copies a state's first value for every page that is opened

    def release(self) -> None:
        """Stay when the page is closed: there is no memory to release."""


def wire(panel: HealPanel, parts: PageParts) -> None:
    """Tie the panel to the page."""
    services = parts.services

    asked = gr.State(Costs())

    def estimate(
        session: Session, healed: HealedStore, asked: Costs, request: gr.Request, *values
    ) -> dict:
        if not asked.open:
            return {}  # no cost of another plan stays
        try:
            services.admit("edit", request)
        except SurgeryError as error:
            return heal_board.of_error(services.deployment.words(error))
        return shown_price(services, session, healed, values)

    def turned(asked: Costs, event: gr.SelectData) -> None:
        asked.open = event.value == TAB

    def train(
        session: Session, healed: HealedStore, request: gr.Request, kind, file, data, *values
    ) -> Iterator[dict]:
        own, text = request.session_hash or "", (kind, file, data)
        updates = heal(panel, services, session, healed, own, values, text, visitor(request))
        try:
            yield from run_job(
                services, "measure", request, updates, panel.only_status, stopped=PAUSED
            )
        except GeneratorExit:  # the page was closed, perhaps before anything was written
            services.runs.forget(own)
            raise

    priced = [parts.session, parts.healed, asked, *panel.settings]
    turning = parts.tabs.select(turned, asked, None, queue=False, **QUIET)
    # One event estimates, one request at a time and the last with what the page shows by then:
    # requests of several events could overtake one another.
    asking = gr.Number(visible="hidden", elem_id="heal-asking")
    for event in [turning, *parts.edits, *parts.opened]:
        event.then(None, None, asking, js="() => performance.now()", **QUIET)
    asks = [asking.change, *(setting.input for setting in panel.settings)]
    gr.on(asks, estimate, priced, panel.cost, queue=False, trigger_mode="always_last", **QUIET)
    healing = panel.start.click(
        train,
        [parts.session, parts.healed, *panel.text.inputs, *panel.settings],
        [panel.status, panel.board, panel.curve],
        **QUIET,
        **AT_ONCE,
    )
    panel.pause.click(lambda healed: healed.pausing.set(), parts.healed, None, queue=False, **QUIET)

    def weigh(session: Session, healed: HealedStore, request: gr.Request) -> dict:
        if services.refused("draw", request):
            return gr.skip()
        return tiles_of(services, session, healed)

    healing.then(weigh, [parts.session, parts.healed], parts.tiles, queue=False, **QUIET)
    parts.measured.append(healing)


def read(values: tuple, deployment: Deployment) -> Settings:
    """The settings in the page's controls, but for the text. Raises `SurgeryError`."""
    from surgery.healing.settings import Settings

    public = deployment.public
    train, objective, steps, minutes, batch, window, rate, rank, seed = values
    if train not in TRAIN or objective not in OBJECTIVE:
        raise SurgeryError("Choose what to train and the objective from the lists.")
    steps = int(steps or 0)
    minutes = min(float(minutes or 5), LONGEST[public])
    given = {"batch": batch, "window": window, "rank": rank, "seed": seed}
    settings = Settings(
        train=TRAIN[train],
        objective=OBJECTIVE[objective],
        steps=steps or None,
        minutes=None if steps else minutes,
        learning_rate=float(rate) if rate else None,
        **{name: int(value) for name, value in given.items() if value},  # empty: the default
    )
    if public and (steps > 1000 or settings.tokens_per_step > 4096):
        raise SurgeryError("On a public page a run has at most 1,000 steps of 4,096 tokens.")
    return settings


def shown_price(services: Services, session: Session, healed: HealedStore, values: tuple) -> dict:
    """What the board of costs shows."""
    if not session.spec:
        return {}
    try:
        operation = session.operation()
        if why := why_nothing(operation, values):
            return heal_board.of_note(why)
        repaired = healed.repaired(operation.spec, operation.plan) is not None
        return price(services, operation, values, repaired)
    except SurgeryError as error:
        return heal_board.of_error(services.deployment.words(error))


def why_nothing(operation: Operation, values: tuple) -> str:
    """Why these settings train nothing in an unchanged plan, which isn't a failure; empty if they
    train something."""
    near_changes = TRAIN.get(values[0]) in ("seams", "new")
    return _UNCHANGED if operation.plan.is_whole and near_changes else ""


def price(services: Services, operation: Operation, values: tuple, repaired: bool = False) -> dict:
    """The board of what a run would take, before anything is loaded; `repaired` says that it begins
    from a repaired patient. Raises `SurgeryError`."""
    from surgery.healing import estimate_cost

    settings = read(values, services.deployment)
    base = services.bases.get(operation)
    return heal_board.of_cost(estimate_cost(base, operation.plan, settings), repaired)


def heal(
    panel: HealPanel,
    services: Services,
    session: Session,
    healed: HealedStore,
    own: str,
    values: tuple,
    text: tuple[Any, Any, Any] = (MIXED, None, None),
    who: Visitor | None = None,
) -> Iterator[dict]:
    """Wait for a turn and heal the session's patient, until the run is at its end or paused. `own`
    is the browser's session, `text` the values of the text's choice, and `who` the visitor, for
    fair queueing. Raises `SurgeryError`, or `Cancelled` once it is paused."""
    deployment, bases, runs = services.deployment, services.bases, services.runs
    deployment.check_healing()
    operation = session.operation()
    if why := why_nothing(operation, values):
        yield panel.only_status(note(why))
        return
    start = healed.repaired(session.spec, session.plan)
    settings = with_text(
        read(values, deployment), *text, deployment, lambda *given: runs.text(own, *given)
    )
    begun: list[HealingRun] = []
    results: list[Healed] = []
    evaluated: list[EvalResult] = []
    drawn = 0.0
    # Of the plan, whatever its weights: the board itself tells the page that they were healed.
    of = {"spec": operation.spec, "plan": str(operation.plan)}

    def work(progress) -> Healed:
        from surgery.healing import HealingRun

        with healed.busy.taken(progress), ExitStack() as used:
            healed.training.set()
            used.callback(healed.training.clear)
            base = used.enter_context(bases.in_use(bases.load(operation, progress)))
            progress("Starting", 0, 0)  # raises if the page was closed, before anything is written
            place = runs.place(own, base.identity, operation, settings)
            try:
                place.parent.mkdir(parents=True, exist_ok=True)
                run = HealingRun(
                    base,
                    operation.plan,
                    settings,
                    place,
                    start=start,
                    on_evaluation=evaluated.append,
                    progress=progress,
                )
                begun.append(run)
                for _ in run:
                    pass
                return run.result()
            finally:
                runs.ended(own)

    def waiting(status: dict) -> dict:
        if healed.pausing.is_set():
            raise Cancelled
        return panel.only_status(status)

    def running(status: dict) -> dict:
        nonlocal drawn
        update = waiting(status)
        if time.monotonic() - drawn > _EVERY:
            drawn = time.monotonic()
            if begun:
                update |= _drawn(panel, begun[0], of)
            else:
                start = heal_board.of_start(status["text"], status["share"], evaluated)
                hidden = gr.update(visible=False)
                update |= {panel.board: {**start, "of": of}, panel.curve: hidden}
        return update

    def turn() -> Iterator[dict]:
        results.append((yield from watch(work, running)))

    healed.pausing.clear()
    yield panel.only_status(note("Starting"))
    try:
        yield from in_turn(services.healing, who or own, turn(), waiting)
    except Cancelled:
        if begun:
            raise
        yield panel.only_status(_NOT_BEGUN)
        return
    done = replace(operation, healed=results[0])
    healed.keep(done)
    base = bases.get(operation)
    cut = Operation(operation.spec, operation.plan.unfitted)
    for entry in altered_entries(base, cut, done, ALL_KINDS):
        session.measurements.add(entry)
    shown = _drawn(panel, begun[0], of)
    shown[panel.board] |= heal_board.of_healed(done)
    is_shown = (session.spec, session.plan) == (operation.spec, operation.plan)
    yield {**panel.only_status(_DONE if is_shown else _DONE_ELSEWHERE), **shown}


def _drawn(panel: HealPanel, run: HealingRun, of: dict) -> dict:
    """The board, and the picture once there is something in it. `of` is what they are of."""
    picture = {**curve(run.losses, run.evaluations), "of": of}
    return {
        panel.board: {**heal_board.of_run(run), "of": of},
        panel.curve: gr.update(value=picture, visible=bool(run.losses)),
    }
