"""The perplexities that a session has measured, whatever the base and the text."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from surgery import Plan
from surgery.operation import Operation

if TYPE_CHECKING:
    from surgery import Base
    from surgery.analysis import Score

_MOST = 500  # entries of a session
_LONGEST_NAME = 40  # characters

#: The text of an evaluation on held-out text without a file: the project's own texts.
ALL_KINDS = "all four kinds"


@dataclass(frozen=True)
class Measure:
    """A perplexity that was measured elsewhere, with its 95 % interval."""

    perplexity: float
    low: float
    high: float
    tokens: int


@dataclass(frozen=True)
class Entry:
    """A measured plan. `identity` is that of the base's files, `text` what it was measured on,
    `note` how the plan was made. `healing` is empty for an unhealed patient, and else the same for
    the same healing only. `Measurements` give the `index`, and people `name` and pin what they
    keep. `skills` is what became of its skills, in words; empty if they weren't probed."""

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
    index: int = 0
    name: str = ""
    pinned: bool = False
    skills: str = ""

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
        (_, text_of_plan, healing), plan = operation.key, operation.plan
        if operation.healed:
            note = operation.healed.note
        elif plan.is_whole:
            note = "the base"
        return cls(
            base.identity,
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
    def patient(self) -> tuple[str, str, str]:
        """The base's identity, the plan, and a digest of the healing."""
        return self.identity, self.plan, self.healing

    @property
    def key(self) -> tuple:
        """Equal for two measurements of the same thing."""
        return self.identity, self.plan, self.healing, self.text, self.tokens


def altered_entries(base: Base, cut: Operation, altered: Operation, text: str) -> list[Entry]:
    """Entries for the base, the `cut` patient and the healed or repaired one, as its own run
    evaluated them on the same `text`."""
    assert altered.healed is not None, "neither healed nor repaired"
    scores = altered.healed.facts["perplexity"]

    def measured(who: str) -> Measure:
        low, high = scores["intervals"][who]
        return Measure(scores[who], low, high, scores["tokens"])

    return [
        Entry.of(base, of, measured(who), text)
        for who, of in (
            ("base", Operation(cut.spec, Plan.whole(base.depth))),
            ("cut", cut),
            (altered.healed.word, altered),
        )
    ]


class Measurements:
    """The entries of one session in the order of measuring; the same measurement is kept once.
    Each has an index of its own, which it keeps, and may have a name and be pinned."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: dict[tuple, Entry] = {}
        self._next = 0
        self._skills: OrderedDict[tuple[str, str, str], str] = OrderedDict()

    def add(self, entry: Entry) -> None:
        """Add an entry. If there are too many, the oldest is dropped that has no name and is not
        pinned."""
        with self._lock:
            entry = replace(entry, skills=self._skills.get(entry.patient, ""))
            known = self._entries.pop(entry.key, None)
            if known is None:
                entry = replace(entry, index=self._next)
                self._next += 1
            else:
                entry = replace(entry, index=known.index, name=known.name, pinned=known.pinned)
            self._entries[entry.key] = entry
            while len(self._entries) > _MOST:
                loose = (key for key, e in self._entries.items() if not (e.name or e.pinned))
                del self._entries[next(loose, next(iter(self._entries)))]

    def add_skills(self, identity: str, operation: Operation, words: str) -> None:
        """Add what became of a patient's skills to its entries, those to come among them.
        `identity` is that of the base's files."""
        _, plan, healing = operation.key
        patient = identity, plan, healing
        with self._lock:
            self._skills[patient] = words
            while len(self._skills) > _MOST:
                self._skills.popitem(last=False)
            for key, entry in self._entries.items():
                if entry.patient == patient:
                    self._entries[key] = replace(entry, skills=words)

    def at(self, index: int) -> Entry | None:
        """The entry with this index, if there is one."""
        return next((entry for entry in self if entry.index == index), None)

    def rename(self, index: int, name: str) -> None:
        """Give the entry a name, or none."""
        self._change(index, name=" ".join(name.split())[:_LONGEST_NAME])

    def pin(self, index: int, pinned: bool) -> None:
        """Keep the entry above the others, or no longer."""
        self._change(index, pinned=pinned)

    def _change(self, index: int, **changes: Any) -> None:
        with self._lock:
            for key, entry in self._entries.items():
                if entry.index == index:
                    self._entries[key] = replace(entry, **changes)

    def __iter__(self) -> Iterator[Entry]:
        with self._lock:
            return iter(list(self._entries.values()))

    def __len__(self) -> int:
        return len(self._entries)
