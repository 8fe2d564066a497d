"""What `suggest` prints: plans, what they cost on the text to judge on, and why they were made."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from surgery.numbers import perplexity as _perplexity

from .plain_table import plain_table

if TYPE_CHECKING:
    from surgery.analysis.judging import Judgement
    from surgery.analysis.methods import Suggestion
    from surgery.analysis.score import Score
    from surgery.base import Base


def suggest_tables(
    base: Base,
    whole: Score,
    suggestions: Sequence[Suggestion],
    judgements: Sequence[Judgement],
) -> Iterator[Table | str]:
    """The suggestions and their judgements as a table for a terminal."""
    tokens = f"{whole.tokens:,} tokens to choose on, {judgements[0].score.tokens:,} to judge on"
    yield f"The base: perplexity {_perplexity(whole.perplexity)}; {tokens}.\n"
    table = plain_table("method")
    for heading in ("parameters", "chosen at", "cost, nats", "95 % CI", "beats random"):
        table.add_column(heading, justify="right", no_wrap=True)
    for one, judged in zip(suggestions, judgements, strict=True):
        beats = {None: "", True: "yes", False: "no"}[judged.beats_control]
        table.add_row(
            one.method,
            f"{base.preview(one.plan).parameters:,}",
            _perplexity(one.measured.perplexity) if one.measured else "",
            f"{judged.cost.mean:+.3f}",
            f"{judged.cost.low:+.3f} to {judged.cost.high:+.3f}",
            beats,
        )
    yield table
    yield ""
    yield (
        "chosen at: perplexity on the text to choose on. cost: increase of the loss over the\n"
        "base's on the text to judge on, per token. beats random: better than the mean of\n"
        "random plans by more than chance.\n"
    )
    for one in suggestions:
        yield escape(f"{one.method}: {one.plan}\n  {one.words}")
