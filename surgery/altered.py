"""A patient some of whose weights were changed after the operation, by a repair or by healing."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar, Self

import torch
from torch import nn

from .base import Base
from .checkpoint.trained import TrainedTensors
from .patient import Patient
from .progress import Progress, silent


@dataclass(frozen=True)
class Altered(Patient, ABC):
    """A `Patient` whose `model` has the changed weights, in the base's dtype: as it is saved.

    `tensors` are the changed ones in float32, by their names in the patient; `facts` say how they
    came about, for JSON. A healing run that begins from it goes on with `written`, text that the
    base wrote for it, (windows, length), and with `evaluator`, the `healing.Evaluator` that has
    scored base and cut patient.
    """

    word: ClassVar[str]  # what was done to it, in one word
    record: ClassVar[str]  # the file of the facts beside a saved checkpoint

    base: Base
    tensors: Mapping[str, torch.Tensor] = field(default_factory=dict, repr=False)
    facts: Mapping = field(default_factory=dict, repr=False)
    written: torch.Tensor | None = field(default=None, repr=False, compare=False, kw_only=True)
    evaluator: object = field(default=None, repr=False, compare=False, kw_only=True)

    @property
    def note(self) -> str:
        """What was done, in a few words."""
        return self.word

    @property
    @abstractmethod
    def description(self) -> str:
        """What was done, for a model card."""

    @property
    def key(self) -> str:
        """Identifies what was done: the settings, and the perplexities that resulted."""
        facts = {name: fact for name, fact in self.facts.items() if name != "seconds"}
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]

    def again(self) -> Self:
        """The same patient in another skeleton, sharing all parameters."""
        model = self.base.operate(self.plan.unfitted).model
        for name in self.tensors:
            (mine, leaf), (other, _) = _place(self.model, name), _place(model, name)
            other._parameters[leaf] = mine._parameters[leaf]
        return replace(self, model=model)

    def save(
        self,
        out: str | Path,
        *,
        dtype: str | None = None,
        shard_size: str | int = "5GB",
        overwrite: bool = False,
        progress: Progress = silent,
    ) -> Path:
        """Write the checkpoint as `Base.save` does; only the changed tensors pass through memory.
        Returns the folder."""
        trained = TrainedTensors(self.tensors, self.description, self.facts, self.word, self.record)
        return self.base.save(
            self.plan.unfitted,
            out,
            dtype=dtype,
            shard_size=shard_size,
            overwrite=overwrite,
            healed=trained,
            progress=progress,
        )


def put_in(model: nn.Module, tensors: Mapping[str, torch.Tensor]) -> None:
    """Give a patient's skeleton parameters of its own, in the dtype and on the device of those that
    they replace."""
    for name, tensor in tensors.items():
        module, leaf = _place(model, name)
        old = module.get_parameter(leaf)
        new = tensor.to(old.device, old.dtype, copy=True)
        module._parameters[leaf] = nn.Parameter(new, requires_grad=False)


def _place(model: nn.Module, name: str) -> tuple[nn.Module, str]:
    """The module that holds a parameter, and its name there."""
    owner, _, leaf = name.rpartition(".")
    return model.get_submodule(owner), leaf
