"""Profiles and what is said of a patient, on made-up margins and on real models."""

import io
import json
import math
import re

import numpy as np
import pytest
import torch
from rich.console import Console

from surgery import Base, Plan
from surgery.cli.main import main
from surgery.cli.reports.skills import skills_report
from surgery.skills import (
    SKILLS,
    Change,
    Profile,
    Repetition,
    SkillScore,
    compare_skills,
    items_of,
    margins,
    profile,
    repetition_of,
)
from surgery.skills.intervals import wilson
from surgery.skills.repetition import PROMPTS, repeated

# ---------------------------------------------------------------- intervals


@pytest.mark.parametrize(
    ("right", "count", "low", "high"),
    [
        (10, 10, 0.7225, 1.0),
        (0, 10, 0.0, 0.2775),
        (5, 10, 0.2366, 0.7634),
        (81, 263, 0.2553, 0.3662),
    ],
)
def test_wilson(right, count, low, high):
    """The last one as in Newcombe, Statistics in Medicine 17 (1998), 857."""
    assert wilson(right, count) == pytest.approx((low, high), abs=5e-5)


def test_the_change_is_paired():
    random = np.random.default_rng(0)
    base = random.normal(2, 5, 64)
    patient = base - 0.5 + random.normal(0, 0.1, 64)
    change = Change.of(base, patient)
    assert change.mean == pytest.approx(float((patient - base).mean()))
    assert -0.54 < change.low < change.mean < change.high < -0.46
    assert change == Change.of(list(base), list(patient))
    width = 2 * 1.96 * (patient - base).std() / 8
    assert change.high - change.low == pytest.approx(width, rel=0.1)
    with pytest.raises(ValueError):
        Change.of(base, patient[:-1])


# ---------------------------------------------------------------- verdicts


def score(mean, spread=1.0, chance=0.25, count=64):
    values = mean + spread * np.random.default_rng(0).normal(size=count)
    return SkillScore(tuple(values.tolist()), chance)


@pytest.mark.parametrize(
    ("base", "patient", "verdict"),
    [
        (score(3), score(3), "kept"),
        (score(3), score(2.5), "weaker"),
        (score(3), score(-1), "lost"),
        (score(3), score(4), "gained"),
        (score(-0.7), score(3), "at chance"),
        (score(-3), score(-3), "at chance"),  # worse than chance: it follows something else
        (score(3), SkillScore((math.nan,) * 64, 0.25), "lost"),
        (SkillScore((math.nan,) * 64, 0.25), score(3), "at chance"),
    ],
)
def test_verdicts(base, patient, verdict):
    one, other = (Profile({"copying": value}, 64, 0) for value in (base, patient))
    (change,) = compare_skills(one, other)
    assert (change.skill, change.verdict) == (SKILLS["copying"], verdict)


def test_profiles_of_other_items_are_not_compared():
    one = Profile({"copying": score(1)}, 64, 0)
    for other in (
        Profile({"copying": score(1)}, 64, 1),
        Profile({"copying": score(1, count=8)}, 8, 0),
        Profile({"lookup": score(1)}, 64, 0),
    ):
        with pytest.raises(ValueError, match="different items"):
            compare_skills(one, other)


# ---------------------------------------------------------------- models


def test_a_random_model_is_at_chance_in_everything(tiny_folder):
    base, options = Base.open(str(tiny_folder("llama"))), dict(items=32)
    before, after = profile(base, **options), profile(base, Plan.parse("0:4", 6), **options)
    changes = compare_skills(before, after)
    assert [change.skill.key for change in changes] == list(SKILLS)
    assert {change.verdict for change in changes} == {"at chance"}
    for change in changes:
        low, high = change.base.interval
        assert low <= change.base.accuracy <= high and 0 < change.base.chance <= 0.5


def test_a_profile_can_be_repeated(tiny_folder):
    base, options = Base.open(str(tiny_folder("llama"))), dict(skills=["copying"], items=8)
    assert profile(base, **options) == profile(base, **options)
    assert profile(base, **options) != profile(base, seed=1, **options)


def test_a_patient_that_is_given_is_probed(tiny_folder):
    base, plan = Base.open(str(tiny_folder("llama"))), Plan.parse("0:4", 6)
    options = dict(skills=["copying"], items=8)
    assert profile(base, base.operate(plan), **options) == profile(base, plan, **options)


def test_the_bundled_model_by_hand(bundled, monkeypatch):
    """One item, its log-probabilities from a plain float32 model of transformers."""
    monkeypatch.setenv("LAYER_SURGERY_COMPUTE_DTYPE", "float32")
    plan = Plan.whole(30)
    patient = bundled.operate(plan)
    items = items_of("copying", 8)
    found = margins(bundled, patient.model, plan, items[:2])
    item = items[0]
    prompt = bundled.tokenizer(item.prompt)["input_ids"]
    # Each continuation is one token of this tokenizer.
    ends = [bundled.tokenizer(text)["input_ids"] for text in item.continuations]
    assert {len(end) for end in ends} == {1}
    model = patient.copy().float()
    with torch.no_grad():
        log_p = model(input_ids=torch.tensor([prompt])).logits[0, -1].log_softmax(-1)
    right, *wrong = (float(log_p[end[0]]) for end in ends)
    assert found[0] == pytest.approx(right - max(wrong), abs=1e-3)


def test_dropping_many_layers_loses_copying(bundled):
    options = dict(skills=["copying"], items=16)
    before = profile(bundled, **options)
    (change,) = compare_skills(before, profile(bundled, Plan.parse("0:6, 26:30", 30), **options))
    assert change.base.accuracy > 0.7 and change.verdict == "lost"
    assert change.margin.high < -1


# ---------------------------------------------------------------- repetition


def test_repeated_4_grams():
    assert repeated([1, 2, 3]) is None
    assert repeated([1, 2, 3, 4, 5]) == 0
    assert repeated([7] * 13) == 0.9  # ten 4-grams, one of them new
    assert Repetition((0.5, None, 0.0)).mean == 0.25 and Repetition((None,)).mean is None


def test_a_tiny_model_loops(tiny_folder):
    base = Base.open(str(tiny_folder("llama")))
    result = repetition_of(base.operate(Plan.whole(6)))
    assert len(result.shares) == len(PROMPTS) and 0 <= result.mean <= 1


# ---------------------------------------------------------------- the command


def test_the_command(tiny_folder, capsys, monkeypatch):
    monkeypatch.setattr("surgery.skills.repetition.PROMPTS", PROMPTS[:1])
    folder = str(tiny_folder("llama"))
    assert main(["skills", folder, "0:2, 4:6", "--items", "8", "--seed", "3", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["plan"], found["items"], found["seed"]) == ("0:2, 4:6", 8, 3)
    assert list(found["skills"]) == list(SKILLS)
    copying = found["skills"]["copying"]
    expected = profile(Base.open(folder), skills=["copying"], items=8, seed=3).scores["copying"]
    assert copying["base"]["accuracy"] == expected.accuracy
    assert copying["base"]["margin"] == pytest.approx(expected.mean, abs=1e-5)
    assert copying["margin_change"].keys() == {"mean", "low", "high"}
    assert 0 <= found["repeated_4_grams"]["patient"] <= 1


def test_the_table():
    before = Profile({"copying": score(9), "lookup": score(9), "order": score(-1)}, 64, 0)
    broken = SkillScore((math.nan,) * 64, 0.25)
    after = Profile({"copying": score(8), "lookup": broken, "order": score(-2)}, 64, 0)
    changes = compare_skills(before, after)
    console = Console(width=80, record=True, file=io.StringIO())
    for part in skills_report(changes, (Repetition((0.5, 0.25)), Repetition((None,)))):
        console.print(part)
    text = console.export_text()
    rows = [re.sub(r"  +", " | ", line.strip()) for line in text.splitlines()]
    assert "copying | 25 % | 100 % | 100 % | 94 to 100 | -1.00 | -1.00 to -1.00 | weaker" in rows
    assert "key lookup | 25 % | 100 % | 0 % | 0 to 6 | NaN | lost" in rows
    assert any(row.startswith("order | ") and row.endswith(" | at chance") for row in rows)
    assert "greedy text: base 38 %, patient none." in text


@pytest.mark.parametrize("items", ["7", "1001", "many"])
def test_a_wrong_number_of_items(capsys, items):
    assert main(["skills", "x", "0:2", "--items", items]) == 2
    assert "--items" in capsys.readouterr().err
