"""How large a patient shall be, and the plans that get there.

Knows layers and parameters; knows no scores. A plan that a model refuses is passed over.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from surgery.architecture import skeleton
from surgery.errors import Refused, SurgeryError
from surgery.plan import MAX_LAYERS, Plan

if TYPE_CHECKING:
    from surgery.base import Base


@dataclass(frozen=True)
class Target:
    """A number of layers, or a most number of parameters. The layers [first, last) may be touched;
    the others stay as they are."""

    base: Base
    layers: int | None
    parameters: int | None
    first: int
    last: int

    @classmethod
    def of(
        cls, base: Base, layers: int | None, parameters: int | None, protect: tuple[int, int]
    ) -> Target:
        """Raises `SurgeryError` for a size that can't be had."""
        if (layers is None) == (parameters is None):
            raise SurgeryError("Say how large: a number of layers, or a number of parameters.")
        target = cls(base, layers, parameters, protect[0], base.depth - protect[1])
        if min(protect) < 0 or target.first >= target.last:
            raise SurgeryError("Nothing is left to change when so many layers are protected.")
        whole = Plan.whole(base.depth)
        if target.size(whole) in (layers, parameters):
            raise SurgeryError("The base has that size already: ask for more or for less.")
        kept = [i for i in range(base.depth) if i not in target.touchable]
        least = target.size(Plan.of(kept, base.depth)) if kept else 1
        most = MAX_LAYERS if layers is not None else None
        asked = layers if parameters is None else parameters
        if asked < least or (most and asked > most):
            raise SurgeryError(
                f"{target.words} can't be had: this base can have {least:,} or more"
                + (f", and {most:,} at most." if most else " when layers are dropped.")
            )
        return target

    @property
    def touchable(self) -> range:
        """The layers that may be dropped or repeated."""
        return range(self.first, self.last)

    @property
    def grows(self) -> bool:
        """Whether that is more than the base has."""
        return (self.layers or self.parameters) > self.size(Plan.whole(self.base.depth))

    @property
    def words(self) -> str:
        """What was asked for."""
        if self.layers is not None:
            return f"{self.layers:,} layers"
        return f"{self.parameters:,} parameters"

    def size(self, plan: Plan) -> int:
        """What is asked for, of a plan: layers, or parameters."""
        return len(plan) if self.layers is not None else self.base.preview(plan).parameters

    def reached(self, plan: Plan) -> bool:
        """No larger than was asked for."""
        return self.size(plan) <= (self.layers or self.parameters)

    def fits(self, plan: Plan) -> bool:
        """Of the number of layers that was asked for, or within the number of parameters."""
        return len(plan) == self.layers if self.layers is not None else self.reached(plan)

    def operable(self, plan: Plan) -> bool:
        """Whether the base lets itself be operated on like that."""
        try:
            skeleton(self.base.anatomy, plan.sources)
        except Refused:
            return False
        return True

    def dropping(self, order: Iterable[int]) -> Plan | None:
        """The base without layers, dropped in this order until it is small enough; None if it
        doesn't become so."""
        depth = self.base.depth
        kept = list(range(depth))
        for layer in order:
            if len(kept) == 1:
                return None
            left = [i for i in kept if i != layer]
            if not self.operable(Plan.of(left, depth)):
                continue
            kept = left
            if self.reached(Plan.of(kept, depth)):
                return Plan.of(kept, depth)
        return None

    def repeating(self, order: Sequence[int]) -> Plan | None:
        """The base with layers run once more in place, in this order as long as there is room;
        once all were, they come round again. None if there is room for none."""
        sources, misses, at = list(range(self.base.depth)), 0, 0
        while misses < len(order) and len(sources) != self.layers and len(sources) < MAX_LAYERS:
            wider = sorted([*sources, order[at % len(order)]])
            plan = Plan.of(wider, self.base.depth)
            if self.reached(plan) and self.operable(plan):
                sources, misses = wider, 0
            else:
                misses += 1
            at += 1
        made = Plan.of(sources, self.base.depth)
        return made if self.fits(made) and not made.is_whole else None
