"""A patient beside one that was made with a mistake: the texts of both, and how far they are apart.

Knows how a mistake is shown: two streams from one prompt with one seed, and the logits of both on
the same tokens. What the mistakes are is the architecture's affair.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from transformers import PreTrainedModel
from transformers.generation.utils import ALL_CACHE_NAMES

from surgery.architecture.apply import naive_edits
from surgery.errors import SurgeryError
from surgery.generation import Stream
from surgery.patient import Patient
from surgery.plan import Plan

if TYPE_CHECKING:
    from surgery.base import Base

_COMPARED = 12  # tokens of the right text on which the logits are compared
Side = Literal["right", "wrong"]


@dataclass(frozen=True)
class Difference:
    """How far two models are apart on the same tokens.

    `largest` is the largest difference of a logit in any of `places` places, `range` the widest
    span of the right one's logits (most minus least) in one place, `other` the number of places
    where the likeliest token is another one. `uncached` is the largest difference once nothing is
    kept from token to token. `error` is what the wrong model raised instead; then `largest` and
    `other` are None.
    """

    places: int
    largest: float | None
    range: float
    other: int | None
    uncached: float
    error: str = ""


class Contrast:
    """`right` is the patient; `wrong` the same with a mistake. Neither touches the base."""

    def __init__(self, right: Patient, wrong: Patient) -> None:
        self.right, self.wrong = right, wrong
        self.streams: dict[Side, Stream] = {}
        self.error = ""  # what stopped the wrong one, as transformers words it

    @classmethod
    def forgotten_norm(cls, base: Base, plan: Plan) -> Contrast:
        """The final norm left as a fresh model has it. Raises `SurgeryError`."""
        return cls._with(base, plan, lambda new: naive_edits.forget_final_norm(base.anatomy, new))

    @classmethod
    def old_indices(cls, base: Base, plan: Plan) -> Contrast:
        """Every layer's index left as it was in the base. Raises `SurgeryError`."""
        return cls._with(
            base, plan, lambda new: naive_edits.keep_old_indices(base.anatomy, new, plan.sources)
        )

    @classmethod
    def _with(cls, base: Base, plan: Plan, spoil: Callable[[PreTrainedModel], object]) -> Contrast:
        right, wrong = base.operate(plan), base.operate(plan)  # two skeletons over one base
        spoil(wrong.model)
        return cls(right, wrong)

    def stream(self, prompt: str, **settings) -> Iterator[tuple[Side, str]]:
        """Pieces of both texts in turn; settings are those of `Patient.stream`.

        Where the wrong one can't go on, its text ends and `error` says why. Raises `SurgeryError`
        for what the right one can't do.
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
                        self.error = _worded(error.__cause__ or error)
                        del waiting[side]
        finally:
            for stream in self.streams.values():
                stream.close()

    def difference(self, prompt: str) -> Difference:
        """Both models' logits after the prompt and after each of the right text's first tokens."""
        stream = self.right.stream(prompt, max_new_tokens=_COMPARED, greedy=True)
        for _ in stream:
            pass
        prompt_ids, said = self.right.base.tokenizer(prompt)["input_ids"], stream.ids
        right = _next_logits(self.right.model, prompt_ids, said)
        apart = _all_logits(self.right.model, prompt_ids, said)
        apart = (apart - _all_logits(self.wrong.model, prompt_ids, said)).abs().max().item()
        span = (right.amax(-1) - right.amin(-1)).max().item()
        try:
            wrong = _next_logits(self.wrong.model, prompt_ids, said)
        except (IndexError, RuntimeError, ValueError) as error:
            return Difference(len(right), None, span, None, apart, _worded(error))
        other = int((right.argmax(-1) != wrong.argmax(-1)).sum())
        return Difference(
            len(right), (right - wrong).abs().max().item(), span, other, apart, self.error
        )


@torch.inference_mode()
def _next_logits(
    model: PreTrainedModel, prompt: Sequence[int], follow: Sequence[int]
) -> torch.Tensor:
    """Logits after the prompt and after each following token, with the cache: (1 + n, vocab)."""
    device = model.get_input_embeddings().weight.device
    cache, found = {}, []
    for fed in ([*prompt], *([token] for token in follow)):
        output = model(torch.tensor([fed], device=device), use_cache=True, **cache)
        name = next((n for n in ALL_CACHE_NAMES if output.get(n) is not None), None)
        if name is None:
            raise SurgeryError("This model keeps no cache, so there is nothing to compare.")
        cache = {name: output[name]}
        found.append(output.logits[0, -1].float().cpu())
    return torch.stack(found)


@torch.inference_mode()
def _all_logits(
    model: PreTrainedModel, prompt: Sequence[int], follow: Sequence[int]
) -> torch.Tensor:
    """The same places in one pass without the cache: (1 + n, vocab)."""
    device = model.get_input_embeddings().weight.device
    output = model(torch.tensor([[*prompt, *follow]], device=device), use_cache=False)
    return output.logits[0, len(prompt) - 1 :].float().cpu()


def _worded(error: BaseException) -> str:
    """An error as Python shows it: its kind and its words, on one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
