"""Stream the answers of base and patient side by side, with one prompt and one seed."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

import gradio as gr

from components.parts import AT_ONCE, QUIET, PageParts
from components.services import fair_queue
from components.services.client_address import Visitor, visitor
from components.services.run_job import run_job, watch
from components.services.services import Services
from components.sessions.healed_store import HealedStore
from components.sessions.session import Session
from components.widgets.image_file.image_file import chosen_image, image_id
from components.widgets.status.status import note
from surgery import Plan, SurgeryError
from surgery.operation import Operation
from surgery.progress import Progress

from . import token_layers
from .answers import Answer, Answers
from .panel import TalkPanel
from .talk_store import TalkStore

if TYPE_CHECKING:
    from surgery import Base

_runs = itertools.count(1)  # so that the page can tell a late drawing of a run that was stopped
# What comes from the work where else the name of a side is: a place in the queue, surprises.
_PLACE, _SURPRISE = "place", "surprise"
_EVERY = 0.15  # seconds between drawings, each of which keeps the page busy for some hundredths
_SMALL = 1_000_000_000  # bytes of weights that are loaded without being asked for


def wire(panel: TalkPanel, parts: PageParts) -> None:
    """Tie the panel to the page, after all panels that open bases."""
    services, store = parts.services, gr.State(TalkStore())

    def speak(
        session: Session,
        healed: HealedStore,
        store: TalkStore,
        pressed: float | None,
        request: gr.Request,
        *settings: Any,
        asked: bool = True,
    ) -> Iterator[tuple[dict, dict]]:
        def updates() -> Iterator[tuple[dict, dict]]:
            if not asked and not loads_unasked(services, session.spec):
                why = "Press Stream both to load the weights. Auto-run then follows your edits."
                yield note(why), gr.skip()
                return
            operation = session.operation(healed)
            speaking_of = partial(talk, who=visitor(request), store=store)
            for status, view in speaking_of(services, operation, *settings):
                store.shown = view if "run" in view else store.shown
                yield status, view

        def ended(status: dict) -> tuple[dict, dict]:
            return only_status(status, store.shown)

        def job() -> Generator[tuple[dict, dict], None, None]:
            yield from run_job(services, "speak", request, updates(), ended)

        yield from store.latest(pressed, job(), (gr.skip(), gr.skip()))

    def speak_again(
        session: Session,
        healed: HealedStore,
        store: TalkStore,
        pressed: float | None,
        request: gr.Request,
        *settings: Any,
    ) -> Iterator[tuple[dict, dict]]:
        yield from speak(session, healed, store, pressed, request, *settings, asked=False)

    pressed = gr.Number(visible="hidden")
    outputs = [panel.status, panel.output]
    given_by = [panel.prompt, *panel.settings, panel.image]
    inputs = [parts.session, parts.healed, store, pressed, *given_by]
    options: dict[str, Any] = {
        "js": _with_clock(pressed, inputs),
        "trigger_mode": "multiple",  # a press during a run ends that and begins anew
        **QUIET,
        **AT_ONCE,
    }
    asked = [panel.start.click, panel.prompt.submit]
    gr.on(asked, speak, inputs, outputs, **options)
    panel.output.rerun(speak_again, inputs, outputs, **options)

    def explain(store: TalkStore, pressed: float | None, request: gr.Request) -> Iterator[dict]:
        def updates() -> Iterator[dict]:
            yield from token_layers.measure(panel, services, store.answers, visitor(request))

        def job() -> Generator[dict, None, None]:
            show = lambda status: {panel.status: status}  # noqa: E731
            yield from run_job(services, "measure", request, updates(), show)

        yield from store.latest(pressed, job(), {panel.status: gr.skip()})

    given = [store, pressed]
    panel.output.explain(
        explain,
        given,
        [*outputs, *panel.figures.values()],
        js=_with_clock(pressed, given),
        trigger_mode="multiple",
        **QUIET,
        **AT_ONCE,
    )

    def cease(store: TalkStore, pressed: float | None) -> None:
        store.stop(pressed)

    def stop(store: TalkStore, pressed: float | None, value: dict | None) -> tuple[dict, dict]:
        if store.replaced(pressed):
            return gr.skip(), gr.skip()
        store.stop(pressed)
        return stopped(value)

    # Not `cancels`: of several runs of one event, Gradio's page cancels any. Through the queue the
    # message comes after the last text.
    for event, ends, given, shown in (
        (panel.stop.click, stop, [store, pressed, panel.output], outputs),
        (panel.output.cease, cease, [store, pressed], None),
    ):
        event(ends, given, shown, js=_with_clock(pressed, given), **QUIET, **AT_ONCE)

    def opened(session: Session, request: gr.Request) -> tuple[dict, dict, dict]:
        if services.refused("draw", request):
            return gr.skip(), gr.skip(), gr.skip()
        return *can_speak(services, session.spec), offer_image(services, session.spec)

    offered: list[Any] = [panel.start, panel.status, panel.image]
    for event in parts.opened:
        event.then(opened, parts.session, offered, queue=False, **QUIET)


def _with_clock(pressed: gr.Number, inputs: list) -> str:
    """JavaScript that puts the page's clock in place of `pressed` among the inputs of an event."""
    place = inputs.index(pressed)
    return f"(...all) => all.slice(0, {len(inputs)}).with({place}, performance.now())"


def can_speak(services: Services, spec: str) -> tuple[dict, dict]:
    """Updates of the Stream button and the status: whether this base generates text, and why a
    vision-language model takes no images."""
    try:
        base = services.bases.numbers(spec)
    except SurgeryError:  # none is open; the base's own line says why
        return gr.skip(), gr.skip()
    if base.has_tokenizer:
        return gr.update(interactive=True), note(base.why_no_images)
    reason = f"{base.name} has no tokenizer, so it can't generate text. Everything else works."
    return gr.update(interactive=False), note(reason)


def offer_image(services: Services, spec: str) -> dict:
    """An update of the image picker: there, with the image that was chosen, if this base takes one;
    otherwise neither."""
    try:
        takes = services.bases.numbers(spec).takes_images
    except SurgeryError:
        return gr.skip()
    return gr.update(visible=True) if takes else gr.update(visible=False, value={})


def loads_unasked(services: Services, spec: str) -> bool:
    """Whether an edit may start a run: the weights are in memory, or small and on this machine."""
    try:
        base = services.bases.numbers(spec)
        loaded = services.gpu is not None or getattr(base, "is_loaded", False)
        size = base.preview(Plan.whole(base.depth)).bytes
    except SurgeryError:
        return False
    return loaded or (base.kind != "hub" and size <= _SMALL)


def only_status(status: dict, shown: Mapping | None = None) -> tuple[dict, dict]:
    """The update that shows why a run came to nothing. `shown` is what the panel shows: texts stay,
    and nothing is left running."""
    if not shown or not shown["running"]:
        return status, gr.skip()
    has_text = any(shown[side]["text"] for side in ("base", "patient"))
    return status, {**shown, "running": False} if has_text else {}


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
    image: dict | None = None,
    who: Visitor | str | None = None,
    store: TalkStore | None = None,
) -> Iterator[tuple[dict, dict]]:
    """Values for status and view: how the weights load, the place in the queue, then both texts as
    they grow, and at the end how surprised the base is by the patient's. `image` is the value of
    the image picker; `who` is the visitor, for fair queueing; `store` has the base's last text,
    which is not generated again for the same settings. Raises `SurgeryError`."""
    allowed, bases, gpu = services.deployment, services.bases, services.gpu
    store = store or TalkStore()
    fields = dict(
        prompt=prompt,
        greedy=greedy,
        chat=chat,
        tokens=tokens,
        seed=seed,
        temperature=temperature,
        top_p=top_p,
        image=image_id(image),
    )
    settings: dict[str, Any] = dict(
        greedy=bool(greedy),
        chat=bool(chat),
        max_new_tokens=int(min(tokens or 64, allowed.max_new_tokens)),
        seed=int(seed or 0),
        temperature=float(temperature or 0.8),
        top_p=float(top_p or 0.95),
        image=chosen_image(image),
    )
    prompt = str(prompt or "")
    key = (operation.spec, prompt, *settings.values())
    shown: dict[str, Any] = {
        "run": next(_runs),
        "spec": operation.spec,
        "plan": str(operation.plan),
        "healing": operation.key[2],
        "fields": fields,  # the page compares them with its own
        "prompt": "" if chat else prompt,
        "running": True,
        "pictured": bool(settings["image"]),  # its layers can't be measured by token
        "base": store.text(key) or _side(),
        "patient": _side(str(operation)),
    }

    def show(status: dict) -> tuple[dict, dict]:
        return status, dict(shown)

    with ExitStack() as used:
        allowed.check_prompt(prompt)
        opened = bases.get if gpu else bases.load
        base = yield from watch(partial(opened, operation), show)
        used.enter_context(bases.in_use(base))
        known = store.text(key, base)
        shown["base"] = known or _side()
        plans = {"base": Plan.whole(base.depth), "patient": operation.plan}
        if known:
            del plans["base"]
        lent = gpu if operation.healed is None else None  # a healed patient lives in this process
        if lent:
            texts = {side: str(plan) for side, plan in plans.items()}
            streams = lent.streams(operation.spec, texts, prompt, settings)
        else:
            streams = yield from watch(
                lambda progress: _streams(base, operation, list(plans), prompt, settings, progress),
                show,
            )
        store.answers = None  # of the run before
        if not settings["image"]:  # what measures tokens knows no images
            used.callback(_keep_answers, store, operation, streams, shown)
        slow = yield from watch(lambda _: _text_speed(base, operation), show)
        drawn = 0.0
        work = _then_surprise(streams, None if lent else base)
        for side, piece in services.queue.queued(who, work, _waiting):
            if side == _PLACE:
                place = note(f"Place {piece} in the queue. Generation starts automatically.")
                yield (place, dict(shown)) if piece else (gr.skip(), gr.skip())
                continue
            if side == _SURPRISE:
                shown["patient"] = {**shown["patient"], "pieces": piece}
                continue
            text = shown[side]["text"] + piece
            shown[side] = {**shown[side], "text": text, **_stats(streams[side])}
            if time.monotonic() - drawn > _EVERY:
                # Later ones leave the line alone: they may arrive after somebody pressed Stop.
                cleared = gr.skip() if drawn else note(slow)
                drawn = time.monotonic()
                yield cleared, dict(shown)
        for side, stream in streams.items():
            shown[side] = {**shown[side], **_stats(stream)}
        if "base" in streams:
            store.keep_text(key, base, shown["base"], Answer.of(streams["base"]))
        yield gr.skip() if drawn else note(""), {**shown, "running": False}


def _keep_answers(store: TalkStore, operation: Operation, streams: dict, shown: dict) -> None:
    """Keep both texts as far as they were generated; that of the base may be from before."""
    answers = {side: Answer.of(stream) for side, stream in streams.items()}
    if "base" not in answers and store.base_answer:
        answers = {"base": store.base_answer, **answers}
    store.answers = Answers(operation, answers, {**shown, "running": False})


def _text_speed(base: Base, operation: Operation) -> str:
    from surgery.disk_reads import text_speed

    return text_speed(base, operation.plan)


def _streams(
    base: Base,
    operation: Operation,
    sides: list[str],
    prompt: str,
    settings: dict,
    progress: Progress,
) -> dict[str, Any]:
    """Create the streams of these sides; nothing is generated yet."""
    progress("Building the patient", 0, 0)
    made = {"patient": operation.patient(base)}
    if "base" in sides:
        made = {"base": base.operate(Plan.whole(base.depth)), **made}
    return {side: patient.stream(prompt, **settings) for side, patient in made.items()}


def _then_surprise(streams: dict[str, Any], base: Base | None) -> Iterator[tuple[str, Any]]:
    """The pieces of all streams in turn, then the pieces of the patient's text with the base's
    surprise at each, in nats, or None where that is not finite. Without `base` the stream knows."""
    yield from fair_queue.alternate(streams)
    try:
        pieces = _surprises(base, streams["patient"]) if base else streams["patient"].surprises
    except SurgeryError:  # the texts are there, and are worth more than their colours
        return
    if pieces:
        yield _SURPRISE, [[text, x if math.isfinite(x) else None] for text, x in pieces]


def _surprises(base: Base, stream: Any) -> list[tuple[str, float]]:
    from surgery.analysis import surprises

    return surprises(base.operate(Plan.whole(base.depth)).model, stream)


def stopped(value: dict | None) -> tuple[dict, dict]:
    """Values for status and view once the streams have been stopped."""
    value = value if isinstance(value, dict) else {}
    if not value.get("running"):
        return note(""), value
    return note("Stopped."), {**value, "running": False}


def _waiting(place: int) -> tuple[str, int]:
    return _PLACE, place


def _side(plan: str = "") -> dict:
    return {"text": "", "plan": plan, "tokens": 0}


def _stats(stream: Any) -> dict:
    return {
        "tokens": stream.stats.tokens,
        "tokens_per_second": stream.stats.tokens_per_second,
        "first": stream.stats.first_token_seconds,
        "finished": stream.stats.finished,
    }
