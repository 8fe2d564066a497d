"""Repair on the page: one more edit if it helps, and nothing if it doesn't."""

from types import SimpleNamespace

import gradio as gr
import pytest
from updates import shown

from components.panels import quality
from components.panels.quality.asked import Asked
from components.panels.quality.repairing import repair
from components.panels.quality.wiring import measure_latest
from components.parts import PageParts
from components.services.deployment import Deployment
from components.services.services import Services
from components.sessions.healed_store import HealedStore
from components.sessions.session import Session
from components.widgets.layer_strip.layer_strip import LayerStrip
from components.widgets.tiles.tiles import Tiles
from surgery import Plan, SurgeryError
from surgery.numbers import perplexity
from surgery.operation import Operation
from surgery.progress import Cancelled

REPAIRED = Plan.parse("0, 1@refit, 4:6@refit", 6)


@pytest.fixture
def spec(tiny_folder):
    return str(tiny_folder("gpt2"))


def opened(services, spec, plan="0:2, 4:6"):
    session = Session()
    session.open(spec, services.bases.get(spec))
    session.become(plan)
    return session


def run(services, session, healed=None, asked=None):
    operation = Operation(session.spec, session.plan)
    asked = asked or Asked()
    with asked.repairing(operation):
        yield from repair(services, session, healed or HealedStore(), asked, operation, "prose")


def test_a_repair_is_an_edit_that_can_be_undone_and_healing_begins_from_it(services, spec):
    session, healed = opened(services, spec), HealedStore()
    assert session.view()["repair"]
    values = list(run(services, session, healed))
    assert all(value["repair"] == "stop" and value["busy"] for value in values)
    assert any("Fitting layers" in value["message"] for value in values)
    assert session.plan == REPAIRED
    view = session.view()
    assert view["undo"] and not view["repair"] and view["message"].startswith("Repaired")
    found = healed.operation(spec, session.plan)
    assert found.healed.word == "repaired" and str(found).endswith(", repaired")
    start = healed.repaired(spec, session.plan)
    assert start is not None and start.plan == session.plan
    assert healed.repaired(spec, Plan.parse("0:2, 4:6", 6)) is None
    rows = [(entry.plan, entry.note) for entry in session.measurements]
    assert rows == [
        ("0:6", "the base"),
        ("0:2, 4:6", ""),
        ("0, 1@refit, 4:6@refit", "repaired, refit"),
    ]
    session.apply({"op": "undo", "revision": view["revision"]})
    assert str(session.plan) == "0:2, 4:6" and healed.operation(spec, session.plan).healed is None
    session.apply({"op": "redo", "revision": session.view()["revision"]})
    assert healed.operation(spec, session.plan).healed is found.healed


def test_the_same_plan_of_another_base_is_not_repaired(services, spec, tiny_folder):
    session = opened(services, spec)
    session.repaired(REPAIRED)
    repaired = str(session.plan)
    assert not session.view()["repair"]
    session.open("other", services.bases.get(str(tiny_folder("llama"))))
    session.become(repaired)
    assert session.view()["repair"]


def test_a_repaired_plan_whose_patient_is_gone_is_repaired_again(services, spec):
    """After a reload. The plan stays equal, and the strip is drawn all the same: else the next edit
    would be refused as one of an older plan."""
    with gr.Blocks() as demo:
        tile, strip, tiles = quality.layout(), LayerStrip(), Tiles()
        given = gr.State(Session()), gr.State(HealedStore())
        quality.wire_repair(tile, PageParts(services, *given, strip, tiles, gr.Tabs(), []))
    (pressed,) = (fn.fn for fn in demo.fns.values() if fn.api_name == "pressed")
    session, healed = opened(services, spec, "0, 1@refit, 4:6@refit"), HealedStore()
    before = session.view()
    assert before["repair"]
    request = SimpleNamespace(session_hash="one", client=None)
    values = shown(pressed(session, healed, Asked(), SimpleNamespace(_data={}), request))
    assert str(session.plan) == before["text"] and healed.operation(spec, session.plan).healed
    assert values[strip]["revision"] == session.view()["revision"] != before["revision"]


def test_an_edit_of_a_repaired_plan_takes_the_fits_away(services, spec):
    session = opened(services, spec)
    session.repaired(REPAIRED)
    session.apply(
        {
            "op": "repeat",
            "strip": "patient",
            "start": 0,
            "end": 1,
            "revision": session.view()["revision"],
        }
    )
    assert str(session.plan) == "0*2, 1, 4:6"
    assert "not repaired any more" in session.view()["message"]


def test_a_repair_that_does_not_help_changes_nothing_and_the_tile_says_why(services, tiny_folder):
    session = opened(services, str(tiny_folder("llama")))  # whose weights are random
    asked, healed = Asked(), HealedStore()

    def measured():
        return list(measure_latest(services, session, healed, asked, None, wanted=True))

    updates = run(services, session, healed, asked)
    next(updates)
    assert not measured()  # before the repair has ended
    *_, last = updates
    cut, repaired = [perplexity(entry.perplexity) for entry in session.measurements][1:]
    assert last["message"].startswith("Repair not applied: no better on held-out text")
    assert f"(perplexity {cut} → {repaired})" in last["message"] and not last["failed"]
    assert str(session.plan) == "0:2, 4:6"
    assert healed.operation(session.spec, session.plan).healed is None
    assert len(session.measurements) == 3  # the Log shows it all the same
    *_, measurement = measured()
    assert measurement["value"] and measurement["message"] == last["message"]
    session.become("0:3")
    assert measured()[-1]["message"] == ""


def test_it_does_not_keep_others_waiting_for_a_healing_run(services, spec):
    session, healed = opened(services, spec), HealedStore()
    healed.training.set()
    with pytest.raises(SurgeryError, match="Pause that first"):
        list(run(services, session, healed))
    healed.pausing.set()  # its step ends soon
    list(run(services, session, healed))
    assert session.plan.fitted


def test_a_refusal_says_why(services, tiny_folder):
    session = opened(services, str(tiny_folder("gemma2")))
    with pytest.raises(SurgeryError, match="can't be fitted in closed form"):
        list(run(services, session))
    assert str(session.plan) == "0:2, 4:6"


def test_it_ends_when_it_is_stopped_or_another_plan_or_base_is_shown(services, spec, tiny_folder):
    for what in ("stopped", "edited", "same plan of another base"):
        session, asked, healed = opened(services, spec), Asked(), HealedStore()
        updates = run(services, session, healed, asked)
        next(updates)
        if what == "stopped":
            asked.repair = None
        elif what == "edited":
            session.become("0:3")
        else:
            session.open("other", services.bases.get(str(tiny_folder("llama"))))
            session.become("0:2, 4:6")
        with pytest.raises(Cancelled):
            list(updates)
        assert not session.plan.fitted
        assert healed.operation(spec, session.plan).healed is None
        with healed.busy.taken(lambda *_: None):  # given back
            pass


def test_repairs_of_several_visitors_take_turns(services, spec):
    one, other = opened(services, spec), opened(services, spec)
    turn = services.repairs.queued("somebody", iter(range(100)), lambda place: place)
    next(turn)
    asked = Asked()
    updates = run(services, other, asked=asked)
    next(updates)
    assert next(updates)["message"] == "Repairing. Place 1 in the queue"
    asked.repair = None  # stopped while it waits
    with pytest.raises(Cancelled):
        list(updates)
    updates = run(services, one)
    next(updates)
    assert "Place 1" in next(updates)["message"]
    turn.close()
    list(updates)
    assert "@refit" in str(one.plan) and not services.repairs.sessions


def test_strangers_may_not_where_healing_is_off(spec):
    services = Services.of(Deployment(healing=False))
    session = Session(services.deployment)
    session.open(spec, services.bases.get(spec))
    session.become("0:2, 4:6")
    view = session.view()
    assert not view["repair"] and "Repair is switched off" in view["why_no_repair"]
    with pytest.raises(SurgeryError, match="Repair is switched off"):
        list(run(services, session))
