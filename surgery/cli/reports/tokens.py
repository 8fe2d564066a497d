"""What `tokens` prints: the layers that each token of an answer needs most."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from surgery.io.strict_json import plain
from surgery.numbers import percent
from surgery.plan import Plan

if TYPE_CHECKING:
    from surgery.analysis import TokenImportance
    from surgery.base import Base

_TOP = 3
_LONGEST = 18  # characters of a token in the table


def tokens_json(base: Base, plan: Plan, prompt: str, result: TokenImportance) -> dict:
    """Costs by token, then by position of the plan, in nats; null for what isn't a number."""
    return plain(
        {
            "base": base.name,
            "plan": str(plan),
            "sources": result.plan.sources,
            "prompt": prompt,
            "tokens": [
                {
                    "text": text,
                    "nll": result.nll[t],
                    "costs": [None if row is None else row[t] for row in result.costs],
                }
                for t, text in enumerate(result.tokens)
            ],
        }
    )


def tokens_report(result: TokenImportance) -> Iterator[Table | str]:
    """A table for a terminal of 80 columns, and a sentence that explains it."""
    table = Table(box=None, padding=(0, 3, 0, 0), pad_edge=False)
    table.add_column("token", no_wrap=True)
    table.add_column("probability", justify="right", no_wrap=True)
    for heading in ("needs most", "then", "then")[: min(_TOP, len(result.costs))]:
        table.add_column(heading, justify="right", no_wrap=True)
    for t, text in enumerate(result.tokens):
        cells = [_cell(result.plan, p, cost) for p, cost in result.most_needed(t, _TOP)]
        table.add_row(Text(_shown(text)), percent(math.exp(-result.nll[t]), 1), *cells)
    yield table
    place = "" if result.plan.is_whole else ", with @position where that differs"
    yield (
        f"\nneeds most: layer{place}, and by how many nats the\n"
        "token's −ln p increases when that layer alone is dropped (1 nat: 2.7 times less\n"
        "likely). Negative: more likely without it."
    )


def _cell(plan: Plan, position: int, cost: float) -> str:
    source = plan.sources[position]
    layer = f"{source}" if source == position else f"{source}@{position}"
    return f"{layer} {cost:+.2f}"


def _shown(token: str) -> str:
    """A token with its spaces and line ends in sight."""
    text = repr(token)[1:-1]
    return f"“{text if len(text) <= _LONGEST else text[: _LONGEST - 1] + '…'}”"
