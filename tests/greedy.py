"""Greedy text of two processes: the same, or parted where the likeliest tokens are tied."""

from __future__ import annotations

import torch

STEP = 2**-8  # between neighbouring numbers in bfloat16, relative to them


def tied(logits: torch.Tensor, tokens: torch.Tensor) -> bool:
    """Whether each of `tokens`, (n,), is the likeliest by its row of `logits`, (n, vocabulary), or
    as likely as bfloat16 can tell."""
    chosen = logits.gather(1, tokens[:, None])[:, 0]
    return bool((logits.max(-1).values - chosen).max() <= 4 * STEP * logits.abs().max())


def agrees(patient, prompt: str, shown: str, ids: list[int]) -> bool:
    """Whether `shown` is the text of `ids`, which `patient` has generated after `prompt`; or as far
    as a token where another was as likely, since other threads add up in another order."""
    tokenizer = patient.base.tokenizer

    def text(count: int) -> str:
        return tokenizer.decode(ids[:count], skip_special_tokens=True)

    if shown == text(len(ids)):
        return True
    same = max(k for k in range(len(ids)) if shown.startswith(text(k)))
    given = torch.tensor([tokenizer(prompt)["input_ids"] + ids[:same]])
    with torch.no_grad():
        logits = patient.model(input_ids=given, use_cache=False).logits[0, -1].float()
    return tied(logits[None], logits.topk(2).indices[1:])
