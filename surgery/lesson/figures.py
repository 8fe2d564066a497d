"""The lesson's figures: how weights were drawn, the text that plans are measured on, what training
costs.

Small and quick on purpose: a minute of a workshop is short. Everything is measured on the bases
that it is asked about, or follows from published prices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from surgery.healing.cost import ACCELERATORS, MFU
from surgery.progress import Progress, silent
from surgery.weight_stats import ValueCounts, survey_base
from surgery.weight_stats.value_counts import normal_beyond

if TYPE_CHECKING:
    from surgery.base import Base

# Written for this lesson, so that no model has been trained on it.
TEXT = """\
The ferry left the harbour at six in the morning, before the fog had lifted. There were nine \
passengers on board, most of them on their way to work, and a dog that belonged to nobody in \
particular. The captain, who had made the crossing every day for twenty years, did not look at \
the water at all. He listened. When the engine of the other boat could be heard on the left, \
he turned the wheel a little to the right, and poured himself a cup of coffee.

On the far side, a woman was waiting with a letter in her hand. She had read it so often that \
the paper was soft, and she knew every word of it: her brother would come home in the spring, \
once the school was closed and the money was paid. It was the first good news in a year. She \
counted the people as they came ashore, one after the other, and at the end of the line she \
saw a tall man with a grey coat, who stopped, put down his suitcase and laughed."""

_DOLLARS = 1.55e-17  # a FLOP, as two published up-scaling runs of SOLAR imply
_TRAINING_BYTES = 18  # a parameter: Adam in mixed precision, activations not counted


@dataclass(frozen=True)
class Drawn:
    """How the starting weights of the layers' matrices are spread: `values` of them, with `sigma`
    as measured. `told_*` are the same once the values beyond 2σ are set to zero."""

    values: int
    sigma: float
    beyond: float
    zeros: int
    told_beyond: float
    told_zeros: int
    normal: float


def drawn(base: Base, progress: Progress = silent) -> Drawn:
    """Count the weights of a base's layers. Norms are left out, which begin at one value, and so is
    the embedding, whose row for padding begins at zero. Raises `SurgeryError`."""
    parts = survey_base(base, progress).parts
    tally = ValueCounts.merged(
        found
        for part, found in parts.items()
        if part.layer is not None and part.kind not in ("norms", "biases")
    )
    low, high = tally.mean - 2 * tally.deviation, tally.mean + 2 * tally.deviation
    kept = (tally.values >= low) & (tally.values <= high)
    told = ValueCounts.of(tally.values * kept, tally.counts)
    lower, upper = told.outside(low, high)
    return Drawn(
        values=tally.finite,
        sigma=tally.deviation,
        beyond=tally.beyond(2),
        zeros=tally.zeros,
        told_beyond=(lower + upper) / told.finite,
        told_zeros=told.zeros,
        normal=normal_beyond(2),
    )


@dataclass(frozen=True)
class Cost:
    """An estimate of training: C = 6·N·D FLOPs, hours on one H100 that is 40 % busy, $ at the price
    that published runs imply, and bytes of memory without activations."""

    parameters: int
    tokens: float
    flops: float
    hours: float
    dollars: float
    memory: int


def cost(parameters: int, tokens: float) -> Cost:
    """What it takes to train so many parameters on so many tokens."""
    flops = 6.0 * parameters * tokens
    hours = flops / (ACCELERATORS["H100"].peak * MFU * 3600)
    memory = _TRAINING_BYTES * parameters
    return Cost(parameters, tokens, flops, hours, _DOLLARS * flops, memory)


#: (what, parameters, tokens): the healing of the lesson's longer model, and what others did.
EXAMPLES: Sequence[tuple[str, int, float]] = (
    ("the lesson's longer model", 308_839_424, 1e9),
    ("SOLAR 10.7B, Korean", 10_731_524_096, 2e11),
    ("SOLAR 10.7B after up-scaling", 10_731_524_096, 1e12),
    ("SOLAR 10.7B from scratch", 10_731_524_096, 3e12),
)
