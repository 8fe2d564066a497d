"""Text that the base itself writes, for training without data: many rows side by side.

Data-free distillation as in LLM-QAT (arXiv 2305.17888).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from transformers.generation.utils import ALL_CACHE_NAMES

from surgery.architecture.inspect.layer_list import embedding_table
from surgery.base import Base
from surgery.compute.contexts import many_rows, precise
from surgery.compute.narrow_products import narrow_products
from surgery.errors import BaseError
from surgery.generation.preallocated_cache import preallocate
from surgery.memory.out_of_memory import memory_explained
from surgery.plan import Plan
from surgery.progress import Progress, silent
from surgery.texts.default_text import PYTHON

from .settings import Settings
from .time_budget import Writing

_ROWS = 96  # windows sampled side by side: a hundred cost half of what 48 do, per token
_ROWS_UNKNOWN = 48  # the same, for models whose cache size is unknown
_ROWS_FIRST = 8  # the same, until its duration is known
_MORE = 4  # times the rows written before: 32 rows take hardly longer than 8
_CACHE = 3_000_000_000  # largest cache, in bytes
_GREEDY = 4  # tokens after the first that are the most likely ones
_BLOCK = 256  # tokens of which one is drawn
_BELOW_ONE = 1 - 1e-12  # so that rounding can't lead past the last weight
_WRITING = "The base writes text"


def sampled(
    base: Base,
    count: int,
    window: int,
    seed: int,
    progress: Progress = silent,
    writing: Writing | None = None,
) -> torch.Tensor:
    """`count` windows that the base itself writes, (count, window), `window` within its context:
    data-free distillation as in LLM-QAT (arXiv 2305.17888). The first token of each is a word drawn
    uniformly from the vocabulary, the next few are the most likely ones, all others are drawn from
    the base's unmodified distribution. With `writing`, as many as that says, and no more than
    `count`.
    """
    base.load(progress)
    random = torch.Generator().manual_seed(seed)
    most, begun = rows_at_once(base, window), time.monotonic()
    batches = [torch.empty(0, window, dtype=torch.int64)]
    least = max(0, _ROWS_FIRST - writing.have) if writing else 0
    done, shown = 0, 0.0

    def wanted(tokens: int) -> int:  # windows in all, by the time that so many tokens have taken
        if writing is None:
            return count
        each = (time.monotonic() - begun) * window / tokens if tokens else 0.0
        return min(count, max(least, writing.windows(each)))

    def written(tokens: int) -> None:  # of the windows that are being written
        nonlocal shown
        tokens += done * window
        # The first tokens take longest, so the total grows: what is shown never goes back.
        shown = max(shown, tokens / max(tokens, wanted(tokens) * window))
        progress(_WRITING, tokens, round(tokens / shown))

    if not wanted(0):
        return batches[0].to(torch.int32)
    words = _words(base)
    while (left := wanted(done * window) - done) > 0:
        rows = min(most, left)
        if writing is not None:  # few first, to learn how long they take, then four times as many
            if done >= least and left < _ROWS_FIRST:
                break
            rows = min(rows, max(_MORE * done, _ROWS_FIRST))
        first = words[torch.randint(len(words), (rows, 1), generator=random)]
        with (
            narrow_products(rows),
            many_rows(base.model, rows),
            memory_explained("Choose a shorter sequence length."),
        ):
            batches.append(_continued(base, first, window, random, written))
        done += rows
    progress(_WRITING, done * window, done * window)
    return torch.cat(batches).to(torch.int32)


def _continued(
    base: Base,
    first: torch.Tensor,
    window: int,
    random: torch.Generator,
    written: Callable[[int], None],
) -> torch.Tensor:
    """Rows of one token, (rows, 1), continued to (rows, window). `written` is called with the
    number of tokens so far."""
    model = base.model
    device = embedding_table(model).device
    rows, fed = [first], first
    cache: dict[str, Any] = {}
    for place in range(1, window):
        with torch.inference_mode():
            output = model(input_ids=fed.to(device), use_cache=True, **cache)
        if not output.logits.shape[1]:
            raise BaseError(f"{base.name} can't write text: it returns no logits for one token.")
        logits = output.logits[:, -1].float()
        highest, likeliest = logits.max(-1, keepdim=True)
        if not highest.isfinite().all():
            raise BaseError(f"{base.name} can't write text: its output is not finite.")
        new = likeliest if place <= _GREEDY else _drawn((logits - highest).exp(), random)
        rows.append(new.cpu())
        name = next((n for n in ALL_CACHE_NAMES if output.get(n) is not None), None)
        fed, cache = (new, {name: output[name]}) if name else (torch.cat(rows, 1), {})
        if name and place == 1:
            preallocate(output[name], window)
        written((place + 1) * len(first))
    return torch.cat(rows, 1)


def _drawn(weights: torch.Tensor, random: torch.Generator) -> torch.Tensor:
    """A token for each row of weights, (rows, 1), each as likely as its share of the row.

    First a block of tokens is drawn, then one of them: several times faster than
    `torch.multinomial`, which draws a number for every token.
    """
    blocks = F.pad(weights, (0, -weights.shape[1] % _BLOCK)).unflatten(1, (-1, _BLOCK))
    points = torch.rand(2, len(weights), 1, generator=random, dtype=torch.float64)
    block = _at(blocks.sum(-1), points[0])
    row = torch.arange(len(weights), device=weights.device)[:, None]
    return block * _BLOCK + _at(blocks[row, block].squeeze(1), points[1])


def _at(weights: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """The index in each row of weights that a point of [0, 1) falls on, (rows, 1)."""
    sums = precise(weights).cumsum(-1)
    points = points.to(sums.device).clamp_max(_BELOW_ONE) * sums[:, -1:]
    # The first sum above the point: right=True passes over weights of zero.
    return torch.searchsorted(sums, points, right=True).to(weights.device)


def _words(base: Base) -> torch.Tensor:
    """Tokens that a text may begin with: those made of letters, or any if there are few."""
    rows = base.known_tokens
    if not base.has_tokenizer:
        return torch.arange(rows)
    tokenizer = base.tokenizer
    special = set(tokenizer.all_special_ids)
    ids = [i for i in range(min(len(tokenizer), rows)) if i not in special]
    texts = tokenizer.batch_decode([[i] for i in ids])
    letters = [i for i, text in zip(ids, texts, strict=True) if text.strip().isalpha()]
    return torch.tensor(letters if len(letters) > 20 else ids)


def writing_bytes(base: Base, settings: Settings) -> int:
    """Bytes of the KV cache, in the dtype of the weights, while the base writes the text; 0 if it
    writes none."""
    s = settings
    if s.text or s.data or s.default_text == PYTHON:
        return 0
    return rows_at_once(base, s.window) * s.window * _cached(base)


def rows_at_once(base: Base, window: int) -> int:
    """How many windows the base writes side by side. It depends on the model alone, so that the
    same settings give the same text on any machine."""
    each = _cached(base) * window
    return max(1, min(_ROWS, _CACHE // each)) if each else _ROWS_UNKNOWN


def _cached(base: Base) -> int:
    """Bytes of cache per token; 0 if that is unknown, or the cache doesn't grow."""
    return base.preview(Plan.whole(base.depth)).kv_bytes_per_token or 0
