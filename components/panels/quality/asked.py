"""What one session asks of the Quality tile."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from contextlib import contextmanager

from surgery import texts
from surgery.operation import Operation
from surgery.plan import Plan

# They begin with the time: a page that stays open must get higher ones from a restarted app.
_numbers = itertools.count(int(1000 * time.time()))


class Asked:
    """What a session wants measured and repaired."""

    def __init__(self) -> None:
        self.latest = 0  # the number of the latest request; earlier ones end
        self.text = texts.DEFAULT
        self.repair: Operation | None = None  # what is being repaired
        self._unchanged: tuple[Operation, str] | None = None  # and why the repair changed nothing

    def ask(self) -> int:
        """Begin a request and return its number. Its values carry the number, so that the page can
        drop those of earlier requests that arrive late."""
        self.latest = next(_numbers)
        return self.latest

    @contextmanager
    def repairing(self, operation: Operation) -> Iterator[int]:
        """Mark a plan as being repaired, and yield the number of the request. To stop the repair,
        set `repair` to None."""
        self.repair = operation
        try:
            yield self.ask()
        finally:
            if self.repair is operation:
                self.repair = None

    def repairs(self, spec: str, plan: Plan) -> bool:
        """Whether this plan is being repaired. The tile shows the repair's progress then."""
        return _is_of(self.repair, spec, plan)

    def keep_reason(self, operation: Operation, reason: str) -> None:
        """Keep the reason why the last repair changed nothing."""
        self._unchanged = operation, reason

    def reason(self, spec: str, plan: Plan) -> str:
        """Why the last repair changed nothing if it was of this plan; otherwise empty."""
        if self._unchanged and _is_of(self._unchanged[0], spec, plan):
            return self._unchanged[1]
        return ""

    def __deepcopy__(self, memo: dict) -> Asked:
        return Asked()  # Gradio copies a state's first value for every page that is opened

    def release(self) -> None:
        """Stay when the page is closed: there is no memory to release."""


def _is_of(operation: Operation | None, spec: str, plan: Plan) -> bool:
    return operation is not None and (operation.spec, operation.plan) == (spec, plan)
