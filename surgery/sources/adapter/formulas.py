"""What an adapter does to a stored tensor: PEFT's formulas, in PEFT's order of operations.

Products are computed in float32. Where PEFT rounds a product to the weights' dtype before adding
it, so does this; elsewhere the sum is rounded once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch


class Change(Protocol):
    """Something that makes a new tensor of a stored one, of the same shape and dtype."""

    def apply(self, weight: torch.Tensor) -> torch.Tensor:
        """Return the new tensor; `weight` may be overwritten."""


@dataclass(frozen=True)
class Replaced:
    """A tensor that was trained whole (`modules_to_save`, biases, saved embeddings)."""

    value: torch.Tensor

    def apply(self, weight: torch.Tensor) -> torch.Tensor:
        """The trained tensor in the stored dtype."""
        return self.value.to(weight.dtype)


@dataclass(frozen=True)
class Rows:
    """Rows of an embedding that were trained (`trainable_token_indices`)."""

    rows: torch.Tensor
    value: torch.Tensor

    def apply(self, weight: torch.Tensor) -> torch.Tensor:
        """The stored tensor with those rows replaced."""
        return weight.index_copy_(0, self.rows, self.value.to(weight.dtype))


@dataclass(frozen=True)
class Added:
    """A bias of B, multiplied by the adapter's scale (`lora_bias`)."""

    value: torch.Tensor
    scale: float

    def apply(self, weight: torch.Tensor) -> torch.Tensor:
        """The stored bias plus the scaled one."""
        return weight.add_(self.value.float() * self.scale)


@dataclass(frozen=True)
class LowRank:
    """W + scale·B·A, (out, in) from B (out, rank) and A (rank, in).

    `transposed`: W is stored as (in, out). `rounded`: the product is rounded to W's dtype first.
    `magnitude` (out) rescales the sum as DoRA does (arXiv 2402.09353, equation 5).
    """

    a: torch.Tensor
    b: torch.Tensor
    scale: float
    transposed: bool = False
    rounded: bool = False
    magnitude: torch.Tensor | None = None

    def apply(self, weight: torch.Tensor) -> torch.Tensor:
        """The merged weight, in the stored dtype."""
        delta = self.b.float() @ self.a.float()
        delta = (delta.T if self.transposed else delta).mul_(self.scale)
        if self.magnitude is not None:
            return self._rescaled(weight, delta)
        return weight.add_(delta.to(weight.dtype) if self.rounded else delta)

    def _rescaled(self, weight: torch.Tensor, delta: torch.Tensor) -> torch.Tensor:
        assert self.magnitude is not None
        merged = weight + delta
        norm = torch.linalg.norm(merged.T if self.transposed else merged, dim=1)
        factor = (self.magnitude.float() / norm.to(merged.dtype)).view(-1, 1)
        return (merged.mul_(factor.T if self.transposed else factor)).to(weight.dtype)


def experts_delta(
    a: torch.Tensor, b: torch.Tensor, scale: float, experts: int, swapped: bool
) -> torch.Tensor:
    """The change of a parameter of all experts (experts, …): float32.

    A is (rank·experts, in) and B (out, rank·experts). The parameter is (experts, out, in) if
    `swapped`, else (experts, in, out).
    """
    a = a.float().reshape(experts, -1, a.shape[-1])
    b = b.float().reshape(b.shape[0], -1, experts)
    form = "o r e, e r i -> e o i" if swapped else "o r e, e r i -> e i o"
    return torch.einsum(form, b, a) * scale


@dataclass(frozen=True)
class Sum:
    """A difference that is already computed; `rounded` to the stored dtype before it is added."""

    delta: torch.Tensor
    rounded: bool

    def apply(self, weight: torch.Tensor) -> torch.Tensor:
        """The stored tensor plus the difference."""
        return weight.add_(self.delta.to(weight.dtype) if self.rounded else self.delta)
