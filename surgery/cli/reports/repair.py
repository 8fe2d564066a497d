"""What `repair` prints: the perplexities, what was gained, and the fits behind it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from surgery import numbers

if TYPE_CHECKING:
    from surgery.repairing import Repaired


def repair_lines(repaired: Repaired) -> Iterator[str]:
    """A few lines of text."""
    facts = repaired.facts
    scores = facts["perplexity"]
    base, cut, now = (numbers.perplexity(scores[who]) for who in ("base", "cut", "repaired"))
    low, high = map(numbers.perplexity, scores["intervals"]["repaired"])
    yield f"perplexity  base {base}, before {cut}, repaired {now} ({low} to {high})"
    if repaired.recovered:
        share, *ends = map(numbers.percent, repaired.recovered)
        yield f"recovered   {share} of the log perplexity ({' to '.join(ends)})"
    elif broken := [who for who in ("base", "cut", "repaired") if not math.isfinite(scores[who])]:
        yield f"recovered   unknown: losses of {numbers.listed(broken, 'and')} are not finite"
    else:
        yield "recovered   nothing, since the plan lost nothing significant"
    for fit in facts["fits"]:
        left = fit["error_after"] / fit["error_before"] if fit["error_before"] else 1.0
        ridge = "unchanged" if fit["ridge"] is None else f"ridge {fit['ridge']:g}"
        yield f"  layer {fit['layer']:<4}{fit['projection']:<28}error × {left:.3f}  {ridge}"
    what = f", {facts['tokens']:,} tokens of {facts['text']}" if facts["tokens"] else ""
    yield f"{numbers.duration(facts['seconds'])}{what}"
