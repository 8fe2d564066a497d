"""A text to measure on, as windows of tokens.

Windows don't overlap, and their lengths differ by at most one token, so that none needs padding and
the whole text is used.
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

WINDOW = 256  # tokens in a window, by default
LIMIT = 4096  # tokens in all, by default
FEWEST = 16  # scored tokens


@dataclass(frozen=True)
class Sample:
    """Windows of token ids. Every token of a window except the first is scored.

    Every window starts with the special token (BOS) that the model's texts start with, if any.
    `truncated` is True if the text was longer than the limit.
    """

    windows: tuple[tuple[int, ...], ...]
    truncated: bool = False

    def __post_init__(self) -> None:
        if self.tokens < FEWEST:
            raise SurgeryError(
                f"The text is too short: {self.tokens} tokens would be scored, and a meaningful "
                f"number takes at least {FEWEST}."
            )

    @classmethod
    def of(
        cls, base: Base, text: str | Sequence[str], window: int | None = None, limit: int = LIMIT
    ) -> Sample:
        """Tokenize a text, or several independent ones, into windows of at most `window` tokens
        (256 by default, or the model's context if that is shorter), `limit` tokens in all.

        Raises `SurgeryError` for a text that is too short or a window that doesn't fit.
        """
        context = base.context
        if window is None:
            window = min(WINDOW, context or WINDOW)
        first = first_token(base)
        if window <= len(first) or window < 2 or (context and window > context):
            raise SurgeryError(f"A window can have 2 to {context or 'any number of'} tokens.")
        if limit < FEWEST:
            raise SurgeryError(f"The limit has to be at least {FEWEST} tokens.")
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
        """The number of scored tokens."""
        return sum(len(window) - 1 for window in self.windows)

    @cached_property
    def key(self) -> str:
        """A hash of the windows."""
        return hashlib.sha256(repr(self.windows).encode()).hexdigest()[:32]

    def __len__(self) -> int:
        return len(self.windows)

    def halves(self) -> tuple[Sample, Sample]:
        """The first and the second half of its windows: one to choose a plan on, and one to judge
        it on. Raises `SurgeryError` if they are too few."""
        middle = (len(self.windows) + 1) // 2
        return Sample(self.windows[:middle], self.truncated), Sample(self.windows[middle:])

    def batches(self, most: int) -> list[tuple[int, int]]:
        """Ranges of windows of one length, of at most `most` tokens each (or one window)."""
        ranges: list[tuple[int, int]] = []
        for i, window in enumerate(self.windows):
            start, end = ranges[-1] if ranges else (0, 0)
            alike = ranges and len(self.windows[start]) == len(window)
            if alike and (end - start + 1) * len(window) <= most:
                ranges[-1] = (start, i + 1)
            else:
                ranges.append((i, i + 1))
        return ranges


def _ids(base: Base, text: str) -> list[int]:
    if any("\ud800" <= c <= "\udfff" for c in text):  # how invalid UTF-8 was decoded
        raise SurgeryError("The text contains bytes that aren't valid UTF-8: save it as UTF-8.")
    return base.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]


def first_token(base: Base) -> tuple[int, ...]:
    """The special token that the tokenizer puts before every text, if the model has an embedding
    for it."""
    tokenizer = base.tokenizer
    start = tokenizer("a")["input_ids"][:1]
    known = start == [tokenizer.bos_token_id] and start[0] < base.known_tokens
    return tuple(start) if known else ()


def _cut(ids: Sequence[int], first: tuple[int, ...], window: int) -> list[tuple[int, ...]]:
    room = window - len(first)
    count = math.ceil(len(ids) / room)
    windows, at = [], 0
    for i in range(count):  # longer ones first, so that windows of one length are adjacent
        size = len(ids) // count + (i < len(ids) % count)
        windows.append(first + tuple(ids[at : at + size]))
        at += size
    return [window for window in windows if len(window) > 1]
