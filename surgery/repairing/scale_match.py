"""Scale match: make up for the norm that hidden states lack after a cut (arXiv 2507.18212).

Hidden states grow along depth. So after a cut they are smaller than those that the next layer was
trained on, and its output weighs too much. Multiplying them by α = E‖h_e‖ / ‖h_s‖ corrects that. If
every layer and the final norm normalise their input, dividing the *output* of all later layers by α
has the same effect: the stream after the cut is then smaller by a constant factor, which the norms
remove. So α is written as @scale=1/α on the layers after the seam. That is a plan like any other:
no embedding changes, and none has to be untied from the head.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch

from surgery.architecture.inspect.chain import PROBE, Chain
from surgery.architecture.inspect.hooks import layers_of
from surgery.compute.contexts import Float32, many_rows
from surgery.errors import Refused
from surgery.numbers import percent
from surgery.plan import Init, Plan

if TYPE_CHECKING:
    from surgery.base import Base

_DIGITS = 4  # of a factor in a plan
_EXACT = 0.02  # of the states' norm: norms add a small constant, and factors are rounded


def gaps(plan: Plan) -> Iterator[tuple[int, int, int]]:
    """(position, depth before, depth after) of every seam that leaves layers out: states after
    `before` of the base's layers come to a layer that is used to those after `after`."""
    before = 0
    for p, source in enumerate(plan.sources):
        if source > before:
            yield p, before, source
        before = source + 1


def scale_matched(base: Base, plan: Plan, batches: Sequence[torch.Tensor]) -> Plan:
    """The plan with the layers behind each cut scaled by 1/α, α measured on tokens of the base,
    (windows, length).

    Raises `Refused` for a plan that leaves no layers out between others, for layers that can't be
    scaled, and for models in which the scale of the hidden states matters.
    """
    cuts = [gap for gap in gaps(plan) if gap[0] < len(plan)]
    if not cuts:
        raise Refused(
            "Scale match needs a cut with layers behind it, and this plan has none: use refit."
        )
    norms = _norms(base, batches, {depth for _, *ends in cuts for depth in ends})
    factor, begun = 1.0, plan
    for p, before, after in cuts:
        ratio = float((norms[after] / norms[before]).mean())
        end = min((q for q, *_ in cuts if q > p), default=len(plan))
        factor /= ratio
        for q in range(p, end):
            init = plan.layers[q].init
            if (own := init.output_factor) is None:
                raise Refused(f"Layer {plan.layers[q].source} is @{init}, which can't be scaled.")
            if own:
                new = Init("scale", float(f"{own * factor:.{_DIGITS}g}"))
                begun = begun.initialise(q, q + 1, new)
    _check_exact(base, plan, begun, batches[0][:1, :PROBE])
    return begun


def _chain(base: Base, ids: torch.Tensor) -> Chain:
    whole = base.operate(Plan.whole(base.depth)).model
    chain = Chain.of(base.anatomy, whole, ids, range(base.depth))
    if chain is None:
        raise Refused("This model's layers can't be run one by one: heal the patient instead.")
    return chain


@torch.no_grad()
def _norms(
    base: Base, batches: Sequence[torch.Tensor], depths: set[int]
) -> dict[int, torch.Tensor]:
    """{depth: ‖h‖ of every token after so many of the base's layers}, (tokens,) each."""
    chain = _chain(base, batches[0])
    found: dict[int, list[torch.Tensor]] = {depth: [] for depth in depths}
    with many_rows(base.model):
        for ids in batches:
            calls = chain.calls(ids)
            states = calls.first
            for depth in range(max(depths) + 1):
                if depth in found:
                    found[depth].append(states.float().norm(dim=-1).flatten())
                if depth < max(depths):
                    states = chain.run(calls, depth, chain.layers[depth], states)
    return {depth: torch.cat(parts) for depth, parts in found.items()}


@torch.no_grad()
def _check_exact(base: Base, plan: Plan, scaled: Plan, ids: torch.Tensor) -> None:
    """Raise `Refused` unless scaling what layers add equals scaling the states at the cuts."""
    chain = _chain(base, ids)
    calls = chain.calls(ids)
    factors = [_factor(scaled, plan, p) for p in range(len(plan))]
    own, folded = calls.first, calls.first
    with Float32():  # in a half, rounding alone may set both apart by several percent
        both = [layers_of(base.anatomy, base.operate(one).model) for one in (plan, scaled)]
        assert both[0] is not None and both[1] is not None, "a chain has layers"
        before = 1.0
        for p, source in enumerate(plan.sources):
            own = chain.run(calls, source, both[0][p], own * (before / factors[p]))
            folded = chain.run(calls, source, both[1][p], folded)
            before = factors[p]
    folded = folded.float() / before
    off = (own.float() - folded).norm() / folded.norm()
    if not off <= _EXACT:
        raise Refused(
            "Scale match isn't exact for this model: the size of its hidden states matters to its "
            f"layers (they end {percent(off)} apart). Use refit, or heal the patient."
        )


def _factor(scaled: Plan, plan: Plan, position: int) -> float:
    """What the layer at a position was multiplied by."""
    new, old = (one.layers[position].init.output_factor for one in (scaled, plan))
    return new / old if new and old else 1.0
