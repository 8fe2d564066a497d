"""The initialisers: what may stand after @ in a plan. Add one by adding an entry.

An entry holds its notation, its effect in memory and on disk, what it needs of a model, and one
line for help and the page. The effect is one function of tensors, applied to whole tensors in
memory and to stretches of them on disk, so that both agree. Nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

# (the source layer's tensor, the same tensor of the next layer or None, factor) -> new values of
# the first one's shape and dtype, each from the values at its place alone
Values = Callable[[Any, Any, float], Any]


class Changes(Enum):
    """Which tensors of a layer an initialiser changes."""

    NOTHING = auto()
    OUTPUTS = auto()  # the output projections, which add to the hidden state
    EVERYTHING = auto()


class Block(Enum):
    """The part of a layer that an output projection ends."""

    ATTENTION = "attention"
    MLP = "mlp"
    OTHER = "other"  # state-space mixers, convolutions and the like


class Needs(Enum):
    """What an initialiser needs of a model; `architecture.apply.initialise` checks it."""

    RESIDUAL = auto()  # a layer adds nothing but the outputs of its output projections
    PLAIN_OUTPUTS = auto()  # no norm follows the output projections
    BLOCKS = auto()  # a layer is attention and an MLP, each with output projections of its own
    WHOLE_LAYER = auto()  # no part of a layer is stored in a table outside the layers
    NEXT_LAYER = auto()  # a next layer of the same type follows in the plan


@dataclass(frozen=True)
class Initialiser:
    """A way to initialise a layer.

    `hint` describes it in a few words. `takes_factor`: it is written with a number, `@name=0.5`.
    `values` makes new values, also from the next layer's if it `reads_next`. It is `drawn` instead
    if the model's own initialisation makes them, and `fitted` if `surgery.repairing` fits them on a
    text, so that the plan alone doesn't give them. `rounds`: the new values depend on the dtype
    that they are computed in. `output_factor` is what output projections are multiplied by, for
    initialisers that do nothing else. `block`: of the output projections, only those of this one
    change.
    """

    name: str
    hint: str
    changes: Changes
    values: Values | None = None
    takes_factor: bool = False
    reads_next: bool = False
    drawn: bool = False
    fitted: bool = False
    rounds: bool = False
    needs: tuple[Needs, ...] = ()
    output_factor: Callable[[float], float] | None = None
    block: Block | None = None

    @property
    def notation(self) -> str:
        """An example of how it is written after @."""
        return f"{self.name}=0.5" if self.takes_factor else self.name

    @property
    def from_source(self) -> bool:
        """Whether the new values follow from the source layer's alone, value by value."""
        return not (self.drawn or self.reads_next or self.fitted)

    def new_values(self, own: Any, after: Any, factor: float) -> Any:
        """`values` of a tensor and the next layer's. Not for initialisers without `values`."""
        assert self.values is not None, self.name
        return self.values(own, after, factor)

    def changes_tensor(self, output_of: Block | None) -> bool:
        """Whether it changes a tensor: the output projection of a block, or, for None, another
        one."""
        return self.changes is Changes.EVERYTHING or (
            self.changes is Changes.OUTPUTS
            and output_of is not None
            and self.block in (None, output_of)
        )


def _zeros(own: Any, after: Any, factor: float) -> Any:
    return own.new_zeros(own.shape)


def _scaled(own: Any, after: Any, factor: float) -> Any:
    return own * factor


def _mean(own: Any, after: Any, factor: float) -> Any:
    one, other = (x.float() if x.itemsize < 4 else x for x in (own, after))
    return ((one + other) / 2).to(own.dtype)


_ALL = (
    Initialiser(
        "copy",
        "the weights of the source layer",
        Changes.NOTHING,
        output_factor=lambda factor: 1.0,
    ),
    Initialiser(
        "identity",
        "adds nothing until it is trained (LLaMA-Pro)",
        Changes.OUTPUTS,
        _zeros,
        needs=(Needs.RESIDUAL,),
        output_factor=lambda factor: 0.0,
    ),
    Initialiser(
        "no-attention",
        "its attention adds nothing; no time is saved",
        Changes.OUTPUTS,
        _zeros,
        needs=(Needs.RESIDUAL, Needs.BLOCKS),
        block=Block.ATTENTION,
    ),
    Initialiser(
        "no-mlp",
        "its MLP adds nothing; no time is saved",
        Changes.OUTPUTS,
        _zeros,
        needs=(Needs.RESIDUAL, Needs.BLOCKS),
        block=Block.MLP,
    ),
    Initialiser(
        "scale",
        "output projections multiplied by a number",
        Changes.OUTPUTS,
        _scaled,
        takes_factor=True,
        rounds=True,
        needs=(Needs.RESIDUAL, Needs.PLAIN_OUTPUTS),
        output_factor=lambda factor: factor,
    ),
    Initialiser(
        "random",
        "the model's own random initialisation",
        Changes.EVERYTHING,
        drawn=True,
        needs=(Needs.WHOLE_LAYER,),
    ),
    Initialiser(
        "average",
        "the mean with the next layer in the plan",
        Changes.EVERYTHING,
        _mean,
        reads_next=True,
        rounds=True,
        needs=(Needs.WHOLE_LAYER, Needs.NEXT_LAYER),
    ),
    Initialiser(
        "lstsq",
        "its last output fitted by `repair` (ReplaceMe)",
        Changes.OUTPUTS,
        fitted=True,
        needs=(Needs.RESIDUAL, Needs.PLAIN_OUTPUTS),
    ),
    Initialiser(
        "refit",
        "all of its outputs fitted by `repair`",
        Changes.OUTPUTS,
        fitted=True,
        needs=(Needs.RESIDUAL, Needs.PLAIN_OUTPUTS),
    ),
)
INITIALISERS = {initialiser.name: initialiser for initialiser in _ALL}
