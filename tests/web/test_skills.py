"""The board of skills: what it shows, its turns, and what the Log has of it, without a browser."""

import json
import math

import gradio as gr
import numpy as np
import pytest
from updates import run as run_all
from updates import shown

from components.panels.log import figures as log
from components.panels.xray import skills as panel_of
from components.panels.xray.skills_view import sorted_keys, view, words
from components.sessions.healed_store import HealedStore
from components.sessions.measurements import Entry
from components.sessions.session import Session
from surgery import Plan
from surgery.operation import Operation
from surgery.skills import (
    SKILLS,
    Profile,
    Repetition,
    SkillResults,
    SkillScore,
    cache,
    compare_skills,
    repetition,
    stages,
)

PLAN = Operation("bundled", Plan.parse("0:4", 6))
BASE = Operation("bundled", Plan.whole(6))


def score(mean, spread=1.0, chance=0.25, count=64):
    values = mean + spread * np.random.default_rng(0).normal(size=count)
    return SkillScore(tuple(values.tolist()), chance)


def results(before, after, **facts):
    changes = compare_skills(Profile(before, 64, 0), Profile(after, 64, 0))
    return SkillResults(changes, 64, **facts)


# ---------------------------------------------------------------- the picture


def test_a_row_has_what_its_verdict_rests_on():
    before = {"copying": score(3), "lookup": score(1), "dates": score(2), "order": score(-3)}
    broken = SkillScore((math.nan,) * 64, 0.25)
    after = {"copying": score(2.9), "lookup": score(-1), "dates": broken, "order": score(3)}
    found = results(before, after, texts=(Repetition((0.25,)), Repetition((None,))))
    assert sorted_keys(found) == ["dates", "lookup", "copying", "order"]
    drawn = view("SmolLM2", PLAN, found, [*sorted_keys(found), "json"])
    json.dumps(drawn, allow_nan=False)
    rows = {row["key"]: row for row in drawn["rows"]}
    assert [rows[key]["verdict"] for key in before] == ["weaker", "lost", "lost", "at chance"]
    assert [rows[key]["why"] for key in before] == [
        "less sure",
        "now guessing",
        "output isn’t a number",
        "base guesses",
    ]
    lookup, change = rows["lookup"], found.changes[1]
    assert lookup["patient"] == change.patient.accuracy
    assert lookup["low"] == pytest.approx(change.base.accuracy + change.accuracy.low)
    assert lookup["low"] < lookup["patient"] < lookup["high"] < lookup["base"]
    assert (rows["dates"]["low"], rows["dates"]["margin_change"]) == (0.0, "not finite")
    assert (rows["json"]["verdict"], "base" in rows["json"]) == ("", False)  # not probed yet
    assert rows["json"]["chance"] == pytest.approx(1 / 3)
    counts = {one["verdict"]: one["count"] for one in drawn["counts"]}
    assert counts == {"lost": 2, "weaker": 1, "at chance": 1}
    assert words(PLAN, found) == "2 lost, 1 weaker, 1 at chance (64 items each)"
    assert drawn["texts"] == {"base": 0.25, "patient": None}


@pytest.mark.parametrize("key", SKILLS)
def test_an_example_is_an_item_of_its_skill(key):
    (row,) = view("x", PLAN, SkillResults((), 0), [key])["rows"]
    example = row["example"]
    assert example["prompt"] and example["right"] not in example["wrong"]
    assert row["chance"] == pytest.approx(1 / (1 + len(example["wrong"])))


def test_a_base_alone_shows_what_it_can_do():
    profile = {"copying": score(3), "order": score(-3)}
    found = results(profile, profile, is_final=True)
    drawn = view("SmolLM2", BASE, found, list(profile))
    assert [row["verdict"] for row in drawn["rows"]] == ["above chance", "at chance"]
    assert not any("patient" in row for row in drawn["rows"]) and not drawn["patient"]
    copying = found.changes[0].base
    assert (drawn["rows"][0]["low"], drawn["rows"][0]["high"]) == copying.interval
    assert words(BASE, found) == "1 of 2 above chance (64 items each)"


def test_the_caption_says_how_many_items_there_are():
    few = compare_skills(*[Profile({"copying": score(3, count=16)}, 16, 0)] * 2)
    many = compare_skills(*[Profile({"dates": score(3)}, 64, 0)] * 2)
    drawn = view("x", PLAN, SkillResults(few, 0))
    assert "16 generated items" in drawn["note"] and "on 16 of 64 items" in drawn["so_far"]
    drawn = view("x", PLAN, SkillResults(few + many, 16))
    assert "16 to 64 generated items" in drawn["note"] and "may still" in drawn["so_far"]
    assert not view("x", PLAN, SkillResults(many, 64))["so_far"]


# ---------------------------------------------------------------- a run


@pytest.fixture
def session(bases, tiny_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("LAYER_SURGERY_CACHE", str(tmp_path))
    cache._memory.clear()
    monkeypatch.setattr(repetition, "PROMPTS", repetition.PROMPTS[:1])
    monkeypatch.setattr(repetition, "TOKENS", 8)
    session = Session()
    spec = str(tiny_folder("llama"))
    session.open(spec, bases.get(spec))
    session.become("0:2, 4:6")
    return session


@pytest.fixture
def panel():
    with gr.Blocks():
        return panel_of.layout()


def test_a_run_draws_logs_and_needs_no_turn_a_second_time(services, session, panel, monkeypatch):
    services.skills.items = 10
    monkeypatch.setattr(stages, "FIRST", 8)
    updates = list(panel_of.run(panel, services, session, HealedStore()))
    boards = [update[panel.board] for update in updates if panel.board in update]
    rows = [sum("base" in row for row in board["rows"]) for board in boards]
    assert rows == sorted(rows) and rows[0] < rows[-1] == 9
    assert all(len(board["rows"]) == 9 for board in boards)
    values = shown(iter(updates))
    assert "at chance (10 items each)." in values[panel.status]["text"]
    assert values[panel.stop]["visible"] is False
    entries = {entry.plan: entry.skills for entry in session.measurements}
    assert entries.keys() == {"0:6", "0:2, 4:6"}
    assert "above chance (10 items each)" in entries["0:6"]
    assert values[panel.status]["text"].lower().startswith(entries["0:2, 4:6"].lower())
    # It is known now, so it waits for nobody.
    busy = services.skills.turns.queued("somebody", iter(range(100)), lambda place: place)
    next(busy)
    again = shown(panel_of.run(panel, services, session, HealedStore()))
    busy.close()
    assert again[panel.board] == values[panel.board]


def test_runs_take_turns_and_can_be_stopped(services, session, panel):
    busy = services.skills.turns.queued("somebody", iter(range(100)), lambda place: place)
    next(busy)
    work = panel_of.run(panel, services, session, HealedStore(), "somebody else")
    texts = (update.get(panel.status, {}).get("text", "") for update in work)
    assert next(text for text in texts if "queue" in text) == "Place 1 in the queue"
    work.close()
    busy.close()
    assert not services.skills.turns.sessions and not len(session.measurements)


def test_a_model_that_cannot_be_probed_says_why(services, session, panel, monkeypatch):
    base = services.bases.get(session.spec)
    monkeypatch.setattr(type(base), "context", 4)
    work = panel_of.run(panel, services, session, HealedStore())
    values = shown(run_all(services, work, panel.ended))
    assert values[panel.status]["failed"] and "context holds 4" in values[panel.status]["text"]


def test_skills_stay_with_their_patient_in_the_log():
    measurements = Session().measurements
    operation = Operation("spec", Plan.parse("0:4", 6))

    def add(text, plan="0:4"):
        measurements.add(Entry("x", "x", plan, 4, 100, 9.0, 8.0, 10.0, 50, text))

    add("prose")
    add("prose", "0:5")
    measurements.add_skills("other files", operation, "8 kept")
    measurements.add_skills("x", operation, "9 kept")
    add("code")
    rows = log.table(measurements, "x")["entries"]
    assert [(row["plan"], row["skills"]) for row in rows] == [
        ("0:4", "9 kept"),
        ("0:5", ""),
        ("0:4", "9 kept"),
    ]
