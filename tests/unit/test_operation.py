"""An operation is one value: it makes and saves the plan's patient, or the healed one."""

import subprocess
import sys
from dataclasses import FrozenInstanceError
from types import SimpleNamespace

import pytest
import tiny
import torch

from surgery import Base, Operation, Plan

PLAN = Plan.parse("0:2, 4:6", 6)


def test_it_makes_and_saves_the_plans_patient(tiny_folder, tmp_path):
    spec = str(tiny_folder("llama"))
    base, operation = Base.open(spec), Operation(spec, PLAN)
    ids = tiny.tokens(8)
    logits = operation.patient(base).model(input_ids=ids).logits
    assert torch.equal(logits, base.operate(PLAN).model(input_ids=ids).logits)
    out = operation.save(base, tmp_path / "out", dtype="float16")
    assert Base.open(str(out)).depth == 4
    assert Base.open(str(out)).dtype == "float16"


def test_a_healed_patient_takes_the_plans_place(tmp_path):
    saved = []
    healed = SimpleNamespace(plan=PLAN, key="k", save=lambda out, **options: saved.append(options))
    operation = Operation("org/name", PLAN, healed)
    assert operation.patient(None) is healed
    operation.save(None, tmp_path / "out", overwrite=True)
    assert saved == [{"overwrite": True}]


def test_it_is_told_apart_by_base_plan_and_healing():
    other = Plan.parse("0:3", 6)
    healed = [SimpleNamespace(plan=PLAN, key=key, word="healed") for key in ("a", "b")]
    operations = [
        Operation("a", PLAN),
        Operation("b", PLAN),
        Operation("a", other),
        Operation("a", PLAN, healed[0]),
        Operation("a", PLAN, healed[1]),
    ]
    assert len({operation.key for operation in operations}) == len(operations)
    assert Operation("a", PLAN).key == Operation("a", Plan.parse("0:2, 4:6", 6)).key
    assert [str(operations[0]), str(operations[3])] == ["0:2, 4:6", "0:2, 4:6, healed"]


def test_a_patient_healed_from_another_plan_is_an_error():
    with pytest.raises(ValueError, match="0:3"):
        Operation("a", PLAN, SimpleNamespace(plan=Plan.parse("0:3", 6)))


def test_it_does_not_change():
    with pytest.raises(FrozenInstanceError):
        Operation("a", PLAN).plan = Plan.whole(6)


def test_it_needs_no_torch():
    code = (
        "import sys; from surgery import Operation, Plan; Operation('a', Plan.whole(2)).key; "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
