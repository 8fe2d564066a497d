"""The gate: a saved model passes its limits or fails them, with the reason and an exit status."""

import json
import math
import shutil

import pytest

from surgery import Base, Plan, SaveError, SurgeryError, texts
from surgery.analysis import LossIncrease, Sample, Score, measured_score
from surgery.checkpoint.card_check import write_check
from surgery.cli import main
from surgery.harness.evaluation import Result
from surgery.harness.evaluation import Score as TaskScore
from surgery.verification.check_saved import check_saved, task_requirements


@pytest.fixture(scope="module")
def saved(tiny_folder, tmp_path_factory):
    """(base, saved model, sample), which nobody changes"""
    base = Base.open(str(tiny_folder("llama")))
    place = tmp_path_factory.mktemp("saved") / "out"
    out = base.save(Plan.parse("0:2, 4:6", base.depth), place)
    sample = Sample.of(base, texts.documents("prose", "judge"), window=64, limit=512)
    return base, Base.open(str(out)), sample


def test_what_it_may_cost(saved):
    base, model, sample = saved
    after = measured_score(model, Plan.whole(4), sample)
    live = measured_score(base, Plan.parse("0:2, 4:6", 6), sample)
    assert live.nll == pytest.approx(after.nll, abs=1e-5)
    cost = LossIncrease.of(after, measured_score(base, Plan.whole(6), sample))
    (passing,) = check_saved(model, base, sample, max_cost=cost.high + 1e-6)
    assert passing.passed and not passing.reason and f"{cost.mean:+.3f}" in passing.measured
    (unsure,) = check_saved(model, base, sample, max_cost=(cost.mean + cost.high) / 2)
    assert not unsure.passed and "too few to tell" in unsure.reason
    (failing,) = check_saved(model, base, sample, max_cost=cost.low - 1)
    assert not failing.passed and failing.reason == "It costs more than the limit."
    for limit in (math.nan, math.inf):
        with pytest.raises(SurgeryError, match="has to be a number"):
            check_saved(model, base, sample, max_cost=limit)


def test_a_cost_takes_a_sample(saved):
    base, model, _ = saved
    with pytest.raises(SurgeryError, match="takes a sample of text"):
        check_saved(model, base, None, max_cost=1)


@pytest.mark.parametrize("broken", ["base", "saved"])
def test_what_is_broken_never_passes(saved, monkeypatch, broken):
    base, model, sample = saved
    nan = Score.of([math.nan] * sample.tokens)

    def score(of, plan, *rest):
        return (
            nan if of is (base if broken == "base" else model) else measured_score(of, plan, *rest)
        )

    monkeypatch.setattr("surgery.verification.check_saved.measured_score", score)
    (cost,) = check_saved(model, base, sample, max_cost=1000)
    assert not cost.passed and "isn't a finite number" in cost.reason


def test_a_skill_that_the_base_lacks_can_not_be_checked(saved):
    base, model, sample = saved
    cost, brackets = check_saved(model, base, sample, max_cost=100, keep=["brackets", "brackets"])
    assert cost.passed and not brackets.passed and "isn't above chance" in brackets.reason
    with pytest.raises(SurgeryError, match="no skill “juggling”"):
        check_saved(model, base, sample, keep=["juggling"])


def test_another_tokenizer_is_refused(saved, monkeypatch):
    base, model, sample = saved
    monkeypatch.setattr(type(model), "tokenizer", property(lambda self: lambda text: {
        "input_ids": [id(self)]}))  # fmt: skip
    with pytest.raises(SaveError, match="different tokens"):
        check_saved(model, base, sample, max_cost=1)


def result(change, error, higher=True, task="arc_easy"):
    one, two = TaskScore(0.5, 0.01), TaskScore(0.5 + change, 0.01)
    return Result(task, "acc", higher, one, two, TaskScore(change, error))


def test_what_may_be_lost_on_tasks():
    rows = [
        result(-0.01, 0.004),
        result(-0.01, 0.02),
        result(-0.05, 0.001),
        result(0.05, 0.001, higher=False),
        result(0.05, 0.001),
        result(math.nan, 0.001),
    ]
    made = task_requirements(rows, 0.02)
    assert [one.passed for one in made] == [True, False, False, False, True, False]
    assert made[0].name == "arc_easy, acc" and made[0].limit == "drop ≤ 0.02"
    assert made[0].measured == "0.500 → 0.490 (-0.010 ± 0.008)" and not made[0].reason
    assert "too few items" in made[1].reason and made[2].reason == "It loses more than the limit."
    assert made[3].reason == made[2].reason and "finite" in made[5].reason
    (group,) = task_requirements([result(0.0, None, task="mmlu")], 0.02)
    assert not group.passed and group.name == "mmlu" and "can't be checked" in group.reason


def test_tasks_are_checked_on_base_and_saved_model(saved, monkeypatch):
    base, model, _ = saved
    asked = []

    def evaluate(*models, **options):
        asked.append((models, options))
        return [result(-0.01, 0.001)]

    monkeypatch.setattr("surgery.harness.evaluation.evaluate", evaluate)
    options = {"limit": 3}
    (one,) = check_saved(model, base, None, tasks=["arc_easy"], task_options=options)
    assert one.passed and asked == [((base, model, ["arc_easy"]), options)]
    (strict,) = check_saved(model, base, None, tasks=["arc_easy"], max_drop=0.01)
    assert not strict.passed
    with pytest.raises(SurgeryError, match="largest drop"):
        check_saved(model, base, None, tasks=["arc_easy"], max_drop=math.nan)


def test_the_card_carries_the_last_check(saved, tmp_path):
    folder = shutil.copytree(saved[1].source.home, tmp_path / "out")
    card = (folder / "README.md").read_text(encoding="utf-8")
    write_check(folder, "llama", [("cost", "≤ 1", "+2.000", False)])
    write_check(folder, "lla|ma <b>\n# x", [("cost | x", "≤ 3", "+2.000", True)])
    text = (folder / "README.md").read_text(encoding="utf-8")
    assert text.startswith(card.rstrip()) and text.count("## Checked") == 1
    assert "| cost \\| x | ≤ 3 | +2.000 | passes |" in text and "**fails**" not in text
    assert "Against lla\\|ma &lt;b> # x, 20" in text
    (folder / "README.md").unlink()
    with pytest.raises(SaveError, match="has no model card"):
        write_check(folder, "llama", [])


def test_the_command(saved, tmp_path, capsys):
    base, model, _ = saved
    shutil.copytree(model.source.home, tmp_path / "out")
    short = ["--limit", "128", "--window", "64"]
    ask = ["check", str(tmp_path / "out"), str(base.source.home), *short]
    assert main.main([*ask, "--max-cost", "100", "--card", "--json"]) == 0
    assert "## Checked" in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    facts = json.loads(capsys.readouterr().out)
    assert facts["passed"] and facts["requirements"][0]["limit"] == "≤ 100"
    assert "half to judge on" in facts["text"]
    assert main.main([*ask, "--max-cost", "-100", "--keep", "brackets"]) == 1
    out = capsys.readouterr().out
    assert "fails" in out and "It costs more than the limit." in out
    assert main.main(ask) == 1 and "Give a limit" in capsys.readouterr().err
    assert main.main(["check", str(tmp_path / "no"), "--max-cost", "1"]) == 1
    assert "There is no folder" in capsys.readouterr().err
    (tmp_path / "out" / "recipe.yaml").unlink()
    assert main.main(["check", str(tmp_path / "out"), "--max-cost", "1"]) == 1
    assert "has no recipe.yaml" in " ".join(capsys.readouterr().err.split())
