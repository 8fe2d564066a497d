"""What the patient is to get better at: agreeing with its teacher, or the next token.

Knows logits and hidden states, nothing of where they come from. Everything is a mean over tokens,
so equal parts of a batch may be averaged.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F


def next_token(logits: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy in nats. `logits` (batch, time, vocabulary), `ids` (batch, time)."""
    return F.cross_entropy(logits[:, :-1].flatten(0, 1).float(), ids[:, 1:].flatten())


def distill(student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
    """T²·KL(teacher ‖ student) of the next token, mean over tokens, in nats (arXiv 1503.02531).

    Both are logits, (batch, time, vocabulary). The last position counts too: the teacher needs no
    next token to have an opinion.
    """
    found = F.kl_div(
        F.log_softmax(student.flatten(0, 1).float() / temperature, -1),
        F.log_softmax(teacher.flatten(0, 1).float() / temperature, -1),
        reduction="batchmean",
        log_target=True,
    )
    return temperature**2 * found


def distance(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """|s − t|² / |t|² of hidden states (batch, time, width), mean over tokens."""
    student, teacher = student.float(), teacher.float()
    return ((student - teacher).pow(2).sum(-1) / teacher.pow(2).sum(-1).clamp_min(1e-6)).mean()


class Watched:
    """Keeps what given modules return while a model runs, as hidden states."""

    def __init__(self, modules: list[nn.Module]) -> None:
        self._modules = modules
        self._found: dict[nn.Module, torch.Tensor] = {}
        for module in set(modules):
            module.register_forward_hook(self._keep)

    def _keep(self, module: nn.Module, args: tuple, output: object) -> None:
        self._found[module] = output[0] if isinstance(output, tuple) else output

    def take(self) -> list[torch.Tensor]:
        """What each of the modules returned last, in the order in which they were given."""
        found, self._found = self._found, {}
        return [found[module] for module in self._modules if module in found]
