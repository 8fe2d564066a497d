"""Patients, most of them of the real model: text, streams, seeds, speed figures, many at once."""

import gc
import threading

import psutil
import pytest
import tiny
import torch
from greedy import tied

from surgery import Base, Plan, SurgeryError

PROMPT = "The capital of France is"


@pytest.fixture(scope="module")
def cut(bundled):
    return bundled.operate(Plan.parse("0:13, 17:30", bundled.depth))


def test_the_bundled_model_makes_sense(bundled):
    patient = bundled.operate(Plan.whole(bundled.depth))
    assert "Paris" in "".join(patient.stream(PROMPT, max_new_tokens=8, greedy=True))
    chat = "".join(patient.stream("What is 2 + 2?", max_new_tokens=24, greedy=True, chat=True))
    assert "4" in chat


def test_the_whole_plan_is_the_base(bundled):
    ids = bundled.tokenizer(PROMPT, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        expected = bundled.model(input_ids=ids).logits
        assert torch.equal(bundled.operate(Plan.whole(30)).model(input_ids=ids).logits, expected)


@pytest.mark.parametrize("text", ["0:13, 17:30", "0:22, 8:30"])
def test_greedy_streams_are_what_transformers_generates(bundled, text):
    patient = bundled.operate(Plan.parse(text, 30))
    stream = patient.stream(PROMPT, max_new_tokens=8, greedy=True)
    message = "".join(stream)
    ids = bundled.tokenizer(PROMPT, return_tensors="pt")["input_ids"]
    full = patient.model.generate(ids, max_new_tokens=8, do_sample=False)
    new = full[0, ids.shape[1] :].tolist()
    assert [t for t in new if t != bundled.tokenizer.eos_token_id] == stream.ids
    # Without the cache sums are added in another order, and the likeliest tokens may be tied.
    with torch.no_grad():
        logits = patient.model(input_ids=full, use_cache=False).logits[0, ids.shape[1] - 1 : -1]
    assert tied(logits, full[0, ids.shape[1] :])
    assert message == bundled.tokenizer.decode(stream.ids, skip_special_tokens=True)


@pytest.fixture
def small(tiny_folder):
    """A patient whose tokens take no time."""
    return Base.open(str(tiny_folder("llama"))).operate(Plan.parse("0:2, 4:6", 6))


def test_a_seed_says_which_text(small):
    def text(seed):
        return "".join(small.stream(PROMPT, max_new_tokens=8, seed=seed, temperature=1.0))

    assert text(1) == text(1) and text(1) != text(2)


def test_streams_side_by_side_do_not_disturb_each_other(small):
    alone = [
        "".join(small.stream(PROMPT, max_new_tokens=6, seed=s, temperature=1.0)) for s in range(3)
    ]
    streams = [small.stream(PROMPT, max_new_tokens=6, seed=s, temperature=1.0) for s in range(3)]
    texts = ["", "", ""]
    while any(s.stats.finished is None for s in streams):  # in turn
        for i, s in enumerate(streams):
            texts[i] += next(s, "")
    assert texts == alone
    results = {}

    def run(seed):  # and in threads
        stream = small.stream(PROMPT, max_new_tokens=6, seed=seed, temperature=1.0)
        results[seed] = "".join(stream)
        small.base.operate(Plan.parse("0:4, 2:6", 6))

    threads = [threading.Thread(target=run, args=(s,)) for s in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [results[s] for s in range(3)] == alone


def test_a_closed_stream_computes_nothing_more(cut):
    stream = cut.stream(PROMPT, max_new_tokens=500, greedy=True)
    calls = []
    hook = cut.model.register_forward_hook(lambda *a: calls.append(1))
    try:
        next(stream)
        done = len(calls)
        stream.close()
        assert list(stream) == [] and len(calls) == done
        assert stream.stats.finished == "stopped"
    finally:
        hook.remove()


def test_nothing_is_computed_before_it_is_asked_for(cut):
    calls = []
    hook = cut.model.register_forward_hook(lambda *a: calls.append(1))
    try:
        stream = cut.stream(PROMPT, max_new_tokens=5, greedy=True)
        assert not calls
        next(stream)
        assert len(calls) == stream.stats.tokens
    finally:
        hook.remove()


def test_speed_is_measured(cut):
    stream = cut.stream(PROMPT, max_new_tokens=6, greedy=True)
    assert stream.stats.tokens_per_second is None
    list(stream)
    stats = stream.stats
    assert stats.finished == "length" and stats.tokens == 6
    assert stats.first_token_seconds > 0 and stats.tokens_per_second > 0


def test_patients_take_no_weight_memory(bundled):
    """Resident memory, the real thing: eight patients of a 269 MB model."""
    bundled.operate(Plan.whole(30))
    gc.collect()
    before = psutil.Process().memory_info().rss
    patients = [bundled.operate(Plan.parse(f"0:{20 + i}, 8:30", 30)) for i in range(8)]
    grown = psutil.Process().memory_info().rss - before
    assert len({id(p.model) for p in patients}) == 8
    assert grown < 8 * 8e6
    own = {p.data_ptr() for p in bundled.model.parameters()}
    for patient in patients:
        assert {p.data_ptr() for p in patient.model.parameters()} <= own


def test_characters_come_whole(tmp_path, bundled):
    """A character of several tokens is not shown before it is complete."""
    patient = bundled.operate(Plan.whole(30))
    pieces = list(patient.stream("Emoji: 😀 🎉 🚀 😀 🎉 🚀 😀 🎉", max_new_tokens=24, greedy=True))
    text = "".join(pieces)
    assert any(ord(c) > 0x1F000 for c in text)
    assert not any("\N{REPLACEMENT CHARACTER}" in piece for piece in pieces[:-1])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(max_new_tokens=0), "max_new_tokens"),
        (dict(max_new_tokens=9000), "context holds 8,192"),
        (dict(temperature=0.0), "temperature"),
        (dict(temperature=float("nan")), "temperature"),
        (dict(top_p=0.0), "top_p"),
        (dict(top_p=1.5), "top_p"),
        (dict(seed=-1), "seed"),
    ],
)
def test_settings_that_do_not_fit(cut, settings, message):
    with pytest.raises(SurgeryError, match=message):
        cut.stream(PROMPT, **settings)


def test_an_empty_prompt_starts_from_the_beginning_of_text(cut):
    assert isinstance("".join(cut.stream("", max_new_tokens=3, greedy=True)), str)


def test_a_base_without_a_tokenizer_can_be_operated_on_but_does_not_speak(tmp_path):
    tiny.model("llama").save_pretrained(tmp_path)
    base = Base.open(str(tmp_path))
    assert not base.has_tokenizer
    patient = base.operate(Plan.parse("0:2, 4:6", 6))
    assert patient.model(input_ids=tiny.tokens(4)).logits.shape == (1, 4, tiny.VOCAB)
    with pytest.raises(SurgeryError, match="no tokenizer"):
        patient.stream("hello")


def test_weights_load_once_for_everyone(tiny_folder):
    """Whoever opens the same files gets the same object, in whatever thread."""
    spec = str(tiny_folder("qwen2"))
    models = []
    threads = [
        threading.Thread(target=lambda: models.append(Base.open(spec).load())) for _ in range(6)
    ]
    keep = Base.open(spec)
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(models) == 6 and len({id(m) for m in models}) == 1
    assert keep.is_loaded


def test_weights_are_given_back(tmp_path):
    import weakref

    tiny.model("qwen2").save_pretrained(tmp_path)
    base = Base.open(str(tmp_path))
    model = weakref.ref(base.load())
    patient = base.operate(Plan.parse("0:3", 6))
    del base
    gc.collect()
    assert model() is not None  # a patient keeps its base
    del patient
    gc.collect()
    assert model() is None


def test_a_chat_needs_a_template(tiny_folder):
    patient = Base.open(str(tiny_folder("llama"))).operate(Plan.whole(6))
    with pytest.raises(SurgeryError, match="no chat template"):
        patient.stream("hello", chat=True)
