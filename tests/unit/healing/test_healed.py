"""What comes of it: a patient that streams, a checkpoint, an adapter, and their agreement."""

import json

import pytest
import tiny
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from surgery import Base, Plan, SaveError, analysis
from surgery.analysis import MeasurementCache, Sample, perplexity
from surgery.healing import HealingRun, heal
from surgery.io.cache_folder import cache_folder
from surgery.verification.saved import verify_saved

TEXT = "The ferry ran twice a day in summer and not at all when the wind stood in the north. "


@pytest.fixture(scope="module")
def healed(base, plan, settings, tmp_path_factory):
    """A healed patient, which tests save and look at."""
    return heal(base, plan, settings(), tmp_path_factory.mktemp("healed") / "run")


def silent(*_):
    pass


def logits(model):
    with torch.no_grad():
        return model(tiny.tokens(batch=2)).logits


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_merged_equals_adapter_equals_what_trained(tiny_folder, settings, tmp_path, family):
    base, plan = Base.open(str(tiny_folder(family))), Plan.parse("0:2, 4:6", 6)
    run = HealingRun(base, plan, settings(train="lora", learning_rate=1e-2), tmp_path / "run")
    for _ in run:
        pass
    healed, cut = run.result(), base.operate(plan)
    trained = logits(run.student.model)
    assert (trained - logits(cut.model)).abs().max() > 1e-2
    base.save(plan, tmp_path / "cut")
    with pytest.raises(SaveError, match="inside a model cache"):
        healed.save_adapter(cache_folder() / "adapter")
    healed.save_adapter(tmp_path / "adapter")
    healed.save(tmp_path / "merged")
    fresh = AutoModelForCausalLM.from_pretrained(tmp_path / "cut")
    adapted = PeftModel.from_pretrained(fresh, tmp_path / "adapter")
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    for model in (healed.model, adapted, merged):
        torch.testing.assert_close(logits(model), trained, rtol=1e-5, atol=2e-5)
    assert torch.equal(logits(merged), logits(healed.model))
    assert {path.suffix for path in (tmp_path / "adapter").iterdir()} == {
        ".json",
        ".md",
        ".safetensors",
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_checkpoint_is_what_streams(tmp_path, settings, dtype):
    tiny.model("llama-tied-biased", dtype).save_pretrained(tmp_path / "base")
    tiny.tokenizer().save_pretrained(tmp_path / "base")
    base, plan = Base.open(str(tmp_path / "base")), Plan.parse("0:4, 2:6", 6)
    healed = heal(base, plan, settings(steps=4), tmp_path / "run")
    out = healed.save(tmp_path / "out")
    again = AutoModelForCausalLM.from_pretrained(out)
    assert again.dtype == healed.model.dtype == dtype
    assert torch.equal(logits(again), logits(healed.model))
    assert not torch.equal(logits(again), logits(base.operate(plan).model))
    assert "".join(healed.stream("Once", max_new_tokens=4))
    assert verify_saved(out, str(tmp_path / "base"), silent, Base.open)[0] > 0


@pytest.mark.parametrize("train", ["seams", "lora"])
def test_it_is_seen_through_as_itself(base, plan, settings, tmp_path, train, monkeypatch):
    """The X-ray's numbers are of the trained weights, what is kept by plan is not, and nobody who
    speaks with the patient meanwhile notices."""
    monkeypatch.setenv("LAYER_SURGERY_CACHE", str(tmp_path / "cache"))
    changes = dict(train=train, learning_rate=2e-2)
    healed = heal(base, plan, settings(**changes), tmp_path / "run")
    sample = Sample.of(base, TEXT)
    unhealed = analysis.compare(base, plan, sample)
    MeasurementCache(base, sample).forget()
    seen = analysis.compare(base, healed, sample)
    assert seen.plan == plan and seen.base == unhealed.base
    assert seen.patient.nll == pytest.approx(perplexity(healed.model, sample).nll, abs=1e-5)
    assert seen.patient.mean != pytest.approx(unhealed.patient.mean, abs=1e-3)
    kept = MeasurementCache(base, sample)
    assert kept.get(plan, (sample.tokens,)) is None
    assert kept.get(Plan.whole(6), (sample.tokens,)) is not None
    rows = analysis.similarity(base, healed, sample)
    assert rows[-1][-1] != pytest.approx(analysis.similarity(base, plan, sample)[-1][-1], abs=1e-4)
    ids = sample.windows[0][:12]
    last = [guesses[0].probability for guesses in analysis.logit_lens(healed, ids)[-1]]
    with torch.no_grad():
        message = healed.model(torch.tensor([ids])).logits[0].softmax(-1).max(-1).values
    assert last == pytest.approx(message.tolist(), rel=1e-4)
    assert not any(m._forward_hooks or "forward" in vars(m) for m in healed.model.modules())


def test_another_skeleton_has_the_same_weights(healed):
    again = healed.again()
    assert again.model is not healed.model and again.key == healed.key
    assert torch.equal(logits(again.model), logits(healed.model))
    mine = {p.data_ptr() for p in healed.model.parameters()}
    assert {p.data_ptr() for p in again.model.parameters()} == mine
    own = healed.copy()
    assert torch.equal(logits(own), logits(healed.model))
    assert mine.isdisjoint(p.data_ptr() for p in own.parameters())


def test_a_healing_is_known_by_what_was_done(healed, base, plan, settings, tmp_path):
    same, other = (heal(base, plan, settings(seed=seed), tmp_path / str(seed)) for seed in (0, 1))
    assert healed.key == same.key != other.key


def test_random_layers_can_be_healed(base, settings, tmp_path):
    plan = Plan.parse("0:3, 3@random, 4:6", 6)
    healed = heal(base, plan, settings(steps=2, train="new"), tmp_path / "run")
    again = AutoModelForCausalLM.from_pretrained(healed.save(tmp_path / "out"))
    assert torch.equal(logits(again), logits(healed.model))


def test_it_says_what_was_done(healed, tmp_path):
    out = healed.save(tmp_path / "out")
    card = (out / "README.md").read_text()
    assert "**healed** after its layers were changed: the whole weights of layers 0" in card
    assert "of layers 0, 1, 2, 3 were trained by distillation" in card
    assert "text sampled from the base" in card and "Layers were moved, not trained" not in card
    facts = json.loads((out / "healing.json").read_text())
    result = facts["perplexity"]
    assert f"base {result['base']:.2f}" in card and f"healed {result['healed']:.2f}" in card
    assert facts["settings"]["held_out"] == "held-out.txt"  # no paths of this machine
    assert len(facts["tensors"]) == len(healed.tensors)


def test_a_changed_byte_of_what_was_trained_is_found(healed, tmp_path, tiny_folder):
    out = healed.save(tmp_path / "out")
    home = str(tiny_folder("llama"))
    verify_saved(out, home, silent, Base.open)
    name = sorted(json.loads((out / "healing.json").read_text())["tensors"])[0]
    from surgery.sources.folder import read_tensors

    place = read_tensors(out)[name]
    data = bytearray((out / place.file).read_bytes())
    data[place.start] ^= 1
    (out / place.file).write_bytes(data)
    with pytest.raises(SaveError, match=f"not what was saved: {name}"):
        verify_saved(out, home, silent, Base.open)


def test_whole_weights_are_no_adapter(healed, tmp_path):
    with pytest.raises(SaveError, match="there is no adapter"):
        healed.save_adapter(tmp_path / "adapter")
    assert not (tmp_path / "adapter").exists()
