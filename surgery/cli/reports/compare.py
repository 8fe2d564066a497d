"""What `compare` prints: both perplexities, the divergence, and the tokens that lost most."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from rich.markup import escape
from rich.table import Table

from surgery.analysis.significance import tokens_needed
from surgery.numbers import about, percent
from surgery.numbers import perplexity as _perplexity

from .plain_table import plain_table

if TYPE_CHECKING:
    from surgery.analysis.comparison import Comparison, Guess
    from surgery.analysis.score import Score

_WORST = 10  # tokens that are listed
_SMALL = 0.01  # nats per token: 1 % of the perplexity


def compare_tables(result: Comparison) -> Iterator[Table | str]:
    """The summary, and the tokens whose loss increased most, as tables for a terminal."""
    table = plain_table("")
    for heading in ("base", "patient", "95 % CI of the patient"):
        table.add_column(heading, justify="right")
    a, b = result.base, result.patient
    span = f"{_perplexity(b.low)} to {_perplexity(b.high)}"
    table.add_row("perplexity", _perplexity(a.perplexity), _perplexity(b.perplexity), span)
    cost = result.cost
    table.add_row("nats/token", "", f"{cost.mean:+.4f}", f"{cost.low:+.4f} to {cost.high:+.4f}")
    span = f"{result.kl_low:.4f} to {result.kl_high:.4f}"
    table.add_row("KL, nats/token", "", f"{result.kl:.4f}", span)
    yield table
    yield f"\n{a.tokens:,} tokens scored.{_enough(a, b)} Largest increases of the loss:"
    table = plain_table("token", "nats", "base predicts", "patient predicts")
    worst = sorted(result.tokens, key=lambda token: -_finite(token.damage))[:_WORST]
    for token in worst:
        table.add_row(
            escape(repr(token.text)),
            f"{token.damage:+.2f}",
            _best(token.base_guesses),
            _best(token.patient_guesses),
        )
    yield table


def _enough(base: Score, patient: Score) -> str:
    """How much text a small difference would take, by how much those of these tokens scatter."""
    needed = tokens_needed(np.subtract(patient.nll, base.nll), _SMALL)
    if not needed:
        return ""
    return f" To detect {_SMALL} nats takes about {about(needed):,} tokens of such text."


def _best(guesses: Sequence[Guess]) -> str:
    return escape(f"{guesses[0].text!r} {percent(guesses[0].probability)}") if guesses else ""


def _finite(value: float) -> float:
    return value if math.isfinite(value) else math.inf
