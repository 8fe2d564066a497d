"""The perplexities that a session has measured, whatever the base and the text."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from surgery.operation import Operation

if TYPE_CHECKING:
    from surgery import Base
    from surgery.analysis import Score

_MOST = 500  # entries of a session


@dataclass(frozen=True)
class Measure:
    """A perplexity that was measured elsewhere, with its 95 % interval."""

    perplexity: float
    low: float
    high: float
    tokens: int


@dataclass(frozen=True)
class Entry:
    """A measured plan. `identity` is the base's, `text` what it was measured on, `note` how the
    plan was made. `healing` is empty for an unhealed patient, and else the same for the same
    healing only."""

    identity: str
    base: str
    plan: str
    layers: int
    parameters: int
    perplexity: float
    low: float
    high: float
    tokens: int
    text: str
    note: str = ""
    healing: str = ""

    @classmethod
    def of(
        cls,
        base: Base,
        operation: Operation,
        score: Score | Measure,
        text: str,
        note: str = "",
    ) -> Entry:
        """Make the entry for a measurement of an operation's patient."""
        (spec, text_of_plan, healing), plan = operation.key, operation.plan
        if operation.healed:
            note = f"healed, {operation.healed.facts['steps']:,} steps"
        elif plan.is_whole:
            note = "the base"
        return cls(
            spec,
            base.name,
            text_of_plan,
            len(plan),
            base.preview(plan).parameters,
            score.perplexity,
            score.low,
            score.high,
            score.tokens,
            text,
            note,
            healing,
        )

    @property
    def key(self) -> tuple:
        """Equal for two measurements of the same thing."""
        return self.identity, self.plan, self.healing, self.text, self.tokens


class Measurements:
    """The entries of one session in the order of measuring; the same measurement is kept once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: dict[tuple, Entry] = {}

    def add(self, entry: Entry) -> None:
        """Add an entry; the oldest is dropped if there are too many."""
        with self._lock:
            self._entries.pop(entry.key, None)
            self._entries[entry.key] = entry
            while len(self._entries) > _MOST:
                self._entries.pop(next(iter(self._entries)))

    def __iter__(self) -> Iterator[Entry]:
        with self._lock:
            return iter(list(self._entries.values()))

    def __len__(self) -> int:
        return len(self._entries)
