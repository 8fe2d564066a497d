"""A text as a model reads it for a score: windows of tokens.

Knows tokenizers and lengths. Windows don't overlap and are of equal length, give or take a token,
so that none needs padding and every text is used to its end.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from surgery.errors import SurgeryError

if TYPE_CHECKING:
    from surgery.base import Base

WINDOW = 256  # tokens that a model sees at once, unless told
LIMIT = 4096  # tokens in all, unless told
FEWEST = 16  # scored tokens: fewer say nothing


@dataclass(frozen=True)
class Sample:
    """Windows of token ids. Every token of a window but its first is scored.

    Where the model's texts begin with a special token (BOS), every window does. `truncated` says
    that the text was longer than the limit.
    """

    windows: tuple[tuple[int, ...], ...]
    truncated: bool = False

    def __post_init__(self) -> None:
        if self.tokens < FEWEST:
            raise SurgeryError(
                f"The text is too short: {self.tokens} tokens would be scored, and it takes "
                f"{FEWEST} or more for a number that means anything."
            )

    @classmethod
    def of(
        cls, base: Base, text: str | Sequence[str], window: int | None = None, limit: int = LIMIT
    ) -> Sample:
        """Read a text, or several that don't follow on one another, as windows of at most `window`
        tokens (256, or the model's context if that is shorter), `limit` tokens in all.

        Raises `SurgeryError` for a text that is too short or a window that doesn't fit.
        """
        context = base.context
        if window is None:
            window = min(WINDOW, context or WINDOW)
        first = _first_token(base)
        if window <= len(first) or window < 2 or (context and window > context):
            raise SurgeryError(f"A window can have 2 to {context or 'any number of'} tokens.")
        if limit < FEWEST:
            raise SurgeryError(f"The limit has to be {FEWEST} tokens or more.")
        texts = [text] if isinstance(text, str) else text
        windows: list[tuple[int, ...]] = []
        left, truncated = limit, False
        for ids in (_ids(base, one) for one in texts):
            truncated |= len(ids) > left
            base.check_tokens(ids[:left])
            windows += _cut(ids[:left], first, window)
            left -= min(left, len(ids))
        return cls(tuple(windows), truncated)

    @property
    def tokens(self) -> int:
        """How many tokens are scored."""
        return sum(len(window) - 1 for window in self.windows)

    @cached_property
    def key(self) -> str:
        """The same for the same tokens in the same windows, and for no others."""
        return hashlib.sha256(repr(self.windows).encode()).hexdigest()[:32]

    def __len__(self) -> int:
        return len(self.windows)

    def batches(self, most: int) -> list[tuple[int, int]]:
        """Ranges of windows of one length, of at most `most` tokens each (or one window)."""
        found: list[tuple[int, int]] = []
        for i, window in enumerate(self.windows):
            start, end = found[-1] if found else (0, 0)
            alike = found and len(self.windows[start]) == len(window)
            if alike and (end - start + 1) * len(window) <= most:
                found[-1] = (start, i + 1)
            else:
                found.append((i, i + 1))
        return found


def _ids(base: Base, text: str) -> list[int]:
    if any("\ud800" <= c <= "\udfff" for c in text):  # bytes that are no UTF-8 come as these
        raise SurgeryError("The text holds bytes that are no text: write it in UTF-8.")
    return base.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]


def _first_token(base: Base) -> tuple[int, ...]:
    """The special token that the tokenizer puts before every text, if any and if the model has an
    embedding for it."""
    tokenizer = base.tokenizer
    start = tokenizer("a")["input_ids"][:1]
    known = start == [tokenizer.bos_token_id] and start[0] < base.known_tokens
    return tuple(start) if known else ()


def _cut(ids: Sequence[int], first: tuple[int, ...], window: int) -> list[tuple[int, ...]]:
    room = window - len(first)
    count = math.ceil(len(ids) / room)
    found, at = [], 0
    for i in range(count):  # the longer ones first, so that those of a length stand together
        size = len(ids) // count + (i < len(ids) % count)
        found.append(first + tuple(ids[at : at + size]))
        at += size
    return [one for one in found if len(one) > 1]
