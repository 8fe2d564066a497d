"""Target sizes, and the plans that reach them by dropping or repeating layers in a given order.

Plans that the model refuses are skipped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from surgery.architecture import skeleton
from surgery.errors import Refused, SurgeryError
from surgery.plan import MAX_LAYERS, Plan

if TYPE_CHECKING:
    from surgery.base import Base

Check = Callable[[Plan], bool]


@dataclass(frozen=True)
class Target:
    """A number of layers, or a maximum number of parameters. The layers [first, last) may be
    dropped or repeated; the others stay as they are."""

    base: Base
    layers: int | None
    parameters: int | None
    first: int
    last: int

    @classmethod
    def of(
        cls, base: Base, layers: int | None, parameters: int | None, protect: tuple[int, int]
    ) -> Target:
        """The target, with `protect` layers at the start and end left alone. Raises `SurgeryError`
        for a size that can't be reached."""
        if (layers is None) == (parameters is None):
            raise SurgeryError("Give a target size: a number of layers, or a number of parameters.")
        target = cls(base, layers, parameters, protect[0], base.depth - protect[1])
        if min(protect) < 0 or target.first >= target.last:
            raise SurgeryError("So many layers are protected that none is left to change.")
        whole = Plan.whole(base.depth)
        if target.size(whole) in (layers, parameters):
            raise SurgeryError("The base already has that size: choose a smaller or a larger one.")
        kept = [i for i in range(base.depth) if i not in target.touchable]
        least = target.size(Plan.of(kept, base.depth)) if kept else 1
        most = MAX_LAYERS if layers is not None else None
        if target.asked < least or (most and target.asked > most):
            raise SurgeryError(
                f"{target.words} can't be reached: this base can have at least {least:,}"
                + (f", and at most {most:,}." if most else " by dropping layers.")
            )
        return target

    @property
    def asked(self) -> int:
        """The target size, in layers or parameters."""
        return self.layers or self.parameters or 0

    @property
    def touchable(self) -> range:
        """The layers that may be dropped or repeated."""
        return range(self.first, self.last)

    @property
    def grows(self) -> bool:
        """Whether the target is larger than the base."""
        return self.asked > self.size(Plan.whole(self.base.depth))

    @property
    def words(self) -> str:
        """The target in words."""
        if self.layers is not None:
            return f"{self.layers:,} layers"
        return f"{self.parameters:,} parameters"

    def size(self, plan: Plan) -> int:
        """The size of a plan in the target's unit: layers or parameters."""
        return len(plan) if self.layers is not None else self.base.preview(plan).parameters

    def reached(self, plan: Plan) -> bool:
        """Whether a plan is no larger than the target."""
        return self.size(plan) <= self.asked

    def fits(self, plan: Plan) -> bool:
        """Whether a plan has the target's number of layers, or at most its number of parameters."""
        return len(plan) == self.layers if self.layers is not None else self.reached(plan)

    def operable(self, plan: Plan) -> bool:
        """Whether the plan can be operated on this base."""
        try:
            skeleton(self.base.anatomy, plan.sources)
        except Refused:
            return False
        return True

    def dropping(self, order: Iterable[int]) -> Plan | None:
        """The base without layers, dropped in this order until it is small enough; None if it never
        is."""
        return self._checked_at_the_end(self._dropping, list(order))

    def repeating(self, order: Iterable[int]) -> Plan | None:
        """The base with layers repeated in place, in this order while they fit, starting over after
        the last one. None if not one fits."""
        return self._checked_at_the_end(self._repeating, list(order))

    def _checked_at_the_end(
        self, reach: Callable[[list[int], Check], Plan | None], order: list[int]
    ) -> Plan | None:
        """The plan that `reach` gives without checks on the way, which take long for many layers.
        Only if that plan is refused, each step is checked, so that it passes refused ones over."""
        plan = reach(order, lambda plan: True)
        return plan if plan is None or self.operable(plan) else reach(order, self.operable)

    def _dropping(self, order: list[int], check: Check) -> Plan | None:
        depth = self.base.depth
        kept = list(range(depth))
        for layer in order:
            if len(kept) == 1:
                return None
            left = [i for i in kept if i != layer]
            if not check(Plan.of(left, depth)):
                continue
            kept = left
            if self.reached(Plan.of(kept, depth)):
                return Plan.of(kept, depth)
        return None

    def _repeating(self, order: list[int], check: Check) -> Plan | None:
        sources, misses, at = list(range(self.base.depth)), 0, 0
        while misses < len(order) and len(sources) != self.layers and len(sources) < MAX_LAYERS:
            wider = sorted([*sources, order[at % len(order)]])
            plan = Plan.of(wider, self.base.depth)
            if self.reached(plan) and check(plan):
                sources, misses = wider, 0
            else:
                misses += 1
            at += 1
        made = Plan.of(sources, self.base.depth)
        return made if self.fits(made) and not made.is_whole else None
