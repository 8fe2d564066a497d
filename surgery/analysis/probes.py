"""Scores read off the hidden states of the base's own pass: Block Influence and angular distance.

The states are read at the layers themselves: `hidden_states[-1]` of transformers is taken after the
final norm, so a score of the last layer computed from it would be wrong. All is in float64.
"""

from __future__ import annotations

import numpy as np
import torch

from surgery.architecture.inspect.hooks import states_refused
from surgery.compute.contexts import precise

from .sample import Sample


class BlockInfluence:
    """BI_i = 1 − E[cos(X_i, X_{i+1})] over all tokens, X_i the input of layer i and X_{i+1} its
    output (ShortGPT, arXiv 2403.03853)."""

    def __init__(self, depth: int, sample: Sample) -> None:
        self.depth, self.tokens = depth, sum(map(len, sample.windows))
        self._cosines: list[list[np.ndarray]] = [[] for _ in range(depth)]

    def __call__(
        self, batch: int, layer: int, given: torch.Tensor | None, after: torch.Tensor | None
    ) -> None:
        if given is not None and after is not None and given.shape == after.shape:
            self._cosines[layer].append(cosine(given, after).flatten().cpu().numpy())

    def result(self) -> np.ndarray:
        """1 − cos for each layer and token: (layers, tokens). NaN for layers that text alone
        doesn't run. Raises `Refused` where no layer has hidden states."""
        influence = np.full((self.depth, self.tokens), np.nan)
        for layer, parts in enumerate(self._cosines):
            if sum(map(len, parts)) == self.tokens:
                influence[layer] = 1 - np.concatenate(parts)
        if np.isnan(influence).all():
            raise states_refused()
        return influence


class AngularDistance:
    """d(l, n) = arccos(cos(x_l, x_{l+n})) / π, x_l the input of layer l at the last token of a
    sequence, averaged over sequences (arXiv 2403.17887)."""

    def __init__(self, depth: int, sample: Sample) -> None:
        self.depth, self.sequences = depth, len(sample)
        self._last: dict[int, list[torch.Tensor | None]] = {}

    def __call__(
        self, batch: int, layer: int, given: torch.Tensor | None, after: torch.Tensor | None
    ) -> None:
        if given is not None and after is not None and given.shape == after.shape:
            states = self._last.setdefault(batch, [None] * (self.depth + 1))
            states[layer], states[layer + 1] = (
                precise(x[:, -1].detach()).cpu() for x in (given, after)
            )

    def result(self) -> np.ndarray:
        """d(l, n) at [l, n], NaN beyond the depth: (layers, layers + 1). Raises `Refused` where
        there are no hidden states."""
        total, sequences = np.zeros((self.depth, self.depth + 1)), 0
        for states in self._last.values():
            first = next(x for x in states if x is not None)
            blank = torch.full_like(first, torch.nan)
            x = torch.stack([blank if s is None else s for s in states])
            x = x / x.norm(dim=-1, keepdim=True)
            for sequence in x.unbind(1):
                angles = torch.arccos((sequence @ sequence.T).clamp(-1, 1)) / torch.pi
                for start in range(self.depth):
                    row = angles[start, start:].numpy()
                    total[start, : len(row)] += row
                sequences += 1
        if sequences < self.sequences:  # the states of some windows had another shape
            raise states_refused()
        mean = total / sequences
        for start in range(self.depth):
            mean[start, 0] = 0.0
            mean[start, self.depth - start + 1 :] = np.nan
        return mean


def cosine(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """The cosine of hidden states token by token, in float64."""
    a, b = (precise(x.detach().to(b.device)) for x in (a, b))
    return torch.nn.functional.cosine_similarity(a, b, dim=-1)
