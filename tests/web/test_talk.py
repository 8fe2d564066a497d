"""Two streams in turn, what is kept of them, and what goes wrong with them."""

import base64
import copy
import time

import gradio as gr
import pytest
import tiny
import tiny_llava
import updates
from PIL import Image

from components.panels.talk import wiring
from components.panels.talk.talk_store import TalkStore
from components.panels.talk.wiring import (
    can_speak,
    loads_unasked,
    offer_image,
    only_status,
    stopped,
    talk,
)
from surgery import Base, Plan, SurgeryError
from surgery.analysis import surprises
from surgery.operation import Operation
from surgery.patient import Patient

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
    assert (shown["spec"], shown["plan"], shown["healing"]) == (spec, "0:2, 4:6", "")
    assert shown["fields"] == {"prompt": "hello", **SETTINGS, "image": ""}  # the page's
    expected = [pytest.approx(nats) for _, nats in surprises(base.model, stream)]
    assert [nats for _, nats in shown["patient"]["pieces"]] == expected
    assert "".join(text for text, _ in shown["patient"]["pieces"]) == shown["patient"]["text"]


def test_texts_stay_when_the_next_run_is_refused_or_breaks_off():
    status = {"text": "Too many requests: wait 3 s.", "share": None, "failed": True}
    assert only_status(status) == (status, gr.skip())
    broken = {"run": 1, "running": True, "base": {"text": "a"}, "patient": {"text": ""}}
    ended = {**broken, "running": False}
    assert only_status(status, broken) == (status, ended)
    assert only_status(status, ended) == (status, gr.skip())
    empty = {**broken, "base": {"text": ""}}
    assert only_status(status, empty) == (status, {})  # nothing that would wait for ever


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
    assert status["failed"] and said in status["text"]
    assert shown == gr.skip()  # the texts before it stay


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
    seen = next(x for _, x in running if x["base"]["text"])
    assert seen["running"]
    running.close()  # as Gradio does when the event is cancelled
    status, shown = stopped(seen)
    assert status["text"] == "Stopped." and not shown["running"]
    assert stopped(None) == ({"text": "", "share": None, "failed": False}, {})


def test_the_bases_text_is_generated_once(services, tiny_folder, monkeypatch):
    spec, store, made, stream = str(tiny_folder("llama")), TalkStore(), [], Patient.stream

    def noted(self, *args, **settings):
        made.append(str(self.plan))
        return stream(self, *args, **settings)

    monkeypatch.setattr(Patient, "stream", noted)
    first = run(services, spec, Plan.parse("0:4", 6), store=store)[-1][1]
    assert sorted(made) == ["0:4", "0:6"]
    made.clear()
    values = [shown for _, shown in run(services, spec, Plan.parse("0:3", 6), store=store)]
    assert made == ["0:3"]
    assert all(value["base"] == first["base"] for value in values if isinstance(value, dict))
    alone = run(services, spec, Plan.parse("0:3", 6))[-1][1]
    for who in ("base", "patient"):
        assert values[-1][who]["text"] == alone[who]["text"]
    assert values[-1]["patient"]["pieces"] == alone["patient"]["pieces"]
    for changes in (dict(prompt="other"), dict(tokens=16), dict(greedy=False, seed=4)):
        made.clear()
        run(services, spec, Plan.parse("0:3", 6), store=store, **changes)
        assert sorted(made) == ["0:3", "0:6"], changes


def test_a_text_is_of_one_opened_base(tiny_folder):
    store, base = TalkStore(), Base.open(str(tiny_folder("llama")))
    store.keep_text("key", base, {"text": "said"})
    assert store.text("key") == store.text("key", base) == {"text": "said"}
    assert store.text("other") is None
    assert store.text("key", Base.open(str(tiny_folder("gpt2")))) is None
    assert copy.deepcopy(store).text("key") is None


def test_a_new_run_ends_the_one_before_and_waits_for_it():
    store, events = TalkStore(), []

    def work(name):
        try:
            while True:
                events.append(name)
                yield name
        finally:
            events.append(f"{name} ended")

    first, second = store.latest(1, work("a"), "wait"), store.latest(2, work("b"), "wait")
    assert next(first) == "a"
    assert next(second) == "wait" and "b" not in events
    assert next(first, None) is None and "a ended" in events
    for update in second:  # one more wait may have been under way
        if update == "b":
            break
    assert events.index("a ended") < events.index("b")
    store.stop(3)
    assert next(second, None) is None and events[-1] == "b ended"
    closed = store.latest(4, work("c"), "wait")
    assert next(closed) == "c"
    closed.close()
    assert events[-1] == "c ended"
    assert next(store.latest(5, work("d"), "wait")) == "d"


def test_the_last_press_decides_in_whichever_order_the_presses_arrive():
    def work():
        while True:
            yield "text"

    store = TalkStore()
    run = store.latest(3, work(), "wait")
    assert next(run) == "text"
    store.stop(2)
    assert next(store.latest(1, work(), "wait"), None) is None and next(run) == "text"
    store.stop(4)
    assert next(run, None) is None
    assert next(store.latest(3.5, work(), "wait"), None) is None
    run = store.latest(None, work(), "wait")  # of a program that calls the page's events
    assert next(run) == "text"
    store.stop(None)
    assert next(run, None) is None


def test_a_run_that_is_replaced_gives_its_turn_back(services, tiny_folder):
    spec, store = str(tiny_folder("llama")), TalkStore()

    def long_run(pressed):
        settings = {**SETTINGS, "tokens": 200}
        texts = talk(services, Operation(spec, Plan.whole(6)), "hello", **settings)
        return store.latest(pressed, texts, ())

    first, second = long_run(1), long_run(2)
    next(update for update in first if update[1]["base"]["text"])
    assert next(second) == ()
    assert all(shown["running"] for _, shown in first if isinstance(shown, dict))  # not to its end
    assert next(update for update in second if update and update[1]["base"]["text"])
    assert services.queue.sessions == 1
    second.close()
    for _ in range(100):
        if not services.queue.taken:
            break
        time.sleep(0.05)
    assert not services.queue.taken


def test_a_base_without_a_tokenizer_says_so(services, tiny_folder, tmp_path):
    tiny.model("llama").save_pretrained(tmp_path)
    button, status = can_speak(services, str(tmp_path))
    assert not button["interactive"] and "has no tokenizer" in status["text"]
    button, status = can_speak(services, str(tiny_folder("llama")))
    assert button["interactive"] and not status["text"]


def test_a_vision_language_model_says_why_it_takes_no_image(services, tmp_path):
    for name in ("sees", "blind"):
        tiny_llava.save(tmp_path / name)
    for path in (tmp_path / "blind").glob("*processor_config.json"):
        path.write_text("{")
    assert not can_speak(services, str(tmp_path / "sees"))[1]["text"]
    button, status = can_speak(services, str(tmp_path / "blind"))
    assert button["interactive"] and "blind takes no images here" in status["text"]
    assert str(tmp_path) not in status["text"]


def test_only_small_weights_are_loaded_unasked(services, tiny_folder, monkeypatch):
    spec = str(tiny_folder("gpt2"))
    assert loads_unasked(services, spec) and not loads_unasked(services, "")
    monkeypatch.setattr(wiring, "_SMALL", 10)
    assert not loads_unasked(services, f"config:{spec}/config.json")
    run(services, spec, Plan.whole(6))
    assert loads_unasked(services, spec)  # they are in memory


def chosen(path, one="a"):
    """What the page's picker makes of an image."""
    with Image.open(path) as image:
        image.save(path.with_suffix(".jpg"))
    data = base64.b64encode(path.with_suffix(".jpg").read_bytes()).decode()
    return {"id": one, "name": path.name, "data": f"data:image/jpeg;base64,{data}"}


def test_an_image_goes_to_both_models(services, tiny_folder, tmp_path):
    tiny_llava.save(tmp_path / "base")
    spec, plan, store = str(tmp_path / "base"), Plan.parse("0:5", 6), TalkStore()
    first, second = (tiny_llava.picture(tmp_path / f"{i}.png", seed=i) for i in range(2))
    shown = run(services, spec, plan, image=chosen(first), store=store)[-1][1]
    base = Base.open(spec)
    for who, which in (("base", Plan.whole(6)), ("patient", plan)):
        stream = base.operate(which).stream(
            "hello", image=first.with_suffix(".jpg"), max_new_tokens=8, greedy=True
        )
        assert shown[who]["text"] == "".join(stream) and stream.has_image
    assert shown["fields"]["image"] == "a" and shown["pictured"] and store.answers is None
    # The base's text is kept for this image alone.
    kept = store._text[0]
    run(services, spec, plan, image=chosen(first), store=store)
    assert store._text[0] == kept
    run(services, spec, plan, image=chosen(second, "b"), store=store)
    assert store._text[0] != kept
    shown_at = offer_image(services, spec)
    assert shown_at["visible"] and "value" not in shown_at
    hidden = offer_image(services, str(tiny_folder("llama")))
    assert not hidden["visible"] and hidden["value"] == {}


def test_what_is_no_image_is_said(services, tiny_folder, tmp_path):
    spec = str(tiny_folder("llama"))
    good = chosen(tiny_llava.picture(tmp_path / "0.png"))
    for image, message in (
        (good, "takes no images"),
        ({"data": "data:image/svg+xml;base64,AAAA"}, "not a JPEG"),
        ({"data": "data:image/jpeg;base64,AA!A"}, "damaged"),
    ):
        with pytest.raises(SurgeryError, match=message):
            run_raising(services, spec, image)
    assert run(services, spec, Plan.whole(6), image={"wrong": "x.txt can't be read"})


def run_raising(services, spec, image):
    work = talk(services, Operation(spec, Plan.whole(6)), "hello", **SETTINGS, image=image)
    return list(work)
