"""Schemas of `run.json` and `state.json` in a run's folder, validated when they are read.

A truncated, edited or damaged file is treated as missing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, model_validator

from .evaluation import EvalResult
from .settings import Settings

FORMAT = 2
_LARGEST = 64 << 20  # bytes; a million losses take 20 MB

Steps = Annotated[int, Field(ge=0, le=10**9)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Checksum = Annotated[int, Field(ge=0, lt=1 << 32)]


class _Record(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


_R = TypeVar("_R", bound=_Record)


class RepairRecord(_Record):
    """The repair that a run begins from: its method, and the plan that was repaired."""

    method: str
    cut: str


class RunRecord(_Record):
    """The parameters of a run, and the CRC-32 of its text. `weights` follows from the base's, which
    may have changed under its name; None if they have no lasting name. `repair` is None without
    one, and was not written by earlier versions."""

    format: Literal[2]
    base: str
    parameters: Annotated[int, Field(ge=1)]
    weights: str | None = None
    plan: str
    repair: RepairRecord | None = None
    settings: Settings
    text: Checksum


class StateRecord(_Record):
    """The numbers of a state, and the CRC-32 of each file beside them. `evaluating`: seconds that
    the last evaluation took, 0 if that is unknown."""

    step: Steps
    steps: Annotated[int, Field(ge=1, le=10**9)] | None
    seconds: Annotated[Finite, Field(ge=0)]
    evaluating: Annotated[Finite, Field(ge=0)] = 0.0
    losses: list[Finite]
    evaluations: Annotated[
        list[EvalResult],
        Field(min_length=1, validation_alias=AliasChoices("evaluations", "looks")),
    ]  # “looks” in runs of earlier versions
    files: dict[str, Checksum]

    @model_validator(mode="after")
    def _belong_together(self) -> StateRecord:
        if len(self.losses) != self.step:
            raise ValueError("There must be one loss per step.")
        if self.steps is not None and self.steps < self.step:
            raise ValueError("More steps are done than planned.")
        if any(not 0 <= evaluation.step <= self.step for evaluation in self.evaluations):
            raise ValueError("An evaluation belongs to a step that was not done.")
        return self


def read(kind: type[_R], path: Path) -> _R | None:
    """Read a record; None if the file can't be read or is invalid."""
    try:
        if not path.is_file() or path.stat().st_size > _LARGEST:
            return None
        return kind.model_validate_json(path.read_bytes(), strict=True)
    except (OSError, ValueError, RecursionError):
        return None
