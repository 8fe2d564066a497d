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
from zoo import build, multimodal
from zoo.examine import TOLERANCE, _far, _full_and_cached
from zoo.images import image_inputs

from surgery import Base, Plan, Refused
from surgery.architecture import Anatomy, skeleton
from surgery.architecture.checks import loop_index

# Types of which transformers has a class for text alone and one with towers.
BOTH = ["llama4", "mllama", "qwen3_5", "qwen4_exp"]
# Types of which it has only the one with towers.
WITH_TOWERS = [
    "gemma3",
    "llava",  # InternVL and Mistral 3 are built alike: features take the place of image tokens
    "paligemma",
    "qwen2_5_vl",
    "qwen3_vl",  # features enter behind the first two layers too
    "smolvlm",
]
PROCESSOR_FILES = (
    "preprocessor_config.json",
    "processor_config.json",
    "video_preprocessor_config.json",
    "chat_template.jinja",
    "chat_template.json",
)


def checkpoint(model_type, folder):
    """A tiny checkpoint as vision-language models are published: the class with towers."""
    made = multimodal.model(model_type)
    made.save_pretrained(folder)
    return made


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
    for name in PROCESSOR_FILES:
        (tmp_path / "base" / name).write_text(f'{{"of": "{name}"}}')
    ids = build.tokens(12)  # more than a sliding window has
    base = Base.open(str(tmp_path / "base"))
    whole = base.preview(Plan.whole(6))
    towers = whole.by_component["towers"]
    assert whole.parameters == parameters(made) == parameters(base.model)
    assert towers and whole.active_parameters <= whole.parameters - towers
    # Qwen4's n-gram tables are as large as their place says.
    plan = Plan.parse("0:2, 4:6" if model_type == "qwen4_exp" else "0:2, 1, 4, 3, 2", 6)
    path = base.anatomy.stack.paths[0]
    expected = oracle.replay(base.model, path, plan.sources, ids)
    patient = base.operate(plan).model
    assert isinstance(patient, type(made))
    assert _far(patient(input_ids=ids, use_cache=False).logits, expected) < TOLERANCE
    out = base.save(plan, tmp_path / "out")
    config = json.loads((out / "config.json").read_text())
    assert config["architectures"] == [type(made).__name__]
    assert base.auto_class in (out / "README.md").read_text()
    for name in PROCESSOR_FILES:
        assert (out / name).read_text() == (tmp_path / "base" / name).read_text()
    again, unexpected = loaded(AutoModelForMultimodalLM, out)
    assert not unexpected and type(again) is type(made)
    assert base.preview(plan).parameters == parameters(again)
    assert base.preview(plan).by_component["towers"] == towers
    models = [patient, again]
    if model_type in BOTH:
        models.append(loaded(AutoModelForCausalLM, out)[0])
        assert type(models[-1]) is not type(made)
    texts = []
    for model in models:
        assert _far(model(input_ids=ids, use_cache=False).logits, expected) < TOLERANCE
        if model_type != "paligemma":  # in a single pass its attention is bidirectional
            assert _far(*_full_and_cached(model, ids, 4)) < 10 * TOLERANCE
        settings = dict(max_new_tokens=4, do_sample=False, pad_token_id=0)
        texts.append(model.generate(ids[:1, :6], **settings))
    assert all(torch.equal(text, texts[0]) for text in texts)
    # Last, since Qwen-VL models keep the image's positions.
    image = image_inputs(made)
    assert image is not None
    pictured = oracle.replay(
        base.model, path, plan.sources, image["input_ids"], **_without_ids(image)
    )
    for model in (patient, again):
        assert _far(model(**image, use_cache=False).logits, pictured) < TOLERANCE


def _without_ids(inputs):
    return {name: value for name, value in inputs.items() if name != "input_ids"}


@pytest.mark.parametrize("text", ["1:6", "0, 2:6", "0, 0, 1:6", "1, 0, 2:6"])
def test_features_that_enter_between_layers_are_not_misplaced(text):
    """Qwen3-VL adds some behind its first layers, which a pass over text doesn't show."""
    base = Anatomy.of(_with_architecture("qwen3_vl"))
    with pytest.raises(Refused, match="layers 0 to 1 have to stay first"):
        skeleton(base, Plan.parse(text, 6).sources)
    skeleton(base, Plan.parse("0:2, 1, 5", 6).sources)


def test_without_a_known_name_all_layers_have_to_stay():
    fields = _with_architecture("qwen3_vl")
    assert loop_index._fixed(fields, 6) == 2
    assert loop_index._fixed(_with_architecture("granite4_vision"), 6) == 2
    assert loop_index._fixed(_with_architecture("llava"), 6) == 6


@torch.no_grad()
def test_the_oracle_knows_where_features_enter():
    made = multimodal.model("qwen3_vl")
    image = image_inputs(made)
    truth = oracle.Oracle(
        made, "model.language_model.layers", image["input_ids"], **_without_ids(image)
    )
    assert truth.fixed == 2
    with pytest.raises(oracle.NoOracle, match="enter before layer 2"):
        truth.logits([1, 0, 2, 3])


def test_blocks_between_layers_are_found_in_the_loop():
    """IDEFICS has a cross-attention block before every n-th layer."""
    made = multimodal.model("idefics").model
    uses = loop_index._uses(type(made), "layers")
    assert {use.code for use in uses} >= {"idx % self.cross_layer_interval == 0"}
    made.cross_layer_interval = 2
    use = next(use for use in uses if use.code.startswith("idx % "))
    assert [use.value(made, position) for position in range(4)] == [True, False, True, False]


def _with_architecture(model_type):
    """The config of a published checkpoint, which names its class."""
    config = multimodal.config(model_type)
    config.architectures = [multimodal.class_name(model_type)]
    return config


def test_the_page_and_the_facts_name_the_towers(tmp_path):
    from components.widgets.tiles.tiles import view
    from surgery import facts

    checkpoint("llava", tmp_path / "base")
    base = Base.open(str(tmp_path / "base"))
    plan = Plan.parse("0:2, 4:6", 6)
    towers = base.preview(plan).by_component["towers"]
    assert facts.of_base(base)["by_component"]["towers"] == towers
    shown = json.dumps(view(base, plan))
    assert f"vision and audio towers: {towers:,}" in shown


HEADS = [
    ("llama-tied-biased", AutoModelForSequenceClassification),
    ("gemma3", AutoModelForSequenceClassification),
    ("gpt2", AutoModelForSequenceClassification),
    ("qwen2", AutoModelForTokenClassification),  # without a language-modelling head
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
