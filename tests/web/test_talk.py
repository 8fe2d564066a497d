"""Two streams in turn, and what goes wrong with them."""

import pytest
import updates

from components.panels.talk.wiring import only_status, stopped, talk
from surgery import Base, Plan
from surgery.operation import Operation

SETTINGS = dict(greedy=True, chat=False, tokens=8, seed=0, temperature=0.8, top_p=0.95)


def run(services, spec, plan, prompt="hello", **changes):
    work = talk(services, Operation(spec, plan), prompt, **{**SETTINGS, **changes})
    return updates.run(services, work, only_status)


def test_both_speak_as_the_library_does(services, tiny_folder):
    spec = str(tiny_folder("llama"))
    plan = Plan.parse("0:2, 4:6", 6)
    shown = run(services, spec, plan)[-1][1]
    base = Base.open(spec)
    for who, which in (("base", Plan.whole(6)), ("patient", plan)):
        stream = base.operate(which).stream("hello", max_new_tokens=8, greedy=True)
        assert shown[who]["text"] == "".join(stream)
        assert shown[who]["tokens"] == stream.stats.tokens > 0
    assert shown["patient"]["plan"] == "0:2, 4:6" and shown["base"]["plan"] == ""
    assert shown["prompt"] == "hello" and not shown["running"]


def test_one_seed_for_both(services, tiny_folder):
    spec = str(tiny_folder("llama"))
    shown = run(services, spec, Plan.whole(6), greedy=False, seed=7)[-1][1]
    assert shown["base"]["text"] == shown["patient"]["text"] != ""
    other = run(services, spec, Plan.whole(6), greedy=False, seed=8)[-1][1]
    assert other["base"]["text"] != shown["base"]["text"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (dict(chat=True), "no chat template"),
        (dict(prompt="x" * 400), "context holds 256"),
        (dict(seed=-5), "seed"),
    ],
)
def test_what_does_not_fit_is_said(services, tiny_folder, changes, said):
    status, shown = run(services, str(tiny_folder("llama")), Plan.whole(6), **changes)[-1]
    assert status["failed"] and said in status["text"] and shown == {}


def test_a_plan_that_is_refused_is_said(services, tiny_folder):
    status, _ = run(services, str(tiny_folder("llama")), Plan.parse("0:6@average", 6))[-1]
    assert status["failed"] and "@average" in status["text"]


def test_leaving_early_closes_the_streams(services, tiny_folder):
    running = talk(
        services,
        Operation(str(tiny_folder("llama")), Plan.whole(6)),
        "hello",
        **{**SETTINGS, "tokens": 200},
    )
    seen = next(x for _, x in running if "base" in x)
    assert seen["running"]
    running.close()  # as Gradio does when the event is cancelled
    status, shown = stopped(seen)
    assert status["text"] == "Stopped." and not shown["running"]
    assert stopped(None) == ({"text": "", "share": None, "failed": False}, {})
