"""The healed and repaired patients of one session, in use while the plan is the one of theirs."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING

from surgery import Plan
from surgery.operation import Operation
from surgery.progress import Turn

if TYPE_CHECKING:
    from surgery.altered import Altered

_MOST = 2  # patients: each has weights of its own


class HealedStore:
    """Kept in a `gr.State`: one for each open page, never shared."""

    def __init__(self) -> None:
        # The run itself reports that it is pausing: its last report would cover another event's.
        self.pausing = threading.Event()
        # One run at a time: a paused one ends its step first.
        self.busy = Turn("Waiting for the current step to finish")
        self._kept: OrderedDict[tuple[str, Plan, str], Operation] = OrderedDict()

    def __deepcopy__(self, memo: dict) -> HealedStore:
        return HealedStore()  # Gradio copies a state's first value for every page that is opened

    def keep(self, altered: Operation) -> None:
        """Keep a healed or repaired operation, and drop the oldest."""
        assert altered.healed is not None, "neither healed nor repaired"
        key = altered.spec, altered.plan, altered.healed.word
        self._kept[key] = altered
        self._kept.move_to_end(key)
        while len(self._kept) > _MOST:
            self._kept.popitem(last=False)

    def operation(self, spec: str, plan: Plan) -> Operation:
        """Return the operation of a base and a plan, healed or else repaired if this plan was."""
        found = (self._kept.get((spec, plan, word)) for word in ("healed", "repaired"))
        return next(filter(None, found), None) or Operation(spec, plan)

    def repaired(self, spec: str, plan: Plan) -> Altered | None:
        """The repaired patient of a plan, if there is one: healing begins from it."""
        found = self._kept.get((spec, plan, "repaired"))
        return found.healed if found else None
