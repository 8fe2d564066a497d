"""Undo and redo over immutable plans, back to the start."""

from __future__ import annotations

from dataclasses import dataclass, replace

from .plan import Plan


@dataclass(frozen=True, slots=True)
class History:
    """Past, present and undone plans. Every step returns a new history."""

    present: Plan
    past: tuple[Plan, ...] = ()
    future: tuple[Plan, ...] = ()

    def do(self, plan: Plan) -> History:
        """Make `plan` the present, and forget what had been undone. A plan that changes nothing
        adds no step."""
        if plan == self.present:
            return self
        return History(plan, (*self.past, self.present))

    def within(self, steps: int) -> History:
        """Keep at most this many past steps: the start, and the latest ones."""
        if len(self.past) <= steps:
            return self
        return replace(self, past=(self.past[0], *self.past[len(self.past) - steps + 1 :]))

    def undo(self) -> History:
        """One step back, or this history if it is at its start."""
        if not self.past:
            return self
        return replace(
            self,
            present=self.past[-1],
            past=self.past[:-1],
            future=(self.present, *self.future),
        )

    def redo(self) -> History:
        """One undone step forward again, or this history if there is none."""
        if not self.future:
            return self
        return replace(
            self,
            present=self.future[0],
            past=(*self.past, self.present),
            future=self.future[1:],
        )
