"""A mergekit recipe in the plan's box: it becomes the plan, or is refused with the reason."""

import gradio as gr
import pytest

from components.pasted_recipe import notation
from components.sessions.healed_store import HealedStore
from components.sessions.session import Session
from surgery import SurgeryError

RECIPE = """
slices:
  - sources: [{model: <b>org/other</b>, layer_range: [0, 2]}]
  - sources: [{model: <b>org/other</b>, layer_range: [4, 6]}]
merge_method: passthrough
dtype: bfloat16
tokenizer_source: base
"""
ONE_LINE = "{slices: [{sources: [{model: x, layer_range: [0, 3]}]}]}"


@pytest.fixture
def session(services, tiny_folder):
    session, spec = Session(), str(tiny_folder("llama"))
    session.open(spec, services.bases.get(spec))
    return session


@pytest.fixture
def said(monkeypatch):
    """What the page tells beside the plan."""
    messages = []
    monkeypatch.setattr(gr, "Info", messages.append)
    return messages


def test_it_becomes_a_plan_and_the_rest_is_told(services, session, said):
    assert notation(services, session, {"text": RECIPE}) == "0:2, 4:6"
    (words,) = said
    assert "is for &lt;b&gt;org/other&lt;/b&gt;; its plan is applied to" in words
    assert "asks for bfloat16" in words and "Ignored in the recipe: tokenizer_source" in words
    assert notation(services, session, {"text": ONE_LINE}) == "0:3"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (RECIPE.replace("6]", "7]"), "has layers 0 to 5"),
        (RECIPE.replace("<b>org/other</b>", "a", 1), "stacks layers of 2 models"),
        (RECIPE.replace("<b>org/other</b>", "a/b+c/d"), "applies an adapter"),
        (RECIPE.replace("passthrough", "slerp"), "mergekit-yaml"),
        (RECIPE.replace("\n", " "), "not valid YAML"),
        (f"{RECIPE}models: []", "whole models are merged"),
        ("x" * 100_001, "at most 100,000"),
        (None, "not a mergekit recipe"),
        ({"a": 1}, "slices: Field required"),
    ],
)
def test_it_is_refused_with_the_reason(services, session, said, text, why):
    with pytest.raises(SurgeryError, match=why):
        notation(services, session, {"text": text})
    assert not said


def test_the_page_says_why_it_is_refused_and_the_panels_follow_it(own_page, session, said):
    page = own_page
    (event,) = (fn for fn in page.fns.values() if any(name == "recipe" for _, name in fn.targets))
    assert event.queue  # or else Gradio shows nothing of what is told

    def paste(text):
        return event.fn(session, HealedStore(), gr.EventData(None, {"text": text}), None)

    strip, tiles = paste(RECIPE)
    assert strip["text"] == "0:2, 4:6" and strip["undo"] and tiles["of"]["plan"] == "0:2, 4:6"
    strip, tiles = paste(RECIPE.replace("passthrough", "ties"))
    assert "merge_method ties" in strip["error"] and strip["text"] == "0:2, 4:6"
    assert tiles == gr.skip() and not strip["unread"]
    following = {fn.api_name for fn in page.fns.values() if fn.trigger_after == event._id}
    assert any(name.startswith("followed") for name in following)


def test_what_opens_another_base_first_is_told_through_the_queue(own_page):
    """Gradio prints messages of other events on the server, and the visitor sees none."""
    events = own_page.fns.values()
    names = {fn.api_name for fn in events if fn.queue and fn.fn}
    changing = {fn.api_name for fn in events if (fn.api_name or "").startswith("apply")}
    assert len(changing) == 4 and changing <= names
