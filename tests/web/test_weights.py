"""What the weights panel shows, without a browser."""

import json
import sys
import threading
import time
from types import SimpleNamespace

import gradio as gr
import numpy as np
import pytest
from updates import shown

from components.panels import weights
from components.panels.weights import figures
from components.panels.weights.look import Look
from components.panels.weights.matrix import SINGULAR, LastSpectrum
from components.panels.weights.panel import ALL
from components.panels.weights.wiring import Updates
from components.parts import PageParts
from components.services.deployment import Deployment
from components.services.rates import Rates
from components.services.run_job import run_job
from components.services.services import Services
from components.sessions.healed_store import HealedStore
from components.sessions.session import Session
from components.widgets.layer_strip.layer_strip import LayerStrip
from components.widgets.tiles.tiles import Tiles
from surgery import Plan
from surgery.operation import Operation
from surgery.progress import silent
from surgery.weight_stats import cache, matrix, survey_base
from surgery.weight_stats.value_counts import ValueCounts

SETTINGS = (ALL, "logarithmic", "norm", "raw values")
DOWN = ("down", *SETTINGS[1:])


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LAYER_SURGERY_CACHE", str(tmp_path))
    cache._surveys.clear()


@pytest.fixture
def panel():
    with gr.Blocks():
        return weights.layout()


def opened(services, spec) -> tuple[Session, Look]:
    session, look = Session(), Look()
    session.open(spec, services.bases.get(spec))
    look.open = True
    return session, look


def test_what_is_drawn_is_plain_json(services, panel, tiny_folder):
    session, look = opened(services, str(tiny_folder("llama")))
    values = shown(Updates(panel, services).count(session, look))
    for view in (panel.heat, panel.detail, panel.depth, panel.raw):
        json.dumps(values[view], allow_nan=False)
        assert values[view]["title"] and values[view]["hint"]
        assert values[view]["of"] == {"spec": session.spec}  # it stays while another is counted
    assert "embeddings, final norm and output head are not counted" in values[panel.detail]["hint"]
    assert values[panel.kind]["choices"][0] == ALL
    picture = survey_base(services.bases.get(session.spec)).base()
    heat = values[panel.heat]["data"][0]
    assert np.array_equal(
        np.sum(heat["customdata"], axis=0), [picture.layer(p).size for p in range(6)]
    )


def test_nothing_is_counted_before_the_panel_is_seen(services, panel, tiny_folder):
    session, look = opened(services, str(tiny_folder("llama")))
    look.open = False
    values = shown(Updates(panel, services).count(session, look))
    assert panel.heat not in values and not cache._surveys
    look.open = True
    values = shown(Updates(panel, services).redraw(session, look))  # an edit counts nothing
    assert panel.heat not in values and not cache._surveys


def test_an_edit_reads_no_weight_again(services, panel, tiny_folder, monkeypatch):
    session, look = opened(services, str(tiny_folder("llama")))
    shown(Updates(panel, services).count(session, look))
    monkeypatch.setattr(cache, "take", lambda *args, **options: pytest.fail("counted again"))
    session.apply({"op": "write", "text": "0:2, 1@identity, 4:6", "revision": 1})
    values = shown(Updates(panel, services).redraw(session, look))
    assert values[panel.heat]["link"]["sources"] == [0, 1, 1, 4, 5]
    assert len(values[panel.depth]["layout"]["shapes"]) == 2


def test_a_big_base_is_sampled_first(services, panel, tiny_folder, monkeypatch):
    monkeypatch.setattr(sys.modules[Updates.__module__], "BIG", 1)
    monkeypatch.setattr("surgery.weight_stats.survey._SAMPLE_EACH", 1024)
    session, look = opened(services, str(tiny_folder("llama")))
    message = [
        update[panel.status]["text"]
        for update in Updates(panel, services).count(session, look)
        if panel.detail in update
    ]
    assert "A sample of" in message[0] and "sample" not in message[-1]


@pytest.mark.parametrize(
    "request_",
    [
        None,
        {},
        {"strip": "b", "start": 0, "end": 1},
        {"strip": "base", "start": 2, "end": 2},
        {"strip": "patient", "start": "0", "end": 3},
        {"strip": "base", "start": -1, "end": 3},
    ],
)
def test_a_selection_that_is_none(request_):
    look = Look()
    look.select(request_)
    assert look.selected is None
    assert look.positions(Plan.parse("0:2, 1", 3)) == ([0, 1, 2], [0, 1, 2])


def test_a_selection_of_an_older_plan_is_let_go():
    look, plan = Look(), Plan.parse("0:2, 1", 3)
    look.select({"strip": "base", "start": 1, "end": 2})
    assert look.positions(plan) == ([1], [1, 2])
    look.select({"strip": "base", "start": 2, "end": 3})
    assert look.positions(plan) == ([2], [])  # dropped: nothing of the patient
    look.select({"strip": "patient", "start": 2, "end": 9})
    assert look.positions(plan) == ([0, 1, 2], [0, 1, 2])


def test_a_selection_that_arrives_late_is_let_go():
    look = Look()
    look.select({"strip": "base", "start": 1, "end": 2, "at": 20.5})
    look.select({"at": 10})
    assert look.selected == ("base", 1, 2)
    look.select({"at": 30})
    assert look.selected is None


def test_pictures_of_nothing_and_of_nan():
    empty, odd = ValueCounts(), ValueCounts.of(np.array([np.nan, np.inf]), np.array([2, 1]))
    for log in (True, False):
        figure = figures.detail(empty, odd, "x", log)
        json.dumps(figure, allow_nan=False)
    assert figure["table"]["columns"][-2:] == ["NaN", "infinite"]
    assert figure["table"]["rows"][1][-2:] == ["2", "1"]


def test_a_plan_that_is_refused_is_said(services, panel, tiny_folder):
    session, look = opened(services, str(tiny_folder("llama")))
    shown(Updates(panel, services).count(session, look))
    session.apply({"op": "write", "text": "0:5, 5@average", "revision": 1})
    work = Updates(panel, services).redraw(session, look)
    cleared = dict.fromkeys(panel.pictures)
    values = shown(run_job(services, "draw", None, work, panel.ended, cleared=cleared))
    assert values[panel.status]["failed"] and "average" in values[panel.status]["text"]
    assert values[panel.heat] is None  # no picture of an older plan stays


def test_a_selection_that_overtakes_an_edit_draws_the_edit_too(
    services, panel, tiny_folder, monkeypatch
):
    session, look = opened(services, str(tiny_folder("llama")))
    shown(Updates(panel, services).count(session, look))
    look.select({"strip": "base", "start": 0, "end": 1})
    values = shown(Updates(panel, services).redraw(session, look, selection_only=True))
    assert panel.heat not in values
    session.apply({"op": "write", "text": "0:2, 4:6", "revision": 1})
    real = figures.depth

    def overtaken(*args):
        look.turn += 1  # a selection comes while the edit is drawn
        return real(*args)

    with monkeypatch.context() as patch:
        patch.setattr(figures, "depth", overtaken)
        assert panel.heat not in shown(Updates(panel, services).redraw(session, look))
    values = shown(Updates(panel, services).redraw(session, look, selection_only=True))
    assert values[panel.heat]["link"]["sources"] == [0, 1, 4, 5]


def test_a_drawing_that_was_asked_for_before_a_choice_shows_the_choice(
    services, panel, tiny_folder, monkeypatch
):
    """What is drawn last is what was chosen last, in whatever order requests are worked on."""
    session, look = opened(services, str(tiny_folder("llama")))
    shown(Updates(panel, services).count(session, look))
    draw, choice = Updates._draw, {}

    def overtaken(self, *args, **options):
        with monkeypatch.context() as patch:
            patch.setattr(Updates, "_draw", draw)
            look.settings = DOWN
            choice.update(shown(Updates(panel, services).redraw(session, look)))
        yield from draw(self, *args, **options)

    monkeypatch.setattr(Updates, "_draw", overtaken)
    for values in (shown(Updates(panel, services).count(session, look)), choice):
        assert values[panel.detail]["title"].endswith(": down")
        assert values[panel.raw]["title"].endswith("down")
        assert panel.kind not in values  # the browser has it: sent, it could undo the next choice


def test_a_drawing_that_was_overtaken_says_nothing_more(services, panel, tiny_folder, monkeypatch):
    """Its “Working” would cover the end of the newer drawing, with a Stop that stops nothing."""
    session, look = opened(services, str(tiny_folder("llama")))
    shown(Updates(panel, services).count(session, look))

    def watched(work, show):
        look.turn += 1  # another edit
        yield show({"text": "Working", "share": None})
        return work(lambda *_: None)

    monkeypatch.setattr(sys.modules[Updates.__module__], "watch", watched)
    (update,) = Updates(panel, services).redraw(session, look)
    assert update == {panel.status: gr.skip()}


def test_another_base_opened_while_a_sample_is_counted(services, panel, tiny_folder, monkeypatch):
    module = sys.modules[Updates.__module__]
    monkeypatch.setattr(module, "BIG", 1)
    first, second = (str(tiny_folder(name)) for name in ("llama", "gpt2"))
    session, look = opened(services, first)
    counted = module.watch

    def watched(work, show):
        result = yield from counted(work, show)
        session.open(second, services.bases.get(second))
        return result

    monkeypatch.setattr(module, "watch", watched)
    assert panel.heat not in shown(Updates(panel, services).count(session, look))


def test_counting_says_nothing_more_once_another_base_is_open(
    services, panel, tiny_folder, monkeypatch
):
    """That base may be drawn already: “Counting” and Stop would stay."""
    first, second = (str(tiny_folder(name)) for name in ("llama", "gpt2"))
    session, look = opened(services, first)

    def watched(work, show):
        session.open(second, services.bases.get(second))
        yield show({"text": "Counting the weights", "share": 0.5})

    monkeypatch.setattr(sys.modules[Updates.__module__], "watch", watched)
    assert list(Updates(panel, services).count(session, look)) == []


def test_singular_values_of_a_layer_that_was_left_are_not_computed(
    services, panel, tiny_folder, monkeypatch
):
    session, look = opened(services, str(tiny_folder("llama")))
    look.settings = (*SETTINGS[:3], SINGULAR)
    real, computed = matrix.spectrum, []

    def counted(base, one, progress):
        progress("Reading the matrix", 0, 0)
        computed.append(one.layer)
        return real(base, one, progress)

    monkeypatch.setattr(matrix, "spectrum", counted)
    updates = Updates(panel, services)
    values = shown(updates.count(session, look))
    assert values[panel.raw]["title"].startswith("Singular values: layer 0")
    look.select({"strip": "base", "start": 3, "end": 4})
    left = updates.redraw(session, look, selection_only=True)
    assert next(update for update in left if panel.detail in update)
    look.select({"strip": "base", "start": 5, "end": 6})
    latest = shown(updates.redraw(session, look, selection_only=True))
    assert panel.raw in latest and panel.raw not in shown(left)
    assert computed == [0, 5]


def test_spectra_are_computed_one_at_a_time_whatever_is_released_meanwhile(
    services, tiny_folder, monkeypatch
):
    base, last = services.bases.get(str(tiny_folder("llama"))), LastSpectrum()
    real, at_work, most, found = matrix.spectrum, [], [], []

    def slow(base, one, progress):
        at_work.append(one)
        most.append(len(at_work))
        time.sleep(0.05)
        last.release()  # the page was closed
        at_work.pop()
        return real(base, one, progress)

    monkeypatch.setattr(matrix, "spectrum", slow)
    wanted = matrix.matrices(base)[:4]
    threads = [
        threading.Thread(target=lambda one=one: found.append(last.of(base, one, silent).matrix))
        for one in wanted
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 4 and {one.name for one in found} == {one.name for one in wanted}


def test_what_is_not_counted_of_a_healed_patient_is_said(services, panel, tiny_folder):
    session, look = opened(services, str(tiny_folder("llama")))
    shown(Updates(panel, services).count(session, look))
    store, plan = HealedStore(), Plan.parse("0:2, 4:6", 6)
    session.become(str(plan))
    store.keep(Operation(session.spec, plan, SimpleNamespace(plan=plan, word="healed")))
    for healed in (None, store):
        text = shown(Updates(panel, services).redraw(session, look, healed))[panel.status]["text"]
        assert ("as they were before healing" in text) is (healed is store)


def test_redraws_go_through_the_queue(own_page):
    """Gradio carries on with a generator only there: else the page gets its first value alone."""
    found = [fn for fn in own_page.fns.values() if fn.api_name.startswith("followed")]
    assert found and all(fn.queue and fn.trigger_mode == "multiple" for fn in found)
    assert all(fn.concurrency_limit is None for fn in found)


def test_a_kind_that_another_base_lacks_is_let_go(services, panel, tiny_folder):
    session, look = opened(services, str(tiny_folder("llama")))
    look.settings = ("rotor", *SETTINGS[1:])
    values = shown(Updates(panel, services).count(session, look))
    assert values[panel.kind]["value"] == ALL and look.settings == SETTINGS
    values = shown(Updates(panel, services).redraw(session, look))
    assert panel.kind not in values


def handlers(services: Services, api_names: set[str]) -> dict:
    """The functions behind the panel's events, by name, as the page wires them."""
    with gr.Blocks() as demo:
        session = gr.State(Session())
        with gr.Tabs() as tabs, gr.Tab(weights.TAB):
            panel = weights.layout()
        strip, tiles = LayerStrip(), Tiles()
        edited = strip.edit(lambda: None, None, None)
        healed = gr.State(HealedStore())
        weights.wire(panel, PageParts(services, session, healed, strip, tiles, tabs, [edited]))
    result = {fn.api_name: fn.fn for fn in demo.fns.values() if fn.api_name in api_names}
    return {"panel": panel, **result}


def test_strangers_count_only_so_often(tiny_folder, monkeypatch):
    """Opening the panel, choosing, splitting matrices and redraws after an edit are limited."""
    monkeypatch.setattr(Deployment, "check_spec", lambda self, spec: None)
    rates = Rates({"count": 2, "edit": 3, "draw": 1}, lambda: 0.0)
    services = Services.of(Deployment.of(public=True), rates=rates)
    session, look = opened(services, str(tiny_folder("llama")))
    healed = HealedStore()
    page = handlers(services, {"turned", "picked", "chosen", "followed"})
    panel = page["panel"]

    def ask(name: str, who: str, *settings: str, event=None) -> bool:
        """Whether it was let in."""
        request = SimpleNamespace(session_hash=who, client=None)
        if name == "chosen":
            values = shown(page[name](session, healed, look, request, *settings))
        elif name == "picked":
            values = shown(page[name](session, healed, look, event, request))
        else:
            values = shown(page[name](session, healed, look, *settings, event, request))
        message = values[panel.status]
        return not (isinstance(message, dict) and "Too many requests" in message.get("text", ""))

    turned = SimpleNamespace(value=weights.TAB)
    picked = SimpleNamespace(_data={"strip": "base", "start": 0, "end": 1})
    singular = (*SETTINGS[:3], "singular values")
    assert [ask("turned", "a", *SETTINGS, event=turned) for _ in range(3)] == [True, True, False]
    assert not ask("chosen", "a", *SETTINGS)
    look.settings = singular
    assert not ask("picked", "a", event=picked)
    look.settings = SETTINGS
    assert [ask("picked", "a", event=picked) for _ in range(4)] == [True] * 3 + [False]
    assert ask("chosen", "b", *SETTINGS)  # what one has used up is not another's
    elsewhere = SimpleNamespace(value="Talk")
    assert ask("turned", "a", *SETTINGS, event=elsewhere)  # leaving costs nothing
    request = SimpleNamespace(session_hash="a", client=None)
    values = shown(page["followed"](session, healed, look, request))
    assert panel.heat not in values  # … and out of sight nothing is drawn
    (values,) = page["followed"](session, healed, look, request)
    assert values[panel.status]["failed"]
