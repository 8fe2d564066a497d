"""The talk panel: base and patient go on from one prompt with one seed, side by side.

Knows how two streams take turns and how they are shown. What they compute is the library's affair.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import gradio as gr

from components.services import bases, fair_queue, zerogpu
from components.services.client_address import Visitor
from components.services.deployment import current
from components.services.jobs import Job
from components.widgets.html_component import LiveHTML
from components.widgets.status.status import Status, failed, note
from surgery import Plan, SurgeryError
from surgery.progress import Cancelled, Progress

if TYPE_CHECKING:
    from surgery import Base, Patient

_runs = itertools.count(1)  # so that the page can tell a late drawing of a run that was stopped
_PLACE = "place"  # in the queue, where else a side speaks
_EVERY = 0.06  # seconds between drawings


class TalkView(LiveHTML):
    """Two panes of text; the value is the second of what `talk` yields."""

    stem = "talk"


@dataclass(frozen=True)
class TalkPanel:
    """The panel's components, for the page to wire."""

    prompt: gr.Textbox
    start: gr.Button
    stop: gr.Button
    settings: tuple[gr.components.Component, ...]
    status: Status
    output: TalkView


def talk_panel() -> TalkPanel:
    """Lay the panel out, where the page is being built."""
    with gr.Row(elem_classes="talk-controls", equal_height=True):
        prompt = gr.Textbox(
            value="The three most important inventions in history are",
            label="Prompt",
            show_label=False,
            container=False,
            placeholder="Write how a text begins, or a question",
            max_length=current().max_prompt,
            lines=1,
            max_lines=4,
            scale=8,
            elem_id="prompt",
        )
        start = gr.Button(
            "Stream both", variant="primary", scale=0, min_width=130, size="md", elem_id="stream"
        )
        stop = gr.Button("Stop", scale=0, min_width=80, size="md", elem_id="stop")
    status = Status(value={}, elem_id="talk-status")
    output = TalkView(value={}, elem_id="talk")
    with (
        gr.Accordion("How words are chosen", open=False, elem_classes="talk-settings"),
        gr.Row(),
    ):
        greedy = gr.Checkbox(
            value=True, label="Greedy", info="Always the likeliest word; no chance involved."
        )
        chat = gr.Checkbox(
            value=False, label="As a chat", info="Put the prompt as a question to an assistant."
        )
        tokens = gr.Slider(
            8,
            current().max_new_tokens,
            value=64,
            step=8,
            label="Length",
            info="The most tokens to write.",
        )
        seed = gr.Number(
            value=0, precision=0, minimum=0, label="Seed", info="Same seed, same dice."
        )
        temperature = gr.Slider(
            0.1, 2.0, value=0.8, step=0.05, label="Temperature", info="Higher is wilder."
        )
        top_p = gr.Slider(
            0.05, 1.0, value=0.95, step=0.05, label="Top-p", info="Share of likely words to keep."
        )
    settings = (greedy, chat, tokens, seed, temperature, top_p)
    return TalkPanel(prompt, start, stop, settings, status, output)


def talk(
    spec: str,
    plan: Plan,
    prompt: str,
    greedy: bool,
    chat: bool,
    tokens: float,
    seed: float,
    temperature: float,
    top_p: float,
    healed: Patient | None = None,
    who: Visitor | str | None = None,
) -> Iterator[tuple[dict, dict]]:
    """Values for status and view: how the weights load, the place in the queue, then both texts as
    they grow. If `healed` is given, it is used instead of the plan's patient. `who` is the
    visitor, for fair queueing."""
    allowed = current()
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
    streams: dict[str, Any] = {}
    used = ExitStack()
    try:
        allowed.check_prompt(prompt)
        job = Job(lambda progress: (bases.get if zerogpu.ON else bases.load)(spec, progress))
        for report in job:
            yield report.view(), shown
        base = used.enter_context(bases.in_use(job.result()))
        if zerogpu.ON and healed is None:  # a healed patient lives in this process
            both = {"base": str(Plan.whole(base.depth)), "patient": str(plan)}
            streams |= zerogpu.streams(spec, both, prompt, settings)
        else:
            job = Job(lambda progress: _streams(base, healed or plan, prompt, settings, progress))
            for report in job:
                yield report.view(), shown
            streams |= job.result()
        plans = {"base": "", "patient": f"{plan}, healed" if healed else str(plan)}
        texts = dict.fromkeys(streams, "")
        drawn = 0.0
        for side, piece in fair_queue.speaking.queued(who, fair_queue.alternate(streams), _waiting):
            if side == _PLACE:
                here = int(piece)
                place = note(f"Place {here} in the queue. Generation starts automatically.")
                yield (place, shown) if here else (gr.skip(), gr.skip())
                continue
            texts[side] += piece
            if time.monotonic() - drawn > _EVERY:
                # Later ones leave the line alone: they may arrive after somebody pressed Stop.
                cleared = gr.skip() if drawn else note("")
                drawn = time.monotonic()
                yield cleared, {**shown, **_sides(streams, texts, plans)}
        last = {**shown, **_sides(streams, texts, plans), "running": False}
        yield gr.skip() if drawn else note(""), last
    except Cancelled:
        yield note("Stopped."), {}
    except SurgeryError as error:
        yield failed(error), {}
    finally:
        used.close()


def _streams(
    base: Base, of: Plan | Patient, prompt: str, settings: dict, progress: Progress
) -> dict[str, Any]:
    """Create the streams of the base and the patient; nothing is generated yet."""
    progress("Building the patient", 0, 0)
    patient = base.operate(of) if isinstance(of, Plan) else of
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
