"""The heal panel: what to train, on which text and for how long, and how it goes.

Knows how a session's run is started, paused and taken up again, and what of it is shown where.
Training is the library's affair; which text there is to choose, `text_choice`'s. A run lives in a
folder of its own until the session ends; what comes of it, the clinic keeps.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import gradio as gr

from components.panels.log.panel import Entry, LogBook, Measure
from components.services import bases
from components.services.deployment import current
from components.services.jobs import Job
from components.services.rates import admit
from components.sessions.healed_store import Clinic, Runs
from components.sessions.session import Session
from components.widgets.plotly_view.plotly_view import PlotlyView
from components.widgets.status.status import Status, failed, note
from surgery import Plan, SurgeryError
from surgery.progress import Cancelled

from . import board as heal_board
from .board import HealBoard
from .figures import curve
from .text_choice import SAMPLED, TextChoice, kind_of_text, text_choice, told

if TYPE_CHECKING:
    from surgery import Base
    from surgery.healing import Healed, Healing, Settings

_EVERY = 0.5  # seconds between drawings
_LONGEST = {True: 10, False: 240}  # minutes, on a public page and on one's own
_TRAIN = {
    "layers beside the seams": "seams",
    "layers that were added": "new",
    "every layer": "all",
    "small adapters on every layer (LoRA)": "lora",
}
_OBJECTIVE = {"what the base would say": "distill", "the next word of the text": "next-token"}
_JUDGED_ON = "all four kinds"  # of text: what a run without a held-out file is judged by
_PAUSED = note("Paused after the step that was being done. Heal goes on from there.")
_DONE = note(
    "Healed. Talk, X-ray, Log and Save have the healed patient now, as long as the plan is this "
    "one."
)
_QUIET = {"show_progress": "hidden", "api_visibility": "private"}


@dataclass(frozen=True)
class HealPanel:
    """The panel's components."""

    settings: tuple[gr.components.Component, ...]
    text: TextChoice
    price: gr.Button
    start: gr.Button
    pause: gr.Button
    status: Status
    cost: HealBoard
    board: HealBoard
    curve: PlotlyView


def heal_panel() -> HealPanel:
    """Lay the panel out, where the page is being built."""
    with gr.Row(elem_id="heal-controls", elem_classes="fields"):
        train = gr.Dropdown(
            list(_TRAIN),
            value=next(iter(_TRAIN)),
            label="Train",
            info="The base's own weights stay as they are.",
            elem_id="heal-train",
        )
        objective = gr.Dropdown(
            list(_OBJECTIVE),
            value=next(iter(_OBJECTIVE)),
            label="Learn",
            info="The uncut base is the teacher.",
            elem_id="heal-objective",
        )
        kind = kind_of_text()
        minutes = gr.Number(
            value=5,
            minimum=0.1,
            maximum=_LONGEST[current().public],
            label="Minutes",
            info="Longer heals better.",
            elem_id="heal-minutes",
        )
    text = text_choice(kind)
    with gr.Row(elem_classes="xray-buttons"):
        start = gr.Button(
            "Heal", variant="primary", scale=0, min_width=120, size="md", elem_id="heal"
        )
        pause = gr.Button("Pause", scale=0, min_width=90, size="md", elem_id="heal-pause")
        price = gr.Button(
            "What would it cost?", scale=0, min_width=200, size="md", elem_id="heal-price"
        )
        status = Status(
            value=note(
                "The patient learns from the base. You see its loss, and its perplexity on text "
                "that it does not learn from, as it goes on."
            ),
            elem_id="heal-status",
        )
    with gr.Row(elem_id="heal-results", elem_classes="weights-row"):
        picture = PlotlyView(value={}, visible=False, elem_id="heal-curve")
        board = HealBoard(value={}, elem_id="heal-board")
    priced = HealBoard(value={}, elem_id="heal-cost")
    with (
        gr.Accordion("Finer settings", open=False, elem_id="heal-finer"),
        gr.Row(elem_classes="fields"),
    ):
        steps = gr.Number(
            value=0,
            precision=0,
            minimum=0,
            label="Steps",
            info="0: as many as the minutes allow.",
            elem_id="heal-steps",
        )
        batch = gr.Number(
            value=2,
            precision=0,
            minimum=1,
            maximum=64,
            label="Windows a step",
            info="Texts read at once.",
            elem_id="heal-batch",
        )
        window = gr.Number(
            value=256,
            precision=0,
            minimum=16,
            maximum=2048,
            label="Tokens a window",
            info="Length of each text.",
            elem_id="heal-window",
        )
        rate = gr.Number(
            value=5e-4, minimum=1e-7, maximum=1, label="Learning rate", info="Too high diverges."
        )
        rank = gr.Number(
            value=16,
            precision=0,
            minimum=1,
            maximum=512,
            label="Rank",
            info="Of LoRA's small matrices.",
        )
        seed = gr.Number(
            value=0, precision=0, minimum=0, label="Seed", info="The same seed, the same run."
        )
    settings = (train, objective, steps, minutes, batch, window, rate, rank, seed)
    return HealPanel(settings, text, price, start, pause, status, priced, board, picture)


def wire(
    panel: HealPanel,
    session: gr.State,
    clinic: gr.State,
    runs: Runs,
    book: LogBook,
    compute: dict,
) -> gr.events.Dependency:
    """Tie the panel to the page. The event that comes back ends when a patient was healed."""

    def estimate(session: Session, request: gr.Request, *values) -> tuple[dict, dict]:
        try:
            admit("count", request)
            return price(session.spec, session.plan, values)
        except SurgeryError as error:
            return failed(error), {}

    def train(
        session: Session, clinic: Clinic, request: gr.Request, kind, file, data, *values
    ) -> Iterator[dict]:
        try:
            admit("measure", request)
        except SurgeryError as error:
            yield {panel.status: failed(error)}
            return
        who, text = request.session_hash, (kind, file, data)
        try:
            yield from heal(panel, session, clinic, runs, book, who, values, text)
        except GeneratorExit:  # the page was closed, perhaps before anything was written
            runs.forget(who)
            raise

    panel.price.click(
        estimate,
        [session, *panel.settings],
        [panel.status, panel.cost],
        **_QUIET,
        **compute,
    )
    healing = panel.start.click(
        train,
        [session, clinic, *panel.text.inputs, *panel.settings],
        [panel.status, panel.board, panel.curve],
        concurrency_limit=1,  # everyone's machine: one run at a time, the others wait
        **_QUIET,
    )
    panel.pause.click(lambda clinic: clinic.pausing.set(), clinic, None, queue=False, **_QUIET)
    return healing


def read(values: tuple) -> Settings:
    """The settings that the page's controls say, but for the text. Raises `SurgeryError`."""
    from surgery.healing import Settings

    public = current().public
    train, objective, steps, minutes, batch, window, rate, rank, seed = values
    if train not in _TRAIN or objective not in _OBJECTIVE:
        raise SurgeryError("Choose what trains and what it learns from the lists.")
    steps = int(steps or 0)
    minutes = min(float(minutes or 5), _LONGEST[public])
    if public and (steps > 1000 or int(batch or 1) * int(window or 1) > 4096):
        raise SurgeryError("A public page does 1,000 steps of 4,096 tokens at most.")
    return Settings(
        train=_TRAIN[train],
        objective=_OBJECTIVE[objective],
        steps=steps or None,
        minutes=None if steps else minutes,
        batch=int(batch or 1),
        window=int(window or 256),
        learning_rate=float(rate or 5e-4),
        rank=int(rank or 16),
        seed=int(seed or 0),
    )


def price(spec: str, plan: Plan, values: tuple) -> tuple[dict, dict]:
    """Values for status and cost: what a run would take, before anything is loaded."""
    try:
        from surgery.healing import cost

        found = cost(bases.get(spec), plan, read(values))
        return note(""), heal_board.of_cost(found)
    except SurgeryError as error:
        return failed(error), {}


def heal(
    panel: HealPanel,
    session: Session,
    clinic: Clinic,
    runs: Runs,
    book: LogBook,
    who: str,
    values: tuple,
    text: tuple = (SAMPLED, None, None),
) -> Iterator[dict]:
    """Heal the session's patient until the run is at its end or the page stops asking. `who` is the
    browser's session, `text` what the text's choice says."""
    seen: list[Healing] = []

    def work(progress) -> Healed:
        from surgery.healing import Healing

        with clinic.busy.taken(progress):
            base = bases.load(spec, progress)
            progress("Starting", 0, 0)  # raises if the page was closed, before anything is written
            place = runs.place(who, spec, plan, settings)
            try:
                place.parent.mkdir(parents=True, exist_ok=True)
                run = Healing(base, plan, settings, place, progress=progress)
                seen.append(run)
                for _ in run:
                    pass
                return run.result()
            finally:
                runs.ended(who)

    try:
        current().check_healing()
        spec, plan = session.spec, session.plan
        settings = told(read(values), *text, lambda *given: runs.text(who, *given))
        yield {panel.status: note("Starting")}
        clinic.pausing.clear()
        job, drawn = Job(work), 0.0
        reports = iter(job)
        for report in reports:
            if clinic.pausing.is_set():
                reports.close()
                raise Cancelled
            shown = {panel.status: report.view()}
            if seen and time.monotonic() - drawn > _EVERY:
                drawn = time.monotonic()
                shown |= _drawn(panel, seen[0])
            yield shown
        healed = job.result()
        clinic.keep(spec, healed)
        for entry in entries(bases.get(spec), spec, healed):
            book.add(session, entry)
    except Cancelled:
        yield {panel.status: _PAUSED}
        return
    except SurgeryError as error:
        yield {panel.status: failed(error)}
        return
    yield {panel.status: _DONE, **_drawn(panel, seen[0])}


def entries(base: Base, spec: str, healed: Healed) -> list[Entry]:
    """For the log: base, cut and healed, as the run's judge measured them on the same text."""
    found = healed.facts["perplexity"]

    def measured(who: str) -> Measure:
        return Measure(found[who], *found["intervals"][who], found["tokens"])

    return [
        Entry.of(base, spec, of, measured(name), _JUDGED_ON)
        for name, of in (
            ("base", Plan.whole(base.depth)),
            ("cut", healed.plan),
            ("healed", healed),
        )
    ]


def _drawn(panel: HealPanel, run: Healing) -> dict:
    """The board, and the picture once there is something in it."""
    picture = gr.update(value=curve(run.losses, run.looks), visible=bool(run.losses))
    return {panel.board: heal_board.of_run(run), panel.curve: picture}
