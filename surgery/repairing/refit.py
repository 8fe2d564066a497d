"""Refit along depth: fit output projections so that a patient's hidden states meet the base's.

From the layer before a seam down, the output projections of each layer are fitted in closed form to
what is missing in the states that it returns; each fit sees the states that the earlier ones lead
to. This is in layer-major order, one layer of the base and one of the patient at a time over all
tokens: memory holds hidden states and the sums of one fit. A token weighs 1/‖h‖² of its target
state h, because a few tokens with large activations would decide everything otherwise.

Fitting the last projection before the seam alone is ReplaceMe (arXiv 2505.02819).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn
from transformers import PreTrainedModel

from surgery.analysis.passes import cannot_run
from surgery.architecture.inspect.chain import PROBE, Calls, Chain
from surgery.architecture.inspect.hooks import hidden_out, layers_of, watched
from surgery.compute.contexts import many_rows
from surgery.errors import Refused, SurgeryError
from surgery.plan import Layer, Plan
from surgery.progress import Meter

from .least_squares import Fit, Sums, fit
from .outputs import OutputProjection, output_projections
from .targets import target_depths

if TYPE_CHECKING:
    from surgery.base import Base

_GAIN = 0.015  # of the error: a layer whose fits all gain less is the last one that is fitted
_LEAST = 1e-30  # squared norm of a state


@dataclass(frozen=True)
class Batch:
    """Windows of tokens, (windows, length), and whether they are held out of the fits."""

    ids: torch.Tensor
    held_out: bool


@dataclass(frozen=True)
class FittedOutput:
    """The fit of one output projection of the layer at `position`."""

    position: int
    name: str
    fit: Fit


@dataclass(frozen=True)
class Refit:
    """The changed tensors in float32 on the CPU, by their names in the patient, and the fits behind
    them."""

    tensors: Mapping[str, torch.Tensor]
    fits: tuple[FittedOutput, ...]

    @property
    def positions(self) -> tuple[int, ...]:
        """Positions of the layers with changed tensors."""
        return tuple(sorted({one.position for one in self.fits if one.fit.change is not None}))


@dataclass(frozen=True)
class Where:
    """Which layers to fit: those at `positions`, and from each of `starts` down as many as gain by
    it. At the positions in `last_only` only the last output projection is fitted, which is that of
    the MLP."""

    positions: Collection[int] = ()
    starts: Collection[int] = ()
    last_only: Collection[int] = ()


def refit(base: Base, plan: Plan, batches: Sequence[Batch], where: Where, meter: Meter) -> Refit:
    """Fit output projections of a plan without fitted layers.

    `meter` counts layers run over all batches, and may raise to stop. Raises `Refused` if layers
    can't be run one by one or have no outputs that can be fitted, and `SurgeryError` for hidden
    states that aren't finite.
    """
    whole = base.operate(Plan.whole(base.depth)).model
    layers = layers_of(base.anatomy, base.operate(plan).model)
    with torch.no_grad(), many_rows(whole):
        chain = Chain.of(base.anatomy, whole, batches[0].ids, range(base.depth))
        if chain is None or layers is None:
            _check_finite(base, whole, batches[0].ids[:1, :PROBE])
            raise Refused(
                "This model's layers can't be run one by one, so they can't be fitted one by one: "
                "heal the patient instead."
            )
        try:
            return _Fitting(base, plan, batches, chain, layers, meter).run(where)
        except (RuntimeError, IndexError) as error:  # shapes that don't match, no memory
            raise cannot_run(error) from error


def _check_finite(base: Base, model: PreTrainedModel, ids: torch.Tensor) -> None:
    """Raise `SurgeryError` that names the first of the base's layers whose states aren't finite."""

    def called(layer: int, _: torch.Tensor | None, output: object) -> None:
        states = hidden_out(output)
        if states is not None and not states.isfinite().all():
            raise _not_finite(layer)

    with watched(layers_of(base.anatomy, model) or (), called):
        model(input_ids=ids, use_cache=False)


def _not_finite(layer: int) -> SurgeryError:
    return SurgeryError(
        f"The hidden states after layer {layer} are not finite, so nothing can be fitted to them. "
        "Look at the base's weights (python -m surgery weights)."
    )


class _States:
    """Hidden states of every batch at some depth of a model."""

    def __init__(self, chain: Chain, calls: Sequence[Calls]) -> None:
        self._chain, self._calls = chain, calls
        self.batches = [call.first for call in calls]

    def outputs(self, source: int, layer: nn.Module) -> Iterator[torch.Tensor]:
        """What `layer` returns for each batch, called as the base calls its layer `source`."""
        for call, states in zip(self._calls, self.batches, strict=True):
            yield self._chain.run(call, source, layer, states)

    def go_through(self, source: int, layer: nn.Module) -> None:
        """Go one layer deeper."""
        self.batches = list(self.outputs(source, layer))


class _Fitting:
    """One run down a plan."""

    def __init__(
        self,
        base: Base,
        plan: Plan,
        batches: Sequence[Batch],
        chain: Chain,
        layers: nn.ModuleList,
        meter: Meter,
    ) -> None:
        self._plan, self._batches, self._meter = plan, batches, meter
        self._chain, self._layers = chain, layers
        self._path = base.anatomy.stack.paths[0]
        self._depths = target_depths(plan)
        calls = [chain.calls(batch.ids) for batch in batches]
        self._targets, self._depth = _States(chain, calls), 0
        self._states = _States(chain, calls)
        self._probe = chain.calls(batches[0].ids[:1, :PROBE])
        self._tensors: dict[str, torch.Tensor] = {}
        self._fits: list[FittedOutput] = []

    def run(self, where: Where) -> Refit:
        """Go down the patient, to the last layer that is fitted."""
        wanted = (*where.starts, *where.positions)
        first, going = self._with_the_base(min(wanted)), False
        for p, layer in list(enumerate(self._plan.layers))[first:]:
            going |= p in where.starts
            if going or p in where.positions:
                fits = self._fit_layer(p, p in where.last_only)
                self._fits += fits
                going &= any(one.fit.after < (1 - _GAIN) * one.fit.before for one in fits)
            else:
                self._states.go_through(layer.source, self._layers[p])
                self._meter.add(1)
            if not going and p >= max(wanted):
                break
        return Refit(self._tensors, tuple(self._fits))

    def _with_the_base(self, most: int) -> int:
        """Go down as long as the patient has the base's layers in their order, at most to `most`:
        the states are the same. Returns the position reached."""
        p = 0
        while p < most and self._plan.layers[p] == Layer(p):
            p += 1
        self._deepen(p)
        self._states.batches = list(self._targets.batches)
        return p

    def _deepen(self, depth: int) -> None:
        """Take the targets to so many of the base's layers."""
        while self._depth < depth:
            self._targets.go_through(self._depth, self._chain.layers[self._depth])
            self._meter.add(1)
            self._depth += 1

    def _fit_layer(self, p: int, last_only: bool) -> list[FittedOutput]:
        """Fit a layer, and go through it."""
        self._deepen(self._depths[p])
        outputs = self._outputs(p)
        *others, last = outputs[-1:] if last_only else outputs
        fits = [self._fit(p, output) for output in others]
        passing: list[tuple[torch.Tensor, torch.Tensor]] = []
        fits.append(self._fit(p, last, passing))
        change = fits[-1].fit.change
        if change is None:
            self._states.batches = [returned for _, returned in passing]
            return fits
        # What the layer returns now follows from the change, so it need not be run once more.
        added = change.T.float().to(last.module.weight.device) * last.factor
        self._states.batches = [
            (
                returned
                + (x.float() @ added[: last.inputs] + added[last.inputs :].sum(0)).view_as(returned)
            ).to(returned.dtype)
            for x, returned in passing
        ]
        return fits

    def _outputs(self, p: int) -> list[OutputProjection]:
        source, layer = self._plan.sources[p], self._layers[p]
        found = output_projections(
            layer,
            lambda states: self._chain.run(self._probe, source, layer, states),
            self._states.batches[0][:1, :PROBE],
        )
        if not found:
            raise Refused(
                f"Layer {source} has no output projection whose outputs are added as they are, so "
                "it can't be fitted in closed form: heal the patient instead."
            )
        return found

    def _fit(
        self,
        p: int,
        output: OutputProjection,
        passing: list[tuple[torch.Tensor, torch.Tensor]] | None = None,
    ) -> FittedOutput:
        """Fit one output projection, and put the result into the patient. `passing` gets what it is
        given and what the layer returns, for each batch."""
        fitted, held_out = self._sums(p, output, passing)
        if not (fitted.finite and held_out.finite):
            raise _not_finite(self._plan.sources[p])
        found = fit(fitted, held_out)
        if found.change is not None:
            for leaf, new in output.changed(found.change).items():
                old = getattr(output.module, leaf)
                setattr(output.module, leaf, nn.Parameter(new.to(old.dtype), requires_grad=False))
                self._tensors[f"{self._path}.{p}.{output.name}.{leaf}"] = new.cpu()
        return FittedOutput(p, output.name, found)

    def _sums(
        self,
        p: int,
        output: OutputProjection,
        passing: list[tuple[torch.Tensor, torch.Tensor]] | None,
    ) -> tuple[Sums, Sums]:
        """Sums over the tokens that are fitted, and over those held out."""
        given: list[torch.Tensor] = []
        hook = output.module.register_forward_pre_hook(lambda _, args: given.append(args[0]))
        first = self._targets.batches[0]
        inputs = output.inputs + (output.bias is not None)
        both = [Sums(inputs, first.shape[-1], output.module.weight.device) for _ in range(2)]
        returned = self._states.outputs(self._plan.sources[p], self._layers[p])
        try:
            for batch, target, own in zip(
                self._batches, self._targets.batches, returned, strict=True
            ):
                x = given.pop()
                if passing is not None:
                    passing.append((x, own))
                x = x.flatten(0, -2).float()
                if output.bias is not None:
                    x = torch.cat([x, x.new_ones(len(x), 1)], 1)
                target, own = (t.to(x.device).float().flatten(0, -2) for t in (target, own))
                w = 1 / target.square().sum(-1).clamp_min(_LEAST)
                both[batch.held_out].add(output.factor * x, target - own, w)
        finally:
            hook.remove()
        self._meter.add(1)
        return both[False], both[True]
