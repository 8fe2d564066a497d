"""The notation, the edits and undo, as properties over random plans."""

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from surgery import PRESETS, History, Init, Layer, Plan, PlanError
from surgery.presets import parse as parse_preset

inits = st.one_of(
    st.sampled_from([Init(), Init("identity"), Init("no-mlp"), Init("random"), Init("average")]),
    st.floats(allow_nan=False, allow_infinity=False).map(lambda x: Init("scale", x)),
)


@st.composite
def plans(draw, inits=inits, bases=(("b", 9),)):
    depth = draw(st.integers(1, 40))
    known = dict(bases)
    layer = st.one_of(
        st.builds(Layer, st.integers(0, depth - 1), inits, st.just("")),
        *(st.builds(Layer, st.integers(0, d - 1), inits, st.just(n)) for n, d in bases),
    )
    runs = st.tuples(st.integers(0, depth - 1), st.integers(1, 12)).map(
        lambda r: [Layer(i) for i in range(r[0], min(depth, r[0] + r[1]))]
    )
    parts = draw(st.lists(st.one_of(layer.map(lambda x: [x]), runs), min_size=1, max_size=12))
    return Plan(tuple(x for part in parts for x in part), depth, known)


@st.composite
def plans_and_ranges(draw):
    plan = draw(plans())
    start = draw(st.integers(0, len(plan) - 1))
    return plan, start, draw(st.integers(start + 1, len(plan)))


@given(plans())
def test_printing_and_parsing_is_a_round_trip(plan):
    again = Plan.parse(str(plan), plan.depth, plan.bases)
    assert again.layers == plan.layers
    assert str(again) == str(plan)


@pytest.mark.parametrize(
    ("text", "sources"),
    [
        ("0:24, 8:32", [*range(24), *range(8, 32)]),
        ("0:5, 7:12", [*range(5), *range(7, 12)]),
        ("4:8*3", [4, 5, 6, 7] * 3),
        ("5", [5]),
        (" 0 : 2 ,3*2 ", [0, 1, 3, 3]),
    ],
)
def test_notation(text, sources):
    assert list(Plan.parse(text, 32).sources) == sources


def test_printing_reads_well():
    for text in ("0:24, 8:32", "0:8, 7@identity, 8:12", "4:8*3", "0, 1*2, 2:5", "3@scale=0.5"):
        assert str(Plan.parse(text, 32)) == text
    assert str(Plan.parse("0:8, 7:8@identity, 8:12", 12)) == "0:8, 7@identity, 8:12"
    assert str(Plan.parse("b/0:3, b/3:8", 12, {"b": 8})) == "b/0:8"


@pytest.mark.parametrize(
    ("text", "named", "allowed"),
    [
        ("0:40", "“0:40”", "layers 0 to 29"),
        ("3:1", "“3:1”", "start below end"),
        ("0:5, 7:7", "“7:7”", "start below end"),
        ("0:5,, 7:9", "empty entry", "remove it"),
        ("", "empty", "0:30"),
        ("zero", "“zero”", "7@identity"),
        ("-1:5", "“-1:5”", "layers are numbered 0 to 29"),
        ("3:-1", "“3:-1”", "layers are numbered 0 to 29"),
        ("0.5", "“0.5”", "is not a range"),
        ("٣", "“٣”", "is not a range"),
        ("2@identity*3", "“2@identity*3”", "write 2*3@identity."),
        ("0:4 @scale=0.5 * 2", "count after", "write 0:4*2@scale=0.5."),
        ("0:3\x1b[31m", "“0:3\N{REPLACEMENT CHARACTER}[31m”", "is not a range"),
        ("0:30*1000000", "“0:30*1000000”", "4,096"),
        ("0," * 500_000, "“0”", "4,096"),
        ("4@twice", "“4@twice”", "identity"),
        ("4@scale", "“4@scale”", "@scale=0.5"),
        ("4@identity=2", "“4@identity=2”", "takes no number"),
        ("4@scale=much", "“much”", "number"),
        ("4@scale=inf", "“inf”", "number"),
        ("4*0", "“4*0”", "leave it out"),
        ("c/4:5", "“c/4:5”", "not known (b)"),
        ("b/4:10", "“b/4:10”", "layers 0 to 8"),
        ("0:30*9999999999", "“0:30*9999999999”", "4,096"),
        ("9" * 5000, "…", "is not a range"),
        ("<script>alert(1)</script>", "“<script>", "is not a range"),
    ],
)
def test_errors_name_the_piece_and_what_is_allowed(text, named, allowed):
    with pytest.raises(PlanError) as caught:
        Plan.parse(text, 30, {"b": 9})
    assert named in str(caught.value) and allowed in str(caught.value)
    assert len(str(caught.value)) < 250


def test_long_pieces_are_not_searched(monkeypatch):
    """The pattern takes time that grows with the square of such a piece's length."""
    tried = []
    pattern = SimpleNamespace(fullmatch=lambda piece: tried.append(piece))
    monkeypatch.setattr("surgery.plan._ITEM", pattern)
    for text in ("1" + " " * 20_000 + "x", "1" * 201):
        with pytest.raises(PlanError, match="is not a range"):
            Plan.parse(text, 30)
    assert not tried
    with pytest.raises(PlanError, match="is not a range"):
        Plan.parse("1" * 200, 30)
    assert tried == ["1" * 200]


def test_a_part_of_a_layer_is_none():
    with pytest.raises(TypeError):
        Plan.of([0, 1.5], 3)


@pytest.mark.parametrize("preset", ["drop-middle", "solar", "interleave"])
def test_presets_that_take_two_layers_say_so_of_one(preset):
    with pytest.raises(PlanError, match="This base has a single layer, but the preset needs"):
        PRESETS[preset](1)
    assert len(PRESETS[preset](2)) >= 1
    with pytest.raises(PlanError, match=r"can be \d only here|can be \d to \d here"):
        PRESETS[preset](2, **{PRESETS[preset].parameters[0].name: 9})


@given(plans_and_ranges())
def test_drop_leaves_the_rest_in_order(case):
    plan, start, end = case
    if end - start == len(plan):
        with pytest.raises(PlanError, match="at least one layer"):
            plan.drop(start, end)
    else:
        dropped = plan.drop(start, end)
        assert dropped.layers == plan.layers[:start] + plan.layers[end:]


@given(plans_and_ranges(), st.integers(1, 4), inits)
def test_repeat_puts_copies_behind(case, times, init):
    plan, start, end = case
    repeated = plan.repeat(start, end, times, init)
    assert len(repeated) == len(plan) + times * (end - start)
    assert repeated.drop(end, end + times * (end - start)) == plan
    if init.kind != "copy":
        assert {x.init for x in repeated.layers[end : end + times * (end - start)]} == {init}


@given(plans_and_ranges(), st.data())
def test_move_keeps_every_layer_and_moves_the_block_whole(case, data):
    plan, start, end = case
    to = data.draw(st.integers(0, len(plan)))
    moved = plan.move(start, end, to)
    assert sorted(map(repr, moved.layers)) == sorted(map(repr, plan.layers))
    at = start if start <= to <= end else (to if to < start else to - (end - start))
    assert moved.layers[at : at + end - start] == plan.layers[start:end]
    rest = moved.layers[:at] + moved.layers[at + end - start :]
    assert rest == plan.layers[:start] + plan.layers[end:]


@given(plans_and_ranges())
def test_reverse_twice_is_nothing(case):
    plan, start, end = case
    assert plan.reverse(start, end).reverse(start, end) == plan


@given(plans(), st.data())
def test_insert_then_drop_is_nothing(plan, data):
    at = data.draw(st.integers(0, len(plan)))
    start = data.draw(st.integers(0, plan.depth - 1))
    end = data.draw(st.integers(start + 1, plan.depth))
    inserted = plan.insert(at, start, end)
    assert inserted.sources[at : at + end - start] == tuple(range(start, end))
    assert inserted.drop(at, at + end - start) == plan


@given(plans(), st.data())
def test_restore_brings_a_range_back_once_and_in_order(plan, data):
    start = data.draw(st.integers(0, plan.depth - 1))
    end = data.draw(st.integers(start + 1, plan.depth))
    restored = plan.restore(start, end)
    own = [x for x in restored.layers if not x.base and start <= x.source < end]
    assert own == [Layer(i) for i in range(start, end)]
    assert restored.restore(start, end) == restored

    def others(p):
        return [x for x in p.layers if x.base or not start <= x.source < end]

    assert others(restored) == others(plan)


@given(st.integers(2, 40), st.data())
def test_restore_undoes_a_drop_and_a_repeat(depth, data):
    whole = Plan.whole(depth)
    start = data.draw(st.integers(0, depth - 1))
    end = data.draw(st.integers(start + 1, depth))
    assert whole.repeat(start, end).restore(start, end) == whole
    if end - start < depth:
        assert whole.drop(start, end).restore(start, end) == whole


@pytest.mark.parametrize("edit", ["drop", "repeat", "reverse"])
@pytest.mark.parametrize("span", [(3, 3), (4, 2), (-1, 2), (0, 13)])
def test_edits_refuse_ranges_outside_the_plan(edit, span):
    with pytest.raises(PlanError, match="range of this plan"):
        getattr(Plan.whole(12), edit)(*span)


def test_edits_refuse_what_does_not_fit():
    plan = Plan.whole(12)
    for wrong in (
        lambda: plan.move(0, 2, 13),
        lambda: plan.insert(13, 0, 1),
        lambda: plan.insert(0, 0, 13),
        lambda: plan.restore(11, 13),
        lambda: plan.repeat(0, 12, 0),
        lambda: plan.repeat(0, 12, 10**9),
        lambda: Plan((), 12),
        lambda: Plan.of([12], 12),
    ):
        with pytest.raises(PlanError):
            wrong()


def test_plans_are_values():
    assert repr(Plan.parse("0:5, 7:12", 12)) == "Plan('0:5, 7:12', depth=12)"
    plan = Plan.parse("0:24, 8:32", 32)
    assert plan == Plan.of([*range(24), *range(8, 32)], 32)
    assert hash(plan) == hash(Plan.parse("0:24,8:32", 32))
    with pytest.raises(AttributeError):
        plan.layers = ()


def test_what_a_plan_says_of_itself():
    assert Plan.whole(12).is_whole and Plan.whole(12).describe() == "unchanged"
    plan = Plan.parse("0:5, 7:12", 12)
    assert not plan.is_whole and plan.dropped == (5, 6) and plan.describe() == "2 dropped"
    assert Plan.parse("0:8, 4:12", 12).describe() == "4 repeated"
    assert "reordered" in Plan.parse("1, 0, 2:12", 12).describe()


@given(st.lists(st.one_of(st.just("undo"), st.just("redo"), st.integers(0, 9)), max_size=40))
def test_history_against_a_naive_model(steps):
    """A list of plans and a cursor is what undo and redo mean."""
    line, cursor = [Plan.whole(10)], 0
    history = History(line[0])
    for step in steps:
        if step == "undo":
            cursor, history = max(0, cursor - 1), history.undo()
        elif step == "redo":
            cursor, history = min(len(line) - 1, cursor + 1), history.redo()
        else:
            plan = Plan.of([step], 10)
            if plan != line[cursor]:
                line = [*line[: cursor + 1], plan]
                cursor += 1
            history = history.do(plan)
        assert history.present == line[cursor]
        assert bool(history.past) == (cursor > 0)
        assert bool(history.future) == (cursor < len(line) - 1)
    while history.past:
        history = history.undo()
    assert history.present == Plan.whole(10)


@pytest.mark.parametrize(
    ("text", "depth", "notation"),
    [
        ("solar m=8", 32, "0:24, 8:32"),
        ("solar m=4", 12, "0:8, 4:12"),
        ("drop-middle n=2", 12, "0:5, 7:12"),
        ("repeat start=45 end=52 times=2", 80, "0:52, 45:80"),
        ("interleave block=16 overlap=8", 32, "0:16, 8:24, 16:32"),
    ],
)
def test_presets_give_the_published_plans(text, depth, notation):
    assert parse_preset(text, depth) == Plan.parse(notation, depth)


def test_llama_pro_adds_eight_identities_to_thirty_two_layers():
    plan = PRESETS["llama-pro"](32)
    added = [p for p, x in enumerate(plan.layers) if x.init.kind == "identity"]
    assert len(plan) == 40 and added == [4, 9, 14, 19, 24, 29, 34, 39]
    assert plan.sources[4] == 3


@given(st.integers(3, 130), st.sampled_from(sorted(PRESETS)))
def test_presets_have_defaults_for_every_depth(depth, name):
    plan = PRESETS[name](depth)
    assert plan.depth == depth and not plan.is_whole


@pytest.mark.parametrize(
    "text",
    [
        "solar m=32",
        "solar m=0",
        "solar n=3",
        "solar m",
        "drop-middle n=x",
        "repeat start=9 end=3",
        "solar m=²",
        "solar m=٣",
        "solar m=--3",
        "solar m=" + "9" * 5000,
        "solar m=1 m=2",
        "solar " + "m=1 " * 10**6,
        "slr m=2",
        "a" * 10**7,
    ],
)
def test_presets_refuse_values_that_do_not_fit(text):
    with pytest.raises(PlanError):
        parse_preset(text, 32)


def test_what_is_no_preset_is_left_to_the_notation():
    for text in ("0:12", "", "b/0:3", "٣", "7@identity"):
        assert parse_preset(text, 12) is None
    assert parse_preset("Solar m=2", 12) == parse_preset("solar m=2", 12)


def test_layers_that_a_repair_fits_are_marked():
    plan = Plan.parse("0:4, 4@refit, 7@lstsq, 8:12", 12)
    assert plan.fitted == (4, 5) and str(plan) == "0:4, 4@refit, 7@lstsq, 8:12"
    assert plan.unfitted == Plan.parse("0:5, 7:12", 12) and plan.unfitted.fitted == ()
    assert plan.describe() == "2 dropped, 2 fitted"
    scaled = Plan.parse("0:5, 7:12@scale=0.8", 12)
    assert scaled.unfitted == scaled and scaled.describe() == "2 dropped, 5 reinitialised"
