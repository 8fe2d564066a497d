"""Plans on a text that they were not chosen on, and what is more than chance there."""

import numpy as np
import pytest

from surgery import Plan, SurgeryError, texts
from surgery.analysis import (
    LossIncrease,
    Sample,
    Score,
    judge,
    judging,
    measured_score,
    random_controls,
    suggest,
)
from surgery.analysis.judging import CONTROLS
from surgery.analysis.score import interval
from surgery.analysis.significance import LEVEL, benjamini_hochberg, p_value, tokens_needed


def noise(rng, length=512, mean=0.0):
    """Differences of losses that depend on their neighbours, as those of words do."""
    steps = rng.standard_t(5, length + 4)
    return mean + np.convolve(steps, [0.5, 0.5, 0.3, 0.2, 0.1], "valid")


def test_equal_models_never_differ():
    assert p_value(np.zeros(400)) == 1.0 and tokens_needed(np.zeros(400), 0.01) is None
    assert p_value([0.1, np.inf, 0.2] * 200) is None
    assert p_value(np.full(150, 0.5)) is None  # too short to tell


def test_of_equal_plans_few_are_called_real():
    """Plans that cost nothing, one alone and twenty at once: at most 5 % of either are called real,
    but for two standard errors of the simulation."""
    rng = np.random.default_rng(1)
    alone = [p_value(noise(rng)) for _ in range(2000)]
    assert 0.03 <= np.mean(np.less(alone, LEVEL)) <= 0.06
    called = [min(benjamini_hochberg(search)) < LEVEL for search in np.reshape(alone, (-1, 20))]
    assert np.mean(called) <= LEVEL + 2 * np.sqrt(LEVEL * (1 - LEVEL) / len(called))


def test_plans_that_differ_are_found_among_others():
    rng = np.random.default_rng(2)
    for _ in range(10):
        found = benjamini_hochberg(
            [p_value(noise(rng, mean=0.5))] + [p_value(noise(rng)) for _ in range(9)]
        )
        assert found[0] < LEVEL


def test_intervals_cover_the_mean():
    """Of 95 % intervals, 93 to 97 % have the true mean in them."""
    rng = np.random.default_rng(3)
    spans = [interval(noise(rng, 1024, 0.3)) for _ in range(2000)]
    assert 0.93 <= np.mean([low <= 0.3 <= high for low, high in spans]) <= 0.97


def test_correction_by_hand():
    assert benjamini_hochberg([0.01, 0.04, 0.03, 0.5]) == pytest.approx(
        [0.04, 0.16 / 3, 0.16 / 3, 0.5]
    )
    assert benjamini_hochberg([]) == [] and benjamini_hochberg([0.2]) == [0.2]


def test_the_tokens_that_it_takes():
    rng = np.random.default_rng(4)
    needed = tokens_needed(noise(rng, 8192), 0.2)
    assert needed == pytest.approx(tokens_needed(noise(rng, 8192), 0.1) / 4, rel=0.2)
    found = [p_value(noise(rng, needed, 0.2)) < LEVEL for _ in range(300)]
    assert 0.7 <= np.mean(found) <= 0.9


def test_a_plan_that_breaks_the_model_beats_no_control(opened, monkeypatch):
    base, sample = opened("llama")
    plan, control = Plan.parse("0:4, 5", 6), Plan.parse("0:2, 4:6", 6)
    measured = judging.measured_score

    def broken(base, of, *more):
        score = measured(base, of, *more)
        return Score.of(np.full(score.tokens, np.nan)) if of == plan else score

    monkeypatch.setattr(judging, "measured_score", broken)
    found, itself = judge(base, [plan, control], sample, [control])
    assert found.gain.mean == -np.inf and found.p is None and found.beats_control is False
    assert itself.beats_control is None


def test_plans_are_judged_against_base_and_controls(opened):
    base, _ = opened("llama")
    sample = Sample.of(base, texts.documents("facts", "judge"), window=64, limit=320)
    whole = Plan.whole(6)
    controls = [Plan.parse("0:2, 4:6", 6), Plan.parse("0, 2, 4, 5", 6)]
    plans = [Plan.parse("0:4, 5", 6), controls[0], whole, Plan.parse("0, 5", 6)]
    judged = judge(base, plans, sample, controls)
    scores = {plan: measured_score(base, plan, sample) for plan in {*plans, *controls}}
    mean = Score.of(np.mean([scores[control].nll for control in controls], axis=0))
    raw = []
    for plan, one in zip(plans, judged, strict=True):
        assert one.score == scores[plan]
        assert one.cost == LossIncrease.of(scores[plan], scores[whole])
        if plan in controls:
            assert one.gain is one.p is one.beats_control is None
        else:
            assert one.gain == LossIncrease.of(mean, scores[plan])
            raw.append(p_value(np.subtract(scores[plan].nll, mean.nll)))
            assert one.beats_control == (one.gain.mean > 0 and one.p < LEVEL)
    assert [one.p for one in judged if one.p is not None] == benjamini_hochberg(raw)
    assert all(one.p is None for one in judge(base, plans, sample))


def test_several_random_plans_are_controls(opened):
    base, sample = opened("llama")
    found = suggest(base, sample, layers=4, methods=["random", "influence"], seed=3)
    controls = random_controls(base, found, layers=4, seed=3)
    assert len(set(controls)) == CONTROLS and all(len(plan) == 4 for plan in controls)
    assert next(one.plan for one in found if one.method == "random") in controls
    assert len(random_controls(base, [], layers=2)) == 1  # the first and the last layer stay


def test_a_text_is_divided_in_the_middle(opened):
    base, _ = opened("llama")
    sample = Sample.of(base, texts.documents("prose"), window=64, limit=64 * 5)
    first, second = sample.halves()
    assert first.windows + second.windows == sample.windows and len(first) == 3
    with pytest.raises(SurgeryError, match="too short"):
        Sample.of(base, texts.get("prose"), window=64, limit=64).halves()
