"""An item of a skill: a prompt with one right and several wrong continuations."""

from __future__ import annotations

from typing import NamedTuple


class Item(NamedTuple):
    """Continuations are of one kind and begin where the prompt ends: “7 + 8 =”, “ 15”, “ 14”."""

    prompt: str
    right: str
    wrong: tuple[str, ...]

    @property
    def continuations(self) -> tuple[str, ...]:
        """The right one first."""
        return self.right, *self.wrong
