"""What some of the lesson's steps measure beside the page.

Each demonstration yields a status value and the blocks to show so far.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from functools import partial
from typing import TYPE_CHECKING

from components.services.bases import Bases
from components.services.jobs import steps
from components.services.run_job import Result, watch
from components.widgets.status.status import note
from surgery import Plan
from surgery.lesson.course import LONG, SHORT, WHOLE, Step

from . import blocks

if TYPE_CHECKING:
    from surgery import Base
    from surgery.lesson.contrast import Difference
    from surgery.progress import Progress

_FAULT_TOKENS = 24
Shown = Generator[tuple[dict, list[dict]], None, None]


def count_weights(bases: Bases, step: Step) -> Shown:
    """How the weights were drawn, and how they would be if the notebook were right."""
    from surgery.lesson.figures import initial_weights

    spread = yield from _watch(
        lambda progress: initial_weights(bases.get(step.base, progress), progress), []
    )
    yield note(""), [blocks.spread(spread), blocks.lines(*blocks.spread_lines(spread))]


def forget_norm(bases: Bases, step: Step) -> Shown:
    """A model without its final norm, beside the right one."""
    yield from _side_by_side(bases, "forgotten_norm", step, step.plan, "", [])


def keep_indices(bases: Bases, step: Step) -> Shown:
    """Models whose layers keep their old numbers, beside the right ones."""
    before: list[dict] = []
    for plan, title in ((LONG, "The longer model"), (SHORT, "The shorter model")):
        before = yield from _side_by_side(bases, "old_indices", step, plan, title, before)


def _side_by_side(
    bases: Bases, mistake: str, step: Step, plan: str, title: str, before: list[dict]
) -> Generator[tuple[dict, list[dict]], None, list[dict]]:
    """Stream the right and the wrong model, then compare their logits. Returns all blocks."""
    base = yield from _watch(partial(bases.load, step.base), before)
    with bases.in_use(base):
        return (yield from _contrasted(base, mistake, step, plan, title, before))


def _contrasted(
    base: Base, mistake: str, step: Step, plan: str, title: str, before: list[dict]
) -> Generator[tuple[dict, list[dict]], None, list[dict]]:
    from surgery.lesson.contrast import Contrast

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
    yield note("Both models continue the same prompt"), [*before, block()]
    for item in steps(stream):
        if item is not None:
            side, piece = item
            texts[side] += piece
        yield note("Both models continue the same prompt"), [*before, block()]
    shown = [*before, block(ended=True)]

    def compare(progress) -> Difference:
        progress("Comparing logits (the scores of all next tokens)", 0, 0)
        return contrast.difference(step.prompt)

    apart = yield from _watch(compare, shown)
    lines = blocks.difference_lines(apart, step.act == "index")
    shown = [*shown, blocks.lines(*lines)]
    yield note(""), shown
    return shown


def price_of_healing(bases: Bases, step: Step) -> Shown:
    """The harm that the operations did, and what training against it costs."""
    from surgery.analysis import Sample, perplexity
    from surgery.lesson.figures import EXAMPLES, TEXT, training_estimate

    base = yield from _watch(partial(bases.load, step.base), [])
    plans = (("base", WHOLE), ("shorter", SHORT), ("longer", LONG))

    def measure(progress):
        sample, scores = Sample.of(base, TEXT), []
        with bases.in_use(base):
            for i, (_, plan) in enumerate(plans):
                progress("Measuring perplexity", i, len(plans))
                scores.append(perplexity(base.operate(Plan.parse(plan, base.depth)).model, sample))
        return scores

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
    harmful = f"{'Both' if worse else 'Not both'} operations raised perplexity."
    less, more = ("cutting", "stacking") if cut[0] < cut[1] else ("stacking", "cutting")
    _, shorter, longer = scores
    apart = shorter.low > longer.high or longer.low > shorter.high
    compared = f"On this text {less} hurts less than {more}" + (
        "." if apart else ", but their intervals overlap: a longer text is needed to tell."
    )
    money = {
        "kind": "table",
        "title": "What training costs (estimates)",
        "head": ["", "tokens", "H100 hours", "dollars"],
        "rows": [blocks.price_row(*example) for example in EXAMPLES],
    }
    memory = training_estimate(EXAMPLES[0][1], EXAMPLES[0][2]).memory
    yield (
        note(""),
        [
            harm,
            blocks.lines((worse, harmful), (None, compared)),
            money,
            blocks.lines(
                (None, "At $1.55e-17 per FLOP, as the published costs of SOLAR imply."),
                (
                    None,
                    f"{EXAMPLES[0][0].capitalize()} takes {memory / 1e9:.1f} GB to train: 18 bytes "
                    "per parameter, plus activations.",
                ),
            ),
        ],
    )


def _watch(
    work: Callable[[Progress], Result], blocks: list[dict]
) -> Generator[tuple[dict, list[dict]], None, Result]:
    """Run the work in a thread, yield its progress with the blocks so far, return its result."""
    return (yield from watch(work, lambda status: (status, blocks)))


DEMONSTRATIONS: Mapping[str, Callable[[Bases, Step], Shown]] = {
    "drawn": count_weights,
    "norm": forget_norm,
    "index": keep_indices,
    "heal": price_of_healing,
}
