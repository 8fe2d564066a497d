"""Weighted ridge regression from sums over tokens, with the ridge chosen on tokens not fitted.

Minimises Σ w·‖Δ·x − r‖² + ridge·mean(diag G)·‖Δ‖², where x is what a linear map is given, r what is
missing in its output, w the weight of a token, and G = Σ w·x·xᵀ the Gram matrix. The solution is
shrunk towards no change at all. Only G and Σ w·x·rᵀ are kept, in float64, so memory does not grow
with the number of tokens. On a device without float64, Apple's GPU, they are kept on the CPU.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

#: Ridges to choose from, relative to the mean of the Gram matrix's diagonal.
RIDGES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)


@dataclass(frozen=True)
class Fit:
    """The change of a linear map, (outputs, inputs) in float64; None if no ridge lowers the error
    on the tokens that were held out. Errors are weighted means over those tokens, without and
    with the change."""

    change: torch.Tensor | None
    ridge: float | None
    before: float
    after: float


def fit_bytes(inputs: int, outputs: int) -> int:
    """What `fit` and its sums take in float64: four matrices of inputs by inputs (two Gram
    matrices, one with a ridge, its factor) and six of inputs by outputs (products and changes)."""
    return torch.float64.itemsize * inputs * (4 * inputs + 6 * outputs)


class Sums:
    """Sums over tokens: the Gram matrix of the inputs, their products with the residuals, and the
    residuals' squares."""

    def __init__(self, inputs: int, outputs: int, device: torch.device) -> None:
        if device.type == "mps":
            device = torch.device("cpu")
        self.gram = torch.zeros(inputs, inputs, dtype=torch.float64, device=device)
        self.product = torch.zeros(inputs, outputs, dtype=torch.float64, device=device)
        self.square = torch.zeros(1, dtype=torch.float64, device=device)
        self.tokens = 0

    def add(self, x: torch.Tensor, r: torch.Tensor, w: torch.Tensor) -> None:
        """Add tokens: `x` (tokens, inputs), `r` (tokens, outputs), `w` (tokens,), in float32."""
        root = w.sqrt()[:, None]
        x, r = x * root, r * root
        device = self.gram.device
        self.gram += (x.T @ x).to(device)
        self.product += (x.T @ r).to(device)
        self.square += r.square().sum().to(device)
        self.tokens += len(x)

    @property
    def finite(self) -> bool:
        """Whether all sums are finite."""
        return bool(self.square.isfinite() and self.gram.isfinite().all())

    def error(self, change: torch.Tensor) -> float:
        """Σ w·‖Δ·x − r‖² for a change Δ given as (inputs, outputs)."""
        quadratic = ((self.gram @ change) * change).sum()
        return float(self.square + quadratic - 2 * (self.product * change).sum())


def fit(fitted: Sums, held_out: Sums) -> Fit:
    """The best change by the tokens of `held_out` among those that each ridge gives on the tokens
    of `fitted`."""
    before = float(held_out.square) / max(1, held_out.tokens)
    best = Fit(None, None, before, before)
    scale = float(fitted.gram.diagonal().mean())
    if not scale > 0:
        return best
    for ridge in RIDGES:
        change = _solved(fitted, ridge * scale)
        if change is None:
            continue
        after = held_out.error(change) / max(1, held_out.tokens)
        if after < best.after:
            best = Fit(change.T, ridge, before, after)
    return best


def _solved(sums: Sums, ridge: float) -> torch.Tensor | None:
    """The change for one ridge, (inputs, outputs); None with fewer tokens than inputs and a ridge
    too small to make up for it."""
    regularised = sums.gram.clone()
    regularised.diagonal().add_(ridge)
    factor, wrong = torch.linalg.cholesky_ex(regularised)
    return None if wrong else torch.cholesky_solve(sums.product, factor)
