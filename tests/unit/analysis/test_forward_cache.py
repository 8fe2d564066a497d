"""Passes that start where plans differ, and models for which that would be wrong."""

import pytest
import tiny
import torch
from transformers.models.llama.modeling_llama import LlamaDecoderLayer
from traps import TRAPS, trap

from surgery import Base, Plan, SurgeryError
from surgery.analysis import Sample, forward_cache, passes, perplexity, scan, token_importance
from surgery.analysis.forward_cache import ForwardRunner, same_layers
from surgery.architecture.inspect.chain import Chain
from surgery.memory.devices import Room

_LEFT: dict[str, torch.Tensor] = {}


class _Leaving(LlamaDecoderLayer):
    """Leaves something for later layers on what all of them are handed."""

    def forward(self, hidden_states, position_embeddings=None, **kwargs):
        shared = position_embeddings[0]
        if hasattr(shared, "left"):
            hidden_states = hidden_states + shared.left
        shared.left = hidden_states.mean(-1, keepdim=True)
        return super().forward(hidden_states, position_embeddings=position_embeddings, **kwargs)


class _Lasting(LlamaDecoderLayer):
    """Leaves it where it still lies when the next pass begins."""

    def forward(self, hidden_states, **kwargs):
        key = f"{hidden_states.device} {hidden_states.shape[:2]}"
        if self.self_attn.layer_idx and key in _LEFT:
            hidden_states = hidden_states + _LEFT[key]
        _LEFT[key] = hidden_states.mean(-1, keepdim=True)
        return super().forward(hidden_states, **kwargs)


trap("layers that leave something", _Leaving)
trap("layers that leave something that lasts", _Lasting)


@pytest.fixture(params=["one by one", "side by side", "layers copied", "whole passes"])
def way(request, monkeypatch):
    """The four ways in which plans are run."""
    if request.param == "side by side":
        monkeypatch.setattr(forward_cache, "plans_at_once", lambda *_: 100)
    if request.param == "layers copied":  # as to an accelerator
        monkeypatch.setattr(forward_cache, "_accelerator", lambda *_: torch.device("cpu"))
    if request.param == "whole passes":
        monkeypatch.setattr(Chain, "of", lambda *_: None)


@pytest.fixture(scope="module")
def apart():
    """A function: losses of a plan's patient, run by itself; computed once for all ways."""
    known = {}

    def apart(base, plan, sample):
        key = (base.source.identity, plan, sample.key)
        if key not in known:
            known[key] = perplexity(base.operate(plan).model, sample).nll
        return known[key]

    return apart


@pytest.fixture(scope="module")
def half(tmp_path_factory):
    """A base in bfloat16."""
    folder = tmp_path_factory.mktemp("half")
    tiny.model("llama", dtype=torch.bfloat16).save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    return Base.open(str(folder))


def _losses(runner, plan, recorded):
    return dict(runner.each_losses([plan], recorded))[plan]


def open_trap(what, folder):
    config = TRAPS[what].config_class(
        **{k: v for k, v in tiny.FAMILIES["llama"][1].items() if k != "head_dim"}
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        TRAPS[what](config).save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    return Base.open(str(folder))


# How a family calls its layers matters where they are called one by one, or with copied weights.
@pytest.mark.parametrize(
    ("family", "way"),
    [
        *(("llama", way) for way in ("side by side", "whole passes")),
        *(
            (family, way)
            for family in ("gemma3_text", "gemma3", "gpt2")
            for way in ("one by one", "layers copied")
        ),
    ],
    indirect=["way"],
)
def test_shared_layers_are_not_computed_again_and_nothing_changes(opened, family, way, apart):
    base, sample = opened(family)
    runner = ForwardRunner(base, sample)
    recorded = runner.record(Plan.whole(6))
    for text in ("0:3, 4:6", "0:5, 3:6", "0:2, 1@identity, 2:6", "0:3, 3@average, 4:6"):
        plan = Plan.parse(text, 6)
        expected = apart(base, plan, sample)
        assert _losses(runner, plan, recorded) == pytest.approx(expected, abs=1e-5)


def test_a_pass_can_go_on_from_another_plan(opened, way, apart):
    base, sample = opened("llama")
    runner = ForwardRunner(base, sample)
    first = runner.record(Plan.whole(6))
    before = runner.forwards
    second = runner.record(Plan.parse("0:3, 4:6", 6), first)
    assert runner.forwards - before == (2 if runner.layer_major else 5)
    last = Plan.parse("0:3, 4", 6)
    expected = apart(base, last, sample)
    assert _losses(runner, last, second) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("way", ["one by one", "side by side", "layers copied"], indirect=True)
def test_several_plans(opened, way, apart):
    base, sample = opened("mixtral")
    runner = ForwardRunner(base, sample)
    recorded = runner.record(Plan.whole(6))
    plans = [Plan.of([*range(j), *range(2, 6)], 6) for j in (1, 3, 6)]
    found = dict(runner.each_losses(plans, recorded))
    assert found.keys() == set(plans)
    for plan, losses in found.items():
        assert losses == pytest.approx(apart(base, plan, sample), abs=1e-5)


def test_halves_are_computed_in_float32_in_every_way(half, monkeypatch, way):
    """All measurements are kept under that dtype, whatever runs the layers."""
    monkeypatch.setenv("LAYER_SURGERY_COMPUTE_DTYPE", "float32")
    sample = Sample.of(half, "The ferry ran twice a day in summer. " * 3, window=40)
    plan, runner = Plan.parse("0:3, 4:6", 6), ForwardRunner(half, sample)
    recorded = runner.record(Plan.whole(6))
    assert recorded.nll == pytest.approx(perplexity(half.model, sample).nll, abs=1e-5)
    expected = perplexity(half.operate(plan).model, sample).nll
    assert _losses(runner, plan, recorded) == pytest.approx(expected, abs=1e-5)
    assert half.model.dtype == torch.bfloat16


@pytest.mark.parametrize("what", ["layers that leave something", *list(TRAPS)[-1:]])
def test_layers_that_leave_something_are_run_in_whole_passes(what, tmp_path):
    base = open_trap(what, tmp_path)
    sample = Sample.of(base, "The ferry ran twice a day in summer. " * 3, window=40)
    runner = ForwardRunner(base, sample)
    assert runner.layer_major is None
    result = scan(base, sample, scores=["drop_one"])
    assert result.layer_forwards >= result.naive_layer_forwards  # counted as what it is
    for row in result.drop_one[:3]:
        whole = perplexity(base.operate(row.plan).model, sample)
        assert row.perplexity == pytest.approx(whole.perplexity, rel=1e-6)


def test_without_reuse_each_layer_of_a_text_is_dropped_as_a_plan(tmp_path):
    base = open_trap("layers that leave something", tmp_path)
    whole, prompt, ids = Plan.whole(base.depth), [40, 41], [50, 51, 52]
    result = token_importance(base, whole, prompt, ids)
    tokens = torch.tensor([prompt + ids])
    for p, row in enumerate(result.costs):
        logits = passes.run(base.operate(whole.drop(p, p + 1)).model, tokens)
        expected = passes.nll(logits, tokens)[-3:]
        assert [a + b for a, b in zip(row, result.nll, strict=True)] == pytest.approx(
            expected.tolist(), abs=1e-5
        )
    average = Plan.parse("0:3, 3@average, 4:6", 6)  # which depends on the layer after it
    with pytest.raises(SurgeryError, match="one by one"):
        token_importance(base, average, prompt, ids)


def test_layers_that_compute_the_same():
    def same(a, b):
        return same_layers(Plan.parse(a, 6), Plan.parse(b, 6))

    assert same("0:6", "0:3, 4:6") == 3
    assert same("0:2, 2@average, 3:6", "0:2, 2@average, 4:6") == 2  # a mean with another layer
    assert same("0:2, 2@random, 3:6", "0:2, 2@random, 4:6") == 2
    assert same("0:2, 2@scale=0.5, 3:6", "0:2, 2@scale=0.5, 4:6") == 3


def test_an_accelerator_with_room_for_two_layers_runs_them(tiny_folder, monkeypatch):
    base = Base.open(str(tiny_folder("llama")))
    base.load()
    sample = Sample.of(base, "a b c d e f g h i j k l")
    monkeypatch.setattr(forward_cache, "accelerators", lambda: [Room("cuda:0", 3 << 30)])
    assert forward_cache._accelerator(base, sample) == torch.device("cuda:0")
    monkeypatch.setattr(forward_cache, "accelerators", lambda: [Room("cuda:0", 1 << 30)])
    assert forward_cache._accelerator(base, sample) is None
    monkeypatch.setattr(forward_cache, "accelerators", list)
    assert forward_cache._accelerator(base, sample) is None


def test_room_for_hidden_states_is_asked_of_the_device_that_holds_them(tiny_folder, monkeypatch):
    base = Base.open(str(tiny_folder("llama")))
    runner = ForwardRunner(base, Sample.of(base, ["the quick brown fox " * 4], limit=64))
    asked = []
    monkeypatch.setattr(forward_cache, "free_on", lambda device: asked.append(device) or 1000)
    with pytest.raises(SurgeryError, match="0 MB are free"):
        runner.record(Plan.whole(6))
    runner._device = torch.device("cuda", 1)  # layers copied to a GPU
    with pytest.raises(SurgeryError):
        runner.record(Plan.whole(6))
    assert asked == [torch.device("cpu"), torch.device("cuda", 1)]
