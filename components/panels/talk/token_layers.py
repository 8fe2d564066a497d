"""Which layers mattered for each token of the two texts: measured when a visitor asks."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any

import orjson  # as Gradio does
from numpy import nanpercentile

from components.services.client_address import Visitor
from components.services.run_job import watch_in_turn
from components.services.services import Services
from components.widgets.status.status import note
from surgery import Plan, SurgeryError
from surgery.progress import Progress

from . import token_figures
from .answers import Answer, Answers
from .panel import TalkPanel

if TYPE_CHECKING:
    from surgery.analysis import TokenImportance

_LEAST = 0.5  # nats: the end of a colour scale is no lower
_MOST = 95  # percent of the costs lie within the scale: those of the first layer dwarf all others


def measure(
    panel: TalkPanel,
    services: Services,
    answers: Answers | None,
    who: Visitor | str | None = None,
) -> Iterator[dict]:
    """Updates that wait for a turn, measure both texts of a run, and show what was measured. `who`
    is the visitor, for fair queueing. Raises `SurgeryError`."""
    if answers is None or not any(answer.ids for answer in answers.sides.values()):
        raise SurgeryError("There is no text to measure: press Stream both first.")
    result, problem = yield from _measured(panel, services, answers, who)
    limit = scale(result)
    sides = {side: view(answers.sides[side], importance) for side, importance in result.items()}
    layers = orjson.dumps({"limit": limit, "sides": sides}).decode()
    done = "Select a token of a text: the strip shows how much each layer mattered for it."
    yield {
        panel.status: note(f"{done} {problem}".strip()),
        panel.output: {**answers.shown, "layers": layers},
        **{
            figure: token_figures.tokens(side, sides[side], limit) if side in sides else {}
            for side, figure in panel.figures.items()
        },
    }


def _measured(
    panel: TalkPanel, services: Services, answers: Answers, who: Visitor | str | None
) -> Generator[dict, None, tuple[dict[str, TokenImportance], str]]:
    """The importance by side, and what went wrong with the patient's. Raises `SurgeryError` if no
    side can be measured."""
    operation = answers.operation

    def work(progress: Progress) -> tuple[dict[str, TokenImportance], str]:
        from surgery.analysis import token_importance

        base = services.bases.load(operation, progress)
        found: dict[str, TokenImportance] = {}
        problems: list[SurgeryError] = []
        with services.bases.in_use(base):
            of: dict[str, Any] = {
                "base": Plan.whole(base.depth),
                "patient": operation.healed or operation.plan,
            }
            for side, answer in answers.sides.items():
                other = answers.sides.get("base")
                if side in of and of[side] == of["base"] and "base" in found and answer == other:
                    found[side] = found["base"]
                    continue

                def report(what: str, done: float, total: float, side=side) -> None:
                    progress(what and f"{side.capitalize()}: {what.lower()}", done, total)

                if not answer.ids:
                    continue
                try:
                    found[side] = token_importance(
                        base, of[side], answer.prompt_ids, answer.ids, report
                    )
                except SurgeryError as error:
                    problems.append(error)
        if not found:
            raise problems[0]
        return found, f"The other text isn't measured: {problems[0]}" if problems else ""

    def show(status: dict) -> dict:
        return {panel.status: status}

    return (yield from watch_in_turn(services.measuring, who, work, show))


def view(answer: Answer, importance: TokenImportance) -> dict:
    """What is drawn of one side: `pieces` of text with their `nll`, and `costs` by layer, each a
    row over the pieces, in nats; None for what is not finite. A piece of several tokens has the
    sums of theirs. `sources` are the layers of the base in running order."""
    ends = list(accumulate((size for _, size in answer.pieces), initial=0))

    def by_piece(row: tuple[float, ...] | None) -> list[float | None]:
        if row is None:
            return [None] * len(answer.pieces)
        return [_plain(sum(row[start:end])) for start, end in pairwise(ends)]

    return {
        "pieces": [text for text, _ in answer.pieces],
        "nll": by_piece(importance.nll),
        "costs": [by_piece(row) for row in importance.costs],
        "sources": list(importance.plan.sources),
    }


def scale(result: dict[str, TokenImportance]) -> float:
    """The cost, in nats, that the colours end at: one for both texts, so that they compare."""
    costs = [
        abs(cost)
        for importance in result.values()
        for row in importance.costs
        for cost in row or ()
        if math.isfinite(cost)
    ]
    most = float(nanpercentile(costs, _MOST)) if costs else 0.0
    return max(_LEAST, float(f"{most:.2g}"))


def _plain(value: float) -> float | None:
    return round(value, 3) if math.isfinite(value) else None
