"""Products of many rows in float32 are those of a float32 copy; decoding goes on as stored."""

import pytest
import tiny
import torch

from surgery import Base, Plan, SurgeryError, compute
from surgery.analysis import Sample, perplexity
from surgery.architecture.inspect.kv_cache import match_dtypes

IDS = torch.arange(3, 43).view(2, 20)
FAMILIES = ["llama", "qwen2", "qwen3", "mixtral", "gemma2", "gemma3", "gpt2"]


@pytest.fixture
def half(tmp_path):
    """A function: a base stored in bfloat16."""

    def opened(family):
        tiny.model(family, dtype=torch.bfloat16).save_pretrained(tmp_path / family)
        tiny.tokenizer().save_pretrained(tmp_path / family)
        return Base.open(str(tmp_path / family))

    return opened


@pytest.fixture
def in_float32(monkeypatch):
    monkeypatch.setenv(compute.VARIABLE, "float32")


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_results_are_those_of_a_float32_copy(half, family, keep):
    base = half(family)
    patient = base.operate(Plan.whole(base.depth))
    copy = patient.copy().float()
    with torch.no_grad():
        expected = copy(input_ids=IDS, use_cache=False).logits
        with compute.Float32(keep=keep):
            logits = patient.model(input_ids=IDS, use_cache=False).logits
    assert logits.dtype is torch.float32
    assert torch.equal(logits, expected)
    assert {p.dtype for p in patient.model.parameters()} == {torch.bfloat16}


def test_gradients_are_those_of_a_float32_copy(half):
    base = half("llama")
    model, copy = (base.operate(Plan.whole(base.depth)).copy() for _ in range(2))
    copy.float()
    with compute.Float32(keep=True):
        model(input_ids=IDS, labels=IDS).loss.backward()
    copy(input_ids=IDS, labels=IDS).loss.backward()
    for mine, theirs in zip(model.parameters(), copy.parameters(), strict=True):
        assert torch.equal(mine.grad, theirs.grad.to(torch.bfloat16))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_prompt_in_float32_is_decoded_as_stored(half, family, in_float32):
    patient = half(family).operate(Plan.parse("0:6", 6))
    stream = patient.stream("a b c d e f g h i j k l m n o p", max_new_tokens=4, greedy=True)
    text = next(stream)
    assert stream.stats.prompt_tokens > 8
    (cache,) = stream._cache.values()
    assert {cache.layers[0].keys.dtype, cache.layers[-1].values.dtype} == {torch.bfloat16}
    assert stream._forward().logits.dtype is torch.bfloat16
    assert isinstance(text, str)


def test_perplexity_is_that_of_a_float32_copy(half, in_float32):
    base = half("llama")
    sample = Sample.of(base, "a b c d e f g " * 20)
    patient = base.operate(Plan.parse("0:3, 2:6", 6))
    ours, copied = perplexity(patient.model, sample), perplexity(patient.copy().float(), sample)
    assert ours.perplexity == pytest.approx(copied.perplexity, rel=1e-6)


def test_the_dtype_follows_the_machine_s_speed(half, monkeypatch):
    model = half("llama").model
    monkeypatch.setattr(compute, "float32_gain", lambda stored: 6.0)
    assert compute.compute_dtype(model) is torch.float32
    monkeypatch.setattr(compute, "float32_gain", lambda stored: 0.5)
    assert compute.compute_dtype(model) is torch.bfloat16


def test_the_dtype_can_be_chosen(half, monkeypatch):
    model = half("llama").model
    monkeypatch.setattr(compute, "float32_gain", lambda stored: 6.0)
    monkeypatch.setenv(compute.VARIABLE, "stored")
    assert compute.compute_dtype(model) is torch.bfloat16
    monkeypatch.setenv(compute.VARIABLE, "float16")
    with pytest.raises(SurgeryError, match="float16"):
        compute.compute_dtype(model)


def test_few_rows_compute_as_stored(half, in_float32):
    model = half("llama").model
    with torch.no_grad(), compute.many_rows(model, 1):
        assert model(input_ids=IDS[:1, :1]).logits.dtype is torch.bfloat16
    with torch.no_grad(), compute.many_rows(model, 20):
        assert model(input_ids=IDS[:1]).logits.dtype is torch.float32


def test_the_gain_is_measured():
    assert 0.01 < compute.float32_gain(torch.bfloat16) < 1000
    assert torch.get_num_threads() >= 1


def test_caches_of_any_form_get_the_stored_dtypes():
    def cache(first, second):
        numbers = torch.tensor([1])
        return {"a": [torch.ones(2, dtype=first), (torch.ones(3, dtype=second), numbers)], "b": 3}

    mine = match_dtypes(cache(torch.float32, torch.float32), cache(torch.bfloat16, torch.float32))
    assert mine["a"][0].dtype is torch.bfloat16
    assert [x.dtype for x in mine["a"][1]] == [torch.float32, torch.int64]
    assert mine["b"] == 3
