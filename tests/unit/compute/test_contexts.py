"""Products of many rows in float32 are those of a float32 copy; decoding goes on as stored."""

from functools import cache
from itertools import count
from types import SimpleNamespace

import pytest
import tiny
import torch

from surgery import Base, Plan, SurgeryError, facts, set_compute_dtype
from surgery.analysis import Sample, perplexity
from surgery.architecture.inspect.kv_cache import match_dtypes
from surgery.compute import choice, contexts
from surgery.compute.float32_copies import Copies

IDS = torch.arange(3, 43).view(2, 20)
FAMILIES = ["llama", "qwen2", "mixtral", "gemma3", "gpt2"]


@pytest.fixture(scope="module")
def half(tmp_path_factory):
    """A function: a base stored in bfloat16."""

    @cache
    def opened(family):
        folder = tmp_path_factory.mktemp(family)
        tiny.model(family, dtype=torch.bfloat16).save_pretrained(folder)
        tiny.tokenizer().save_pretrained(folder)
        return Base.open(str(folder))

    return opened


@pytest.fixture
def in_float32(monkeypatch):
    monkeypatch.setenv(choice.VARIABLE, "float32")


@pytest.fixture
def measured(tmp_path, monkeypatch):
    """A function: have float32 be so many times as fast on this machine, which remembers it."""
    monkeypatch.setenv("LAYER_SURGERY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(choice, "_chosen", None)
    contexts.float32_gain.cache_clear()

    def measured(gain):
        monkeypatch.setattr(contexts, "_measured_gain", lambda stored: gain)
        contexts.float32_gain.cache_clear()

    yield measured
    contexts.float32_gain.cache_clear()


@pytest.mark.parametrize(
    ("family", "keep"),
    [*((family, True) for family in FAMILIES), ("llama", False), ("mixtral", False)],
)
def test_results_are_those_of_a_float32_copy(half, family, keep):
    base = half(family)
    patient = base.operate(Plan.whole(base.depth))
    copy = patient.copy().float()
    with torch.no_grad():
        expected = copy(input_ids=IDS, use_cache=False).logits
        with contexts.Float32(Copies() if keep else None):
            logits = patient.model(input_ids=IDS, use_cache=False).logits
    assert logits.dtype is torch.float32
    assert torch.equal(logits, expected)
    assert {p.dtype for p in patient.model.parameters()} == {torch.bfloat16}


def test_gradients_are_those_of_a_float32_copy(half):
    base = half("llama")
    model, copy = (base.operate(Plan.whole(base.depth)).copy() for _ in range(2))
    copy.float()
    with contexts.Float32(Copies()):
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


@pytest.mark.parametrize(("gain", "dtype"), [(6.0, "float32"), (0.5, "bfloat16")])
def test_the_dtype_follows_the_machine_s_speed(half, measured, gain, dtype):
    measured(gain)
    base = half("llama")
    assert contexts.compute_dtype(base.model) is getattr(torch, dtype)
    assert base.compute_dtype == facts.of_base(base)["compute_dtype"] == dtype


def test_the_dtype_can_be_chosen(half, measured, monkeypatch):
    measured(6.0)
    base = half("llama")
    monkeypatch.setenv(choice.VARIABLE, "stored")
    assert contexts.compute_dtype(base.model) is torch.bfloat16 and base.compute_dtype == "bfloat16"
    set_compute_dtype("float32")
    assert contexts.compute_dtype(base.model) is torch.float32 and base.compute_dtype == "float32"
    set_compute_dtype("stored")
    monkeypatch.setenv(choice.VARIABLE, "float32")
    assert base.compute_dtype == "bfloat16"
    set_compute_dtype(None)
    assert base.compute_dtype == "float32"
    monkeypatch.setenv(choice.VARIABLE, "float16")
    with pytest.raises(SurgeryError, match="float16"):
        contexts.compute_dtype(base.model)
    with pytest.raises(SurgeryError, match="“half”: it can be auto, float32, stored"):
        set_compute_dtype("half")


def test_what_is_stored_in_float32_or_quantized_computes_as_stored(
    tiny_folder, half, in_float32, monkeypatch
):
    assert Base.open(str(tiny_folder("llama"))).compute_dtype == "float32"
    base = half("llama")
    quantization = {"quant_method": "gptq"}
    monkeypatch.setattr(base.source.config, "quantization_config", quantization, raising=False)
    assert base.compute_dtype == "bfloat16"


def test_on_an_accelerator_weights_compute_as_stored_unless_chosen(monkeypatch):
    monkeypatch.setattr(choice, "_chosen", None)
    monkeypatch.delenv(choice.VARIABLE, raising=False)
    asked = dict(stored="float16", converts=True, on_cpu=False, gain=lambda _: pytest.fail("asked"))
    assert choice.compute_dtype_of(**asked) == "float16"
    set_compute_dtype("float32")
    assert choice.compute_dtype_of(**asked) == "float32"


def test_both_dtypes_are_told(tiny_folder, half, measured):
    measured(6.0)
    base = half("llama")
    assert facts.dtypes(base) == "stored bfloat16, computed in float32"
    measured(1.0)
    choice.remember_gain("bfloat16", 1.0)
    assert facts.dtypes(base) == "stored and computed in bfloat16"


def test_the_machine_is_measured_once(measured, monkeypatch):
    assert choice.recall_gain("bfloat16") is None
    measured(3.0)
    assert contexts.float32_gain("bfloat16") == 3.0
    measured(4.0)  # as in another process
    assert contexts.float32_gain("bfloat16") == choice.recall_gain("bfloat16") == 3.0
    assert contexts.float32_gain("float16") == 4.0
    monkeypatch.setattr(choice, "_processor", lambda: "another")
    assert choice.recall_gain("bfloat16") is None


def test_a_limit_on_instructions_is_another_machine(measured, monkeypatch):
    measured(3.0)
    contexts.float32_gain("bfloat16")
    choice._processor.cache_clear()
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "SSE41")
    assert choice.recall_gain("bfloat16") is None
    monkeypatch.undo()
    choice._processor.cache_clear()


def test_few_rows_compute_as_stored(half, in_float32):
    model = half("llama").model
    with torch.no_grad(), contexts.many_rows(model, 1):
        assert model(input_ids=IDS[:1, :1]).logits.dtype is torch.bfloat16
    with torch.no_grad(), contexts.many_rows(model, 20):
        assert model(input_ids=IDS[:1]).logits.dtype is torch.float32


def test_the_gain_is_measured():
    threads = torch.get_num_threads()
    assert 0.01 < contexts._measured_gain("bfloat16") < 1000
    assert torch.get_num_threads() == threads


def test_caches_of_any_form_get_the_stored_dtypes():
    def cache(first, second):
        numbers = torch.tensor([1])
        return {"a": [torch.ones(2, dtype=first), (torch.ones(3, dtype=second), numbers)], "b": 3}

    mine = match_dtypes(cache(torch.float32, torch.float32), cache(torch.bfloat16, torch.float32))
    assert mine["a"][0].dtype is torch.bfloat16
    assert [x.dtype for x in mine["a"][1]] == [torch.float32, torch.int64]
    assert mine["b"] == 3


def test_the_gain_is_measured_by_a_clock_of_coarse_steps(monkeypatch):
    """As a thread's time has on Windows, where a product may take none."""
    steps = count()
    clock = SimpleNamespace(thread_time=lambda: next(steps) * 0.004 // (1 / 64) / 64)
    monkeypatch.setattr(contexts, "time", clock)
    assert contexts._measured_gain("bfloat16") == pytest.approx(1, abs=0.2)
