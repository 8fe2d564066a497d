"""What a run begins from: the cut patient, or a repaired one, whose tensors its folder keeps."""

from __future__ import annotations

from pathlib import Path

from surgery.altered import Altered, put_in
from surgery.base import Base
from surgery.errors import Refused
from surgery.patient import Patient
from surgery.plan import Plan

from . import run_checkpoint
from .run_checkpoint import Start


def check_one_base(base: Base) -> None:
    """Raise `Refused` for a stack of several bases. Its whole, all of their layers one base after
    the other, is no model to learn from or to compare with."""
    if base.parts:
        raise Refused(
            "Layers of several bases have no uncut base to learn from or to compare with: save "
            "this model, then heal or repair a plan of that."
        )


def repair_of(start: Altered) -> dict[str, str] | None:
    """The fields of the `RepairRecord` of a run that begins from this patient; None if it wasn't
    repaired."""
    if not {"method", "cut"} <= start.facts.keys():
        return None
    return {"method": start.facts["method"], "cut": start.facts["cut"]}


def start_of(folder: Path, plan: Plan, given: Altered | None) -> Start | None:
    """The start that a resumed run has kept, or that of the repaired patient given to a new one;
    None for the cut patient. Raises `ValueError` if that is a patient of another plan."""
    kept = run_checkpoint.kept_start(folder)
    if kept is not None or given is None or not given.tensors:
        return kept
    if given.plan != plan:
        raise ValueError(f"start is a patient of {given.plan}, not of {plan}")
    return given.tensors, given.facts


def first_patient(base: Base, plan: Plan, start: Start | None) -> Patient:
    """The patient before its first step. Raises `Refused` for a plan with fitted layers if no
    `start` brings their weights."""
    patient = base.operate(plan.unfitted if start else plan)
    if start:
        put_in(patient.model, start[0])
    return patient
