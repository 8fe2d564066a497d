"""Losses: distillation KL, next-token, hidden-state distance.

Each is a mean over tokens, so equal parts of a batch can be averaged.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F


def next_token(logits: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy in nats. `logits` (batch, time, vocabulary), `ids` (batch, time)."""
    return F.cross_entropy(logits[:, :-1].flatten(0, 1).float(), ids[:, 1:].flatten())


def distill(student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
    """T²·KL(teacher ‖ student) of the next token, mean over tokens, in nats (arXiv 1503.02531).

    Both are logits, (batch, time, vocabulary). The last position counts too, since the
    teacher's distribution needs no known next token.
    """
    divergence = F.kl_div(
        F.log_softmax(student.flatten(0, 1).float() / temperature, -1),
        F.log_softmax(teacher.flatten(0, 1).float() / temperature, -1),
        reduction="batchmean",
        log_target=True,
    )
    return temperature**2 * divergence


def distance(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """|s − t|² / |t|² of hidden states (batch, time, width), mean over tokens."""
    student, teacher = student.float(), teacher.float()
    return ((student - teacher).pow(2).sum(-1) / teacher.pow(2).sum(-1).clamp_min(1e-6)).mean()


class HiddenStates:
    """Records the hidden states that some modules return while a model runs."""

    def __init__(self, modules: list[nn.Module]) -> None:
        self._modules = modules
        self._outputs: dict[nn.Module, torch.Tensor] = {}
        for module in set(modules):
            module.register_forward_hook(self._keep)

    def _keep(self, module: nn.Module, args: tuple, output: Any) -> None:
        self._outputs[module] = output[0] if isinstance(output, tuple) else output

    def take(self) -> list[torch.Tensor]:
        """Return and forget the last output of each module, in the order of the modules."""
        outputs, self._outputs = self._outputs, {}
        return [outputs[module] for module in self._modules if module in outputs]
