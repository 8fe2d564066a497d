"""Layer-importance scores, one entry per score.

The scan, its tables and JSON, the command line and the page's pictures are made from `SCORES`. To
add a score, add an entry and the function that computes it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from surgery.plan import Init, Plan

if TYPE_CHECKING:
    import numpy as np
    import torch

    from .forward_cache import ForwardRunner
    from .sample import Sample

Span = tuple[int, int]  # a block of layers [start, end)
_WITH_GRADIENTS = 3  # layer-forwards; a backward pass counts as two


class Probe(Protocol):
    """Reads a score off the hidden states of the base's own pass over the sample."""

    def __call__(
        self, batch: int, layer: int, given: torch.Tensor | None, after: torch.Tensor | None
    ) -> None:
        """Take the hidden states that a layer was given and those it returned, each of shape
        (windows, length, width); None where it has none."""

    def result(self) -> np.ndarray:
        """The score, in the entry's shape. Raises `Refused` where there are no hidden states."""


@dataclass(frozen=True)
class ImportanceScore:
    """How much layers, or blocks of layers, matter. A low value suggests to `change` them.

    Exactly one of three functions computes it. `plans(depth, start, end)` gives variants of the
    base by the block that each changes; the score is their perplexity. `probe(depth, sample)` reads
    the base's own pass. `measure(runner)` makes passes of its own, in which a layer counts as
    `forwards` layer-forwards.
    """

    key: str
    label: str
    heading: str  # of its column or trace, beside the layer's number
    description: str
    change: Literal["drop", "repeat"]
    unit: str
    number: str  # format of a value in a table
    passes: str  # what it costs, in passes of the base
    source: str = ""
    of_blocks: bool = False  # of blocks of layers, not of single ones
    per_token: bool = False  # computed for every token, so that its mean has an interval
    default: bool = True  # measured unless scores are named
    plans: Callable[[int, int, int], dict[Span, Plan]] | None = None
    probe: Callable[[int, Sample], Probe] | None = None
    measure: Callable[[ForwardRunner], np.ndarray] | None = None
    forwards: int = 0

    def shape(self, depth: int, tokens: int) -> tuple[int, ...]:
        """The shape of the array that `probe` or `measure` gives: rows are layers, and columns are
        the sizes of the blocks that start there, or the tokens."""
        if self.of_blocks:
            return depth, depth + 1
        return (depth, tokens) if self.per_token else (depth,)


def drop_plan(depth: int, layer: int) -> Plan:
    """The base without one layer."""
    return Plan.whole(depth).drop(layer, layer + 1)


def repeat_plan(depth: int, start: int, end: int) -> Plan:
    """The base with the layers [start, end) run twice: 0:end, then start:depth."""
    return Plan.whole(depth).repeat(start, end)


def _drop_each(depth: int, start: int, end: int) -> dict[Span, Plan]:
    return {(i, i + 1): drop_plan(depth, i) for i in range(depth)} if depth > 1 else {}


def _without_each(what: str) -> Callable[[int, int, int], dict[Span, Plan]]:
    def plans(depth: int, start: int, end: int) -> dict[Span, Plan]:
        whole, init = Plan.whole(depth), Init(what)
        return {(i, i + 1): whole.initialise(i, i + 1, init) for i in range(depth)}

    return plans


def _repeat_each(depth: int, start: int, end: int) -> dict[Span, Plan]:
    return {(i, i + 1): repeat_plan(depth, i, i + 1) for i in range(depth)}


def _repeat_blocks(depth: int, start: int, end: int) -> dict[Span, Plan]:
    spans = [(i, j) for i in range(start, end) for j in range(i + 1, end + 1)]
    return {(i, j): repeat_plan(depth, i, j) for i, j in spans}


# These import torch, which the registry itself must not: `--help` and the page's layout read it.


def _block_influence(depth: int, sample: Sample) -> Probe:
    from .probes import BlockInfluence

    return BlockInfluence(depth, sample)


def _angular(depth: int, sample: Sample) -> Probe:
    from .probes import AngularDistance

    return AngularDistance(depth, sample)


def _taylor(runner: ForwardRunner) -> np.ndarray:
    from .taylor import taylor

    return taylor(runner, _WITH_GRADIENTS)


_ENTRIES = (
    ImportanceScore(
        key="block_influence",
        label="Block Influence",
        heading="influence",
        description="How far a layer rotates the hidden state: 1 − cosine of input and output.",
        change="drop",
        unit="1 − cosine",
        number=".4f",
        passes="one",
        source="ShortGPT, arXiv 2403.03853",
        per_token=True,
        probe=_block_influence,
    ),
    ImportanceScore(
        key="angular",
        label="angular distance",
        heading="angular distance",
        description="The angle between the hidden states before and after a block of layers.",
        change="drop",
        unit="angle / π",
        number=".4f",
        passes="one",
        source="arXiv 2403.17887",
        of_blocks=True,
        probe=_angular,
    ),
    ImportanceScore(
        key="drop_one",
        label="drop-one perplexity",
        heading="dropped",
        description="The perplexity of the base without one layer.",
        change="drop",
        unit="perplexity",
        number="",
        passes="half of one for each layer",
        source="Shortened LLaMA, arXiv 2402.02834; SLEB, arXiv 2402.09025",
        plans=_drop_each,
    ),
    ImportanceScore(
        key="repeat_one",
        label="repeat-one perplexity",
        heading="repeated",
        description="The perplexity of the base with one layer run twice.",
        change="repeat",
        unit="perplexity",
        number="",
        passes="half of one for each layer",
        plans=_repeat_each,
    ),
    ImportanceScore(
        key="drop_attention",
        label="drop-attention perplexity",
        heading="no attention",
        description="The perplexity of the base without the attention of one layer.",
        change="drop",
        unit="perplexity",
        number="",
        passes="half of one for each layer",
        source="FinerCut, arXiv 2405.18218; BlockPruner, arXiv 2406.10594",
        default=False,
        plans=_without_each("no-attention"),
    ),
    ImportanceScore(
        key="drop_mlp",
        label="drop-MLP perplexity",
        heading="no MLP",
        description="The perplexity of the base without the MLP of one layer.",
        change="drop",
        unit="perplexity",
        number="",
        passes="half of one for each layer",
        source="FinerCut, arXiv 2405.18218; BlockPruner, arXiv 2406.10594",
        default=False,
        plans=_without_each("no-mlp"),
    ),
    ImportanceScore(
        key="repeat_map",
        label="repeat map",
        heading="repeated",
        description="The perplexity of the base with a block run twice, for every block of a span.",
        change="repeat",
        unit="perplexity",
        number="",
        passes="half of one for each pair of layers",
        source="RYS, dnhkng.github.io/posts/rys",
        of_blocks=True,
        default=False,
        plans=_repeat_blocks,
    ),
    ImportanceScore(
        key="taylor",
        label="Taylor",
        heading="Taylor",
        description="Weights times gradients: Σ |w · ∂L/∂w| over a layer, L the mean loss.",
        change="drop",
        unit="Σ |w · ∂L/∂w|",
        number=".4g",
        passes="three",
        source="as in Shortened LLaMA, arXiv 2402.02834",
        default=False,
        measure=_taylor,
        forwards=_WITH_GRADIENTS,
    ),
)

SCORES: dict[str, ImportanceScore] = {score.key: score for score in _ENTRIES}
DEFAULT: tuple[str, ...] = tuple(score.key for score in _ENTRIES if score.default)
