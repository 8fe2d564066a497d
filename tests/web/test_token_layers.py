"""Which layers mattered for the tokens of both texts: what is measured, and what is drawn."""

import json
from types import SimpleNamespace

import pytest
import updates

from components.panels.talk import token_figures, token_layers
from components.panels.talk.answers import Answer
from components.panels.talk.talk_store import TalkStore
from components.panels.talk.wiring import talk
from surgery import Base, Plan, SurgeryError, analysis
from surgery.analysis import TokenImportance, token_importance
from surgery.operation import Operation

SETTINGS = dict(greedy=True, chat=False, tokens=8, seed=0, temperature=0.8, top_p=0.95)
PANEL = SimpleNamespace(
    status="status", output="output", figures={"base": "base map", "patient": "patient map"}
)
PLAN = "0:2, 4:6"


def spoken(services, spec, plan=PLAN, store=None, **changes):
    """A store after a run of Talk."""
    store = store or TalkStore()
    work = talk(
        services, Operation(spec, Plan.parse(plan, 6)), "hello", **SETTINGS | changes, store=store
    )
    for _ in work:
        pass
    return store


def measured(services, store):
    work = token_layers.measure(PANEL, services, store.answers)
    return updates.shown(updates.run(services, work, lambda status: {"status": status}))


def by_piece(row, pieces):
    """The sums of a row over the tokens of each piece."""
    row = iter(row)
    return [pytest.approx(sum(next(row) for _ in range(size)), abs=1e-3) for _, size in pieces]


def test_both_texts_are_measured_on_their_own_models(services, tiny_folder):
    spec = str(tiny_folder("llama"))
    store = spoken(services, spec)
    update = measured(services, store)
    assert "strip shows" in update["status"]["text"] and not update["status"]["failed"]
    layers = json.loads(update["output"]["layers"])
    assert update["output"]["run"] == store.answers.shown["run"]
    base = Base.open(spec)
    for side, plan in (("base", Plan.whole(6)), ("patient", Plan.parse(PLAN, 6))):
        stream = base.operate(plan).stream("hello", max_new_tokens=8, greedy=True)
        text = "".join(stream)
        shown = layers["sides"][side]
        assert "".join(shown["pieces"]) == text == update["output"][side]["text"] != ""
        assert shown["sources"] == list(plan.sources)
        result = token_importance(base, plan, stream.prompt_ids, stream.ids)
        assert shown["nll"] == by_piece(result.nll, stream.pieces)
        assert shown["costs"] == [by_piece(row, stream.pieces) for row in result.costs]
        figure = update[f"{side} map"]
        assert figure["data"][0]["z"] == shown["costs"] and figure["link"] == {"text": side}


def test_the_text_of_the_base_may_be_from_a_run_before(services, tiny_folder):
    spec = str(tiny_folder("llama"))
    first = spoken(services, spec)
    before = first.answers.sides["base"]
    store = spoken(services, spec, "0:3", first)
    assert store.answers.sides["base"] == before and str(store.answers.operation.plan) == "0:3"
    assert spoken(services, spec, "0:3", store, tokens=4).answers.sides["base"] != before


def test_a_text_that_was_stopped_is_measured_as_far_as_it_came(services, tiny_folder):
    store = TalkStore()
    running = talk(
        services,
        Operation(str(tiny_folder("llama")), Plan.parse(PLAN, 6)),
        "hello",
        **SETTINGS | {"tokens": 200},
        store=store,
    )
    next(value for _, value in running if value["base"]["text"])
    running.close()
    layers = json.loads(measured(services, store)["output"]["layers"])
    count = len(store.answers.sides["base"].pieces)
    assert 0 < count < 200 and len(layers["sides"]["base"]["pieces"]) == count
    assert not store.answers.shown["running"]


def test_equal_texts_of_equal_models_are_measured_once(services, tiny_folder, monkeypatch):
    calls = []

    def noted(*arguments):
        calls.append(arguments)
        return token_importance(*arguments)

    monkeypatch.setattr(analysis, "token_importance", noted, raising=False)
    layers = json.loads(
        measured(services, spoken(services, str(tiny_folder("llama")), "0:6"))["output"]["layers"]
    )
    assert len(calls) == 1 and layers["sides"]["base"] == layers["sides"]["patient"]


def test_what_can_not_be_measured_is_said(services, tiny_folder, monkeypatch):
    for store in (TalkStore(), SimpleNamespace(answers=None)):
        status = measured(services, store)["status"]
        assert status["failed"] and "press Stream both first" in status["text"]

    def only_base(base, of, *arguments):
        if not of.is_whole:
            raise SurgeryError("Its layers can't be run one by one.")
        return token_importance(base, of, *arguments)

    store = spoken(services, str(tiny_folder("llama")))
    monkeypatch.setattr(analysis, "token_importance", only_base, raising=False)
    update = measured(services, store)
    assert "isn't measured: Its layers can't" in update["status"]["text"]
    assert list(json.loads(update["output"]["layers"])["sides"]) == ["base"]
    assert update["patient map"] == {}


def test_pieces_have_the_sums_of_their_tokens():
    costs = ((1.0, 2.0, 4.0), None, (0.0, float("inf"), -1.0))
    result = TokenImportance(Plan.whole(3), ("a", "b", "c"), (0.5, 0.25, 1.0), costs)
    answer = Answer((1,), (5, 6, 7), (("a", 1), ("bc", 2)))
    shown = token_layers.view(answer, result)
    assert shown["nll"] == [0.5, 1.25]
    assert shown["costs"] == [[1.0, 6.0], [None, None], [0.0, None]]
    assert token_layers.scale({"base": result}) == 3.6  # 95 % of the finite costs are below
    flat = TokenImportance(Plan.whole(1), ("a",), (0.5,), ((0.01,),))
    assert token_layers.scale({"base": flat}) == 0.5


def test_tokens_are_no_markup_in_the_figure():
    shown = {"pieces": ["<b>&\n", " x"], "nll": [1, 1], "costs": [[1, 2]], "sources": [4]}
    figure = token_figures.tokens("patient", shown, 2.0)
    assert figure["layout"]["xaxis"]["ticktext"] == ["&lt;b&gt;&amp;⏎", " x"]
    assert figure["data"][0]["text"][0][0] == "“&lt;b&gt;&amp;⏎”, position 0, layer 4"
    many = {"pieces": ["x"] * 200, "nll": [1] * 200, "costs": [[1] * 200], "sources": [0]}
    assert not token_figures.tokens("base", many, 2.0)["layout"]["xaxis"]["showticklabels"]
