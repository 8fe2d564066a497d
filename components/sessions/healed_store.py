"""The healed and repaired patients of one session, in use while the plan is the one of theirs."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, NamedTuple

from surgery import Plan, SurgeryError
from surgery.operation import Operation
from surgery.progress import Turn

if TYPE_CHECKING:
    from surgery.altered import Altered

_MOST = 2  # patients: each has weights of its own
_LOST, _REPLACED = "the connection was lost", "newer ones took its place"
_AGAIN = "Undo or reload the page, then press Repair."
_UNHEALED = {
    _LOST: "Heal the plan again, or reload the page to use the unhealed patient.",
    _REPLACED: "Heal the plan again, or press Measure under Quality to use the unhealed patient.",
}


class _Gone(NamedTuple):
    """A patient that was released."""

    identity: str  # of the files of its base
    why: str


class HealedStore:
    """Kept in a `gr.State`: one for each open page, never shared."""

    def __init__(self) -> None:
        # The run itself reports that it is pausing: its last report would cover another event's.
        self.pausing = threading.Event()
        # One run at a time: a paused one ends its step first.
        self.busy = Turn("Waiting for the current step to finish")
        self.training = threading.Event()  # set while a run is under way
        self._kept: OrderedDict[tuple[str, Plan, str], Operation] = OrderedDict()
        self._gone: dict[tuple[str, Plan], _Gone] = {}  # the page still calls these plans healed

    def __deepcopy__(self, memo: dict) -> HealedStore:
        return HealedStore()  # Gradio copies a state's first value for every page that is opened

    def keep(self, altered: Operation) -> None:
        """Keep a healed or repaired operation, and drop the oldest."""
        assert altered.healed is not None, "neither healed nor repaired"
        key = altered.spec, altered.plan, altered.healed.word
        self._kept[key] = altered
        self._kept.move_to_end(key)
        self._gone.pop((altered.spec, altered.plan), None)
        while len(self._kept) > _MOST:
            self._let_go(next(iter(self._kept)), _REPLACED)

    def release(self) -> None:
        """Release the weights of a closed page's patients. Their plans stay known: nothing else is
        passed off as the healed patient when the visitor comes back."""
        for key in list(self._kept):
            self._let_go(key, _LOST)

    def _let_go(self, key: tuple[str, Plan, str], why: str) -> None:
        spec, plan, _ = key
        self._gone[spec, plan] = _Gone(_patient(self._kept.pop(key)).base.identity, why)

    def renew(self, spec: str, identity: str) -> None:
        """Forget the patients of a base whose files have changed, once it is opened again.
        `identity` is that of its files now."""
        for key, operation in list(self._kept.items()):
            base = _patient(operation).base
            if key[0] == spec and (base.identity != identity or base.source.has_changed):
                del self._kept[key]
        for place, gone in list(self._gone.items()):
            if place[0] == spec and gone.identity != identity:
                del self._gone[place]

    def operation(self, spec: str, plan: Plan) -> Operation:
        """Return the operation of a base and a plan, healed or else repaired if this plan was.
        Raises `SurgeryError` if that patient was released, or if its base has changed since."""
        kept = (self._kept.get((spec, plan, word)) for word in ("healed", "repaired"))
        if found := next(filter(None, kept), None):
            _patient(found).base.source.check()
            return found
        if gone := self._gone.get((spec, plan)):
            raise SurgeryError(_words(plan, gone.why))
        return Operation(spec, plan)

    def may_go_without(self, spec: str, plan: Plan) -> bool:
        """Whether the unhealed patient may be used in place of one that is gone. What was fitted
        can't be left out; and after a lost connection the page still calls the plan healed."""
        gone = self._gone.get((spec, plan))
        return gone is not None and gone.why == _REPLACED and not plan.fitted

    def go_without(self, spec: str, plan: Plan) -> None:
        """Use the unhealed patient from now on, if that may be done: the visitor asked for it."""
        if self.may_go_without(spec, plan):
            del self._gone[spec, plan]

    def is_healed(self, spec: str, plan: Plan) -> bool:
        """Whether the patient of a plan is a healed one."""
        return (spec, plan, "healed") in self._kept

    def repaired(self, spec: str, plan: Plan) -> Altered | None:
        """The repaired patient of a plan, if there is one: healing begins from it. Raises
        `SurgeryError` if it was released."""
        if found := self._kept.get((spec, plan, "repaired")):
            _patient(found).base.source.check()
            return found.healed
        if plan.fitted and (gone := self._gone.get((spec, plan))):
            raise SurgeryError(_words(plan, gone.why))
        return None


def _patient(operation: Operation) -> Altered:
    assert operation.healed is not None  # as `keep` has made sure
    return operation.healed


def _words(plan: Plan, why: str) -> str:
    """Why a patient is gone, and what can be done."""
    what, then = ("repaired", _AGAIN) if plan.fitted else ("healed", _UNHEALED[why])
    return f"The {what} patient of this plan is gone: {why}. {then}"
