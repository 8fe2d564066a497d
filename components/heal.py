"""The heal panel: what to train and for how long, what it would cost, and how it goes.

Knows how a session's run is started, paused and taken up again, and how it is shown. Training is
the library's affair. A run lives in a folder of its own until the session ends; the healed patient
takes the place of the cut one in Talk and Save while the plan is the one that it was healed for.
"""

from __future__ import annotations

import atexit
import hashlib
import json
import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import gradio as gr

from surgery import Plan, SurgeryError
from surgery.progress import Cancelled

from . import bases
from .colours import BASE, NORMAL, PATIENT
from .deployment import current
from .jobs import Job
from .plotly_view import PlotlyView
from .status import Status, failed, note

if TYPE_CHECKING:
    from surgery.heal import Cost, Healed, Healing, Look, Settings

_EVERY = 0.5  # seconds between drawings
_SALT = secrets.token_hex(16)  # so that nobody can guess another session's folder
_LONGEST = {True: 10, False: 240}  # minutes, on a public page and on one's own
_TRAIN = {
    "layers beside the seams": "seams",
    "layers that were added": "new",
    "every layer": "all",
    "small adapters on every layer (LoRA)": "lora",
}
_OBJECTIVE = {"what the base would say": "distill", "the next word of the text": "next-token"}
_QUIET = {"show_progress": "hidden", "api_visibility": "private"}


class Clinic:
    """What one session has had healed."""

    def __init__(self) -> None:
        # Pausing is told by the run itself: what another event draws, its last report may cover.
        self.pausing = threading.Event()
        self.busy = threading.Lock()  # one run at a time: a paused one ends its step first
        self._healed: dict[tuple[str, str], Healed] = {}

    def __deepcopy__(self, memo: dict) -> Clinic:
        return Clinic()  # Gradio copies a state's first value for every page that is opened

    def keep(self, spec: str, healed: Healed) -> None:
        """The healed patient of this base and its plan; an older one is let go."""
        self._healed = {(spec, str(healed.plan)): healed}

    def patient(self, spec: str, plan: Plan) -> Healed | None:
        """The healed patient of exactly this plan, if there is one."""
        return self._healed.get((spec, str(plan)))


class Runs:
    """The folder under which all sessions' runs lie while the page is served."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="layer-surgery-runs-")).resolve()
        atexit.register(shutil.rmtree, self.folder, ignore_errors=True)

    def place(self, session: str, spec: str, plan: Plan, settings: Settings) -> Path:
        """Of a session's run: the same for the same settings, so that it is taken up again."""
        told = json.dumps([spec, str(plan), settings.as_dict()])
        return self._of(session) / hashlib.sha256(told.encode()).hexdigest()[:32]

    def forget(self, session: str) -> None:
        """Remove a session's runs."""
        shutil.rmtree(self._of(session), ignore_errors=True)

    def _of(self, session: str) -> Path:
        return self.folder / hashlib.sha256(f"{_SALT}{session}".encode()).hexdigest()


@dataclass(frozen=True)
class HealPanel:
    """The panel's components, for the page to wire."""

    settings: tuple[gr.components.Component, ...]
    price: gr.Button
    start: gr.Button
    pause: gr.Button
    status: Status
    facts: gr.Textbox
    curve: PlotlyView


def heal_panel(public: bool) -> HealPanel:
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
            info="The text is what the base itself writes.",
            elem_id="heal-objective",
        )
        minutes = gr.Number(
            value=5,
            minimum=0.1,
            maximum=_LONGEST[public],
            label="Minutes",
            info="Longer heals better.",
            elem_id="heal-minutes",
        )
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
    with gr.Row(elem_classes="xray-buttons"):
        start = gr.Button(
            "Heal", variant="primary", scale=0, min_width=120, size="md", elem_id="heal"
        )
        pause = gr.Button("Pause", scale=0, min_width=90, size="md", elem_id="heal-pause")
        price = gr.Button(
            "What would it cost?", scale=0, min_width=200, size="md", elem_id="heal-price"
        )
        status = Status(value={}, elem_id="heal-status")
    facts = gr.Textbox(
        value="The patient learns from the base, on text that the base writes by itself. You see "
        "its loss, and its perplexity on text that it does not learn from, as it goes on.",
        show_label=False,
        container=False,
        interactive=False,
        lines=2,
        max_lines=12,
        elem_id="heal-facts",
    )
    curve = PlotlyView(value={}, visible=False, elem_id="heal-curve")
    settings = (train, objective, steps, minutes, batch, window, rate, rank, seed)
    return HealPanel(settings, price, start, pause, status, facts, curve)


def read(values: tuple, public: bool) -> Settings:
    """The settings that the page's controls say. Raises `SurgeryError`."""
    from surgery.heal import Settings

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


def price(spec: str, plan: Plan, values: tuple, public: bool) -> tuple[dict, str]:
    """Values for status and facts: what a run would cost, before anything is loaded."""
    try:
        from surgery.heal import cost

        settings = read(values, public)
        return note(""), _cost_words(cost(bases.get(spec), plan, settings))
    except SurgeryError as error:
        return failed(error), ""


def heal(
    clinic: Clinic, runs: Runs, session: str, spec: str, plan: Plan, values: tuple, public: bool
) -> Iterator[tuple[dict, object, object]]:
    """Updates for status, facts and curve, until the run is at its end or the page stops asking."""
    seen: list[Healing] = []

    def work(progress) -> Healed:
        from surgery.heal import Healing

        with clinic.busy:
            base = bases.load(spec, progress)
            place = runs.place(session, spec, plan, settings)
            place.parent.mkdir(parents=True, exist_ok=True)
            run = Healing(base, plan, settings, place, progress=progress)
            seen.append(run)
            for _ in run:
                pass
            return run.result()

    try:
        current().check_healing()
        settings = read(values, public)
        yield note("Beginning"), gr.skip(), gr.skip()
        clinic.pausing.clear()
        job, drawn = Job(work), 0.0
        reports = iter(job)
        for report in reports:
            if clinic.pausing.is_set():
                reports.close()
                raise Cancelled
            if seen and time.monotonic() - drawn > _EVERY:
                drawn = time.monotonic()
                yield report.view(), _words(seen[0]), _shown(seen[0])
            else:
                yield report.view(), gr.skip(), gr.skip()
        healed = job.result()
        clinic.keep(spec, healed)
    except Cancelled:
        yield paused(), gr.skip(), gr.skip()
        return
    except SurgeryError as error:
        yield failed(error), gr.skip(), gr.skip()
        return
    run = seen[0]
    done = note(
        "Healed. Talk and Save have the healed patient now, as long as the plan is this one."
    )
    yield done, _words(run), _shown(run)


def _shown(run: Healing) -> dict:
    """The picture, once there is something in it."""
    return gr.update(value=curve(run.losses, run.looks), visible=bool(run.losses))


def paused() -> dict:
    """For the status line once a run was paused."""
    return note("Paused after the step that was being done. Heal goes on from there.")


def curve(losses: list[float], looks: list[Look]) -> dict:
    """The picture: the loss of every step, and perplexities on held-out text."""
    steps = [look.step for look in looks]
    now = [look.now.value for look in looks]
    ends = [0, max(1, len(losses))]
    return {
        "title": "Healing",
        "hint": "Left: the loss of each step's batch. Right: perplexity on text that is not "
        "trained on, with 95 % intervals; lower is better.",
        "data": [
            {
                "type": "scatter",
                "mode": "lines",
                "name": "loss",
                "x": list(range(1, len(losses) + 1)),
                "y": [round(loss, 5) for loss in losses],
                "line": {"color": NORMAL, "width": 1.5},
            },
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": "perplexity, patient",
                "yaxis": "y2",
                "x": steps,
                "y": [round(value, 3) for value in now],
                "error_y": {
                    "type": "data",
                    "symmetric": False,
                    "array": [round(look.now.high - look.now.value, 3) for look in looks],
                    "arrayminus": [round(look.now.value - look.now.low, 3) for look in looks],
                },
                "line": {"color": PATIENT},
            },
            *(
                {
                    "type": "scatter",
                    "mode": "lines",
                    "name": f"perplexity, {name}",
                    "yaxis": "y2",
                    "x": ends,
                    "y": [round(value, 3)] * 2,
                    "line": {"color": colour, "dash": "dot"},
                }
                for name, value, colour in (
                    (("base", looks[0].base.value, BASE), ("cut", looks[0].cut.value, "$faint"))
                    if looks
                    else ()
                )
            ),
        ],
        "layout": {
            "xaxis": {"title": {"text": "step"}},
            "yaxis": {"title": {"text": "loss, nats"}, "rangemode": "tozero"},
            "yaxis2": {
                "title": {"text": "perplexity"},
                "overlaying": "y",
                "side": "right",
                "type": "log",
                "showgrid": False,
            },
            "legend": {"orientation": "h", "y": 1.12},
        },
    }


def _words(run: Healing) -> str:
    """Where a run stands, in lines."""
    lines = [f"Step {run.step:,}" + (f" of {run.steps:,}" if run.steps else "")]
    if run.losses:
        lines[0] += f", loss {run.losses[-1]:.4f}"
    if run.speed:
        lines[0] += f", {run.speed:,.0f} tokens/s"
    if run.looks:
        look = run.looks[-1]
        lines.append(
            f"Perplexity on {look.tokens:,} held-out tokens: base {look.base.value:.2f}, cut "
            f"{look.cut.value:.2f}, after step {look.step:,} {look.now.value:.2f} "
            f"({look.now.low:.2f} to {look.now.high:.2f})"
        )
        if look.recovered:
            share, low, high = look.recovered
            lines.append(
                f"Recovered of the lost log perplexity: {share:.0%} ({low:.0%} to {high:.0%})"
            )
        lines.append(f"It writes: {' '.join(look.text.split())[:300]}")
    return "\n".join(lines)


def _cost_words(found: Cost) -> str:
    parts = ", ".join(f"{name} {size / 1e6:,.0f} MB" for name, size in found.memory.items())
    fits = "which fits here" if found.fits else "which does not fit here"
    return (
        f"An estimate: {found.tokens:,} tokens, {found.trained:,} of {found.parameters:,} "
        f"parameters train, {found.flops:.3g} FLOPs (6·N·D, and 2·N·D for the teacher), about "
        f"{60 * found.hours:,.1f} minutes here.\n"
        f"Memory: {found.bytes / 1e6:,.0f} MB, {fits}: {parts}."
    )
