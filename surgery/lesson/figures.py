"""Numbers for the lesson: the distribution of initial weights, a short text, training costs.

The text is short on purpose, so that measuring takes seconds in a workshop.
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

_DOLLARS = 1.55e-17  # per FLOP, as two published up-scaling runs of SOLAR imply
_TRAINING_BYTES = 18  # per parameter: Adam in mixed precision, without activations


@dataclass(frozen=True)
class InitialWeights:
    """The distribution of the `values` weights of the layers' matrices, with deviation `sigma`.

    `beyond` is the share beyond 2σ, and `zeros` the number of zeros; `truncated_*` are the same
    after values beyond 2σ are set to zero. `normal` is the share of a normal distribution.
    """

    values: int
    sigma: float
    beyond: float
    zeros: int
    truncated_beyond: float
    truncated_zeros: int
    normal: float


def initial_weights(base: Base, progress: Progress = silent) -> InitialWeights:
    """Count the weights of a base's layers, without norms and biases, which start at one value, and
    without the embedding, whose padding row starts at zero. Raises `SurgeryError`."""
    parts = survey_base(base, progress).parts
    counts = ValueCounts.merged(
        of_part
        for part, of_part in parts.items()
        if part.layer is not None and part.kind not in ("norms", "biases")
    )
    low, high = counts.mean - 2 * counts.deviation, counts.mean + 2 * counts.deviation
    inside = (counts.values >= low) & (counts.values <= high)
    truncated = ValueCounts.of(counts.values * inside, counts.counts)
    lower, upper = truncated.outside(low, high)
    return InitialWeights(
        values=counts.finite,
        sigma=counts.deviation,
        beyond=counts.beyond(2),
        zeros=counts.zeros,
        truncated_beyond=(lower + upper) / truncated.finite,
        truncated_zeros=truncated.zeros,
        normal=normal_beyond(2),
    )


@dataclass(frozen=True)
class TrainingEstimate:
    """An estimate of training: C = 6·N·D FLOPs, hours on one H100 at 40 % utilisation, $ at the
    price that published runs imply, and bytes of memory without activations."""

    parameters: int
    tokens: float
    flops: float
    hours: float
    dollars: float
    memory: int


def training_estimate(parameters: int, tokens: float) -> TrainingEstimate:
    """Estimate what training takes."""
    flops = 6.0 * parameters * tokens
    hours = flops / (ACCELERATORS["H100"].peak * MFU * 3600)
    memory = _TRAINING_BYTES * parameters
    return TrainingEstimate(parameters, tokens, flops, hours, _DOLLARS * flops, memory)


#: (what, parameters, tokens): healing the lesson's longer model, and published runs.
EXAMPLES: Sequence[tuple[str, int, float]] = (
    ("the lesson's longer model", 308_839_424, 1e9),
    ("SOLAR 10.7B, Korean", 10_731_524_096, 2e11),
    ("SOLAR 10.7B after up-scaling", 10_731_524_096, 1e12),
    ("SOLAR 10.7B from scratch", 10_731_524_096, 3e12),
)
