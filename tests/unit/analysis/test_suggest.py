"""Plans for a size: what each method has to find, found the long way round."""

import itertools

import pytest
from naive import Naive

from surgery import Cancelled, Plan, SurgeryError
from surgery.analysis import MeasurementCache, measured_score, scan, suggest
from surgery.analysis.target import Target

LAYERS = range(1, 5)  # the ends are protected


def by_method(suggestions):
    return {one.method: one for one in suggestions}


def test_shrinking_to_a_number_of_layers(opened):
    base, sample = opened("llama")
    naive = Naive(base, sample)
    result = by_method(suggest(base, sample, layers=4))
    assert set(result) == {"block", "influence", "drop_one", "greedy", "random"}
    for one in result.values():
        assert len(one.plan) == 4 and {0, 5} <= set(one.plan.sources)
        expected = naive.perplexity(one.plan.sources)
        assert one.measured.perplexity == pytest.approx(expected, rel=1e-5)
        assert all(str(i) in one.words for i in one.plan.dropped)
    start = min((1, 2, 3), key=lambda s: naive.angular(s, 2))
    assert result["block"].plan.dropped == (start, start + 1)
    assert result["block"].expected == pytest.approx(naive.angular(start, 2), abs=1e-5)
    influence = sorted(LAYERS, key=naive.block_influence)[:2]
    assert set(result["influence"].plan.dropped) == set(influence)
    total = sum(map(naive.block_influence, influence))
    assert result["influence"].expected == pytest.approx(total, abs=1e-5)

    def without(*gone):
        return naive.perplexity([i for i in range(6) if i not in gone])

    alone = sorted(LAYERS, key=without)[:2]
    assert set(result["drop_one"].plan.dropped) == set(alone)
    intact = without()
    product = without(alone[0]) * without(alone[1]) / intact
    assert result["drop_one"].expected == pytest.approx(product, rel=1e-4)
    first = min(LAYERS, key=without)
    second = min(set(LAYERS) - {first}, key=lambda i: without(first, i))
    assert set(result["greedy"].plan.dropped) == {first, second}
    measured = [one.measured.perplexity for one in suggest(base, sample, layers=4)]
    assert measured == sorted(measured)


def test_growing_to_a_number_of_layers(opened):
    base, sample = opened("llama")
    naive = Naive(base, sample)
    result = by_method(suggest(base, sample, layers=8))
    assert set(result) == {"repeat_one", "repeat_block", "random"}
    whole = list(range(6))
    alone = sorted(LAYERS, key=lambda i: naive.perplexity(sorted([*whole, i])))[:2]
    assert result["repeat_one"].plan.sources == tuple(sorted([*whole, *alone]))
    blocks = {s: naive.perplexity([*range(s + 2), *range(s, 6)]) for s in (1, 2, 3)}
    best = min(blocks, key=blocks.get)
    assert result["repeat_block"].plan.sources == (*range(best + 2), *range(best, 6))
    assert result["repeat_block"].measured.perplexity == pytest.approx(blocks[best], rel=1e-5)
    assert len(result["random"].plan) == 8
    # More than all of them once comes round again.
    assert len(suggest(base, sample, layers=11, methods=["repeat_one"])[0].plan) == 11


def test_a_number_of_parameters(opened):
    base, sample = opened("llama")

    def size(plan):
        return base.preview(plan).parameters

    layer = size(Plan.whole(6)) - size(Plan.parse("0:5", 6))
    for parameters, depth in ((size(Plan.whole(6)) - 1, 5), (size(Plan.whole(6)) - 2 * layer, 4)):
        for one in suggest(base, sample, parameters=parameters, measured=False):
            assert len(one.plan) == depth and size(one.plan) <= parameters
    (grown,) = suggest(
        base, sample, parameters=size(Plan.whole(6)) + 2 * layer + 5, methods=["repeat_one"]
    )
    assert len(grown.plan) == 8


def test_the_control_is_the_same_again(opened):
    base, sample = opened("llama")
    plans = {
        seed: suggest(base, sample, layers=4, methods=["random"], seed=seed)[0].plan
        for seed in range(8)
    }
    assert plans[3] == suggest(base, sample, layers=4, methods=["random"], seed=3)[0].plan
    assert len(set(plans.values())) > 1


def test_a_search_that_is_stopped_goes_on(opened):
    base, sample = opened("llama")
    reports = []

    def stop(what, done, total):
        reports.append(what)
        if what == "Searching: 2 dropped" and done > total / 2:
            raise Cancelled

    with pytest.raises(Cancelled):
        suggest(base, sample, layers=3, methods=["greedy"], progress=stop)
    reports.clear()
    result = suggest(
        base, sample, layers=3, methods=["greedy"], progress=lambda what, *_: reports.append(what)
    )
    assert "Searching: 1 dropped" not in reports and "Searching: 2 dropped" in reports
    MeasurementCache(base, sample).forget()
    assert suggest(base, sample, layers=3, methods=["greedy"]) == result


def test_what_was_scanned_is_not_measured_again(opened):
    base, sample = opened("llama")
    scan(base, sample)
    reports = []
    suggest(base, sample, layers=5, progress=lambda what, *_: reports.append(what))
    assert set(reports) <= {"Measuring perplexity", "Measuring layers"}
    score = measured_score(base, Plan.parse("0:3, 4:6", 6), sample)
    assert score == measured_score(base, Plan.parse("0:3, 4:6", 6), sample)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({}, "Give a target size"),
        ({"layers": 4, "parameters": 10}, "Give a target size"),
        ({"layers": 6}, "already has that size"),
        ({"layers": 1}, "1 layers can't be reached: this base can have at least 2"),
        ({"layers": 5000}, "at most 4,096"),
        ({"parameters": 1000}, "1,000 parameters can't be reached"),
        ({"layers": 4, "methods": ["repeat_one"]}, "doesn't lead to 4 layers"),
        ({"layers": 4, "protect": (3, 3)}, "none is left to change"),
    ],
)
def test_what_can_not_be_suggested(opened, asked, message):
    base, sample = opened("llama")
    with pytest.raises(SurgeryError, match=message):
        suggest(base, sample, **asked)


def test_plans_that_are_refused_are_passed_over(opened, monkeypatch):
    base, _ = opened("llama")
    refused = {(1,), (1, 2), (1, 3), (1, 4)}
    operable = Target.operable
    monkeypatch.setattr(
        Target, "operable", lambda self, plan: plan.dropped not in refused and operable(self, plan)
    )
    target = Target.of(base, 4, None, (1, 1))
    for order in itertools.permutations(LAYERS):
        assert 1 not in target.dropping(order).dropped
