"""How much layers change what passes through them: Block Influence, angular distance, Taylor.

Block Influence (ShortGPT, arXiv 2403.03853): BI_i = 1 − E[cos(X_i, X_{i+1})] over all tokens, X_i
the input of layer i and X_{i+1} its output. Angular distance (arXiv 2403.17887): d(l, n) =
arccos(cos(x_l, x_{l+n})) / π, x_l the input of layer l at the last token of a sequence, averaged
over sequences. Both are read off the layers themselves: transformers' `hidden_states[-1]` is taken
behind the final norm. Taylor (as in Shortened LLaMA, arXiv 2402.02834): Σ |w · ∂L/∂w| over a
layer's weights, L the mean loss. Computed in float64 but for Taylor's gradients.
"""

from __future__ import annotations

import numpy as np
import torch

from surgery.architecture.inspect.hooks import layers_of, states_refused
from surgery.devices import HEADROOM, gigabytes, main_memory
from surgery.errors import SurgeryError
from surgery.plan import Plan

from .forward_cache import Passes
from .sample import Sample

TAYLOR_FORWARDS = 3  # layer-forwards that count for one with its gradients: a backward is two


class Likeness:
    """Watches a base's pass (`Passes.keep(…, watch=…)`) for both scores."""

    def __init__(self, depth: int, sample: Sample) -> None:
        self.depth, self.sequences = depth, len(sample)
        self.tokens = sum(map(len, sample.windows))
        self._cosines: list[list[np.ndarray]] = [[] for _ in range(depth)]
        self._last: dict[int, list[torch.Tensor | None]] = {}

    def __call__(
        self, batch: int, p: int, given: torch.Tensor | None, after: torch.Tensor | None
    ) -> None:
        if given is None or after is None or given.shape != after.shape:
            return
        self._cosines[p].append(cosine(given, after).flatten().numpy())
        states = self._last.setdefault(batch, [None] * (self.depth + 1))
        states[p] = _precise(given[:, -1])
        states[p + 1] = _precise(after[:, -1])

    def influence(self) -> np.ndarray:
        """1 − cos for each layer and token: (layers, tokens). NaN for layers that text alone
        doesn't run. Raises `Refused` where no layer has hidden states."""
        found = np.full((self.depth, self.tokens), np.nan)
        for p, parts in enumerate(self._cosines):
            if sum(map(len, parts)) == self.tokens:
                found[p] = 1 - np.concatenate(parts)
        if np.isnan(found).all():
            raise states_refused()
        return found

    def angular(self) -> np.ndarray:
        """d(l, n) at [l, n], NaN beyond the depth: (layers, layers + 1)."""
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
        if sequences < self.sequences:  # some windows were computed in another form
            raise states_refused()
        found = total / sequences
        for start in range(self.depth):
            found[start, 0] = 0.0
            found[start, self.depth - start + 1 :] = np.nan
        return found


def cosine(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """The cosine of hidden states token by token, in float64 on the CPU."""
    return torch.nn.functional.cosine_similarity(_precise(a), _precise(b), dim=-1)


def _precise(x: torch.Tensor) -> torch.Tensor:
    return x.detach().cpu().double()


def taylor(passes: Passes) -> np.ndarray:
    """Σ |w · ∂L/∂w| of every layer, L the mean loss over the sample: (layers,).

    Gradients are kept for all layers at once, which takes as much memory as their weights. They
    are computed for a patient's parameters, not for the base's. Raises `SurgeryError` if there is
    not enough memory.
    """
    base, sample = passes.base, passes.sample
    model = base.operate(Plan.whole(base.depth)).model
    layers = layers_of(base.anatomy, model)
    if layers is None:
        raise states_refused()
    weights = list(dict.fromkeys(w for layer in layers for w in layer.parameters()))
    weights = [w.requires_grad_(True) for w in weights if w.is_floating_point()]
    need, free = sum(w.numel() * w.element_size() for w in weights), main_memory().free
    if need * 2 > free * HEADROOM and model.device.type == "cpu":
        raise SurgeryError(
            f"Taylor needs the gradients of all layers: {gigabytes(need * 2)}, and "
            f"{gigabytes(free)} are free. The other scores do without."
        )
    slopes = [torch.zeros_like(w) for w in weights]
    for batch in passes.batches:
        ids = passes.ids(batch)
        for row in ids.split(1):
            try:
                with torch.enable_grad(), passes.counting(layers, row, TAYLOR_FORWARDS):
                    logits = model(input_ids=row, use_cache=False).logits
                    loss = torch.nn.functional.cross_entropy(
                        logits[0, :-1].float(), row[0, 1:].to(logits.device), reduction="sum"
                    )
                    part = torch.autograd.grad(loss / sample.tokens, weights, allow_unused=True)
            except RuntimeError as error:  # code that can't go backwards, no memory left
                said = " ".join(str(error).split())[:200]
                raise SurgeryError(
                    f"Taylor needs gradients, and this model gives none: {said}"
                ) from error
            for total, slope in zip(slopes, part, strict=True):
                if slope is not None:
                    total += slope
    size = {
        id(w): float((w.detach() * slope).abs().sum(dtype=torch.float32))
        for w, slope in zip(weights, slopes, strict=True)
    }
    return np.array([sum(size.get(id(w), 0.0) for w in set(x.parameters())) for x in layers])
