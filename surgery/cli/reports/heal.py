"""What `heal` prints: a line for each evaluation, and the estimate of --cost."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from surgery import numbers

if TYPE_CHECKING:
    from surgery.healing import CostEstimate, EvalResult, Event

_LONGEST = 200  # characters of the sample text


def evaluation_line(evaluation: EvalResult, event: Event | None) -> str:
    """Step, loss, perplexities and pace; `event` is None before the first step."""
    steps = f"/{event.steps:,}" if event and event.steps else ""
    words = [f"step {evaluation.step:,}{steps}"]
    if event:
        words.append(f"loss {event.loss:.4f}")
    base, cut, now, low, high = map(
        numbers.perplexity,
        (
            evaluation.base.value,
            evaluation.cut.value,
            evaluation.now.value,
            evaluation.now.low,
            evaluation.now.high,
        ),
    )
    words.append(f"perplexity base {base}, cut {cut}, now {now} ({low} to {high})")
    if evaluation.recovered:
        share, low, high = map(numbers.percent, evaluation.recovered)
        words.append(f"{share} recovered ({low} to {high})")
    if event:
        words.append(f"{event.tokens_per_second:,.0f} tokens/s")
        if event.seconds_left is not None:
            words.append(f"{numbers.duration(event.seconds_left)} left")
    return "  ".join(words)


def sample_line(evaluation: EvalResult) -> str:
    """The text that the patient wrote at an evaluation."""
    return f"  {' '.join(evaluation.text.split())[:_LONGEST]}"


def cost_lines(cost: CostEstimate) -> Iterator[str]:
    """The estimate, and published figures beside it."""
    from surgery.healing.cost import REFERENCES, SAVING

    yield "An estimate:"
    yield f"  tokens        {cost.tokens:,}"
    yield f"  parameters    {cost.parameters:,}, {cost.trained:,} of them trained"
    flops = numbers.scaled(cost.flops, "FLOPs")
    yield f"  compute       {flops} (6·N·D, and 2·N·D for the teacher)"
    yield f"  time          {numbers.duration(3600 * cost.hours)}"
    if cost.dollars is not None:
        yield f"  price         ${cost.dollars:,.2f}"
    for name, size in cost.memory.items():
        yield f"  {name:<20}{size / 1e6:>12,.1f} MB"
    if cost.room is not None:
        fits = "fits" if cost.fits else "does not fit"
        yield f"  {'together':<20}{cost.bytes / 1e6:>12,.1f} MB, {fits}"
    yield "Published figures for comparison, also estimates:"
    for what, tokens, price in REFERENCES:
        yield f"  {what}: {tokens / 1e9:,.0f} billion tokens, about ${price:,.0f}"
    yield f"  {SAVING}"
