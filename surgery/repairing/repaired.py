"""A repaired patient: it streams and saves like any other, with the tensors that were fitted."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch

from surgery.altered import Altered, put_in
from surgery.base import Base
from surgery.plan import Plan

_HOW = {
    "refit": "the output projections of layers {where} were fitted to the base's hidden states",
    "lstsq": "the MLP's output projection of layers {where} was fitted to the base's hidden states "
    "(ReplaceMe, arXiv 2505.02819)",
    "alpha": "the output of the layers after the cut was scaled to match the smaller hidden states "
    "there (Prune&Comp, arXiv 2507.18212)",
    "damped": "each of the K copies of a repeated layer was scaled by 1/K (arXiv 2605.23872)",
}


@dataclass(frozen=True)
class Repaired(Altered):
    """A patient that was repaired without training. Its `plan` marks the fitted layers, `12@lstsq`
    or `12@refit`; the methods alpha and damped need nothing but the plan, and leave `tensors`
    empty. `facts` have the settings, the fits, and perplexities on held-out text."""

    word: ClassVar[str] = "repaired"
    record: ClassVar[str] = "repair.json"

    @classmethod
    def assemble(
        cls,
        base: Base,
        plan: Plan,
        tensors: Mapping[str, torch.Tensor],
        facts: Mapping,
        written: torch.Tensor | None = None,
    ) -> Repaired:
        """Put fitted tensors into a fresh skeleton over the base's parameters."""
        model = base.operate(plan.unfitted).model
        put_in(model, tensors)
        return cls(base, plan, model, tensors, facts, written=written)

    @property
    def note(self) -> str:
        """The method too."""
        return f"repaired, {self.facts['method']}"

    @property
    def recovered(self) -> tuple[float, float, float] | None:
        """(share, low, high) of the lost log perplexity on held-out text, with its 95 % interval;
        None if the plan lost nothing significant, or losses aren't finite."""
        found = self.facts["perplexity"]["recovered_of_log_perplexity"]
        return tuple(found) if found else None

    @property
    def helps(self) -> bool:
        """Whether it is better than the patient before it by more than chance. One whose losses are
        finite is better than one whose losses aren't."""
        scores = self.facts["perplexity"]
        if not math.isfinite(scores["cut"]):
            return math.isfinite(scores["repaired"])
        return self.recovered is not None and self.recovered[1] > 0

    @property
    def description(self) -> str:
        """What was done, for a model card."""
        facts, scores = self.facts, self.facts["perplexity"]
        where = ", ".join(map(str, facts["layers"]))
        text = f"The model was **repaired** without training: {_HOW[facts['method']]}"
        text = text.format(where=where)
        if facts["tokens"]:
            text += f", on {facts['tokens']:,} tokens of {facts['text']}"
        return (
            f"{text}. Perplexity on held-out text: base {scores['base']:.2f}, before the repair "
            f"{scores['cut']:.2f}, repaired {scores['repaired']:.2f}."
        )
