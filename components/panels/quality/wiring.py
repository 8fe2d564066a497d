"""Measure each plan that the page shows, until it shows another one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import gradio as gr

from components.gradio_compat.event_data import event_data
from components.parts import AT_ONCE, QUIET, PageParts
from components.services.client_address import Visitor, visitor
from components.services.quality import ALL, PlanQuality
from components.services.run_job import run_job, watch
from components.services.services import Services
from components.sessions.healed_store import HealedStore
from components.sessions.session import Session
from surgery import SurgeryError, texts
from surgery.operation import Operation
from surgery.progress import Cancelled, Progress

from . import view
from .asked import Asked
from .panel import QualityTile

if TYPE_CHECKING:
    from surgery import Base
    from surgery.analysis import Sample


def wire(tile: QualityTile, parts: PageParts, asked: gr.State) -> None:
    """Tie the tile to the page. Wire it after the panels that measure; `asked` is the state that
    `repairing.wire` returned."""
    services = parts.services

    def again(
        session: Session, healed: HealedStore, asked: Asked, request: gr.Request
    ) -> Iterator[dict]:
        yield from measure_latest(services, session, healed, asked, request)

    def shown(
        session: Session,
        healed: HealedStore,
        asked: Asked,
        event: gr.EventData,
        request: gr.Request,
    ) -> Iterator[dict]:
        wish = event_data(event)
        choose(asked, wish.get("text"))
        pressed = wish.get("pressed") is True
        yield from measure_latest(services, session, healed, asked, request, wanted=pressed)

    work: dict[str, Any] = {
        "inputs": [parts.session, parts.healed, asked],
        "outputs": tile,
        **QUIET,
        **AT_ONCE,
    }
    tile.measure(shown, trigger_mode="multiple", **work)
    for event in parts.measured:  # the patient may have been healed
        event.then(again, trigger_mode="multiple", **work)


def choose(asked: Asked, text: object) -> None:
    """Choose the text, if the browser named one that there is."""
    if isinstance(text, str) and (text == ALL or text in texts.TEXTS):
        asked.text = text


def measure_latest(
    services: Services,
    session: Session,
    healed: HealedStore,
    asked: Asked,
    request: gr.Request | None,
    wanted: bool = False,
) -> Iterator[dict]:
    """Values of the tile for the session's plan, until it is measured or no longer wanted.
    `Quality.why_not` decides whether one that isn't `wanted` is measured. If it is wanted, the
    unhealed patient takes the place of a healed one that was released, as the tile has offered."""
    if not session.spec or asked.repairs(session.spec, session.plan):
        return
    request_number, text = asked.ask(), asked.text
    bare = session.operation()
    if wanted:
        healed.go_without(bare.spec, bare.plan)
    try:
        operation = session.operation(healed)
    except SurgeryError as error:  # its healed patient was released
        show = view.offer if healed.may_go_without(bare.spec, bare.plan) else view.failed
        gone = show(bare, text, services.deployment.words(error))
        yield {**gone, "request": request_number}
        return

    def is_wanted() -> bool:
        return (asked.latest, session.spec) == (request_number, operation.spec) and (
            session.plan == operation.plan
        )

    def failed(status: dict) -> dict:
        return view.failed(operation, text, status["text"])

    def admitted() -> Iterator[dict]:
        services.quality.arrive(getattr(request, "session_hash", None) or "")
        yield from measure(services, operation, text, is_wanted, visitor(request), wanted)

    for shown in run_job(services, "quality", request, admitted(), failed):
        if "of" not in shown:  # an update that changes nothing
            yield shown
            continue
        message = shown["message"]
        if not (shown["busy"] or shown["failed"] or operation.healed):
            message = asked.reason(operation.spec, operation.plan) or message
        yield {**shown, "message": message, "request": request_number}


def measure(
    services: Services,
    operation: Operation,
    text: str,
    is_wanted: Callable[[], bool],
    who: Visitor,
    wanted: bool,
) -> Iterator[dict]:
    """Values of the tile while a plan is measured, as long as it `is_wanted`. Raises
    `SurgeryError`."""
    quality = services.quality
    latest: list[PlanQuality] = []
    last: dict = {}

    def check() -> None:
        if not is_wanted():
            raise Cancelled

    def running(status: dict) -> dict:
        nonlocal last
        check()
        if latest:
            doing = "measuring a random plan" if latest[-1].is_final else "refining"
            value = view.result(operation, text, latest[-1], doing)
        else:
            value = view.progress(operation, text, status["text"])
        if value == last:  # the page would draw it again, on the same processors
            return gr.skip()
        last = value
        return value

    def waiting(place: int) -> Any:
        check()
        if not place:
            return gr.skip()
        return running({"text": f"Place {place} in the queue"})

    def prepare(progress: Progress) -> tuple[Base, Sample]:
        base = services.bases.get(operation, progress)
        return base, quality.sample(base, text)

    def work(base: Base, sample: Sample, progress: Progress) -> PlanQuality:
        def reported(what: str, done: float, total: float) -> None:
            check()
            progress(what, done, total)

        return quality.measure(base, operation, sample, latest.append, reported)

    def turn(base: Base, sample: Sample) -> Iterator[dict]:
        result = yield from watch(partial(work, base, sample), running)
        yield view.result(operation, text, result)

    try:
        base, sample = yield from watch(prepare, running)
        known = quality.known(base, operation, sample)
        shown = view.result(operation, text, known) if known else None
        if shown:
            yield shown
        if known and known.is_complete:
            return
        if not wanted and (reason := quality.why_not(base, operation)):
            if not known:
                yield view.offer(operation, text, reason)
            return
        if known:
            latest.append(known)
        base = yield from watch(partial(services.bases.load, operation), running)
        with services.bases.in_use(base):
            yield from quality.turns.queued(who, turn(base, sample), waiting)
    except Cancelled:  # the page shows another plan now, and its own request for that
        return
