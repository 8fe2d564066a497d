"""Teacher and student over the same sequences, and the loss between them."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch
from torch import nn
from transformers import PreTrainedModel

from surgery.architecture.inspect.layer_list import layer_list
from surgery.base import Base
from surgery.compute.contexts import compute_dtype, many_rows, stored_dtype
from surgery.plan import Plan

from . import objective
from .settings import Settings


class Distillation:
    """The uncut base as a frozen teacher of the patient whose model is `student`."""

    def __init__(
        self, base: Base, plan: Plan, settings: Settings, student: PreTrainedModel
    ) -> None:
        self.settings = settings
        self.teacher = base.operate(Plan.whole(base.depth)).model
        self._half = base.torch_dtype in (torch.bfloat16, torch.float16)
        # At a seam the student should have the hidden states that the teacher has before the layer
        # that follows.
        seams = zip(plan.seams, _followers(plan), strict=True) if settings.hidden else ()
        pairs = [(p, source) for p, source in seams if p and source]
        self._of_student = objective.HiddenStates(_before(base, student, [p for p, _ in pairs]))
        self._of_teacher = objective.HiddenStates(
            _before(base, self.teacher, [s for _, s in pairs])
        )

    def loss(self, model: nn.Module, ids: torch.Tensor) -> torch.Tensor:
        """Mean loss over token ids (batch, time). `model` is the student, perhaps wrapped."""
        s = self.settings
        with self.computing(ids.device):
            logits = model(input_ids=ids, use_cache=False).logits
            if s.objective == "next-token":
                return objective.next_token(logits, ids)
            with torch.no_grad():
                target = self.teacher(input_ids=ids, use_cache=False).logits
        loss = objective.distill(logits, target, s.temperature)
        if s.hidden:
            pairs = zip(self._of_student.take(), self._of_teacher.take(), strict=True)
            loss = loss + s.hidden * sum(objective.distance(a, b) for a, b in pairs)
        return loss

    def computing(self, device: torch.device) -> AbstractContextManager:
        """If the base is in half precision: float32 where the device multiplies that faster, else
        autocast to bfloat16. Sums stay in float32."""
        if compute_dtype(self.teacher) != stored_dtype(self.teacher):
            return many_rows(self.teacher, copies_fit=True)  # checked before the run
        return torch.autocast(device.type, torch.bfloat16, enabled=self._half)

    def forget(self) -> None:
        """Drop the hidden states recorded during an evaluation."""
        self._of_student.take()


def _before(base: Base, model: nn.Module, positions: list[int]) -> list[nn.Module]:
    layers = layer_list(model, base.anatomy.stack.paths[0])
    return [layers[p - 1] for p in positions]


def _followers(plan: Plan) -> list[int]:
    """The source of the layer after each seam; the depth after the last layer."""
    sources = [*plan.sources, plan.depth]
    return [sources[p] for p in plan.seams]
