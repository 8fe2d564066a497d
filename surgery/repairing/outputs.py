"""The output projections of a layer whose outputs are added to the hidden states and nothing else.

Only these can be fitted in closed form: a change Δ of the weight changes what the layer returns by
factor·Δ·x, where x is what the projection is given. Names only propose them. Each is tried out:
with all other output projections set to zero, and its own output replaced by random values, the
layer must return its input plus a constant times those values. Norms behind a projection, gates and
routed experts fail this, and are left as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from surgery.architecture.inspect.identity_proof import is_output_projection

_TOLERANCE = 0.02  # of the largest value: states in bfloat16 have 8 bits


@dataclass(frozen=True)
class OutputProjection:
    """A linear map in a layer. `factor` multiplies its output before it is added to the hidden
    states (1 in most models)."""

    name: str
    module: nn.Linear | Conv1D
    factor: float

    @property
    def inputs(self) -> int:
        """The width of what it is given."""
        return self.module.weight.shape[0 if isinstance(self.module, Conv1D) else 1]

    @property
    def bias(self) -> nn.Parameter | None:
        """Its bias, if it has one."""
        return self.module.bias

    def changed(self, change: torch.Tensor) -> dict[str, torch.Tensor]:
        """{“weight” and perhaps “bias”: new value in float32} once a change is added; a last column
        of `change`, (outputs, inputs or inputs + 1), is that of the bias."""
        weight = self.module.weight.detach().float()
        change = change.float().to(weight.device)
        part = change[:, : self.inputs]
        new = {"weight": weight + (part.T if isinstance(self.module, Conv1D) else part)}
        if self.bias is not None:
            new["bias"] = self.bias.detach().float() + change[:, -1]
        return new


def candidates(layer: nn.Module) -> dict[str, nn.Linear | Conv1D]:
    """The linear maps of a layer that are output projections by their names."""
    return {
        name: module
        for name, module in layer.named_modules()
        if is_output_projection(name) and isinstance(module, (nn.Linear, Conv1D))
    }


def output_projections(
    layer: nn.Module, run: Callable[[torch.Tensor], torch.Tensor], states: torch.Tensor
) -> list[OutputProjection]:
    """The output projections of `layer` that can be fitted, in the order in which they are called.

    `run` runs the layer on hidden states, (windows, length, width); `states` are a few of them.
    """
    named = candidates(layer)
    order: list[str] = []
    with _outputs(named, lambda name, output: order.append(name)):
        run(states)
    found = []
    with _zeroed(layer):
        for name in order:
            if order.count(name) > 1:  # several tokens or parts of a layer share it
                continue
            factor = _factor(name, named[name], run, states)
            if factor is not None:
                found.append((name, factor))
    return [OutputProjection(name, named[name], factor) for name, factor in found]


def _factor(
    name: str,
    module: nn.Module,
    run: Callable[[torch.Tensor], torch.Tensor],
    states: torch.Tensor,
) -> float | None:
    """What a layer multiplies this output by before adding it, all others being zero; None if it
    does anything else."""
    random = torch.Generator().manual_seed(0)
    shape = states.shape
    # Tokens of different sizes, so that a norm is told from a constant.
    values = torch.randn(shape, generator=random) * torch.rand(*shape[:-1], 1, generator=random)
    values = (4 * values * states.float().std().cpu()).to(states.device)

    def replaced(_: str, output: torch.Tensor) -> torch.Tensor:
        return values.to(output.dtype).view(output.shape)

    try:
        with _outputs({name: module}, replaced):
            added = (run(states) - states).float()
    except RuntimeError:  # an output of another shape: only some tokens pass through it
        return None
    given = values.to(states.dtype).float()
    factor = float((added * given).sum() / given.square().sum())
    off = (added - factor * given).abs().max()
    if not factor or not off <= _TOLERANCE * (factor * given).abs().max():
        return None
    return factor


@contextmanager
def _zeroed(layer: nn.Module) -> Iterator[None]:
    """Within, all output projections of a layer are zero, those of experts too."""
    kept = []
    for name, parameter in list(layer.named_parameters()):
        if is_output_projection(name):
            owner, _, leaf = name.rpartition(".")
            module = layer.get_submodule(owner)
            kept.append((module, leaf, parameter))
            module._parameters[leaf] = nn.Parameter(torch.zeros_like(parameter), False)
    try:
        yield
    finally:
        for module, leaf, parameter in kept:
            module._parameters[leaf] = parameter


@contextmanager
def _outputs(
    modules: Mapping[str, nn.Module], called: Callable[[str, torch.Tensor], Any]
) -> Iterator[None]:
    """Call `called(name, output)` after each of these modules; what it returns, unless None,
    replaces the output."""
    hooks: Sequence = [
        module.register_forward_hook(lambda _, args, output, name=name: called(name, output))
        for name, module in modules.items()
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
