"""The guided lesson: a panel beside the page whose steps do on the page what they speak of.

Knows how a step is carried out with what the page has: opening its base, writing its plan, and what
is measured besides. What is said, and what is measured, is the library's affair; talking, saving
and the pictures of weights are begun with the page's own buttons.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import gradio as gr

from components.panels.base.panel import BasePicker, about, open_base
from components.panels.save.panel import SavePanel
from components.panels.talk.panel import TalkPanel
from components.panels.weights.panel import ALL
from components.services import bases
from components.services.jobs import Job, steps
from components.services.rates import admit
from components.sessions.session import Session
from components.widgets.html_component import LiveHTML
from components.widgets.status.status import failed, note
from components.widgets.tiles.tiles import view as tiles_view
from surgery import Plan, SurgeryError
from surgery.lesson.course import BARE, LONG, SHORT, STEPS, TOKENS, TRAINED, WHOLE, Step
from surgery.progress import Cancelled

if TYPE_CHECKING:
    from surgery.lesson.contrast import Difference
    from surgery.lesson.figures import Drawn

NAMES = {BARE: "The lesson's model · random weights", TRAINED: "SmolLM2-135M-Instruct · bundled"}
_FAULT_TOKENS = 24
_DRAWN = "up"  # the tensors whose distribution is shown: no norm is among them
_QUIET = {"show_progress": "hidden", "api_visibility": "private"}

# Once a step is done, the page's own button for it is pressed, with what the step has filled in.
_PRESS = """(value) => {
  const press = value && !value.running && value.press;
  if (press) document.querySelector(press)?.click();
}"""


class Lesson(LiveHTML):
    """The panel and the button that opens it. Emits `act` with a step, `halt` and `again`."""

    stem = "lesson"
    scripts = ("lesson_drawing", "lesson")


def lesson_panel() -> Lesson:
    """Lay it out, where the page's header is being built."""
    steps = [{**asdict(step), "base_name": NAMES[step.base]} for step in STEPS]
    return Lesson(value={"steps": steps}, elem_id="lesson")


@dataclass(frozen=True)
class Beside:
    """What of the page the lesson works on."""

    picker: BasePicker
    strip: LiveHTML
    tiles: LiveHTML
    talking: TalkPanel
    saving: SavePanel
    weighed: gr.Dropdown


def wire(
    lesson: Lesson, session: gr.State, beside: Beside, first: str, compute: dict
) -> list[gr.events.Dependency]:
    """Tie the lesson to the page. Returns the events by which it may open another base."""
    talking = beside.talking
    greedy, chat, tokens, seed = talking.settings[:4]
    outputs = [
        *(lesson, beside.strip, beside.tiles, beside.picker.name, beside.picker.status),
        *(talking.prompt, greedy, chat, tokens, seed, beside.saving.name, beside.weighed),
    ]

    def stage(session: Session, spec: str, plan: str, request: gr.Request) -> Iterator[dict]:
        """Open the base and write the plan, as hands would; yields status values while a base
        opens. Raises `SurgeryError`."""
        if session.spec != spec:
            session.opening = None  # whatever else is being opened is out of date
            for item in open_base(spec, request):
                if not isinstance(item, dict):
                    session.open(spec, item)
                elif item.get("failed"):
                    raise SurgeryError(item["text"])
                else:
                    yield item
        view = session.view()
        if plan and view["text"] != plan:
            session.apply({"op": "write", "text": plan, "revision": view["revision"]})
            view = session.view()
        if view["error"]:
            raise SurgeryError(view["error"])

    def page(session: Session) -> dict:
        """The page as the session has it now."""
        base = bases.get(session.spec)
        return {
            beside.picker.name: session.spec,
            beside.picker.status: about(base),
            beside.strip: session.view(),
            beside.tiles: tiles_view(base, session.plan),
        }

    def act(session: Session, event: gr.EventData, request: gr.Request) -> Iterator[dict]:
        asked = event._data if isinstance(event._data, Mapping) else {}
        place = asked.get("step")
        if type(place) is not int or not 1 <= place <= len(STEPS):
            return
        step = STEPS[place - 1]
        only_stage = asked.get("stage") is True

        def say(status: dict, blocks: list[dict], **more: Any) -> dict:
            return {"step": place, "status": status, "blocks": blocks, "running": True, **more}

        blocks: list[dict] = []
        try:
            measured = step.act in _MEASURED and not only_stage
            admit("measure" if measured else "edit", request)
            for status in stage(session, step.base, step.plan, request):
                yield {beside.picker.status: status, lesson: say(status, blocks)}
            ready = {
                talking.prompt: step.prompt,
                **{greedy: True, chat: False, tokens: TOKENS, seed: 0},
                beside.saving.name: f"lesson-{len(session.plan)}-layers",
            }
            # A browser that is busy may leave out what is soon followed by something else, so
            # whatever comes within a second tells all of it.
            until = time.monotonic() + 1
            if measured:
                for status, blocks in _MEASURED[step.act](step):
                    more = {**page(session), **ready} if time.monotonic() < until else {}
                    yield {**more, lesson: say(status, blocks)}
            if step.act == "drawn" and not only_stage:  # all weights together are no one's bell
                from surgery.weight_stats import survey_base

                job = Job(lambda p: survey_base(bases.get(step.base, p), p).base().kinds())
                for report in job:
                    yield {lesson: say(report.view(), blocks)}
                kinds = job.result()
                ready[beside.weighed] = gr.update(choices=[ALL, *kinds], value=_DRAWN)
        except Cancelled:
            yield {lesson: say(note("Stopped."), blocks, running=False)}
            return
        except SurgeryError as error:
            yield {lesson: say(failed(error), blocks, running=False, failed=True)}
            return
        press = "" if only_stage else _PRESSED.get(step.act, "")
        status = note("Set up: press the button when you are ready.") if only_stage else note("")
        last = say(status, blocks, running=False, done=not only_stage, press=press)
        yield {**page(session), **ready, lesson: last}

    def again(session: Session, request: gr.Request) -> Iterator[dict]:
        try:
            admit("edit", request)
            yield from ({beside.picker.status: item} for item in stage(session, first, "", request))
            whole = str(Plan.whole(session.view()["depth"]))
            for _ in stage(session, first, whole, request):
                pass
            yield page(session)
        except SurgeryError as error:
            yield {beside.picker.status: failed(error)}

    acting = lesson.act(act, session, outputs, **_QUIET, **compute)
    # A busy browser may draw the last values after it is told that the event has ended. The round
    # trip gives it the time, so that what is pressed has the step's settings.
    settled = acting.success(lambda: None, None, None, queue=False, **_QUIET)
    settled.success(None, lesson, None, js=_PRESS, **_QUIET)
    starting = lesson.again(again, session, outputs, **_QUIET, **compute)
    lesson.halt(None, None, None, cancels=[acting], queue=False, **_QUIET)
    return [acting, starting]


# ---------------------------------------------------------------- what is measured beside the page

Shown = Iterator[tuple[dict, list[dict]]]  # status and blocks


def _count(step: Step) -> Shown:
    """How the weights were drawn, and how they would be if the notebook were right."""
    from surgery.lesson.figures import drawn

    found = yield from _watch(lambda progress: drawn(bases.get(step.base, progress), progress), [])
    yield note(""), [_spread(found), _lines(*_spread_lines(found))]


def _spread(found: Drawn) -> dict:
    def share(value: float) -> str:
        return f"{100 * value:.2f} %"

    return {
        "kind": "table",
        "title": f"{found.values:,} weights, σ = {found.sigma:.4f}",
        "head": ["", "as drawn", "if truncated", "normal"],
        "rows": [
            ["beyond 2σ", share(found.beyond), share(found.told_beyond), share(found.normal)],
            ["exactly 0", f"{found.zeros:,}", f"{found.told_zeros:,}", "none"],
        ],
    }


def _spread_lines(found: Drawn) -> Iterator[tuple[bool | None, str]]:
    near = abs(found.beyond - found.normal) < 0.002
    yield (
        near,
        (
            "The tails are there: it is a plain normal distribution."
            if near
            else "The tails are not those of a normal distribution."
        ),
    )
    few = found.zeros < found.told_zeros / 100
    yield (
        few,
        (
            f"Nothing was set to zero: that would be {found.told_zeros:,} weights. "
            f"{found.zeros:,} are 0 by chance."
            if few
            else f"{found.zeros:,} weights are exactly zero."
        ),
    )


def _forget_norm(step: Step) -> Shown:
    yield from _side_by_side("forgotten_norm", step, step.plan, "", [])


def _keep_indices(step: Step) -> Shown:
    blocks: list[dict] = []
    for plan, title in ((LONG, "The longer model"), (SHORT, "The shorter model")):
        blocks = yield from _side_by_side("old_indices", step, plan, title, blocks)


def _side_by_side(
    mistake: str, step: Step, plan: str, title: str, before: list[dict]
) -> Iterator[tuple[dict, list[dict]]]:
    """Stream the right and the wrong model, then compare their logits. Returns all blocks."""
    from surgery.lesson.contrast import Contrast

    base = yield from _loaded(step.base, before)
    wanted = Plan.parse(plan, base.depth)
    contrast = yield from _watch(lambda _: getattr(Contrast, mistake)(base, wanted), before)
    texts = {"right": "", "wrong": ""}
    named = f"{title}, {plan}" if title else f"Running {plan}"

    def block(ended: bool = False) -> dict:
        labels = (("right", "The right way"), ("wrong", "With the mistake"))
        return {
            "kind": "texts",
            "title": named,
            "prompt": step.prompt,
            "sides": [
                {
                    "label": label,
                    "text": texts[side],
                    "wrong": side == "wrong",
                    "ended": ended,
                    "error": contrast.error if side == "wrong" else "",
                }
                for side, label in labels
            ],
        }

    stream = contrast.stream(step.prompt, max_new_tokens=_FAULT_TOKENS, greedy=True, seed=0)
    yield note("Both go on from one prompt"), [*before, block()]
    for item in steps(stream):
        if item is not None:
            side, piece = item
            texts[side] += piece
        yield note("Both go on from one prompt"), [*before, block()]
    blocks = [*before, block(ended=True)]

    def compare(progress) -> Difference:
        progress("Comparing their logits (the scores of every possible next word)", 0, 0)
        return contrast.difference(step.prompt)

    apart = yield from _watch(compare, blocks)
    blocks = [*blocks, _lines(*_apart(apart, step.act == "index"))]
    yield note(""), blocks
    return blocks


def _apart(apart: Difference, cached_only: bool) -> Iterator[tuple[bool | None, str]]:
    """What the comparison says; True where the mistake shows."""
    if apart.error:
        yield True, f"It stops: transformers raises {apart.error}."
    elif not apart.largest:
        yield False, "No difference was found: this mistake does not show here."
    else:
        yield (
            True,
            (
                f"Wrong without a word: a logit, the score of a next word, is off by up to "
                f"{apart.largest:.1f}. (The right ones span {apart.range:.0f}.)"
            ),
        )
        yield (
            bool(apart.other) or None,
            (f"The likeliest next word is another one in {apart.other} of {apart.places} places."),
        )
    if cached_only:
        same = apart.uncached == 0
        yield (
            same,
            (
                "Without the cache both agree exactly: difference 0.0."
                if same
                else f"Without the cache they differ too, by up to {apart.uncached:.1f}."
            ),
        )


def _heal(step: Step) -> Shown:
    from surgery.analysis import Sample, perplexity
    from surgery.lesson.figures import EXAMPLES, TEXT, cost

    base = yield from _loaded(step.base, [])
    plans = (("base", WHOLE), ("shorter", SHORT), ("longer", LONG))

    def measure(progress):
        sample, found = Sample.of(base, TEXT), []
        for i, (_, plan) in enumerate(plans):
            progress("Measuring perplexity", i, len(plans))
            found.append(perplexity(base.operate(Plan.parse(plan, base.depth)).model, sample))
        return found

    scores = yield from _watch(measure, [])
    rows = [
        [f"{name}, {plan}", f"{s.perplexity:.1f}", f"{s.low:.1f} to {s.high:.1f}"]
        for (name, plan), s in zip(plans, scores, strict=True)
    ]
    whole, *cut = (score.perplexity for score in scores)
    harm = {
        "kind": "table",
        "title": f"Perplexity before healing, on {scores[0].tokens} tokens",
        "head": ["", "perplexity", "95 % interval"],
        "rows": rows,
    }
    worse = all(value > whole for value in cut)
    said = "Both operations did harm." if worse else "Not every operation did harm here."
    less, more = ("cutting", "stacking") if cut[0] < cut[1] else ("stacking", "cutting")
    _, shorter, longer = scores
    apart = shorter.low > longer.high or longer.low > shorter.high
    compared = f"On this text {less} hurts less than {more}" + (
        "." if apart else ", but their intervals overlap: a longer text would have to decide."
    )
    money = {
        "kind": "table",
        "title": "What training costs (estimates)",
        "head": ["", "tokens", "H100 hours", "dollars"],
        "rows": [_price(*example) for example in EXAMPLES],
    }
    memory = cost(EXAMPLES[0][1], EXAMPLES[0][2]).memory
    yield (
        note(""),
        [
            harm,
            _lines((worse, said), (None, compared)),
            money,
            _lines(
                (None, "At 1.55e-17 $ for each operation, as SOLAR's published prices imply."),
                (
                    None,
                    f"{EXAMPLES[0][0].capitalize()} takes {memory / 1e9:.1f} GB to train: 18 bytes "
                    "for each parameter, activations on top.",
                ),
            ),
        ],
    )


def _price(name: str, parameters: int, tokens: float) -> list[str]:
    from surgery.lesson.figures import cost

    found = cost(parameters, tokens)
    amount = f"{tokens / 1e12:.0f} T" if tokens >= 1e12 else f"{tokens / 1e9:.0f} B"
    hours = f"{found.hours:.1f}" if found.hours < 100 else f"{found.hours:,.0f}"
    spent = f"{found.dollars:,.0f}" if found.dollars < 1e5 else f"{found.dollars / 1e6:.1f} M"
    return [name, amount, hours, f"$ {spent}"]


_MEASURED: Mapping[str, Callable[[Step], Shown]] = {
    "drawn": _count,
    "norm": _forget_norm,
    "index": _keep_indices,
    "heal": _heal,
}
_PRESSED = {"talk": "#stream", "save": "#save"}


def _loaded(spec: str, blocks: list[dict]) -> Iterator[tuple[dict, list[dict]]]:
    """The base with its weights in memory, with progress."""
    return (yield from _watch(lambda progress: bases.load(spec, progress), blocks))


def _watch(work: Callable, blocks: list[dict]) -> Iterator[tuple[dict, list[dict]]]:
    """Run the work in a thread, say how far it is, and return what it returns."""
    job = Job(work)
    for report in job:
        yield report.view(), blocks
    return job.result()


def _lines(*lines: tuple[bool | None, str]) -> dict:
    return {"kind": "lines", "lines": [{"right": right, "text": text} for right, text in lines]}
