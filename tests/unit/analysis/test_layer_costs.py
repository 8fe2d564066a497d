"""What dropping each layer costs, as far as it is known without measuring."""

import json
import math

import pytest

from surgery import Base, Plan, known_base, texts
from surgery.analysis import LayerCosts, Sample, known_costs, measure_all, scan
from surgery.analysis.layer_costs import SHIPPED, measured_costs, shipped_costs
from surgery.analysis.score import LossIncrease
from surgery.analysis.ship_costs import record
from surgery.sources.fingerprint import fingerprint


@pytest.fixture
def short(monkeypatch):
    """Short texts, so that a tiny model measures them in no time."""
    words = "The ferry ran twice a day in summer. "
    monkeypatch.setattr(texts, "TEXTS", {"prose": words * 2, "code": words * 3})


def test_they_are_known_once_a_scan_has_measured_them(opened, short):
    base, _ = opened("llama")
    assert known_costs(base) is None
    result = scan(base, Sample.of(base, texts.get("code")), scores=("drop_one",))
    known = known_costs(base)
    assert (known.text, known.tokens, known.shipped) == ("code", result.tokens, "")
    assert known.costs == pytest.approx([one.cost.mean for one in result.drop_one])


def test_the_text_with_most_layers_measured_is_taken(opened, short):
    base, _ = opened("llama")
    prose, code = (Sample.of(base, texts.get(kind)) for kind in ("prose", "code"))
    whole = Plan.whole(base.depth)
    measure_all(base, [whole, whole.drop(2, 3)], prose)
    known = known_costs(base)
    assert known.text == "prose" and known.known == 1 and known.costs[2] is not None
    scan(base, code, scores=("drop_one",))
    assert known_costs(base).text == "code" and known_costs(base).known == base.depth


def test_nothing_is_known_without_a_tokenizer(tiny_folder, tmp_path):
    (tmp_path / "config.json").write_text((tiny_folder("llama") / "config.json").read_text())
    assert known_costs(Base.open(f"config:{tmp_path / 'config.json'}")) is None


def test_what_breaks_is_told_by_the_middle_of_the_layers():
    costs = (9.0, 0.1, 0.1, 0.2, 0.1, 0.9, 0.1, None, math.inf, 0.1)
    assert LayerCosts(costs, "prose", 100).breaking == (0, 5, 8)
    # With too few measured, only what gives no finite loss.
    assert LayerCosts((9.0, 0.1, None, math.inf, 0.1), "prose", 100).breaking == (3,)


def test_the_shipped_costs_are_those_of_the_bundled_model(bundled, monkeypatch):
    shipped = json.loads(SHIPPED.read_text())
    if fingerprint(bundled.source, lambda *_: None) != shipped["fingerprint"]:
        assert shipped_costs(bundled) is None  # other weights, such as those of the Hub
        return
    known = known_costs(bundled)
    assert known == shipped_costs(bundled) and known.shipped == shipped["date"]
    assert known.known == bundled.depth == 30 and {0, 1, 8, 11, 29} <= set(known.breaking)
    # Measured again: a layer that costs much and one that costs little, both near the end, so that
    # few layers have to be run.
    sample = Sample.of(bundled, texts.get(known.text))
    assert sample.tokens == known.tokens
    whole = Plan.whole(30)
    plans = {layer: whole.drop(layer, layer + 1) for layer in (29, 26)}
    scores = measure_all(bundled, [whole, *plans.values()], sample)
    for layer, plan in plans.items():
        cost = LossIncrease.of(scores[plan], scores[whole]).mean
        assert known.costs[layer] == pytest.approx(cost, abs=0.03)  # the dtype is the machine's


def test_other_weights_get_none_of_the_shipped_costs(bundled, monkeypatch):
    monkeypatch.setattr("surgery.analysis.layer_costs.fingerprint", lambda *_: "sha256:other")
    assert shipped_costs(bundled) is None


def test_the_script_records_what_it_measured(opened, short):
    base, _ = opened("llama")
    made = record(base)
    assert made["text"] == "prose" and made["versions"].keys() > {"torch", "transformers"}
    assert made["costs"] == pytest.approx(measured_costs(base, "prose").costs, abs=1e-4)
    assert made["fingerprint"] == fingerprint(base.source, None)


def test_a_remembered_base_knows_its_layouts(tiny_folder):
    folder = str(tiny_folder("mixtral"))
    known_base.remember(folder, Base.open(folder))
    assert known_base.recall(folder).layouts == Base.open(folder).layouts
