"""A session's edits: what a browser may ask for, and what comes of it."""

import copy
from collections import Counter
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.parts import strip_of
from components.sessions import session as sessions
from components.sessions.session import Session
from surgery import Plan, PlanError
from surgery.counts import Count, Counts, LayerPart, Layouts

DEPTH = 8


def base(depth: int = DEPTH) -> SimpleNamespace:
    part = LayerPart("mlp.up.weight", "mlp", (8, 4))
    return SimpleNamespace(
        name="tiny",
        identity="files",
        depth=depth,
        kinds=("",) * depth,
        counts=Counts(Count(Counter(embedding=32, norms=4)), (Count(Counter(mlp=32)),) * depth, 0),
        layouts=Layouts(((part,),), (0,) * depth),
    )


def session(text: str = "0:8") -> Session:
    made = Session()
    made.open("x", base())
    if text != "0:8":
        ask(made, "write", text=text)
    return made


def ask(made: Session, op: str, strip: str = "patient", start=None, end=None, **more) -> dict:
    request = {"op": op, "strip": strip, "start": start, "end": end, **more}
    made.apply({"revision": made.view()["revision"], **request})
    return made.view()


def test_one_layer_is_not_called_layers():
    made = Session()
    made.open("x", base(1))
    assert made.view()["message"] == "tiny: 1 layer"


def test_the_view_says_what_layers_consist_of():
    contents = session().view()["contents"]
    part = {"name": "mlp.up.weight", "component": "mlp", "shape": (8, 4), "times": 1}
    assert contents["layouts"] == [[part]] and contents["of"] == [0] * DEPTH
    assert contents["outside"] == {"embedding": 32, "norms": 4}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("models: - model: a - model: b merge_method: slerp base_model: a", "mergekit-yaml RECIPE"),
        ("merge_method: 'ties'\nmodels: []", "merge_method ties computes"),
        ("merge_method: nonsense", "“nonsense” is unknown"),
        ("slices: - sources: - model: a layer_range: [0, 2] merge_method: passthrough", "@recipe"),
        ("models: []", "This is a recipe"),
    ],
)
def test_a_pasted_recipe_is_no_plan(text, said):
    """The field for plans has one line: a recipe that is pasted there loses its line breaks."""
    made = session("0:3")
    view = ask(made, "write", text=text)
    assert said in view["error"] and str(made.plan) == "0:3"


def test_what_the_page_sets_up_is_no_edit_of_the_visitor():
    made = session()
    assert not made.view()["edited"]
    made.become("0:3", edited=False)
    assert made.view()["text"] == "0:3" and not made.view()["edited"]
    assert ask(made, "drop", "patient", 0, 1)["edited"]
    made.open("x", base())
    assert not made.view()["edited"]


def test_only_a_plan_that_could_not_be_read_is_marked_in_its_box():
    made = session()
    assert ask(made, "write", text="0:9")["unread"]
    failed = ask(made, "drop", "base", 0, DEPTH)
    assert failed["error"] and not failed["unread"]
    assert not ask(made, "drop", start=0, end=1)["unread"]


@pytest.mark.parametrize(
    ("before", "op", "where", "more", "after", "chosen"),
    [
        ("0:8", "drop", ("patient", 2, 4), {}, "0:2, 4:8", ("base", 2, 4)),
        ("0:8, 2:4", "drop", ("patient", 2, 4), {}, "0:2, 4:8, 2:4", None),
        ("0:8, 2:4", "drop", ("base", 2, 4), {}, "0:2, 4:8", ("base", 2, 4)),
        ("0:8", "repeat", ("patient", 2, 4), {}, "0:4, 2:8", ("patient", 4, 6)),
        ("0:8", "repeat", ("base", 2, 4), {}, "0:4, 2:8", ("patient", 4, 6)),
        ("0:2, 4:8", "restore", ("base", 2, 4), {}, "0:8", ("patient", 2, 4)),
        ("0:4, 2:8", "restore", ("patient", 2, 5), {}, "0:8", ("patient", 2, 4)),
        ("0:8", "reverse", ("patient", 0, 3), {}, "2, 1, 0, 3:8", ("patient", 0, 3)),
        ("0:8", "move", ("patient", 0, 2), {"to": 8}, "2:8, 0:2", ("patient", 6, 8)),
        ("0:8", "move", ("patient", 6, 8), {"to": 0}, "6:8, 0:6", ("patient", 0, 2)),
        ("0:8", "move", ("patient", 2, 4), {"to": 3}, "0:8", ("patient", 2, 4)),
        ("0:8", "insert", ("base", 6, 8), {"to": 0}, "6:8, 0:8", ("patient", 0, 2)),
        (
            "0:8",
            "initialise",
            ("patient", 2, 4),
            {"text": "scale=0.5"},
            "0:2, 2:4@scale=0.5, 4:8",
            ("patient", 2, 4),
        ),
        (
            "0:8, 7@identity",
            "initialise",
            ("patient", 8, 9),
            {"text": "copy"},
            "0:7, 7*2",
            ("patient", 8, 9),
        ),
        (
            "0:8",
            "initialise",
            ("base", 3, 4),
            {"text": "random"},
            "0:3, 3@random, 4:8",
            ("patient", 3, 4),
        ),
    ],
)
def test_an_edit(before, op, where, more, after, chosen):
    view = ask(session(before), op, *where, **more)
    assert (view["text"], view["error"]) == (after, "")
    result = view["selection"]
    assert (result and tuple(result.values())) == chosen


def test_undo_and_redo_reach_the_start():
    made = session()
    for _ in range(5):
        ask(made, "repeat", "patient", 0, 1)
    for _ in range(9):
        view = ask(made, "undo")
    assert view["text"] == "0:8" and not view["undo"] and view["redo"]
    for _ in range(9):
        view = ask(made, "redo")
    assert view["text"] == "0*6, 1:8" and view["undo"] and not view["redo"]


def test_an_edit_for_an_older_plan_is_not_applied():
    made = session()
    old = made.view()["revision"]
    ask(made, "drop", "patient", 0, 1)
    made.apply({"op": "drop", "strip": "patient", "start": 0, "end": 1, "revision": old})
    view = made.view()
    assert view["text"] == "1:8" and "changed in the meantime" in view["error"]
    assert ask(made, "drop", "patient", 0, 1)["text"] == "2:8"  # and the next one is


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        ({"op": "drop", "strip": "patient", "start": 0, "end": 8}, "at least one layer"),
        ({"op": "drop", "strip": "patient", "start": 5, "end": 99}, "don't exist"),
        ({"op": "drop", "strip": "patient", "start": -1, "end": 2}, "don't exist"),
        ({"op": "drop", "strip": "patient", "start": 2.5, "end": 4}, "whole number"),
        ({"op": "drop", "strip": "patient", "start": True, "end": 4}, "whole number"),
        ({"op": "drop", "strip": "patient"}, "whole number"),
        ({"op": "drop"}, "Select layers"),
        ({"op": "move", "strip": "patient", "start": 0, "end": 1, "to": 99}, "positions 0 to 8"),
        ({"op": "move", "strip": "patient", "start": 0, "end": 1, "to": "x"}, "whole number"),
        ({"op": "insert", "strip": "patient", "start": 0, "end": 1, "to": 0}, "Only layers of"),
        ({"op": "preset", "name": "none"}, "no such preset"),
        ({"op": "preset", "name": "solar", "values": {"m": 99}}, "m can be"),
        ({"op": "preset", "name": "solar", "values": {"m": ""}}, "whole number"),
        ({"op": "preset", "name": "solar", "values": {"x": 1}}, "takes m"),
        ({"op": "write", "text": "0:9"}, "0:9"),
        ({"op": "write", "text": "0," * 20_000}, "at most"),
        ({"op": "write"}, "empty"),
        ({"op": "initialise", "strip": "patient", "start": 0, "end": 1, "text": "x"}, "after @"),
        ({"op": "initialise", "strip": "patient", "start": 0, "end": 1}, "after @"),
        ({"op": "_drop", "strip": "patient", "start": 0, "end": 1}, "no such edit"),
        ({"op": ["drop"], "strip": "patient", "start": 0, "end": 1}, "no such edit"),
        ("drop", "not an edit"),
        (None, "not an edit"),
    ],
)
def test_nonsense_changes_nothing_and_is_named(request_, said):
    made = session()
    if isinstance(request_, dict):
        request_ = {**request_, "revision": made.view()["revision"]}
    made.apply(request_)
    view = made.view()
    assert said in view["error"]
    assert made.plan == Plan.whole(DEPTH) and not view["undo"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 20) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)
OPS = [
    "drop",
    "repeat",
    "restore",
    "reverse",
    "move",
    "insert",
    "initialise",
    "undo",
    "redo",
    "write",
    "preset",
]


@given(
    st.lists(
        st.fixed_dictionaries(
            {"op": st.sampled_from(OPS) | JSON},
            optional={
                "strip": st.sampled_from(["base", "patient"]) | JSON,
                "start": st.integers(-2, 12) | JSON,
                "end": st.integers(-2, 12) | JSON,
                "to": st.integers(-2, 12) | JSON,
                "text": st.text(alphabet="0123456789:,*@/ abc", max_size=20),
                "name": st.sampled_from(["solar", "repeat", "x"]) | JSON,
                "values": JSON,
            },
        ),
        max_size=8,
    )
)
def test_no_sequence_of_requests_breaks_a_session(requests):
    made = session()
    for request in requests:
        made.apply({**request, "revision": made.view()["revision"]})
        view = made.view()
        assert view["error"] or view["message"]
        assert [x["source"] for x in view["patient"]] == list(made.plan.sources)
        assert len({x["id"] for x in view["patient"]}) == len(made.plan)
        if chosen := view["selection"]:
            length = DEPTH if chosen["strip"] == "base" else len(made.plan)
            assert 0 <= chosen["start"] < chosen["end"] <= length


def test_layers_keep_their_names_when_they_move():
    made = session("0:4, 2:8")
    before = {x["id"] for x in made.view()["patient"]}
    view = ask(made, "move", "patient", 0, 2, to=10)
    assert {x["id"] for x in view["patient"]} == before
    repeats = [x for x in view["patient"] if x["copy"] == 2]
    assert [x["source"] for x in repeats] == [2, 3]


def test_what_was_typed_stays_to_be_mended():
    made = session()
    view = ask(made, "write", text="0:3, 99")
    assert view["text"] == "0:3, 99" and "99" in view["error"]
    assert ask(made, "undo")["text"] == "0:8"


def test_a_session_without_a_base():
    made = Session()
    made.apply({"op": "undo", "revision": 0})
    assert made.view() == {}
    with pytest.raises(PlanError, match="Open a base"):
        _ = made.plan


def test_a_session_that_takes_the_place_of_another_has_higher_numbers(monkeypatch):
    """The page draws no answer with a lower one. The session was dropped, or the app restarted."""
    clock = SimpleNamespace(time=lambda: 1000.0)
    monkeypatch.setattr(sessions, "time", clock)
    first = session("0:3")
    clock.time = lambda: 4600.0
    second = copy.deepcopy(first)
    assert strip_of(second) == {
        "note": "This page was idle for too long. Reload it: the plan is in its address."
    }
    assert second.order > first.order == first.view()["order"]
    second.open("x", base())
    assert strip_of(second) == second.view() and second.view()["order"] > first.order


def test_a_repair_may_be_made_again_once_what_it_fitted_was_released():
    made = session("0:2, 4:8")
    made.repaired(Plan.parse("0, 1@refit, 4:8", DEPTH))
    assert not made.view()["repair"]
    made.release()  # the page was closed, and its visitor comes back
    assert made.view()["repair"] and made.view()["text"] == "0, 1@refit, 4:8"


def test_every_page_gets_a_session_of_its_own():
    first = session("0:3")
    assert copy.deepcopy(first).view() == {}


def test_presets_are_tried_out_without_a_change():
    made = session("0:2, 4:8")
    presets = {"solar": {"m": 2}, "drop-middle": {"n": 99}, "repeat": {"start": "x"}, "none": {}}
    view = ask(made, "try", presets=presets)
    assert view["text"] == "0:2, 4:8" and not view["error"]
    assert set(made.trials) == {"solar", "drop-middle", "repeat"}
    assert str(made.trials["solar"]) == "0:6, 2:8"
    assert isinstance(made.trials["drop-middle"], PlanError)
    assert isinstance(made.trials["repeat"], PlanError)
    assert not ask(made, "try", presets=5)["error"] and not made.trials
