"""What a closed page leaves behind: its plan for an hour, and which patients are gone."""

import datetime
import time
from types import SimpleNamespace

import gradio as gr
import pytest
from gradio.state_holder import StateHolder

from components.panels.weights.look import Look
from components.panels.xray.compare import Seen
from components.services.session_cleanup import SessionCleanup
from components.sessions.healed_store import HealedStore
from components.sessions.session import Session
from surgery import Plan, SurgeryError
from surgery.operation import Operation


@pytest.fixture
def holder():
    with gr.Blocks() as demo:
        session, look, seen = gr.State(Session()), gr.State(Look()), gr.State(Seen())
        box = gr.Textbox()
    holder = StateHolder()
    holder.set_blocks(demo)
    holder.parts = session._id, look._id, seen._id, box._id
    return holder


def test_what_a_page_showed_is_given_back_and_its_plan_is_not(holder):
    session, look, seen, box = holder.parts
    page = holder["a"]
    plan, looks_at, comparison = page[session], page[look], page[seen]
    looks_at.open, looks_at.spectrum._kept = True, ("q", "large")
    page._update_value_in_config(box, "a picture of megabytes")
    SessionCleanup().release(holder, "a")
    assert "megabytes" not in repr(holder["a"].config_values)
    assert holder["a"][session] is plan  # whoever comes back finds it
    assert holder["a"][look] is looks_at and looks_at.open  # the same tab is open
    assert looks_at.spectrum._kept is None
    assert holder["a"][seen] is not comparison
    holder["a"]._update_value_in_config(box, "again")  # and the page works as before
    SessionCleanup().release(holder, "never there")
    assert set(holder.session_data) == {"a"}


def test_what_is_drawn_after_the_page_was_closed_goes_too(holder):
    assert holder["a"].config_values
    SessionCleanup(again=0.05).release(holder, "a")
    holder["a"]._update_value_in_config(holder.parts[-1], "late")
    for _ in range(500):
        if not holder["a"].config_values:
            break
        time.sleep(0.01)
    assert not holder["a"].config_values


def test_after_an_hour_all_of_it_is_gone_unless_somebody_came_back(holder):
    for name in ("gone", "back", "open"):
        assert holder[name]
    cleanup = SessionCleanup()
    cleanup.release(holder, "gone")
    cleanup.release(holder, "back")
    long_ago = datetime.datetime.now() - datetime.timedelta(hours=2)
    for name in ("gone", "back", "open"):
        holder.time_last_used[name] = long_ago
    assert holder["back"]  # an edit, say
    cleanup.release(holder, "another")
    assert set(holder.session_data) == {"back", "open"}
    assert "gone" not in holder.time_last_used


def altered(word, plan, identity="files", changed=False):
    """A stand-in for a healed or repaired patient, and its operation."""

    def check():
        if changed:
            raise SurgeryError("open it again")

    source = SimpleNamespace(check=check, has_changed=changed)
    base = SimpleNamespace(identity=identity, source=source)
    return Operation("tiny", plan, healed=SimpleNamespace(word=word, plan=plan, base=base))


def test_a_plan_whose_healed_patient_was_released_is_refused_until_it_is_healed_again():
    plan, other = Plan.parse("0:2, 4:6", 6), Plan.parse("0:5", 6)
    store, healed = HealedStore(), altered("healed", plan)
    store.keep(healed)
    assert store.operation("tiny", plan) is healed
    store.release()
    store.go_without("tiny", plan)  # the page still calls it healed
    with pytest.raises(SurgeryError, match=r"the connection was lost\. Heal the plan again"):
        store.operation("tiny", plan)
    assert store.operation("tiny", other) == Operation("tiny", other)
    assert store.repaired("tiny", plan) is None  # healing again begins from the plan itself
    store.keep(healed)
    assert store.operation("tiny", plan) is healed
    for depth in (3, 4):  # of more than two the oldest goes
        store.keep(altered("healed", Plan.parse(f"0:{depth}", 6)))
    with pytest.raises(SurgeryError, match=r"newer ones took its place\. .*press Measure"):
        store.operation("tiny", plan)
    store.go_without("tiny", plan)
    assert store.operation("tiny", plan) == Operation("tiny", plan)


def test_healing_does_not_begin_from_a_repaired_patient_that_was_released():
    store, plan = HealedStore(), Plan.parse("0, 1@refit, 4:6@refit", 6)
    store.keep(altered("repaired", plan))
    store.release()
    with pytest.raises(SurgeryError, match=r"was lost\. Undo or reload .*press Repair"):
        store.repaired("tiny", plan)


def test_what_was_fitted_can_not_be_left_out():
    store, plan = HealedStore(), Plan.parse("0, 1@refit, 4:6@refit", 6)
    for each in (plan, Plan.parse("0:3", 6), Plan.parse("0:4", 6)):
        store.keep(altered("repaired" if each is plan else "healed", each))
    store.go_without("tiny", plan)
    with pytest.raises(SurgeryError, match=r"its place\. Undo or reload .*press Repair"):
        store.operation("tiny", plan)


def test_patients_of_files_that_have_changed_are_refused_and_forgotten_once_those_are_opened():
    store = HealedStore()
    old, gone, same = (Plan.parse(f"0:{depth}", 6) for depth in (3, 4, 5))
    store.keep(altered("healed", gone))
    store.keep(altered("healed", old, changed=True))
    store.keep(altered("healed", same))
    with pytest.raises(SurgeryError, match="open it again"):
        store.operation("tiny", old)
    store.renew("other", "new files")
    assert store.is_healed("tiny", old) and store.is_healed("tiny", same)
    store.renew("tiny", "files")  # such as the same commit, downloaded once more
    assert not store.is_healed("tiny", old) and store.is_healed("tiny", same)
    with pytest.raises(SurgeryError, match="is gone"):
        store.operation("tiny", gone)
    store.renew("tiny", "new files")
    assert not store.is_healed("tiny", same)
    for plan in (old, gone):
        assert store.operation("tiny", plan) == Operation("tiny", plan)
