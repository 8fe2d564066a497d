"""The healed and repaired patients of one session, in use while the plan is the one of theirs."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING

from surgery import Plan, SurgeryError
from surgery.operation import Operation
from surgery.progress import Turn

if TYPE_CHECKING:
    from surgery.altered import Altered

_MOST = 2  # patients: each has weights of its own
_RELEASED = (
    "The healed or repaired patient of this plan is gone: the connection was lost, or newer ones "
    "took its place. Heal or repair the plan again, undo, or reload the page to use the plan as "
    "it is."
)


class HealedStore:
    """Kept in a `gr.State`: one for each open page, never shared."""

    def __init__(self) -> None:
        # The run itself reports that it is pausing: its last report would cover another event's.
        self.pausing = threading.Event()
        # One run at a time: a paused one ends its step first.
        self.busy = Turn("Waiting for the current step to finish")
        self._kept: OrderedDict[tuple[str, Plan, str], Operation] = OrderedDict()
        self._released: set[tuple[str, Plan]] = set()  # the page still calls these plans healed

    def __deepcopy__(self, memo: dict) -> HealedStore:
        return HealedStore()  # Gradio copies a state's first value for every page that is opened

    def keep(self, altered: Operation) -> None:
        """Keep a healed or repaired operation, and drop the oldest."""
        assert altered.healed is not None, "neither healed nor repaired"
        key = altered.spec, altered.plan, altered.healed.word
        self._kept[key] = altered
        self._kept.move_to_end(key)
        self._released.discard((altered.spec, altered.plan))
        while len(self._kept) > _MOST:
            (spec, plan, _), _ = self._kept.popitem(last=False)
            self._released.add((spec, plan))

    def release(self) -> None:
        """Release the weights of a closed page's patients. Their plans stay known: nothing else is
        passed off as the healed patient when the visitor comes back."""
        self._released |= {(spec, plan) for spec, plan, _ in self._kept}
        self._kept.clear()

    def operation(self, spec: str, plan: Plan) -> Operation:
        """Return the operation of a base and a plan, healed or else repaired if this plan was.
        Raises `SurgeryError` if that patient was released."""
        kept = (self._kept.get((spec, plan, word)) for word in ("healed", "repaired"))
        if found := next(filter(None, kept), None):
            return found
        if (spec, plan) in self._released:
            raise SurgeryError(_RELEASED)
        return Operation(spec, plan)

    def is_healed(self, spec: str, plan: Plan) -> bool:
        """Whether the patient of a plan is a healed one."""
        return (spec, plan, "healed") in self._kept

    def repaired(self, spec: str, plan: Plan) -> Altered | None:
        """The repaired patient of a plan, if there is one: healing begins from it. Raises
        `SurgeryError` if it was released."""
        if found := self._kept.get((spec, plan, "repaired")):
            return found.healed
        if plan.fitted and (spec, plan) in self._released:
            raise SurgeryError(_RELEASED)
        return None
