"""What one session asks of the Quality tile."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from contextlib import contextmanager

from surgery import texts
from surgery.operation import Operation
from surgery.plan import Plan

# They grow from one start of the app to the next, since a page may outlive it.
_numbers = itertools.count(int(1000 * time.time()))


class Asked:
    """What a session wants measured and repaired."""

    def __init__(self) -> None:
        self.latest = 0  # the number of the latest request; earlier ones end
        self.text = texts.DEFAULT
        self.repair: Operation | None = None  # what is being repaired
        self._told: tuple[Operation, str] | None = None  # why a repair changed nothing

    def ask(self) -> int:
        """The number of a new request. Its values carry that, so that the page can tell a late one
        of an earlier request."""
        self.latest = next(_numbers)
        return self.latest

    @contextmanager
    def repairing(self, operation: Operation) -> Iterator[int]:
        """Within, this plan is being repaired, until `repair` is set to None to stop that. Gives
        the number of the request."""
        self.repair = operation
        try:
            yield self.ask()
        finally:
            if self.repair is operation:
                self.repair = None

    def repairs(self, spec: str, plan: Plan) -> bool:
        """Whether this plan is being repaired, so that the tile shows how that goes."""
        return _is_of(self.repair, spec, plan)

    def tell(self, operation: Operation, why: str) -> None:
        """Say why a repair changed nothing, for as long as its plan is shown."""
        self._told = operation, why

    def told(self, spec: str, plan: Plan) -> str:
        """What is to be said of this plan; empty if nothing is."""
        if self._told and _is_of(self._told[0], spec, plan):
            return self._told[1]
        return ""

    def __deepcopy__(self, memo: dict) -> Asked:
        return Asked()  # Gradio copies a state's first value for every page that is opened


def _is_of(operation: Operation | None, spec: str, plan: Plan) -> bool:
    return operation is not None and (operation.spec, operation.plan) == (spec, plan)
