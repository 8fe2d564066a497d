"""Perplexities of base and patient on the project's default text, as the Log shows them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from surgery import Plan, texts
from surgery.operation import Operation
from surgery.progress import Progress

if TYPE_CHECKING:
    from surgery import Base
    from surgery.analysis import Score


def default_scores(
    base: Base, operation: Operation, progress: Progress
) -> list[tuple[Operation, Score]]:
    """Measure the base and, unless it is the same, the operation's patient. `base` is loaded.
    Raises `SurgeryError`."""
    from surgery.analysis import measured_score, perplexity, text_to_judge_on

    sample = text_to_judge_on(base, texts.DEFAULT)
    whole = Operation(operation.spec, Plan.whole(base.depth))
    scores = [(whole, measured_score(base, whole.plan, sample, progress))]
    if operation.healed is not None:
        scores.append((operation, perplexity(operation.healed.model, sample, progress)))
    elif not operation.plan.is_whole:
        scores.append((operation, measured_score(base, operation.plan, sample, progress)))
    return scores
