"""Bases with more than a text model: vision-language models and reward models, nothing lost."""

import json

import oracle
import pytest
import tiny
import torch
from safetensors import safe_open
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMultimodalLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
)
from zoo import build
from zoo.examine import TOLERANCE, _far, _full_and_cached

from surgery import Base, Plan, Refused

# Types of which transformers has a class for text alone and one with towers.
BOTH = ["llama4", "mllama", "qwen3_5", "qwen4_exp", "dots3_note"]
# Types of which it has only the one with towers.
WITH_TOWERS = ["gemma3", "llava", "mistral3", "paligemma", "qwen2_5_vl", "qwen3_vl"]


def checkpoint(model_type, folder):
    """A tiny checkpoint as vision-language models are published: the class with towers."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = AutoModelForMultimodalLM.from_config(build.config(model_type), dtype=torch.float32)
        with torch.no_grad():
            for parameter in made.parameters():
                parameter.add_(torch.randn(parameter.shape) * 0.05)
    made.save_pretrained(folder)
    return made.eval()


def parameters(model):
    return sum(p.numel() for p in model.parameters())


def loaded(auto, folder):
    model, info = auto.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    assert not info["missing_keys"] and not info["mismatched_keys"]
    return model.eval(), info["unexpected_keys"]


@pytest.mark.parametrize("model_type", BOTH + WITH_TOWERS)
@torch.no_grad()
def test_towers_are_kept_counted_and_do_no_harm(tmp_path, model_type):
    made = checkpoint(model_type, tmp_path / "base")
    ids = build.tokens()
    base = Base.open(str(tmp_path / "base"))
    whole = base.preview(Plan.whole(6))
    towers = whole.by_component["towers"]
    assert whole.parameters == parameters(made) == parameters(base.model)
    assert towers and whole.active_parameters <= whole.parameters - towers
    # Qwen4's n-gram tables are as large as their place says.
    plan = Plan.parse("0:2, 4:6" if model_type == "qwen4_exp" else "0:2, 1, 4, 3, 2", 6)
    expected = oracle.replay(base.model, base.anatomy.stack.paths[0], plan.sources, ids)
    patient = base.operate(plan).model
    assert isinstance(patient, type(made))
    assert _far(patient(input_ids=ids, use_cache=False).logits, expected) < TOLERANCE
    out = base.save(plan, tmp_path / "out")
    config = json.loads((out / "config.json").read_text())
    assert config["architectures"] == [type(made).__name__]
    assert base.auto_class in (out / "README.md").read_text()
    again, unexpected = loaded(AutoModelForMultimodalLM, out)
    assert not unexpected and type(again) is type(made)
    assert base.preview(plan).parameters == parameters(again)
    assert base.preview(plan).by_component["towers"] == towers
    models = [patient, again]
    if model_type in BOTH:
        models.append(loaded(AutoModelForCausalLM, out)[0])
        assert type(models[-1]) is not type(made)
    for model in models:
        assert _far(model(input_ids=ids, use_cache=False).logits, expected) < TOLERANCE
        if model_type != "paligemma":  # in a single pass its attention is bidirectional
            assert _far(*_full_and_cached(model, ids)) < 10 * TOLERANCE
        text = model.generate(ids[:1, :6], max_new_tokens=6, do_sample=False, pad_token_id=0)
        assert torch.equal(text, patient.generate(ids[:1, :6], max_new_tokens=6, do_sample=False))


def test_the_page_and_the_facts_name_the_towers(tmp_path):
    from components.widgets.tiles.tiles import view
    from surgery import facts

    checkpoint("llama4", tmp_path / "base")
    base = Base.open(str(tmp_path / "base"))
    plan = Plan.parse("0:2, 4:6", 6)
    towers = base.preview(plan).by_component["towers"]
    assert facts.of_base(base)["by_component"]["towers"] == towers
    shown = json.dumps(view(base, plan))
    assert f"vision and audio towers: {towers:,}" in shown


HEADS = [
    ("llama", AutoModelForSequenceClassification),  # without a language-modelling head
    ("llama-tied-biased", AutoModelForSequenceClassification),
    ("gemma3", AutoModelForSequenceClassification),
    ("gpt2", AutoModelForSequenceClassification),
    ("qwen2", AutoModelForTokenClassification),
    ("llama", AutoModel),  # an embedding model
]


@pytest.mark.parametrize(("family", "auto"), HEADS)
@torch.no_grad()
def test_a_head_that_is_not_for_text_is_kept(tmp_path, family, auto):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = auto.from_config(tiny.config(family, num_labels=3, pad_token_id=0)).eval()
    made.save_pretrained(tmp_path / "base")
    base = Base.open(str(tmp_path / "base"))
    plan = Plan.parse("0:2, 4:6, 4", 6)
    preview = base.preview(plan)
    with pytest.raises(Refused, match="no language-modelling head"):
        base.operate(plan)
    out = base.save(plan, tmp_path / "out")
    assert json.loads((out / "config.json").read_text())["architectures"] == [type(made).__name__]
    again, unexpected = loaded(auto, out)
    assert not unexpected and preview.parameters == parameters(again)
    assert auto is AutoModel or preview.by_component["head"] == sum(
        p.numel() for p in made.score.parameters()
    )
    ids = tiny.tokens(batch=2)
    if auto is not AutoModel:
        expected = oracle.replay(made, base.anatomy.stack.paths[0], plan.sources, ids)
        assert torch.equal(again(input_ids=ids, use_cache=False).logits, expected)
    if family == "llama-tied-biased":  # its embeddings are also its head
        causal = AutoModelForCausalLM.from_pretrained(tmp_path / "base").eval()
        expected = oracle.replay(causal, "model.layers", plan.sources, ids)
        logits = AutoModelForCausalLM.from_pretrained(out).eval()(input_ids=ids).logits
        assert torch.equal(logits, expected)
    with safe_open(out / "model.safetensors", "pt") as file:
        assert any("score" in name for name in file.keys()) or auto is AutoModel  # noqa: SIM118
