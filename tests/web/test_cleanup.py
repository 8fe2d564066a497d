"""What a closed page leaves behind: its plan for an hour, nothing else."""

import datetime
import time

import gradio as gr
import pytest
from gradio.state_holder import StateHolder

from components.panels.weights.look import Look
from components.services.session_cleanup import SessionCleanup
from components.sessions.session import Session


@pytest.fixture
def holder():
    with gr.Blocks() as demo:
        session, look, box = gr.State(Session()), gr.State(Look()), gr.Textbox()
    holder = StateHolder()
    holder.set_blocks(demo)
    holder.parts = session._id, look._id, box._id
    return holder


def test_what_a_page_showed_is_given_back_and_its_plan_is_not(holder):
    session, look, box = holder.parts
    page = holder["a"]
    plan, seen = page[session], page[look]
    page._update_value_in_config(box, "a picture of megabytes")
    SessionCleanup().release(holder, "a", Session)
    assert "megabytes" not in repr(holder["a"].config_values)
    assert holder["a"][session] is plan  # whoever comes back finds it
    assert holder["a"][look] is not seen
    holder["a"]._update_value_in_config(box, "again")  # and the page works as before
    SessionCleanup().release(holder, "never there", Session)
    assert set(holder.session_data) == {"a"}


def test_what_is_drawn_after_the_page_was_closed_goes_too(holder):
    assert holder["a"].config_values
    SessionCleanup(again=0.05).release(holder, "a", Session)
    holder["a"]._update_value_in_config(holder.parts[2], "late")
    for _ in range(500):
        if not holder["a"].config_values:
            break
        time.sleep(0.01)
    assert not holder["a"].config_values


def test_after_an_hour_all_of_it_is_gone_unless_somebody_came_back(holder):
    for name in ("gone", "back", "open"):
        assert holder[name]
    cleanup = SessionCleanup()
    cleanup.release(holder, "gone", Session)
    cleanup.release(holder, "back", Session)
    long_ago = datetime.datetime.now() - datetime.timedelta(hours=2)
    for name in ("gone", "back", "open"):
        holder.time_last_used[name] = long_ago
    assert holder["back"]  # an edit, say
    cleanup.release(holder, "another", Session)
    assert set(holder.session_data) == {"back", "open"}
    assert "gone" not in holder.time_last_used
