"""The tokens of both texts of a run, for measuring them once it has ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from surgery.operation import Operation


@dataclass(frozen=True)
class Answer:
    """The tokens of a prompt and of the text that a model generated after it. `pieces` are those of
    the text as they are shown, each with the number of its tokens."""

    prompt_ids: tuple[int, ...]
    ids: tuple[int, ...]
    pieces: tuple[tuple[str, int], ...]

    @classmethod
    def of(cls, stream: Any) -> Answer:
        """What a stream has generated so far."""
        pieces = tuple(stream.pieces)
        count = sum(size for _, size in pieces)
        return cls(tuple(stream.prompt_ids), tuple(stream.ids)[:count], pieces)


@dataclass(frozen=True)
class Answers:
    """The texts of one run by side, the operation that they are of, and the value that shows
    them."""

    operation: Operation
    sides: dict[str, Answer]
    shown: dict
