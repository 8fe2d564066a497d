"""The Quality tile: each plan's own value, one at a time, stopped by the next edit."""

import json
import math
import threading
import time
from types import SimpleNamespace

import pytest

from components.panels.quality import view
from components.panels.quality.wiring import Asked, choose, measure_latest
from components.services import quality as service
from components.services.deployment import Deployment
from components.services.quality import ALL, PlanQuality
from components.services.rates import Rates
from components.services.services import Services
from components.sessions.healed_store import HealedStore
from components.sessions.session import Session
from surgery import Plan, texts
from surgery.analysis import LossIncrease, Sample, Score, control, measured_score
from surgery.analysis.cache import _memory
from surgery.numbers import perplexity
from surgery.operation import Operation


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """Measurements of one test don't reach another."""
    _memory.clear()
    monkeypatch.setenv("LAYER_SURGERY_CACHE", str(tmp_path))


@pytest.fixture
def spec(tiny_folder):
    return str(tiny_folder("llama"))


def opened(services, spec, plan="0:2, 4:6"):
    session = Session()
    session.open(spec, services.bases.get(spec))
    session.become(plan)
    return session


def values(services, session, asked=None, healed=None, **options) -> list[dict]:
    """What the tile is given, without the number of the request."""
    given = measure_latest(
        services, session, healed or HealedStore(), asked or Asked(), None, **options
    )
    shown = [value for value in given if "of" in value]
    assert len({value.pop("request") for value in shown}) <= 1
    return shown


def test_values_of_a_later_request_have_a_higher_number(services, spec):
    session, asked = opened(services, spec), Asked()
    first, second = (
        list(measure_latest(services, session, HealedStore(), asked, None))[-1] for _ in range(2)
    )
    assert first["request"] < second["request"] == asked.latest


def test_a_value_is_that_of_the_library(services, spec):
    session = opened(services, spec)
    *before, last = values(services, session)
    json.dumps(last, allow_nan=False)
    base = services.bases.get(spec)
    sample = services.quality.sample(base, "prose")
    whole, plan = Plan.whole(6), session.plan
    scores = {one: measured_score(base, one, sample) for one in (whole, plan, control(base, plan))}
    increase = LossIncrease.of(scores[plan], scores[whole])
    random = LossIncrease.of(scores[control(base, plan)], scores[whole])
    known = services.quality.known(base, Operation(spec, plan), sample)
    assert (known.increase, known.random) == (increase, random) and known.is_complete
    assert last["of"] == {"spec": spec, "plan": "0:2, 4:6"}
    assert last["value"] == f"{increase.mean:+.3f}".replace("-", "−") and not last["busy"]
    assert f"{sample.tokens:,} tokens" in last["detail"] and last["text"] == "prose"
    assert (
        f"{perplexity(scores[whole].perplexity)} → {perplexity(scores[plan].perplexity)}"
        in (last["detail"])
    )
    assert "2 random layers dropped" in last["mark"]
    assert all(one["busy"] for one in before)

    session.become("0:6")
    assert values(services, session)[-1]["value"] == perplexity(scores[whole].perplexity)
    session.become("0:2, 4:6")
    assert values(services, session) == [last]  # known at once


def test_measurements_are_shared_by_all(services, spec, monkeypatch):
    first = values(services, opened(services, spec))[-1]
    monkeypatch.setattr(service.Quality, "measure", None)
    assert values(services, opened(services, spec)) == [first]
    # Another process of the same page's owner finds them, too.
    assert values(Services.of(bases=services.bases), opened(services, spec)) == [first]


def slow(monkeypatch, started, stopped):
    """Measuring that goes on until it is stopped."""

    def measure(self, base, operation, sample, on_update, progress):
        started.append(str(operation.plan))
        try:
            while True:
                progress("Measuring", 0, 0)
                time.sleep(0.01)
        finally:
            stopped.append(str(operation.plan))

    monkeypatch.setattr(service.Quality, "measure", measure)


def until(condition):
    for _ in range(1000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it does not come to pass")


def begun(services, session, asked):
    """A measurement in a thread, and what it shows."""
    shown: list[dict] = []
    thread = threading.Thread(
        target=lambda: shown.extend(values(services, session, asked)), daemon=True
    )
    thread.start()
    return thread, shown


@pytest.mark.parametrize("how", ["another plan", "another text", "another base"])
def test_what_is_no_longer_wanted_stops(services, spec, tiny_folder, monkeypatch, how):
    started, stopped = [], []
    slow(monkeypatch, started, stopped)
    session, asked = opened(services, spec), Asked()
    thread, shown = begun(services, session, asked)
    until(lambda: started)
    if how == "another plan":
        session.become("0:3")
    elif how == "another text":
        choose(asked, "code")
        asked.latest = object()
    else:
        other = str(tiny_folder("gpt2"))
        session.open(other, services.bases.get(other))
    thread.join(20)
    assert not thread.is_alive() and stopped == ["0:2, 4:6"]
    assert not any(value["value"] for value in shown)
    until(lambda: services.quality.turns.taken == services.bases.used == 0)


def test_a_closed_tab_gives_everything_back(services, spec, monkeypatch):
    started, stopped = [], []
    slow(monkeypatch, started, stopped)
    running = measure_latest(services, opened(services, spec), HealedStore(), Asked(), None)
    while not started:
        next(running)
    running.close()  # as Gradio does
    until(lambda: stopped)
    until(lambda: services.quality.turns.sessions == services.bases.used == 0)


def test_one_at_a_time_and_the_others_see_their_place(services, spec, monkeypatch):
    started, stopped = [], []
    slow(monkeypatch, started, stopped)
    sessions = [opened(services, spec), opened(services, spec, "0:3")]
    first, _ = begun(services, sessions[0], Asked())
    until(lambda: started)
    second, shown = begun(services, sessions[1], Asked())
    until(lambda: len(services.quality.turns) == 1)
    assert started == ["0:2, 4:6"]
    sessions[0].become("0:5")
    until(lambda: len(started) == 2)
    assert started == ["0:2, 4:6", "0:3"]
    sessions[1].become("0:5")
    for thread in (first, second):
        thread.join(20)
    assert any("Place 1" in value["message"] for value in shown)


def test_texts_go_first(services, spec):
    """While all processors generate texts, measuring waits."""
    gate, log = threading.Event(), []

    def text():
        yield "a word"
        gate.wait(30)

    def generate():
        list(services.queue.queued(None, text(), lambda place: place))

    threads = [threading.Thread(target=generate, daemon=True) for _ in range(8)]
    for thread in threads:
        thread.start()
    until(lambda: services.queue.free == 0)
    session = opened(services, spec)
    measuring = threading.Thread(target=lambda: log.extend(values(services, session)), daemon=True)
    measuring.start()
    until(lambda: services.quality.turns.taken)
    time.sleep(0.5)
    assert measuring.is_alive()
    gate.set()
    measuring.join(30)
    assert log[-1]["value"] and not measuring.is_alive()
    assert any("Waiting for text generation" in value["message"] for value in log)


def test_a_plan_that_can_not_be_operated_says_why(services, spec):
    last = values(services, opened(services, spec, "0:6@average"))[-1]
    assert last["failed"] and "@average" in last["message"] and not last["value"]
    assert last["of"]["plan"] == "0:6@average"


def test_a_base_without_a_tokenizer_says_so(services, tmp_path):
    import tiny

    tiny.model("llama").save_pretrained(tmp_path / "mute")
    last = values(services, opened(services, str(tmp_path / "mute")))[-1]
    assert last["failed"] and "tokenizer" in last["message"]


def test_the_text_is_one_of_those_offered(services, spec):
    asked = Asked()
    for text in (ALL, "facts"):
        choose(asked, text)
        assert asked.text == text
    for nonsense in (None, 3, "verse", ["prose"]):
        choose(asked, nonsense)
        assert asked.text == "facts"
    base = services.bases.get(spec)
    judged = {kind: texts.get(kind, "judge") for kind in texts.TEXTS}
    assert not set(judged.values()) & set(texts.TEXTS.values())  # those importance is measured on
    assert services.quality.sample(base, ALL) == Sample.of(base, list(judged.values()))
    assert services.quality.sample(base, "facts") == Sample.of(base, judged["facts"])


def test_it_is_offered_where_it_would_take_long(services, spec, monkeypatch):
    session = opened(services, spec)
    monkeypatch.setattr(service, "_LONGEST", 0.0)
    (only,) = values(services, session)
    assert only["button"] and "about" in only["message"] and not only["value"]
    assert values(services, session, wanted=True)[-1]["value"]


def test_a_page_may_measure_only_when_asked(services, spec):
    session = opened(services, spec)
    services.quality._deployment = Deployment(measures_unasked=False)
    (only,) = values(services, session)
    assert only["button"] and "ask" in only["message"] and not only["value"]
    assert values(services, session, wanted=True)[-1]["value"]


def test_random_weights_are_measured_on_demand_only(services, spec):
    base = services.bases.get(f"config:{spec}/config.json")
    assert "random" in services.quality.why_not(base, Operation("x", Plan.whole(6)))


class Healed:
    """A stand-in for a healed patient: the weights of other layers."""

    key = word = "healed"

    def __init__(self, plan, patient):
        self.plan, self.again, self.base = plan, patient.again, patient.base


def test_the_healed_patient_has_its_own_value(services, spec):
    session, healed = opened(services, spec), HealedStore()
    unhealed = values(services, session, healed=healed)[-1]
    base = services.bases.get(spec)
    patient = base.operate(Plan.parse("0:2, 3:4, 5:6", 6))
    healed.keep(Operation(spec, session.plan, Healed(session.plan, patient)))
    last = values(services, session, healed=healed)[-1]
    sample = services.quality.sample(base, "prose")
    expected = LossIncrease.of(
        measured_score(base, patient.plan, sample), measured_score(base, Plan.whole(6), sample)
    )
    assert last["name"] == "Quality, healed" and last["value"] != unhealed["value"]
    assert last["value"] == f"{expected.mean:+.3f}".replace("-", "−")
    assert values(services, session, healed=healed) == [last]
    session.become("0:3")
    session.become("0:2, 4:6")
    assert values(services, session) == [unhealed]  # of a session that did not heal
    healed.release()
    (lost,) = values(services, session, healed=healed)
    assert lost["failed"] and "is gone" in lost["message"] and not lost["value"]


def test_a_plan_whose_healed_patient_was_replaced_is_measured_unhealed_once_asked_for(
    services, spec
):
    session, healed = opened(services, spec), HealedStore()
    unhealed = values(services, session)[-1]
    patient = services.bases.get(spec).operate(Plan.parse("0:2, 3:4, 5:6", 6))
    for plan in (session.plan, Plan.parse("0:3", 6), Plan.parse("0:4", 6)):
        healed.keep(Operation(spec, plan, Healed(plan, patient)))
    (offer,) = values(services, session, healed=healed)
    assert offer["button"] and "press Measure under Quality" in offer["message"]
    assert values(services, session, healed=healed)[-1] == offer  # nobody asked yet
    assert values(services, session, healed=healed, wanted=True)[-1] == unhealed
    assert healed.operation(spec, session.plan).healed is None


def test_with_many_strangers_it_is_off_until_asked_for(bases, spec, monkeypatch):
    services = Services.of(Deployment.of(public=True))
    clock = SimpleNamespace(monotonic=lambda: 1000.0, sleep=time.sleep)
    monkeypatch.setattr(service, "time", clock)
    base = bases.get(spec)
    operation = Operation(spec, Plan.parse("0:3", 6))
    for visitor in ("a", "b", "c"):
        services.quality.arrive(visitor)
    assert services.quality.why_not(base, operation) == ""
    services.quality.arrive("d")
    assert "several visitors" in services.quality.why_not(base, operation)
    services.quality.leave("a")
    assert services.quality.why_not(base, operation) == ""
    services.quality.arrive("e")
    assert "several visitors" in services.quality.why_not(base, operation)
    clock.monotonic = lambda: 1300.0  # and nobody was heard of since
    assert services.quality.why_not(base, operation) == ""


def test_a_request_that_is_refused_counts_no_visitor(bases, spec, monkeypatch):
    rates = Rates({"quality": 1}, lambda: 0.0)
    services = Services.of(Deployment.of(public=True, people=1), bases=bases, rates=rates)
    services.admit("quality", None)  # the only one of this minute
    arrived = []
    monkeypatch.setattr(services.quality, "arrive", arrived.append)
    (last,) = values(services, opened(services, spec))
    assert last["failed"] and "Too many requests" in last["message"] and not arrived


def found(nll: float, random: float | None = None) -> PlanQuality:
    base, patient = Score.of([1.0] * 40), Score.of([1.0 + nll] * 40)
    increase = LossIncrease.of(patient, base)
    other = None if random is None else LossIncrease(random, random, random)
    ends = patient.low, patient.high
    return PlanQuality(increase, (base.perplexity, patient.perplexity), *ends, 40, True, other)


def test_the_bar_has_room_for_the_random_plan():
    operation = Operation("x", Plan.parse("0:2, 4:6", 6))
    shown = view.result(operation, "prose", found(0.5, 1.0))
    assert shown["bar"]["value"] == pytest.approx(1 / 3, abs=1e-3)
    assert shown["bar"]["random"] == pytest.approx(2 / 3, abs=1e-3)
    assert (shown["value"], shown["tone"]) == ("+0.50", "worse")
    assert view.result(operation, "prose", found(-0.2))["tone"] == "better"
    assert view.result(operation, "prose", found(0.0))["tone"] == "same"
    broken = view.result(operation, "prose", found(math.inf, 1.0))
    assert broken["value"] == "∞" and broken["bar"]["value"] == 1
    json.dumps(broken, allow_nan=False)
    more = view.result(Operation("x", Plan.parse("0:6, 2:3", 6)), "prose", found(0.1, 0.2))
    assert more["mark"] == "a random layer repeated: +0.20"
