"""What one session asks of the Quality tile."""

from __future__ import annotations

from surgery import texts
from surgery.operation import Operation
from surgery.plan import Plan


class Asked:
    """What a session wants measured and repaired."""

    def __init__(self) -> None:
        self.latest: object = None  # the latest request; earlier ones end
        self.text = texts.DEFAULT
        self.repair: Operation | None = None  # what is being repaired
        self._told: tuple[Operation, str] | None = None  # why a repair changed nothing

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
