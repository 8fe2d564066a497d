"""The lesson's numbers, its mistakes made for real, and its figures."""

import numpy as np
import pytest
import tiny
import torch

from surgery import Base, Plan, Refused
from surgery.analysis import Sample, perplexity
from surgery.architecture.apply import naive_edits
from surgery.lesson import course
from surgery.lesson.contrast import Contrast
from surgery.lesson.course import BARE, STEPS
from surgery.lesson.figures import EXAMPLES, TEXT, initial_weights, training_estimate
from surgery.plan import Layer

LONGER, SHORTER = Plan.parse("0:4, 2:6", 6), Plan.parse("0:2, 4:6", 6)


# ---------------------------------------------------------------- what is said


@pytest.mark.parametrize("step", STEPS, ids=[step.short for step in STEPS])
def test_every_step_says_the_parameters_that_the_page_will_compute(bundled, step):
    base = Base.open(step.base)
    plan = Plan.parse(step.plan, base.depth)
    assert str(plan) == step.plan  # else the page would write it anew each time
    assert base.preview(plan).parameters == step.parameters


def test_the_course_s_model_is_the_course_s(bundled):
    base = Base.open(BARE)
    counted = [
        base.preview(Plan.parse(text, 12)).parameters
        for text in (course.WHOLE_BARE, course.SHORT_BARE, course.LONG_BARE)
    ]
    assert counted == [248_013_824, 217_601_024, 308_839_424]
    assert base.source.config.head_dim == 32 and not base.source.config.tie_word_embeddings
    assert not base.is_loaded  # the numbers need no weights


def test_numbers_in_the_words_are_right(bundled):
    words = " ".join(" ".join((*step.words, step.notice)) for step in STEPS)
    base = Base.open(BARE)
    whole, longer = (
        base.preview(Plan.parse(text, 12)).parameters for text in ("0:12", course.LONG_BARE)
    )
    assert f"{longer - whole:,}" in words and f"{(longer - whole) // 4:,}" in words
    assert f"{len(bundled.tokenizer):,}" in words
    assert f"{bundled.source.config.hidden_size} of 184 million" in words


def test_its_prompt_can_be_read_by_all_and_another_is_refused_in_plain_words(bundled):
    base = Base.open(BARE.replace("hidden_size=1024", "hidden_size=128"))  # with room at once
    patient = base.operate(Plan.whole(12))
    for step in STEPS:
        assert max(base.tokenizer(step.prompt)["input_ids"]) < 32_000
    rare = next(
        text
        for text in (base.tokenizer.decode([i]) for i in range(48_000, 49_000))
        if max(base.tokenizer(text)["input_ids"]) >= 32_000
    )
    with pytest.raises(ValueError, match=r"embeddings only for the first 32,000"):
        patient.stream(rare)


# ---------------------------------------------------------------- mistakes made on purpose


def fingerprint(base: Base) -> list:
    """Everything about a base that a mistake might touch."""
    model = base.model
    layers = model.get_submodule(base.anatomy.stack.paths[0])
    return [
        [(name, id(p), p.detach().clone()) for name, p in model.named_parameters()],
        [getattr(m, "layer_idx", None) for layer in layers for m in layer.modules()],
    ]


def assert_untouched(base: Base, before: list) -> None:
    after = fingerprint(base)
    assert before[1] == after[1]
    for (name, one, old), (same, two, new) in zip(before[0], after[0], strict=True):
        assert name == same and one == two and torch.equal(old, new), name


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3_text"])
def test_a_forgotten_norm_changes_the_logits_and_nothing_of_the_base(tiny_folder, family):
    base = Base.open(str(tiny_folder(family)))
    before = fingerprint(base)
    contrast = Contrast.forgotten_norm(base, LONGER)
    fresh = tiny.model(family).__class__(base.source.config)  # as transformers begins it
    parent = base.anatomy.stack.paths[0].rpartition(".")[0]
    norm = [m for m in fresh.get_submodule(parent).children() if "orm" in type(m).__name__][-1]
    result = naive_edits._final_norm(base.anatomy, contrast.wrong.model)
    for name, parameter in norm.named_parameters():
        assert torch.equal(result.get_parameter(name), parameter)
    apart = contrast.difference("hello")
    assert apart.largest > 0.01 and apart.error == ""
    assert apart.uncached == pytest.approx(apart.largest, rel=0.2)
    assert_untouched(base, before)
    right = base.operate(LONGER).model
    assert all(
        a.data_ptr() == b.data_ptr()
        for a, b in zip(contrast.right.model.parameters(), right.parameters(), strict=True)
    )


@pytest.mark.parametrize("family", ["llama", "llama-tied-biased"])
def test_old_indices_are_silently_wrong_when_longer_and_raise_when_shorter(tiny_folder, family):
    base = Base.open(str(tiny_folder(family)))
    before = fingerprint(base)
    longer = Contrast.old_indices(base, LONGER).difference("hello")
    assert longer.error == "" and longer.largest > 0.001 and longer.uncached == 0
    shorter = Contrast.old_indices(base, SHORTER)
    texts = {"right": "", "wrong": ""}
    for side, piece in shorter.stream("hello", max_new_tokens=6, greedy=True):
        texts[side] += piece
    assert shorter.error.startswith("IndexError: ")
    assert texts["wrong"] == ""
    right = base.operate(SHORTER).stream("hello", max_new_tokens=6, greedy=True)
    assert texts["right"] == "".join(right)
    assert shorter.streams["right"].ids == right.ids and right.ids
    apart = shorter.difference("hello")
    assert apart.error == shorter.error and apart.largest is None and apart.uncached == 0
    assert_untouched(base, before)


def test_without_a_mistake_nothing_differs(tiny_folder):
    base = Base.open(str(tiny_folder("llama")))
    apart = Contrast(base.operate(LONGER), base.operate(LONGER)).difference("hello")
    assert (apart.largest, apart.other, apart.uncached, apart.error) == (0, 0, 0, "")
    whole = Contrast.old_indices(base, Plan.whole(6)).difference("hello")
    assert whole.largest == 0  # indices that are right already


def test_how_many_indices_are_wrong_is_counted(tiny_folder):
    base = Base.open(str(tiny_folder("llama")))
    new = base.operate(SHORTER).model
    assert naive_edits.keep_old_indices(base.anatomy, new, SHORTER.sources) == 2
    indices = [layer.self_attn.layer_idx for layer in new.model.layers]
    assert indices == [0, 1, 4, 5]


def test_a_model_without_a_final_norm_is_refused(tiny_folder):
    base = Base.open(str(tiny_folder("llama")))
    new = base.operate(LONGER).copy()
    new.model.norm = torch.nn.Identity()
    with pytest.raises(Refused, match="no norm of its own"):
        naive_edits.forget_final_norm(base.anatomy, new)


def test_both_mistakes_show_on_the_real_model(bundled, monkeypatch):
    monkeypatch.setattr("surgery.lesson.contrast._COMPARED", 3)
    longer = Contrast.forgotten_norm(bundled, Plan.parse(course.LONG, 30)).difference(course.PROMPT)
    assert longer.largest > 5 and longer.other >= longer.places // 2
    shorter = Contrast.old_indices(bundled, Plan.parse(course.SHORT, 30)).difference(course.PROMPT)
    assert shorter.error.startswith("IndexError")


# ---------------------------------------------------------------- figures


def test_starting_weights_are_a_plain_normal_distribution(tmp_path):
    config = tiny.config("llama", num_hidden_layers=4, hidden_size=256, intermediate_size=512)
    config.save_pretrained(tmp_path)
    base = Base.open(f"config:{tmp_path}/config.json")
    result = initial_weights(base)
    layers = base.model.model.layers
    values = np.concatenate(
        [p.detach().float().numpy().ravel() for p in layers.parameters() if p.dim() == 2]
    )
    assert result.values == values.size
    assert result.sigma == pytest.approx(values.std(), rel=1e-3)
    assert result.sigma == pytest.approx(0.02, rel=0.01)
    assert result.beyond == pytest.approx(0.0455, abs=0.0025) and result.normal == pytest.approx(
        0.0455, abs=1e-4
    )
    assert result.zeros == (values == 0).sum()
    assert result.truncated_beyond == 0
    assert result.truncated_zeros - result.zeros == round(result.beyond * result.values)


def test_weights_that_are_truncated_would_be_noticed(tmp_path):
    model = tiny.model("llama")
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                torch.nn.init.trunc_normal_(parameter, std=0.02, a=-0.04, b=0.04)
    model.save_pretrained(tmp_path)
    result = initial_weights(Base.open(str(tmp_path)))
    assert result.beyond < 0.04  # of its own, smaller, deviation


def test_operations_harm_the_real_model(bundled):
    whole, shorter = (
        perplexity(bundled.operate(Plan.parse(text, 30)).model, Sample.of(bundled, TEXT))
        for text in (course.WHOLE, course.SHORT)
    )
    assert 10 < whole.perplexity < 30 and shorter.perplexity > 1.3 * whole.perplexity


def test_costs_are_those_in_print():
    (_, lesson, _), korean, solar, scratch = EXAMPLES
    assert lesson == 308_839_424
    assert training_estimate(*korean[1:]).dollars == pytest.approx(0.2e6, rel=0.01)
    assert training_estimate(*solar[1:]).dollars == pytest.approx(1e6, rel=0.01)
    assert training_estimate(*scratch[1:]).tokens == 3e12
    one = training_estimate(lesson, 1e9)
    assert one.flops == 6 * lesson * 1e9 and one.memory == 18 * lesson
    assert one.hours == pytest.approx(one.flops / (989e12 * 0.4) / 3600)
    longer = Plan(tuple(Layer(i) for i in (*range(24), *range(8, 32))), 32)
    assert len(longer) == 48  # SOLAR, as the lesson says
