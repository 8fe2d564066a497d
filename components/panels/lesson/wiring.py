"""Carry out the lesson's steps on the page: open a step's base, write its plan, measure.

Generating text, saving and drawing weights are started by the page's own buttons.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import gradio as gr

from components.gradio_compat.event_data import event_data
from components.parts import AT_ONCE, QUIET, PageParts, tiles_of
from components.services.client_address import visitor
from components.services.run_job import in_turn, run_job, watch, watch_in_turn
from components.sessions.healed_store import HealedStore
from components.sessions.session import Session
from components.widgets.status.status import Status, failed, note
from surgery import Plan, SurgeryError
from surgery.lesson.course import STEPS, TOKENS
from surgery.progress import Cancelled

from .demonstrations import DEMONSTRATIONS
from .panel import Lesson

if TYPE_CHECKING:
    from surgery import Base

DRAWN = "up"  # the tensors whose distribution is shown: no norm is among them
PRESSED = {"talk": "#stream", "save": "#save"}

# Once a step is done, the page's own button for it is pressed, with what the step has filled in.
_PRESS = """(value) => {
  const press = value && !value.running && value.press;
  if (press) document.querySelector(press)?.click();
}"""


@dataclass(frozen=True)
class Beside:
    """What of the other panels the lesson fills in, and two functions of theirs: a status value for
    a base, and an update of `kinds`, the Weights panel's list of tensors."""

    base: gr.Dropdown
    about: Status
    prompt: gr.Textbox
    greedy: gr.Checkbox
    chat: gr.Checkbox
    tokens: gr.Slider
    seed: gr.Number
    kinds: gr.Dropdown
    describe: Callable[[Base], dict]
    choices: Callable[[list[str], str], dict]


def wire(lesson: Lesson, parts: PageParts, beside: Beside, first: str) -> None:
    """Tie the lesson to the page, whose own first base is `first`."""
    services = parts.services
    outputs = [
        *(lesson, parts.strip, parts.tiles, beside.base, beside.about),
        *(beside.prompt, beside.greedy, beside.chat, beside.tokens, beside.seed),
        beside.kinds,
    ]

    def stage(session: Session, spec: str, plan: str, request: gr.Request) -> Iterator[dict]:
        """Open the base and write the plan; yields status values while a base opens. Raises
        `SurgeryError`."""
        if session.spec != spec:
            session.opening = None  # whatever else is being opened is out of date
            services.admit("open", request)
            services.bases.refresh(spec)
            base = yield from watch(partial(services.bases.get, spec), lambda status: status)
            session.open(spec, base)
        if plan and session.view()["text"] != plan:
            session.become(plan, edited=False)
        if error := session.view()["error"]:
            raise SurgeryError(error)

    def page(session: Session, healed: HealedStore) -> dict:
        """The page as the session has it now."""
        return {
            beside.base: session.spec,
            beside.about: beside.describe(services.bases.get(session.spec)),
            parts.strip: session.view(),
            parts.tiles: tiles_of(services, session, healed),
        }

    def act(
        session: Session, healed: HealedStore, event: gr.EventData, request: gr.Request
    ) -> Iterator[dict]:
        wanted = event_data(event)
        place, who = wanted.get("step"), visitor(request)
        if type(place) is not int or not 1 <= place <= len(STEPS):
            return
        step = STEPS[place - 1]
        only_stage = wanted.get("stage") is True

        def show(status: dict, blocks: list[dict], **more: Any) -> dict:
            shown = {"step": place, "status": status, "blocks": blocks, "running": True, **more}
            return {lesson: shown}

        blocks: list[dict] = []
        try:
            measured = step.act in DEMONSTRATIONS and not only_stage
            services.admit("measure" if measured else "edit", request)
            for status in stage(session, step.base, step.plan, request):
                yield {beside.about: status, **show(status, blocks)}
            ready = {
                beside.prompt: step.prompt,
                **{beside.greedy: True, beside.chat: False, beside.tokens: TOKENS, beside.seed: 0},
            }
            until = time.monotonic() + 1

            def so_far(status: dict) -> dict:
                # A busy browser may leave out an update that is soon followed by another, so every
                # update within a second has all of it.
                more = {**page(session, healed), **ready} if time.monotonic() < until else {}
                return {**more, **show(status, blocks)}

            def demonstrate() -> Iterator[dict]:
                nonlocal blocks
                for status, found in DEMONSTRATIONS[step.act](services.bases, step):
                    blocks = found
                    yield so_far(status)

            if measured:
                yield from in_turn(services.measuring, who, demonstrate(), so_far)
            if step.act == "drawn" and not only_stage:  # all weights together are not normal
                from surgery.weight_stats import survey_base

                kinds = yield from watch_in_turn(
                    services.measuring,
                    who,
                    lambda p: survey_base(services.bases.get(step.base, p), p).base().kinds(),
                    lambda status: show(status, blocks),
                )
                ready[beside.kinds] = beside.choices(kinds, DRAWN)
        except Cancelled:
            yield show(note("Stopped."), blocks, running=False)
            return
        except SurgeryError as error:
            status = failed(services.deployment.words(error))
            yield show(status, blocks, running=False, failed=True)
            return
        press = "" if only_stage else PRESSED.get(step.act, "")
        status = note("Ready: press the button to start.") if only_stage else note("")
        reached = {"ready": True, "done": not only_stage}
        last = show(status, blocks, running=False, press=press, **reached)
        yield {**page(session, healed), **ready, **last}

    def again(session: Session, healed: HealedStore, request: gr.Request) -> Iterator[dict]:
        def show(status: dict) -> dict:
            return {beside.about: status}

        def updates() -> Iterator[dict]:
            for status in stage(session, first, "", request):
                yield show(status)
            whole = str(Plan.whole(session.view()["depth"]))
            for _ in stage(session, first, whole, request):
                pass
            yield page(session, healed)

        yield from run_job(services, "edit", request, updates(), show)

    acting = lesson.act(act, [parts.session, parts.healed], outputs, **QUIET, **AT_ONCE)
    # A busy browser may draw the last values after it is told that the event has ended. The round
    # trip gives it the time, so that what is pressed, and what the panels draw, has the step's
    # settings.
    settled = acting.success(lambda: None, None, None, queue=False, **QUIET)
    settled.success(None, lesson, None, js=_PRESS, **QUIET)
    set_up = acting.then(lambda: None, None, None, queue=False, **QUIET)
    starting = lesson.again(again, [parts.session, parts.healed], outputs, **QUIET, **AT_ONCE)
    lesson.halt(None, None, None, cancels=[acting], queue=False, **QUIET)
    parts.opened.extend([set_up, starting])
