"""Skills in stages, and the margins that are kept from one to the next."""

import math

import numpy as np
import pytest

from surgery import Base, Cancelled, Plan
from surgery.skills import (
    SKILLS,
    MarginCache,
    Profile,
    SkillScore,
    cache,
    compare_skills,
    counted,
    profile,
    repetition,
    stages,
)
from surgery.skills.stages import known_results, probe_in_stages

PLAN = Plan.parse("0:4", 6)


@pytest.fixture
def quick(monkeypatch):
    """Less to do for what doesn't depend on how much."""
    monkeypatch.setattr(stages, "FIRST", 8)
    monkeypatch.setattr(repetition, "PROMPTS", repetition.PROMPTS[:1])
    monkeypatch.setattr(repetition, "TOKENS", 8)


def forget(base):
    """As if another process had measured: what is on disk is all that is left."""
    cache._memory.pop(base)


def test_more_items_are_added_to_those_that_are_there(tiny_folder, monkeypatch):
    base, options = Base.open(str(tiny_folder("llama"))), dict(skills=["copying", "sums_1"])
    expected = profile(base, PLAN, items=24, cache=MarginCache(), **options)
    asked = []
    grade = stages.profile.__globals__["margins"]

    def counting(base, model, plan, items, progress):
        asked.append(len(items))
        return grade(base, model, plan, items, progress)

    monkeypatch.setitem(stages.profile.__globals__, "margins", counting)
    few = profile(base, PLAN, items=8, **options)
    forget(base)
    more = profile(base, PLAN, items=24, **options)
    assert profile(base, PLAN, items=8, **options) == few
    assert profile(base, PLAN, items=24, **options) == more
    assert asked == [16, 32]
    for key in options["skills"]:
        margins = more.scores[key].margins
        assert margins[:8] == few.scores[key].margins
        assert margins == pytest.approx(expected.scores[key].margins, abs=1e-4)
    other = profile(base, Plan.parse("0:3", 6), items=8, **options)
    assert other.scores["copying"].margins != few.scores["copying"].margins
    profile(base, PLAN, items=8, seed=1, **options)
    assert asked == [16, 32, 16, 16]


def test_results_come_skill_by_skill_and_are_those_of_a_profile(tiny_folder, quick):
    base, updates, news = Base.open(str(tiny_folder("llama"))), [], []
    results = probe_in_stages(
        base, PLAN, updates.append, lambda *report: news.append(report), items=10
    )
    counts = [len(update.changes) for update in updates]
    assert counts == [*range(1, 10), *[9] * 9]
    assert [u.items for u in updates] == [*[0] * 8, *[8] * 9, 10]
    assert not any(update.is_final or update.texts for update in updates)
    assert results.is_final and len(results.texts) == 2
    expected = compare_skills(profile(base, items=10), profile(base, PLAN, items=10))
    assert results.changes == expected
    for what in ("Probing skills, 8 items of each", "Probing skills, 10 items of each"):
        done = [(d, t) for w, d, t in news if w == what]
        assert done == sorted(done) and done[-1][0] == done[-1][1] > 0
        assert len({total for _, total in done}) == 1
    news.clear()
    again = probe_in_stages(base, PLAN, progress=lambda *report: news.append(report), items=10)
    assert again == results
    assert not [report for report in news if report[2]]
    assert known_results(base, PLAN, items=10) == results
    assert known_results(base, Plan.parse("0:3", 6), items=10) is None
    assert known_results(base, PLAN, items=11) is None


def test_a_base_is_compared_with_itself(tiny_folder, quick):
    base = Base.open(str(tiny_folder("llama")))
    results = probe_in_stages(base, Plan.whole(6), items=8)
    assert all(change.base == change.patient for change in results.changes)
    assert results.texts[0] == results.texts[1] and results.items == 8


def test_what_was_graded_before_a_stop_is_kept(tiny_folder, quick):
    base, updates = Base.open(str(tiny_folder("llama"))), []

    def stop(*report):
        if len(updates) == 2:
            raise Cancelled

    with pytest.raises(Cancelled):
        probe_in_stages(base, PLAN, updates.append, stop)
    known = MarginCache.of(base, PLAN)
    lengths = [len(known.get(cache.name_of(key, 0))) for key in SKILLS]
    assert lengths == [8, 8, *[0] * 7]


def test_verdicts_are_counted_worst_first():
    def score(mean):
        values = mean + np.random.default_rng(0).normal(size=64)
        return SkillScore(tuple(values.tolist()), 0.25)

    broken = SkillScore((math.nan,) * 64, 0.25)
    before = {"copying": score(3), "lookup": score(3), "order": score(-3), "dates": score(3)}
    after = {"copying": score(3), "lookup": broken, "order": score(3), "dates": score(3)}
    changes = compare_skills(Profile(before, 64, 0), Profile(after, 64, 0))
    assert counted(changes) == "1 lost, 2 kept, 1 at chance"
