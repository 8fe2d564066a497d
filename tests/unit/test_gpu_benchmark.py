"""`python -m benchmarks gpu` in its small form: its rows are right, and a wrong patient is seen."""

import json

import pytest
import torch

from benchmarks.gpu import command, fast, right, table
from benchmarks.gpu.command import run
from benchmarks.gpu.rows import Check, NotRun, Result, Row, state_of
from benchmarks.gpu.workplace import Workplace
from surgery import Base, Plan
from surgery.memory import devices
from surgery.patient import Patient

# One dtype of each pair; without compiling, LoRA and real weights, which take longest.
RIGHT = (
    "patient = reloaded checkpoint, bfloat16",
    "patient = oracle, float32",
    "with the KV cache, bfloat16",
    "with a static cache, float32",
    "padded batches, bfloat16",
    "eager attention, bfloat16",
    "sdpa, bfloat16",
    "initialisers, bfloat16",
    "streamed text = generate, bfloat16",
    "ten patients share the weights",
    "memory is given back",
    "out of memory",
    "scan = layers by hand, float32",
    "healing resumes, seams",
    "repair",
    "counting weights",
    "the bases are unchanged",
)
FAST = ("text of a patient, 1B", "drop-one scan, 7B")


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """On the CPU, tiny; whatever the command sets in this process is set back."""
    monkeypatch.setattr(devices, "_hidden", False)
    monkeypatch.setattr(command.gc, "freeze", lambda: None)


def table_of(tmp_path, *names: str, seconds: float = 600) -> tuple[int, dict[str, dict]]:
    """The exit status, and the rows of the JSON by name."""
    file = tmp_path / "table.json"
    options = ["--device", "cpu", "--tiny", "--json", str(file), "--seconds", str(seconds)]
    status = run([*options, "--base", "nowhere/nothing", "--only", *names])
    rows = json.loads(file.read_text(encoding="utf-8"))["rows"]
    return status, {row["name"]: row for row in rows}


def test_the_small_form_is_right_on_the_cpu(tmp_path, capsys):
    status, rows = table_of(tmp_path, *RIGHT, *FAST)
    states = {name: row["state"] for name, row in rows.items()}
    assert states == {**dict.fromkeys(RIGHT, "right"), **dict.fromkeys(FAST, "measured")}
    assert status == 0
    for name in FAST:
        assert rows[name]["figure"] > 0 and rows[name]["anchor"] > 0
    printed = capsys.readouterr().out
    assert all(f"| {name} | right |" in printed for name in RIGHT)
    assert "17 right, 2 measured" in printed and not devices._hidden


def test_a_wrong_patient_is_seen(tmp_path, monkeypatch):
    """Its last layer is another one, or it has weights of its own that are off by a bit."""

    def another(place: Workplace, base: Base, plan: Plan) -> Patient:
        return base.operate(Plan.parse(f"{plan}, 1", base.depth).drop(5, 6))

    monkeypatch.setattr(Workplace, "patient", another)
    names = ("reloaded checkpoint, float32", "oracle, float32", "KV cache, float32")
    status, rows = table_of(tmp_path, *names, "padded batches, float32", "sdpa, float32")
    assert status == 1
    assert {row["state"] for row in rows.values()} == {"wrong"} and len(rows) == 5

    def off_by_a_bit(place: Workplace, base: Base, plan: Plan) -> Patient:
        patient = base.operate(plan)
        norm = patient.model.model.norm
        changed = norm.weight.detach().clone()
        changed[0] += torch.finfo(changed.dtype).eps * 2
        norm._parameters["weight"] = torch.nn.Parameter(changed, False)
        return patient

    monkeypatch.setattr(Workplace, "patient", off_by_a_bit)
    status, rows = table_of(tmp_path, "oracle, float32")
    assert status == 1 and [row["state"] for row in rows.values()] == ["wrong"]


def test_copied_weights_are_seen(tmp_path, monkeypatch):
    kept = []

    def copying(place: Workplace, base: Base, plan: Plan):
        kept.append(base.operate(plan).copy())
        return kept[-1]

    monkeypatch.setattr(Workplace, "patient", copying)
    status, rows = table_of(tmp_path, "ten patients")
    assert status == 1 and rows["ten patients share the weights"]["state"] == "wrong"


def test_a_check_that_raises_is_a_row_and_the_others_go_on(tmp_path, monkeypatch):
    def broken(place: Workplace) -> Result:
        raise RuntimeError("CUDA error: an\nillegal address")

    def absent(place: Workplace) -> Result:
        raise NotRun("needs two GPUs")

    checks = [Check("a", broken), Check("b", absent), Check("c", lambda place: Result(True))]
    monkeypatch.setattr(right, "CHECKS", checks)
    monkeypatch.setattr(fast, "CHECKS", [])
    status, rows = table_of(tmp_path, "a", "b", "c")
    assert status == 1
    assert [row["state"] for row in rows.values()] == ["failed", "not run", "right"]
    assert rows["a"]["detail"] == "RuntimeError: CUDA error: an illegal address"
    assert table_of(tmp_path, "b", "c")[0] == 0
    _, rows = table_of(tmp_path, "c", seconds=-1)
    assert rows["c"]["state"] == "not run" and "are over" in rows["c"]["detail"]


def test_a_device_that_is_not_there_is_said(capsys):
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(SystemExit) as caught:
        run(["--tiny"])
    assert caught.value.code == 2
    assert "there is no cuda device here" in capsys.readouterr().err


def test_names_are_unique_and_slow_ones_are_told():
    names = [check.name for check in (*right.CHECKS, *fast.CHECKS)]
    assert len(set(names)) == len(names) and {*RIGHT, *FAST} <= set(names)
    speed, time = (
        Result(figure=90, anchor=100, wanted=0.95),
        Result(figure=90, anchor=100, wanted=1.0, less=True),
    )
    assert [state_of(x, tiny=False) for x in (speed, time)] == ["slow", "fast"]
    assert state_of(speed, tiny=True) == "measured"
    assert "| 0.90 |" in table.line(Row("x", "slow", speed))
