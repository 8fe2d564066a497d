"""The healed patient of one session, in use while the plan is the one that it was healed for."""

from __future__ import annotations

import threading

from surgery import Plan
from surgery.operation import Operation
from surgery.progress import Turn


class HealedStore:
    """Kept in a `gr.State`: one for each open page, never shared."""

    def __init__(self) -> None:
        # The run itself reports that it is pausing: its last report would cover another event's.
        self.pausing = threading.Event()
        # One run at a time: a paused one ends its step first.
        self.busy = Turn("Waiting for the current step to finish")
        self._kept: Operation | None = None

    def __deepcopy__(self, memo: dict) -> HealedStore:
        return HealedStore()  # Gradio copies a state's first value for every page that is opened

    def keep(self, healed: Operation) -> None:
        """Keep a healed operation, and drop an older one."""
        self._kept = healed

    def operation(self, spec: str, plan: Plan) -> Operation:
        """Return the operation of a base and a plan, healed if exactly this plan was."""
        kept = self._kept
        return kept if kept and (kept.spec, kept.plan) == (spec, plan) else Operation(spec, plan)
