"""An operation: the base, the plan, and the healed or repaired patient if there is one.

The page and its services pass an `Operation` where they would otherwise carry three values and
join them again. It needs no torch until a patient is made.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .plan import Plan

if TYPE_CHECKING:
    from .altered import Altered
    from .base import Base
    from .patient import Patient


@dataclass(frozen=True)
class Operation:
    """`spec` names the base as in `Base.open`; `plan` is the plan for it. `healed` is the result of
    healing or repairing that plan, and None while neither was done. `identity` is that of the
    base's files where the plan was made; an empty one stands for any.

    Raises `ValueError` if `healed` was made from another plan.
    """

    spec: str
    plan: Plan
    healed: Altered | None = None
    identity: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        if self.healed is not None and self.healed.plan != self.plan:
            raise ValueError(f"healed was made from {self.healed.plan}, not from {self.plan}")

    def __str__(self) -> str:
        """The plan, with “, healed” or “, repaired” after it if that applies."""
        return f"{self.plan}, {self.healed.word}" if self.healed is not None else str(self.plan)

    @property
    def key(self) -> tuple[str, str, str]:
        """Equal for equal operations: spec, plan, and a digest of the healing ("" if none)."""
        return self.spec, str(self.plan), self.healed.key if self.healed is not None else ""

    def patient(self, base: Base) -> Patient:
        """The healed patient if there is one, otherwise `base` operated on by the plan. `base` is
        what `spec` names, opened. Raises `Refused`."""
        return self.healed if self.healed is not None else base.operate(self.plan)

    def save(self, base: Base, out: str | Path, **options: Any) -> Path:
        """Write the checkpoint, with the healed weights if there are any. Takes the options of
        `Base.save`, and raises its errors. Returns the folder."""
        if self.healed is not None:
            return self.healed.save(out, **options)
        return base.save(self.plan, out, **options)
