"""Stream the answers of base and patient side by side, with one prompt and one seed."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

import gradio as gr

from components.parts import QUIET, PageParts
from components.services import fair_queue
from components.services.client_address import Visitor, visitor
from components.services.run_job import run_job, watch
from components.services.services import Services
from components.sessions.healed_store import HealedStore
from components.sessions.session import Session
from components.widgets.status.status import note
from components.widgets.stop_button import stops
from surgery import Plan
from surgery.operation import Operation
from surgery.progress import Progress

from .panel import TalkPanel

if TYPE_CHECKING:
    from surgery import Base

_runs = itertools.count(1)  # so that the page can tell a late drawing of a run that was stopped
_PLACE = "place"  # in the queue, where else the name of a side is
_EVERY = 0.06  # seconds between drawings


def wire(panel: TalkPanel, parts: PageParts) -> None:
    """Tie the panel to the page."""
    services = parts.services

    def speak(
        session: Session, healed: HealedStore, request: gr.Request, *settings
    ) -> Iterator[tuple[dict, dict]]:
        def updates() -> Iterator[tuple[dict, dict]]:
            operation = healed.operation(session.spec, session.plan)
            speaking_of = partial(talk, who=visitor(request))
            yield from speaking_of(services, operation, *settings)

        yield from run_job(services, "speak", request, updates(), only_status)

    outputs = [panel.status, panel.output]
    speaking = gr.on(
        [panel.start.click, panel.prompt.submit],
        speak,
        [parts.session, parts.healed, panel.prompt, *panel.settings],
        outputs,
        concurrency_limit=None,  # they take turns in the fair queue
        **QUIET,
    )
    stops(panel.stop, [speaking], stopped, panel.output, outputs)


def only_status(status: dict) -> tuple[dict, dict]:
    """The update that shows a status and clears the texts."""
    return status, {}


def talk(
    services: Services,
    operation: Operation,
    prompt: str,
    greedy: bool,
    chat: bool,
    tokens: float,
    seed: float,
    temperature: float,
    top_p: float,
    who: Visitor | str | None = None,
) -> Iterator[tuple[dict, dict]]:
    """Values for status and view: how the weights load, the place in the queue, then both texts as
    they grow. `who` is the visitor, for fair queueing. Raises `SurgeryError`."""
    allowed, bases, gpu = services.deployment, services.bases, services.gpu
    settings = dict(
        greedy=bool(greedy),
        chat=bool(chat),
        max_new_tokens=int(min(tokens or 64, allowed.max_new_tokens)),
        seed=int(seed or 0),
        temperature=float(temperature or 0.8),
        top_p=float(top_p or 0.95),
    )
    prompt = str(prompt or "")
    shown: dict[str, Any] = {
        "run": next(_runs),
        "prompt": "" if chat else prompt,
        "running": True,
    }

    def show(status: dict) -> tuple[dict, dict]:
        return status, shown

    with ExitStack() as used:
        allowed.check_prompt(prompt)
        opened = bases.get if gpu else bases.load
        base = yield from watch(partial(opened, operation.spec), show)
        used.enter_context(bases.in_use(base))
        if gpu and operation.healed is None:  # a healed patient lives in this process
            both = {"base": str(Plan.whole(base.depth)), "patient": str(operation.plan)}
            streams = gpu.streams(operation.spec, both, prompt, settings)
        else:
            streams = yield from watch(
                lambda progress: _streams(base, operation, prompt, settings, progress), show
            )
        slow = yield from watch(lambda _: _text_speed(base, operation), show)
        plans = {"base": "", "patient": str(operation)}
        texts = dict.fromkeys(streams, "")
        drawn = 0.0
        for side, piece in services.queue.queued(who, fair_queue.alternate(streams), _waiting):
            if side == _PLACE:
                here = int(piece)
                place = note(f"Place {here} in the queue. Generation starts automatically.")
                yield (place, shown) if here else (gr.skip(), gr.skip())
                continue
            texts[side] += piece
            if time.monotonic() - drawn > _EVERY:
                # Later ones leave the line alone: they may arrive after somebody pressed Stop.
                cleared = gr.skip() if drawn else note(slow)
                drawn = time.monotonic()
                yield cleared, {**shown, **_sides(streams, texts, plans)}
        last = {**shown, **_sides(streams, texts, plans), "running": False}
        yield gr.skip() if drawn else note(""), last


def _text_speed(base: Base, operation: Operation) -> str:
    from surgery.disk_reads import text_speed

    return text_speed(base, operation.plan)


def _streams(
    base: Base, operation: Operation, prompt: str, settings: dict, progress: Progress
) -> dict[str, Any]:
    """Create the streams of the base and the patient; nothing is generated yet."""
    progress("Building the patient", 0, 0)
    patient = operation.patient(base)
    whole = base.operate(Plan.whole(base.depth))
    return {
        "base": whole.stream(prompt, **settings),
        "patient": patient.stream(prompt, **settings),
    }


def stopped(value: dict | None) -> tuple[dict, dict]:
    """Values for status and view once the streams have been stopped."""
    value = value if isinstance(value, dict) else {}
    if not value.get("running"):
        return note(""), value
    return note("Stopped."), {**value, "running": False}


def _waiting(place: int) -> tuple[str, str]:
    return _PLACE, str(place)


def _sides(streams: dict[str, Any], texts: dict[str, str], plans: dict[str, str]) -> dict:
    return {
        who: {
            "text": texts[who],
            "plan": plans[who],
            "tokens": stream.stats.tokens,
            "tokens_per_second": stream.stats.tokens_per_second,
            "first": stream.stats.first_token_seconds,
            "finished": stream.stats.finished,
        }
        for who, stream in streams.items()
    }
