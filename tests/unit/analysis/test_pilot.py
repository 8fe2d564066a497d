"""The variants that tell how much text a scan takes."""

import pytest

from surgery import Base, texts
from surgery.analysis import SCORES, Sample, measured_score
from surgery.analysis.pilot import VARIANTS, Pilot
from surgery.errors import SurgeryError
from surgery.plan import Plan


@pytest.mark.parametrize("depth", [2, 6, 30, 126])
def test_a_few_of_all_variants(depth):
    pilot = Pilot.of(depth, ["drop_one", "repeat_one", "block_influence"])
    dropped, repeated = (SCORES[key].plans(depth, 0, depth) for key in ("drop_one", "repeat_one"))
    every = [*dropped.values(), *repeated.values()]
    assert min(depth, VARIANTS / 2) <= len(pilot.plans) <= VARIANTS
    assert set(pilot.plans) <= set(every)
    assert any(p in dropped.values() for p in pilot.plans)
    assert any(p in repeated.values() for p in pilot.plans)
    assert pilot.share == len(pilot.plans) / len(every)


def test_blocks_count_but_are_not_measured():
    pilot = Pilot.of(6, ["drop_one", "repeat_map"], (1, 4))
    assert len(pilot.plans) == 6 and pilot.share == 6 / (6 + 6)
    assert Pilot.of(6, ["block_influence", "angular"]) == Pilot((), 1.0)
    with pytest.raises(SurgeryError, match="not a score"):
        Pilot.of(6, ["charm"])
    with pytest.raises(SurgeryError, match="not a span"):
        Pilot.of(6, ["drop_one"], (4, 9))


def test_their_costs(tiny_folder):
    base = Base.open(str(tiny_folder("llama")))
    sample = Sample.of(base, texts.get("facts"), 40, 120)
    pilot = Pilot.of(base.depth, ["drop_one"])
    whole = measured_score(base, Plan.whole(base.depth), sample)
    costs = pilot.costs(base, sample)
    assert len(costs) == len(pilot.plans)
    for plan, cost in zip(pilot.plans, costs, strict=True):
        score = measured_score(base, plan, sample)
        assert cost.mean == pytest.approx(sum(score.nll) / 117 - sum(whole.nll) / 117, abs=1e-5)
        assert cost.low <= cost.mean <= cost.high
    assert Pilot((), 1.0).costs(base, sample) == []
