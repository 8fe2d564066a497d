"""Evaluation in lm-evaluation-harness, as far as it goes without the package.

`python -m tests.harness` runs it with the package, in an environment of its own.
"""

import ast
import json
import math
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest
import tiny
import torch

from surgery import Base, Plan, PlanError, Refused, SurgeryError
from surgery.cli import main
from surgery.harness import evaluate, evaluation, keep, kept, open_patient, register, registration
from surgery.harness.evaluation import Result, Score, compared

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    """Results of one test are not in the log of another."""
    monkeypatch.setenv("LAYER_SURGERY_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(tiny_folder):
    return str(tiny_folder("llama"))


# ---------------------------------------------------------------- the package


@pytest.fixture
def no_lm_eval(monkeypatch):
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    monkeypatch.delitem(sys.modules, "surgery.harness.model", raising=False)


def test_without_the_package_there_is_a_clear_error(no_lm_eval, folder, capsys):
    message = "Evaluation needs the package lm_eval: pip install lm_eval."
    base = Base.open(folder)
    with pytest.raises(SurgeryError, match=message):
        register()
    with pytest.raises(SurgeryError, match=message):
        evaluate(base, base.operate(Plan.whole(base.depth)), ["arc_easy"])
    with pytest.raises(SurgeryError, match=message):
        from surgery.harness import PatientLM  # noqa: F401
    assert main.main(["evaluate", folder, "0:2, 4:6", "--tasks", "arc_easy"]) == 1
    out, err = capsys.readouterr()
    assert (out, err) == ("", f"Error: {message}\n")


def test_the_package_names_the_model_in_the_group_of_lm_eval():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    points = project["entry-points"]["lm_eval.models"]
    assert points == {registration.NAME: registration.TARGET}
    module, _, name = registration.TARGET.partition(":")
    code = (ROOT / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8")
    assert name in {n.name for n in ast.parse(code).body if isinstance(n, ast.ClassDef)}


# ---------------------------------------------------------------- model arguments


@pytest.mark.parametrize(
    ("written", "layers"),
    [
        ("0:2;4:6", "0:2, 4:6"),
        ("0:2, 4:6", "0:2, 4:6"),
        ("0:2; 4@scale=0.5", "0:2, 4@scale=0.5"),
        ("drop-middle n=2", "0:2, 4:6"),
        (3, "3"),
    ],
)
def test_plans_are_read_as_lm_eval_passes_them(folder, written, layers):
    base = Base.open(folder)
    patient = open_patient(folder, written)
    assert patient.base is base and patient.plan == Plan.parse(layers, base.depth)


def test_a_plan_may_be_a_recipe(folder, tmp_path):
    recipe = tmp_path / "plan.yaml"
    recipe.write_text("slices: [{sources: [{model: x, layer_range: [0, 2]}]}]\n")
    assert str(open_patient(folder, f"@{recipe}").plan) == "0:2"
    with pytest.raises(PlanError, match="can't be read"):
        open_patient(folder, f"@{tmp_path / 'none.yaml'}")


def test_a_repair_is_made_on_the_way(folder):
    ids = tiny.tokens()
    plain, damped = (open_patient(folder, "0:4;2:6", *how) for how in ((), ("damped",)))
    with torch.no_grad():
        assert not torch.equal(plain.model(ids).logits, damped.model(ids).logits)
    assert str(damped.plan) == "0:2, 2:4*2@scale=0.5, 4:6"


def test_what_makes_no_sense_is_refused(folder):
    with pytest.raises(PlanError):
        open_patient(folder, "0:99")
    with pytest.raises(SurgeryError, match="There is no repair “magic”"):
        open_patient(folder, "0:2;4:6", "magic")
    with pytest.raises(Refused):
        open_patient(folder, "0:2;4@refit;5:6")  # fitted to what, only the repair knows


# ---------------------------------------------------------------- results


def result(values, *, task="t", metric="acc", chosen="none", shown=None, stderr=0.25):
    """What `simple_evaluate` returns, shortened."""
    key = f"{metric},{chosen}"
    mean = sum(values) / len(values) if shown is None else shown
    return {
        "results": {
            task: {
                "alias": task,
                "sample_len": len(values),
                key: mean,
                f"{metric}_stderr,{chosen}": stderr,
            }
        },
        "higher_is_better": {task: {metric: True}},
        "samples": {
            task: [{"doc_id": i, "filter": chosen, metric: v} for i, v in enumerate(values)]
        },
    }


def test_scores_are_compared_item_by_item():
    base, patient = [1.0, 1.0, 0.0, 1.0], [0.0, 1.0, 0.0, 0.0]
    (found,) = compared(result(base), result(patient))
    # The differences are −1, 0, 0, −1: their standard deviation is √(1/3).
    error = math.sqrt(1 / 3) / math.sqrt(4)
    assert found == Result(
        "t", "acc", True, Score(0.75, 0.25), Score(0.25, 0.25), Score(-0.5, pytest.approx(error))
    )


def test_equal_answers_differ_by_nothing():
    (found,) = compared(result([1.0, 0.0, 1.0]), result([1.0, 0.0, 1.0]))
    assert found.difference == Score(0.0, 0.0)


@pytest.mark.parametrize(
    "changes",
    [
        {"shown": 12.5, "metric": "perplexity"},  # not the mean of the items
        {"stderr": "N/A", "shown": 0.4},
    ],
)
def test_what_is_no_mean_of_items_has_no_paired_error(changes):
    one = result([1.0, 0.0, 1.0], **changes)
    (found,) = compared(one, result([0.0, 0.0, 1.0], **changes))
    assert found.difference == Score(0.0, None)
    assert found.base.stderr == (None if changes.get("stderr") == "N/A" else 0.25)


def test_groups_have_scores_alone():
    one, two = result([1.0, 0.0]), result([0.0, 0.0])
    del one["samples"], two["samples"], one["higher_is_better"]["t"]
    (found,) = compared(one, two)
    assert found.difference == Score(-0.5, None) and found.higher_is_better is None


def test_a_filter_is_named_beside_its_metric():
    one = result([1.0, 0.0], metric="exact_match", chosen="strict-match")
    (found,) = compared(one, one)
    assert found.metric == "exact_match,strict-match"


# ---------------------------------------------------------------- the command


@pytest.fixture
def measured(monkeypatch):
    """What the command asks for, and results in place of lm-eval's."""
    asked = {}

    def fake(base, patient, tasks, **options):
        asked.update(base=base, patient=patient, tasks=tasks, **options)
        print("a bar of progress", file=sys.stderr)
        return [
            Result("t", "acc", True, Score(0.75, 0.25), Score(0.5, 0.25), Score(-0.25, 0.125)),
            Result("t", "word_perplexity", False, Score(16.43, None), Score(48910.2, None),
                   Score(48893.8, None)),
        ]  # fmt: skip

    monkeypatch.setattr(evaluation, "evaluate", fake)
    monkeypatch.setitem(sys.modules, "lm_eval", ModuleType("lm_eval"))
    monkeypatch.setenv("COLUMNS", "100")
    return asked


def test_the_command_prints_a_table(measured, folder, tmp_path, capsys):
    options = ("--tasks", "t, u", "--include-path", str(tmp_path), "--limit", "8")
    assert main.main(["evaluate", folder, "0:2, 4:6", *options, "--batch-size", "4"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "0:2, 4:6  (2 dropped)" in out
    lines = [line.split() for line in out.splitlines()[-2:]]
    assert " ".join(lines[0]) == "t acc ↑ 0.7500 ± 0.2500 0.5000 ± 0.2500 -0.2500 ± 0.1250"
    assert " ".join(lines[1]) == "t word_perplexity ↓ 16.43 48,910.20 +48,893.80"
    assert measured["tasks"] == ["t", "u"] and measured["include_path"] == tmp_path
    assert (measured["limit"], measured["batch_size"]) == (8, 4)
    assert measured["base"].depth == 6 and str(measured["patient"].plan) == "0:2, 4:6"


def test_the_command_prints_json(measured, folder, capsys):
    assert main.main(["evaluate", folder, "0:2, 4:6", "--tasks", "t", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["plan"] == "0:2, 4:6"
    assert found["results"][0] == {
        "task": "t",
        "metric": "acc",
        "higher_is_better": True,
        "base": {"value": 0.75, "stderr": 0.25},
        "patient": {"value": 0.5, "stderr": 0.25},
        "difference": {"value": -0.25, "stderr": 0.125},
    }
    assert measured["include_path"] is None and measured["limit"] is None


def test_the_command_needs_tasks(folder, tmp_path, capsys):
    assert main.main(["evaluate", folder, "0:2"]) == 2
    no_folder = ("--tasks", "t", "--include-path", str(tmp_path / "none"))
    assert main.main(["evaluate", folder, "0:2", *no_folder]) == 2
    assert capsys.readouterr().out == ""


def test_an_unknown_task_is_named(monkeypatch, folder):
    tasks = ModuleType("lm_eval.tasks")
    tasks.TaskManager = lambda include_path: type("", (), {"match_tasks": lambda self, names: []})()
    monkeypatch.setitem(sys.modules, "lm_eval", ModuleType("lm_eval"))
    monkeypatch.setitem(sys.modules, "lm_eval.tasks", tasks)
    base = Base.open(folder)
    with pytest.raises(SurgeryError, match="lm-eval has no task “hellaswog”"):
        evaluate(base, base.operate(Plan.whole(base.depth)), ["hellaswog"])


# ---------------------------------------------------------------- what is kept


def test_results_are_kept_for_the_log(folder, tmp_path):
    base = Base.open(folder)
    assert kept(base) == []
    plan, whole = Plan.parse("0:2, 4:6", 6), Plan.whole(6)

    def result(value, error=0.01):
        return Result("t", "acc", True, Score(0.5, None), Score(value, error), Score(-0.1, error))

    keep(base, plan, [result(0.4)])
    keep(base, whole, [result(0.5, None)], limit=3)
    keep(base, plan, [result(0.3)])  # again
    first, second = kept(base)
    assert (first.plan, first.limit, first.result) == (str(whole), 3, result(0.5, None))
    assert (second.plan, second.limit, second.result) == (str(plan), None, result(0.3))
    assert kept(Base.open(folder)) == [first, second]
    (file,) = (tmp_path / "cache" / "tasks").iterdir()
    file.write_text('{"files": {}, "value": [{"plan": 3}]}', encoding="utf-8")
    assert kept(base) == []


def test_results_of_random_weights_are_not_kept(folder):
    drawn = Base.open(f"config:{folder}/config.json")
    keep(drawn, Plan.whole(6), [Result("t", "acc", True, *[Score(0.5, None)] * 3)])
    assert kept(drawn) == []
