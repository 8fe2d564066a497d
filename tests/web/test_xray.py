"""What the X-ray, the suggestions and the log show, without a browser."""

import json
import math
import re
import time

import gradio as gr
import pytest
from updates import run, shown

from components.panels.log import figures as log
from components.panels.log import layout as log_panel
from components.panels.log.wiring import measure, note_down, plan_at, task_results
from components.panels.xray import compare, scan, suggest
from components.panels.xray.compare import Seen
from components.panels.xray.sample_picker import OWN, name_of, sample_of
from components.panels.xray.scan import Fields
from components.services.deployment import Deployment
from components.sessions.healed_store import HealedStore
from components.sessions.measurements import Entry
from components.sessions.session import Session
from surgery import Plan, SurgeryError, analysis, texts
from surgery.analysis import (
    LossIncrease,
    Sample,
    known_scan,
    measured_score,
    pilot,
    precision,
    text_to_judge_on,
)
from surgery.analysis.cache import _memory
from surgery.cli.main import main
from surgery.harness import Result, keep
from surgery.harness.evaluation import Score as TaskScore
from surgery.progress import silent

TEXT = "The boat climbed each wave with patience and came down on the other side. " * 4


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LAYER_SURGERY_CACHE", str(tmp_path))


@pytest.fixture
def session(bases, tiny_folder):
    session = Session()
    spec = str(tiny_folder("llama"))
    session.open(spec, bases.get(spec))
    return session


@pytest.fixture
def short_texts(monkeypatch):
    """The project's texts, cut: every character is a token of the tiny models."""
    get, documents = texts.get, texts.documents
    monkeypatch.setattr(texts, "get", lambda *which: get(*which)[:600])

    def few(*which):
        return tuple(one[:300] for one in documents(*which)[:2])

    monkeypatch.setattr(texts, "documents", few)


def test_what_is_measured_is_drawn_and_known_the_next_time(services, session):
    with gr.Blocks():
        panel = scan.layout()
    settings = (OWN, TEXT, ["repeat map", "Taylor"], "1:4")
    before = scan.look(panel, services, session, *settings)
    assert before[panel.layers] == {} and "tokens to measure on" in before[panel.status]["text"]
    values = shown(scan.measure(panel, services, session, Fields(*settings, 0.0)))
    for view in (panel.layers, panel.blocks):
        json.dumps(values[view], allow_nan=False)
        assert values[view]["of"] == {"spec": session.spec}
    drawn = {trace["name"]: trace for trace in values[panel.layers]["data"] if "name" in trace}
    assert drawn["dropped"]["x"] == drawn["repeated"]["x"] == list(range(6))
    assert len(drawn["Block Influence"]["y"]) == 6 and len(drawn) == 4
    pairs = values[panel.repeats]["value"]["data"][0]
    assert (pairs["y"], pairs["x"]) == ([1, 2, 3], [2, 3, 4])
    words = values[panel.status]["text"]
    assert words.startswith("Text: own text. Perplexity")
    assert re.search(r"Half of the costs .* known to ±\s\d+\s% or better", words)
    again = scan.look(panel, services, session, *settings)
    assert again[panel.layers] == values[panel.layers]


def test_attention_and_mlp_are_drawn_apart_above_a_threshold(services, session, short_texts):
    with gr.Blocks():
        panel = scan.layout()
    settings = ("dialogue", "", ["drop-attention perplexity", "drop-MLP perplexity"], "")
    values = shown(scan.measure(panel, services, session, Fields(*settings, 0.0)))
    assert {t.get("name") for t in values[panel.layers]["data"]} >= {"dropped", "repeated"}
    assert not {"no attention", "no MLP"} & {t.get("name") for t in values[panel.layers]["data"]}
    drawn = values[panel.halves]["value"]
    json.dumps(drawn, allow_nan=False)
    (cells,) = drawn["data"]
    assert cells["y"] == ["attention", "MLP"] and cells["x"] == list(range(6))
    base = services.bases.get(session.spec)
    known = known_scan(base, Sample.of(base, texts.get("dialogue")), scores=["drop_mlp"])
    costs = [v.cost.mean for v in known.variants["drop_mlp"].values()]
    assert cells["z"][1] == [pytest.approx(c, rel=1e-3) if c > 0 else None for c in costs]
    above = sorted(costs)[3]
    some = scan.look(panel, services, session, *settings, above)[panel.halves]["value"]["data"][0]
    assert [z is not None for z in some["z"][1]] == [c > max(above, 0) for c in costs]
    assert some["text"] == cells["text"]
    assert values[panel.above]["visible"]
    few = Fields("dialogue", "", [], "", 0.0)
    assert not shown(scan.measure(panel, services, session, few))[panel.above]["visible"]


def test_parts_measured_on_the_command_line_are_shown_and_completed(services, session, monkeypatch):
    monkeypatch.setattr(pilot, "VARIANTS", 2)  # both of layer 3
    monkeypatch.setattr(precision, "FINEST", 10)  # so that the short text is enough
    with gr.Blocks():
        panel = scan.layout()
    assert main(["scan", session.spec, "--kind", "facts", "--part", "1/2"]) == 0
    _memory.clear()  # as if another process had measured it
    before = scan.look(panel, services, session, "facts", "", [], "")
    drawn = {trace["name"]: trace for trace in before[panel.layers]["data"] if "name" in trace}
    assert drawn["dropped"]["x"] == drawn["repeated"]["x"] == [0, 2, 3, 4]
    values = shown(scan.measure(panel, services, session, Fields("facts", "", [], "", 0.0)))
    drawn = {trace["name"]: trace for trace in values[panel.layers]["data"] if "name" in trace}
    assert drawn["dropped"]["x"] == drawn["repeated"]["x"] == list(range(6))


def test_a_span_that_is_none_is_said(services, session):
    with gr.Blocks():
        panel = scan.layout()
    for span in ("4", "a:b", "5:99", "3:3"):
        work = scan.measure(panel, services, session, Fields(OWN, TEXT, ["repeat map"], span, 0.0))
        values = shown(run(services, work, panel.ended))
        assert values[panel.status]["failed"]
    work = scan.measure(panel, services, session, Fields(OWN, " ", [], "", 0.0))
    values = shown(run(services, work, panel.ended))
    assert "empty" in values[panel.status]["text"]


def test_a_comparison_is_drawn_and_logged(services, session):
    with gr.Blocks():
        panel = compare.layout()
    session.become("0:2, 4:6")
    seen = Seen()
    values = shown(compare.run(panel, services, session, HealedStore(), seen, OWN, TEXT))
    for view in panel.pictures:
        json.dumps(values[view], allow_nan=False)
    drawn = values[panel.damage]
    base = services.bases.get(session.spec)
    sample = sample_of(base, OWN, TEXT, services.deployment, silent)
    tokens = json.loads(drawn["tokens"])
    assert len(tokens) == sample.tokens
    assert tokens[drawn["picked"]]["damage"] == max(token["damage"] for token in tokens)
    words = values[panel.status]["text"]
    assert words.startswith("Compared with the plan 0:2, 4:6 (") and "on own text" in words
    assert [entry.plan for entry in session.measurements] == ["0:6", "0:2, 4:6"]
    assert len(values[panel.patient_lens]["data"][0]["z"]) == 4
    closer = shown(compare.look_closer(panel, services, session, seen, {"index": 12}))
    assert closer[panel.base_lens]["data"][0]["x"] == list(range(10))
    for nonsense in ({"index": 10**9}, {"index": "1"}, {}):
        ignored = shown(compare.look_closer(panel, services, session, seen, nonsense))
        assert panel.base_lens not in ignored


def test_the_lens_of_a_token_that_was_picked_meanwhile_stays(services, session):
    """Neither the end of the comparison nor a slow lens of an earlier one covers it."""
    with gr.Blocks():
        panel = compare.layout()
    session.become("0:2, 4:6")
    seen = Seen()
    running = compare.run(panel, services, session, HealedStore(), seen, OWN, TEXT)
    for update in running:
        if panel.patient_lens in update:
            break
    shown(compare.look_closer(panel, services, session, seen, {"index": 12}))
    rest = shown(running)
    assert panel.similarity in rest and not rest.keys() & set(panel.lenses)
    slow = compare.look_closer(panel, services, session, seen, {"index": 12})
    next(slow)
    shown(compare.run(panel, services, session, HealedStore(), seen, OWN, TEXT))
    assert not shown(slow).keys() & set(panel.lenses)


def test_what_is_drawn_says_what_it_was_made_of(services, session):
    with gr.Blocks():
        panel = compare.layout()
    session.become("0:2, 4:6")
    values = shown(compare.run(panel, services, session, HealedStore(), Seen(), OWN, TEXT))
    of = {"spec": session.spec, "plan": "0:2, 4:6", "healing": ""}
    assert all(values[view]["of"] == of for view in panel.pictures)


def test_a_scan_draws_nothing_over_another_base(services, session, tiny_folder, monkeypatch):
    with gr.Blocks():
        panel = scan.layout()
    other, measured = str(tiny_folder("gpt2")), analysis.scan

    def work(*given, **options):
        session.open(other, services.bases.get(other))
        return measured(*given, **options)

    monkeypatch.setattr("surgery.analysis.scan", work)
    values = shown(scan.measure(panel, services, session, Fields(OWN, TEXT, [], "", 0.0)))
    words = values[panel.status]["text"]
    assert "tokens to measure on" in words and "scan of another base or text was stopped" in words
    assert values[panel.layers] == values[panel.blocks] == {} and not values[panel.stop]["visible"]


def test_a_scan_draws_nothing_over_another_text(services, session, short_texts, monkeypatch):
    with gr.Blocks():
        panel = scan.layout()
    done = shown(scan.measure(panel, services, session, Fields("facts", "", [], "", 0.0)))

    def endless(*_, progress, **__):
        while True:
            progress("Dropping layers", 1, 2)
            time.sleep(0.01)

    monkeypatch.setattr("surgery.analysis.scan", endless)
    for before, now in ((("prose", ""), ("facts", "")), ((OWN, TEXT), (OWN, f"More. {TEXT}"))):
        fields = Fields(*before, [], "", 0.0)
        work = scan.measure(panel, services, session, fields)
        next(work)
        fields.values = (*now, [], "", 0.0)
        values = shown(work)
        known = now[0] == "facts"
        assert values[panel.layers] == (done[panel.layers] if known else {})
        words = values[panel.status]["text"]
        assert words.startswith("Text: facts.") is known and words.endswith("are kept.")
        assert not values[panel.stop]["visible"]


def test_a_base_is_in_use_while_it_is_worked_on(services, session, monkeypatch):
    """Else it would be unloaded for another one, and loaded a second time."""
    with gr.Blocks():
        scanning, comparing, suggesting = scan.layout(), compare.layout(), suggest.layout()
        logging = log_panel()
    seen = []

    def work(base, *_, **__):
        seen.append(id(base) in services.bases._used)
        raise SurgeryError("enough")

    for place in (
        "surgery.analysis.scan",
        "surgery.analysis.comparison.compare",
        "surgery.analysis.suggest",
        "components.panels.log.wiring.default_scores",
    ):
        monkeypatch.setattr(place, work)
    text, healed = (OWN, TEXT), HealedStore()
    for updates in (
        scan.measure(scanning, services, session, Fields(*text, [], "", 0.0)),
        compare.run(comparing, services, session, healed, Seen(), *text),
        suggest.run(suggesting, services, session, 4, "layers", *text),
        measure(logging, services, session, healed),
    ):
        with pytest.raises(SurgeryError, match="enough"):
            list(updates)
    assert seen == [True] * 4 and not services.bases._used


def test_suggestions_are_listed_logged_and_applied(services, session):
    with gr.Blocks():
        panel = suggest.layout()
    values = shown(suggest.run(panel, services, session, 4, "layers", OWN, TEXT))
    rows = values[panel.rows]["rows"]
    assert {"random (control)", "greedy search"} <= {row["method"] for row in rows}
    assert all(row["measured"] and row["size"].startswith("4 layers") for row in rows)
    assert {entry.plan for entry in session.measurements} == {row["plan"] for row in rows}
    assert all("cost" in row for row in rows)
    short = shown(suggest.run(panel, services, session, 4, "layers", OWN, TEXT[:160]))
    assert all("cost" not in row for row in short[panel.rows]["rows"])  # one window
    words = short[panel.status]["text"]
    assert words.startswith("Text: own text. ") and "longer text" in words
    chosen = {"plan": rows[0]["plan"], "spec": values[panel.rows]["spec"]}
    assert suggest.plan_of(session, chosen) == rows[0]["plan"]
    for other in ({**chosen, "spec": "another"}, {"plan": "0:4"}, {**chosen, "plan": 4}):
        assert suggest.plan_of(session, other) is None
    session.become(rows[0]["plan"])
    assert len(session.plan) == 4
    for size, unit in ((0, "layers"), (2.5, "layers"), (None, "layers"), (6, "layers")):
        work = suggest.run(panel, services, session, size, unit, OWN, TEXT)
        values = shown(run(services, work, panel.ended))
        assert values[panel.status]["failed"]


def test_suggestions_end_once_another_base_is_open(services, session, tiny_folder, monkeypatch):
    with gr.Blocks():
        panel = suggest.layout()
    other = str(tiny_folder("gpt2"))

    def endless(*_, progress, **__):
        session.open(other, services.bases.get(other))
        while True:
            progress("Measuring", 0, 0)
            time.sleep(0.01)

    monkeypatch.setattr("surgery.analysis.suggest", endless)
    values = shown(suggest.run(panel, services, session, 4, "layers", "facts", ""))
    assert "another base was opened" in values[panel.status]["text"]
    assert not values[panel.stop]["visible"]


def test_suggestions_are_judged_on_the_other_half(services, session, short_texts):
    with gr.Blocks():
        panel = suggest.layout()
    values = shown(suggest.run(panel, services, session, 4, "layers", "facts", ""))
    assert "no plan was chosen on" in values[panel.status]["text"]
    rows = values[panel.rows]["rows"]
    base = services.bases.get(session.spec)
    judged = Sample.of(base, texts.documents("facts", "judge"), limit=2048)
    whole = measured_score(base, Plan.whole(base.depth), judged)
    (control,) = (row["plan"] for row in rows if row["control"])
    for row in rows:
        score = measured_score(base, Plan.parse(row["plan"], base.depth), judged)
        cost = LossIncrease.of(score, whole)
        assert row["cost"] == f"{cost.mean:+.2f} nats".replace("-", "−")
        assert row["cost_span"] == f"{cost.low:+.2f} to {cost.high:+.2f}".replace("-", "−")
        assert bool(row["verdict"]) is (row["plan"] != control)


@pytest.mark.parametrize(
    ("depth", "parameters", "layers", "millions"),
    [(30, 134_515_008, 26, 114.0), (2, 500_000, 1, 0.425)],
)
def test_the_target_begins_somewhat_below_the_base(depth, parameters, layers, millions):
    class Fake:
        def preview(self, plan):
            assert plan.is_whole
            return type("Size", (), {"parameters": parameters})

    base = Fake()
    base.depth = depth
    assert suggest.target(base, "layers") == layers
    assert suggest.target(base, "million parameters") == millions


def test_the_picture_has_what_can_be_compared(session):
    def add(plan, perplexity, parameters=100, text="prose", identity=session.identity):
        session.measurements.add(
            Entry(identity, "x", plan, 6, parameters, perplexity, 1.0, 99.0, 50, text),
        )

    assert log.picture(session.measurements, session.identity) == {}
    add("0:6", 10.0, 600)
    add("0:5", 12.0, 500)
    add("0:5", 12.0, 500)  # measured again: still one row
    add("0:4", 11.0, 450)
    add("0:3", math.inf, 300)
    add("0:2", 1.0, 200, text="code")
    add("0:2", 1.0, 200, identity="other")
    add("0:1", 50.0, 100)
    assert len(session.measurements) == 7
    drawn = log.picture(session.measurements, session.identity)
    assert drawn["data"][1]["text"] == ["0:6", "0:5", "0:4", "0:1"]
    assert drawn["data"][0]["x"] == pytest.approx([100e-6, 450e-6, 600e-6])
    rows = log.table(session.measurements, session.identity)["entries"]
    json.dumps(rows, allow_nan=False)
    assert [row["plan"] for row in rows if row["front"]] == ["0:6", "0:4", "0:1"]
    assert [row["here"] for row in rows].count(False) == 1
    assert "On the Pareto front, from small to large: 0:1; 0:4; 0:6." in drawn["hint"]
    at = drawn["data"][1]["customdata"][1]
    assert plan_at(session, {"index": at}) == "0:5"
    assert plan_at(session, {"index": 5}) is None  # of another base
    for nonsense in ({"index": 99}, {"index": True}, {}):
        assert plan_at(session, nonsense) is None


def test_a_caption_speaks_of_no_line_that_is_not_there(session):
    for plan, parameters, value in (("0:6", 600, 10.0), ("0:5", 500, 9.0)):
        score = Entry(session.identity, "x", plan, 6, parameters, value, 1.0, 99.0, 50, "prose")
        session.measurements.add(score)
        drawn = log.picture(session.measurements, session.identity)
        assert "Pareto" not in drawn["hint"] and not drawn["data"][0]["showlegend"]
    assert "No other measured plan is smaller or better than 0:5." in drawn["hint"]


def test_named_and_pinned_plans_keep_their_name_and_place(session):
    measured = session.measurements
    one, two = (Entry("s", "x", p, 6, 1, 1.0, 1.0, 1.0, 50, "prose") for p in ("0:6", "0:5"))
    measured.add(one)
    measured.add(two)
    note_down(session, {"index": 0, "name": f"  my\n {'x' * 99}"})
    note_down(session, {"index": 1, "pinned": True})
    for nonsense in ({"index": 7, "name": "a"}, {"index": "0", "name": "a"}, {"name": "a"}, {}):
        note_down(session, nonsense)
    note_down(session, {"index": 0, "name": 7, "pinned": "yes"})
    measured.add(one)  # measured again
    assert [(e.index, len(e.name), e.pinned) for e in measured] == [(1, 0, True), (0, 40, False)]
    for layers in range(600):
        measured.add(Entry("s", "x", f"0:{layers + 7}", 6, 1, 1.0, 1.0, 1.0, 50, "prose"))
    assert len(measured) == 500 and {measured.at(i).plan for i in (0, 1)} == {"0:6", "0:5"}


def test_the_log_measures_the_plan_on_the_page(services, session, short_texts):
    with gr.Blocks():
        panel = log_panel()
    session.become("0:2, 4:6")
    healed = HealedStore()
    values = shown(measure(panel, services, session, healed))
    assert "tokens" in values[panel.status]["text"]
    whole, cut = session.measurements
    assert (whole.plan, cut.plan) == ("0:6", "0:2, 4:6")
    base = services.bases.get(session.spec)
    sample = text_to_judge_on(base, cut.text)
    assert cut.perplexity == measured_score(base, session.plan, sample).perplexity
    shown(measure(panel, services, session, healed))
    assert len(session.measurements) == 2


def test_results_of_tasks_are_in_the_log(services, session):
    base = services.bases.get(session.spec)
    score = TaskScore(0.5, 0.02)
    for change, error, verdict in ((-0.1, 0.02, "worse"), (-0.03, 0.02, "same"), (0.1, None, "")):
        result = Result("arc", "acc", True, score, score, TaskScore(change, error))
        keep(base, Plan.parse("0:4", 6), [result], limit=9)
        (row,) = log.table([], session.identity, task_results(services, session))["tasks"]
        assert row["verdict"] == verdict and row["base"] == "0.500 ± 0.020"
        assert (row["plan"], row["task"], row["items"]) == ("0:4", "arc", "first 9 items")
    assert row["difference"] == "+0.100" and plan_at(session, row) == "0:4"


def test_sessions_do_not_share_their_logs():
    one, two = Session(), Session()
    one.measurements.add(Entry("s", "x", "0:6", 6, 1, 1.0, 1.0, 1.0, 50, "prose"))
    assert len(one.measurements) and not len(two.measurements)


def test_what_a_text_is_called():
    assert name_of(OWN, "my secret") == "own text" and name_of("prose", "") == "prose"


def test_a_kind_that_is_not_offered(bases, session):
    with pytest.raises(SurgeryError, match="no text"):
        sample_of(bases.get(session.spec), "verse", "", Deployment(), silent)


def test_words_of_a_model_are_no_markup():
    from components.panels.xray import compare_figures
    from surgery.analysis import Guess

    rows = [[(Guess("<b>x</b>", 0.5),)], [()]]
    figure = compare_figures.lens("base", rows, ["<i>"])
    assert figure["data"][0]["text"][0] == ["&lt;b&gt;x&lt;/b&gt;"]
    assert figure["layout"]["xaxis"]["ticktext"] == ["&lt;i&gt;"]
