"""Compare a patient with one that was made with a mistake: their texts and their logits.

Both generate from one prompt with one seed. The mistakes themselves are in
`architecture.apply.naive_edits`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from transformers import PreTrainedModel
from transformers.generation.utils import ALL_CACHE_NAMES

from surgery.architecture.apply import naive_edits
from surgery.architecture.inspect.layer_list import embedding_table
from surgery.errors import SurgeryError, one_line
from surgery.generation.stream import Stream
from surgery.patient import Patient
from surgery.plan import Plan

if TYPE_CHECKING:
    from surgery.base import Base

_COMPARED = 12  # tokens of the right text after which the logits are compared
Side = Literal["right", "wrong"]


@dataclass(frozen=True)
class Difference:
    """How far the logits of two models differ on the same tokens.

    `largest` is the largest difference of a logit at any of `places` positions, `range` the widest
    range (maximum minus minimum) of the right model's logits at one position, and `other` the
    number of positions where the most likely token differs. `uncached` is the largest difference
    without the KV cache. `error` is what the wrong model raised instead, with None for `largest`
    and `other`.
    """

    places: int
    largest: float | None
    range: float
    other: int | None
    uncached: float
    error: str = ""


class Contrast:
    """`right` is a patient, and `wrong` the same with a mistake. Neither changes the base."""

    def __init__(self, right: Patient, wrong: Patient) -> None:
        self.right, self.wrong = right, wrong
        self.streams: dict[Side, Stream] = {}
        self.error = ""  # what the wrong one raised, as one line

    @classmethod
    def forgotten_norm(cls, base: Base, plan: Plan) -> Contrast:
        """The final norm keeps its initial weights. Raises `SurgeryError`."""
        return cls._with(base, plan, lambda new: naive_edits.forget_final_norm(base.anatomy, new))

    @classmethod
    def old_indices(cls, base: Base, plan: Plan) -> Contrast:
        """Every layer keeps its index in the base. Raises `SurgeryError`."""
        return cls._with(
            base, plan, lambda new: naive_edits.keep_old_indices(base.anatomy, new, plan.sources)
        )

    @classmethod
    def _with(cls, base: Base, plan: Plan, spoil: Callable[[PreTrainedModel], object]) -> Contrast:
        right, wrong = base.operate(plan), base.operate(plan)  # two skeletons over one base
        spoil(wrong.model)
        return cls(right, wrong)

    def stream(self, prompt: str, **settings) -> Iterator[tuple[Side, str]]:
        """Pieces of both texts in turn; `settings` are those of `Patient.stream`.

        If the wrong model raises, its text ends and `error` is set. Raises `SurgeryError` for what
        the right one can't do.
        """
        sides: tuple[tuple[Side, Patient], ...] = (("right", self.right), ("wrong", self.wrong))
        self.streams = {side: patient.stream(prompt, **settings) for side, patient in sides}
        waiting = dict(self.streams)
        try:
            while waiting:
                for side, stream in list(waiting.items()):
                    try:
                        yield side, next(stream)
                    except StopIteration:
                        del waiting[side]
                    except SurgeryError as error:
                        if side == "right":
                            raise
                        self.error = _error_line(error.__cause__ or error)
                        del waiting[side]
        finally:
            for stream in self.streams.values():
                stream.close()

    def difference(self, prompt: str) -> Difference:
        """Compare the logits after the prompt and after each of the right text's first tokens."""
        stream = self.right.stream(prompt, max_new_tokens=_COMPARED, greedy=True)
        for _ in stream:
            pass
        prompt_ids, follow = self.right.base.tokenizer(prompt)["input_ids"], stream.ids
        right = _next_logits(self.right.model, prompt_ids, follow)
        right_all, wrong_all = (
            _all_logits(one.model, prompt_ids, follow) for one in (self.right, self.wrong)
        )
        uncached = (right_all - wrong_all).abs().max().item()
        span = (right.amax(-1) - right.amin(-1)).max().item()
        try:
            wrong = _next_logits(self.wrong.model, prompt_ids, follow)
        except (IndexError, RuntimeError, ValueError) as error:
            return Difference(len(right), None, span, None, uncached, _error_line(error))
        other = int((right.argmax(-1) != wrong.argmax(-1)).sum())
        return Difference(
            len(right), (right - wrong).abs().max().item(), span, other, uncached, self.error
        )


@torch.inference_mode()
def _next_logits(
    model: PreTrainedModel, prompt: Sequence[int], follow: Sequence[int]
) -> torch.Tensor:
    """Logits after the prompt and after each following token, with the cache: (1 + n, vocab)."""
    device = embedding_table(model).device
    cache: dict = {}
    logits = []
    for fed in ([*prompt], *([token] for token in follow)):
        output = model(torch.tensor([fed], device=device), use_cache=True, **cache)
        name = next((n for n in ALL_CACHE_NAMES if output.get(n) is not None), None)
        if name is None:
            raise SurgeryError("This model has no KV cache, so there is nothing to compare.")
        cache = {name: output[name]}
        logits.append(output.logits[0, -1].float().cpu())
    return torch.stack(logits)


@torch.inference_mode()
def _all_logits(
    model: PreTrainedModel, prompt: Sequence[int], follow: Sequence[int]
) -> torch.Tensor:
    """Logits at the same positions in one pass without the cache: (1 + n, vocab)."""
    device = embedding_table(model).device
    output = model(torch.tensor([[*prompt, *follow]], device=device), use_cache=False)
    return output.logits[0, len(prompt) - 1 :].float().cpu()


def _error_line(error: BaseException) -> str:
    """An error's type and message on one line."""
    return f"{type(error).__name__}: {one_line(error, 200)}"
