"""Grade items by a model's probabilities, without generating anything.

The margin of an item is ln p(right) − max ln p(wrong) after its prompt, each summed over the tokens
of the continuation, in nats. It is above 0 if the model prefers the right one.

A tokenizer may merge the end of a prompt with what follows, and with one continuation otherwise
than with another. So prompt and continuation are tokenized together, and every continuation is
scored from the first token at which any of them leaves the prompt's own tokens. All are given the
same tokens then, and the end of the prompt, where it is scored too, is in each sum.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING

import torch
from transformers import PreTrainedModel

from surgery.analysis.passes import batches_of, each_logits, ids_of
from surgery.analysis.sample import Sample, first_token
from surgery.errors import SurgeryError
from surgery.plan import Plan
from surgery.progress import Meter, Progress, silent

from .item import Item

if TYPE_CHECKING:
    from surgery.base import Base


@dataclass(frozen=True)
class _Tokens:
    """An item as tokens: each continuation with the prompt before it, the right one first. They are
    scored from the token `start` on."""

    texts: tuple[tuple[int, ...], ...]
    start: int

    @property
    def rows(self) -> tuple[tuple[int, ...], ...]:
        """What a model has to read for each: all but the last token, which is only scored. So
        continuations of one token have the same row."""
        return tuple(text[:-1] for text in self.texts)


def margins(
    base: Base,
    model: PreTrainedModel,
    plan: Plan,
    items: Sequence[Item],
    progress: Progress = silent,
) -> tuple[float, ...]:
    """The margin of each item in nats; NaN if the model's output is not a number.

    `model` is made from `base` and `plan`. Rows of one length run as one batch, so none is padded.
    `progress` counts tokens times layers and may raise. Raises `SurgeryError` for a tokenizer or a
    context that the items don't fit, or a model that can't run.
    """
    tokens = [_tokens(base, item) for item in items]
    longer_first = sorted({row for one in tokens for row in one.rows}, key=lambda r: (-len(r), r))
    _check_length(base, len(longer_first[0]))
    sample = Sample(tuple(longer_first))
    places: dict[tuple[int, ...], list[tuple[int, int]]] = {}  # of each row: (item, continuation)
    for i, one in enumerate(tokens):
        for j, row in enumerate(one.rows):
            places.setdefault(row, []).append((i, j))
    scores = [[0.0] * len(one.texts) for one in tokens]
    ranges = batches_of(model, sample)
    batches = [ids_of(model, sample, *batch) for batch in ranges]
    meter = Meter(progress, "Probing skills", len(plan) * sum(map(len, sample.windows)))
    passes = each_logits(base, model, plan, batches, lambda ids, *_: meter.add(ids.numel()))
    for start, end in ranges:  # the last logits aren't kept while the next are computed
        for row, logits in zip(sample.windows[start:end], next(passes), strict=True):
            for i, j in places[row]:
                scores[i][j] = _log_p(logits, tokens[i].texts[j], tokens[i].start)
        del logits
    return tuple(_margin(*one) for one in scores)


def tokens_to_read(base: Base, items: Sequence[Item]) -> int:
    """How many tokens a model reads to grade items. Raises `SurgeryError` as `margins` does."""
    rows = {row for item in items for row in _tokens(base, item).rows}
    return sum(map(len, rows))


def _tokens(base: Base, item: Item) -> _Tokens:
    first = first_token(base)

    def ids(text: str) -> tuple[int, ...]:
        return first + tuple(base.tokenizer(text, add_special_tokens=False)["input_ids"])

    texts = tuple(ids(item.prompt + continuation) for continuation in item.continuations)
    together = zip(ids(item.prompt), *texts, strict=False)
    start = sum(1 for _ in takewhile(lambda tokens: len(set(tokens)) == 1, together))
    if not start or min(map(len, texts)) <= start:
        raise SurgeryError(
            f"The tokenizer of {base.name} can't write an item: “{' '.join(item.prompt.split())}”, "
            f"then “{item.right}”. Skills can't be probed."
        )
    for text in texts:
        base.check_tokens(text)
    return _Tokens(texts, start)


def _check_length(base: Base, longest: int) -> None:
    if base.context and longest > base.context:
        raise SurgeryError(
            f"An item has {longest:,} tokens, and this model's context holds {base.context:,}. "
            "Skills can't be probed."
        )


def _log_p(logits: torch.Tensor, text: tuple[int, ...], start: int) -> float:
    """ln p of the tokens from `start` on, given those before. `logits`: (length, vocabulary)."""
    log_p = logits[start - 1 :].float().log_softmax(-1)
    scored = torch.tensor(text[start:], device=log_p.device)
    return float(log_p.gather(1, scored[:, None]).sum())


def _margin(right: float, *wrong: float) -> float:
    return right - float(torch.tensor(wrong).max())  # NaN if any is
