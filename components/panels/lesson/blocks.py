"""What a demonstration shows, as plain values: tables, checked statements, texts side by side."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from surgery.lesson.contrast import Difference
    from surgery.lesson.figures import InitialWeights

Line = tuple[bool | None, str]  # whether a statement holds, None for a remark; and its text


def lines(*lines: Line) -> dict:
    """Statements, each with whether it holds."""
    return {"kind": "lines", "lines": [{"right": right, "text": text} for right, text in lines]}


def spread(drawn: InitialWeights) -> dict:
    """A table of how the weights are spread, beside two ways in which they could have been."""

    def share(value: float) -> str:
        return f"{100 * value:.2f} %"

    return {
        "kind": "table",
        "title": f"{drawn.values:,} weights, σ = {drawn.sigma:.4f}",
        "head": ["", "as drawn", "if truncated", "normal"],
        "rows": [
            ["beyond 2σ", share(drawn.beyond), share(drawn.truncated_beyond), share(drawn.normal)],
            ["exactly 0", f"{drawn.zeros:,}", f"{drawn.truncated_zeros:,}", "none"],
        ],
    }


def spread_lines(drawn: InitialWeights) -> Iterator[Line]:
    """What the table shows."""
    near = abs(drawn.beyond - drawn.normal) < 0.002
    yield (
        near,
        (
            "The tails are there: this is a plain normal distribution."
            if near
            else "The tails are not those of a normal distribution."
        ),
    )
    few = drawn.zeros < drawn.truncated_zeros / 100
    yield (
        few,
        (
            f"Nothing was set to zero: truncation would have zeroed {drawn.truncated_zeros:,} "
            f"weights. Zeros by chance: {drawn.zeros:,}."
            if few
            else f"{drawn.zeros:,} weights are exactly zero."
        ),
    )


def difference_lines(apart: Difference, cached_only: bool) -> Iterator[Line]:
    """What a comparison of logits shows; True where the mistake shows."""
    if apart.error:
        yield True, f"It stops: transformers raises {apart.error}."
    elif not apart.largest:
        yield False, "No difference was found: the mistake has no effect here."
    else:
        yield (
            True,
            (
                f"No error is raised, but a logit (the score of a next token) is off by up to "
                f"{apart.largest:.1f}. (The right model's logits span {apart.range:.0f}.)"
            ),
        )
        yield (
            bool(apart.other) or None,
            (f"The most likely next token differs at {apart.other} of {apart.places} positions."),
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


def price_row(name: str, parameters: int, tokens: float) -> list[str]:
    """A row of the table of training costs."""
    from surgery.lesson.figures import training_estimate

    price = training_estimate(parameters, tokens)
    amount = f"{tokens / 1e12:.0f} T" if tokens >= 1e12 else f"{tokens / 1e9:.0f} B"
    hours = f"{price.hours:.1f}" if price.hours < 100 else f"{price.hours:,.0f}"
    spent = f"{price.dollars:,.0f}" if price.dollars < 1e5 else f"{price.dollars / 1e6:.1f} M"
    return [name, amount, hours, f"${spent}"]
