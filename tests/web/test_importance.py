"""The importance of layers above the strip: what is shown, and where it is said to come from."""

import math

import gradio as gr
import pytest

from components import importance
from components.sessions.session import Session
from surgery import texts
from surgery.analysis import LayerCosts, Sample, scan


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LAYER_SURGERY_CACHE", str(tmp_path))


def test_nothing_is_looked_up_before_a_base_is_open(services):
    session = Session()
    importance.look_up(services, session)
    assert session.importance is None


def test_what_a_scan_has_measured_is_drawn(services, tiny_folder, monkeypatch):
    monkeypatch.setattr(texts, "TEXTS", {"prose": "The ferry ran twice a day in summer. " * 2})
    spec = str(tiny_folder("gpt2"))
    base = services.bases.get(spec)
    session = Session()
    session.open(spec, base)
    before = importance.look_up(services, session)
    assert before["importance"]["costs"] is None and before["importance"]["measurable"]
    result = scan(base, Sample.of(base, texts.get("prose")), scores=("drop_one",))
    after = importance.look_up(services, session)
    assert after["revision"] == before["revision"]  # no edit
    assert after["importance"]["costs"] == pytest.approx([v.cost.mean for v in result.drop_one])
    assert f"measured on {result.tokens} tokens of prose" in after["importance"]["hint"]
    session.open(spec, base)
    assert session.view()["importance"] is None


def test_a_base_that_was_opened_meanwhile_gets_none_of_it(services, tiny_folder, monkeypatch):
    spec = str(tiny_folder("gpt2"))
    session = Session()
    session.open(spec, services.bases.get(spec))

    def slowly(base):
        session.spec = "another"

    monkeypatch.setattr("surgery.analysis.known_costs", slowly)
    assert importance.look_up(services, session) == gr.skip()
    assert session.importance is None


def test_bars_appear_layer_by_layer_while_a_scan_runs(services, tiny_folder):
    spec = str(tiny_folder("gpt2"))
    base = services.bases.get(spec)
    session = Session()
    session.open(spec, base)
    importance.look_up(services, session)
    partial, seen = [], []
    text = "Nobody had measured on this text before. " * 2
    scan(base, Sample.of(base, text), scores=("drop_one",), on_update=partial.append)
    for result in partial:
        value = importance.follow(session, spec, LayerCosts.of(result, "own text"))
        if value != gr.skip():
            seen.append(value["importance"]["known"])
            expected = [v.cost.mean for v in result.drop_one]
            costs = [cost for cost in value["importance"]["costs"] if cost is not None]
            assert costs == pytest.approx(expected)
    assert seen == list(range(1, base.depth + 1))
    assert importance.look_up(services, session) == gr.skip()  # nothing is known of other texts
    assert session.importance["known"] == base.depth
    first = LayerCosts.of(partial[1], "own text")
    assert importance.follow(session, spec, first) == gr.skip()  # more is shown
    assert importance.follow(session, "another", LayerCosts.of(partial[-1], "x")) == gr.skip()


def test_the_hint_says_where_figures_come_from():
    costs = (5.0, 0.1, None, math.inf, 0.1, 0.1)
    own = importance.view(LayerCosts(costs, "code", 1234), True)
    assert own["costs"] == [5.0, 0.1, None, None, 0.1, 0.1] and own["breaking"] == [3]
    assert own["known"] == 5
    assert "measured on 1,234 tokens of code (5 layers so far)" in own["hint"]
    shipped = importance.view(LayerCosts((0.1, 0.2), "prose", 542, "2026-01-02"), True)
    assert "shipped with the app, measured on 2026-01-02 on 542 tokens" in shipped["hint"]
    assert not importance.view(None, False)["measurable"]
