"""Older keys in config.json beside the new ones."""

import json
import shutil

import pytest
import tiny
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from zoo import build

from surgery import Base, Plan
from surgery.architecture.config.spelling import with_older_spellings, with_older_tokenizer_class

LLAMA3 = dict(
    rope_type="llama3",
    factor=8.0,
    low_freq_factor=1.0,
    high_freq_factor=4.0,
    original_max_position_embeddings=16,
)
LONGROPE = dict(type="longrope", short_factor=[1.5] * 8, long_factor=[2.5] * 8)
SLIDING = dict(sliding_window=8, sliding_window_pattern=3)

# {model type: (older keys, the plan, values expected by older readers)}
OLDER = {
    "llama": (dict(rope_theta=5e5, rope_scaling=LLAMA3), "0:2, 4:6", {}),
    "mistral": (dict(rope_theta=1e6), "0:2, 4:6", {}),
    "phi3": (
        dict(rope_theta=5e5, rope_scaling=LONGROPE, original_max_position_embeddings=16),
        "0:2, 4:6",
        {},
    ),
    "stablelm": (dict(rope_theta=5e5, partial_rotary_factor=0.5), "0:2, 4:6", {}),
    "gpt_neox": (dict(rotary_emb_base=5e5, rotary_pct=0.5), "0:2, 4:6", {}),
    "gemma3_text": (
        dict(rope_theta=1e6, rope_local_base_freq=5e4, rope_scaling=None, **SLIDING),
        "0, 2, 3, 5",
        dict(sliding_window_pattern=2),
    ),
    "cohere2": (dict(rope_theta=5e5, **SLIDING), "0, 2, 3, 5", dict(sliding_window_pattern=2)),
    "qwen2": (
        dict(rope_theta=1e6, use_sliding_window=True, sliding_window=8, max_window_layers=4),
        "0:2, 4:6",
        dict(max_window_layers=2),
    ),
    "qwen3_moe": (dict(rope_theta=1e6, num_experts=6), "0:2, 4:6", {}),
}


def written(model_type, older):
    """The tiny config as written by transformers 4, and as it is written now."""
    fields = build.config(model_type).to_dict()
    for key in ("rope_parameters", "layer_types", "dtype", "num_local_experts"):
        fields.pop(key, None)
    fields |= json.loads(json.dumps(older)) | dict(num_hidden_layers=6, torch_dtype="float32")
    config = CONFIG_MAPPING[model_type].from_dict(json.loads(json.dumps(fields)))
    return fields, json.loads(config.to_json_string())


@pytest.mark.parametrize("model_type", OLDER)
@torch.no_grad()
def test_a_saved_config_is_read_alike_by_old_and_new(tmp_path, model_type):
    """Whichever keys the base's config has."""
    older, text, result = OLDER[model_type]
    fields, new = written(model_type, older)
    model = AutoModelForCausalLM.from_config(CONFIG_MAPPING[model_type].from_dict(dict(new)))
    model.eval().save_pretrained(tmp_path / "new")
    own = shutil.copytree(tmp_path / "new", tmp_path / "own")
    (own / "config.json").write_text(json.dumps(fields))
    plan = Plan.parse(text, 6)
    for spelling in ("new", "own"):
        base = Base.open(str(tmp_path / spelling))
        out = base.save(plan, tmp_path / f"of {spelling}", dtype="bfloat16")
        saved = json.loads((out / "config.json").read_text())
        for key, value in ({**older, **result, "torch_dtype": "bfloat16"}).items():
            assert saved[key] == value, (spelling, key)
        assert saved["dtype"] == "bfloat16" and saved["num_hidden_layers"] == 4
        # This transformers reads the same config with, without and from only the older keys.
        with_both = AutoConfig.from_pretrained(out)
        assert with_both.rope_parameters == base.anatomy.config.rope_parameters
        for key in ("rope_parameters", "dtype"):
            saved.pop(key)
        alone = CONFIG_MAPPING[model_type].from_dict(saved).rope_parameters
        both = (alone, with_both.rope_parameters)
        plain = [{key: value for key, value in x.items() if key != "type"} for x in both]
        assert plain[0] == plain[1]
    patient = base.operate(plan).model
    assert patient.config.rope_parameters == base.anatomy.config.rope_parameters
    ids = tiny.tokens(48)
    again = AutoModelForCausalLM.from_pretrained(base.save(plan, tmp_path / "same")).eval()
    assert torch.equal(again(input_ids=ids).logits, patient(input_ids=ids).logits)


def test_older_readers_are_not_told_a_period_that_the_plan_broke(tmp_path):
    fields, new = written("gemma3_text", OLDER["gemma3_text"][0])
    model = AutoModelForCausalLM.from_config(CONFIG_MAPPING["gemma3_text"].from_dict(dict(new)))
    model.save_pretrained(tmp_path / "base")
    (tmp_path / "base" / "config.json").write_text(json.dumps(fields))
    out = Base.open(str(tmp_path / "base")).save(Plan.parse("2, 0, 1, 5", 6), tmp_path / "out")
    saved = json.loads((out / "config.json").read_text())
    assert "sliding_window_pattern" not in saved and saved["rope_local_base_freq"] == 5e4
    assert saved["layer_types"][:2] == ["full_attention", "sliding_attention"]


def test_nested_configs_too(tiny_folder, tmp_path):
    folder = shutil.copytree(tiny_folder("gemma3"), tmp_path / "base")
    fields = json.loads((folder / "config.json").read_text())
    text = fields["text_config"]
    rope = text.pop("rope_parameters")
    text |= dict(rope_theta=2e6, rope_local_base_freq=3e4, torch_dtype="float32")
    fields["torch_dtype"] = fields.pop("dtype")
    text.pop("dtype", None)
    (folder / "config.json").write_text(json.dumps(fields))
    out = Base.open(str(folder)).save(Plan.parse("0:2, 4:6", 6), tmp_path / "out")
    saved = json.loads((out / "config.json").read_text())
    inner = saved["text_config"]
    assert (inner["rope_theta"], inner["rope_local_base_freq"]) == (2e6, 3e4)
    assert inner["rope_parameters"]["full_attention"]["rope_theta"] == 2e6 and rope
    assert saved["torch_dtype"] == saved["dtype"] == "float32"


def test_keys_that_would_be_read_as_something_else_are_left_out():
    """A contradictory file: the values that transformers reads from it are written."""
    config = CONFIG_MAPPING["llama"](rope_parameters=dict(rope_type="default", rope_theta=5e5))
    fields = json.loads(config.to_json_string())
    out = with_older_spellings(fields, {"rope_theta": 1e4, "rope_scaling": LLAMA3}, type(config))
    assert (out["rope_theta"], out["rope_scaling"]) == (5e5, None)


def test_the_tokenizers_class_has_a_name_that_older_readers_know(tmp_path):
    tiny.model("llama").save_pretrained(tmp_path / "base")
    tiny.tokenizer().save_pretrained(tmp_path / "base")
    named = json.loads((tmp_path / "base" / "tokenizer_config.json").read_text())
    assert named["tokenizer_class"] == "TokenizersBackend"
    out = Base.open(str(tmp_path / "base")).save(Plan.parse("0:2", 6), tmp_path / "out")
    written = json.loads((out / "tokenizer_config.json").read_text())
    assert written == named | {"tokenizer_class": "PreTrainedTokenizerFast"}
    before, after = (AutoTokenizer.from_pretrained(tmp_path / name) for name in ("base", "out"))
    assert type(before) is type(after) and before.get_vocab() == after.get_vocab()
    assert before("abc </s> d")["input_ids"] == after("abc </s> d")["input_ids"]


@pytest.mark.parametrize(
    "content", [b"{", b"[]", b'{"tokenizer_class": "LlamaTokenizer"}', b"\xff"]
)
def test_another_tokenizer_config_is_left_alone(content):
    assert with_older_tokenizer_class(content) == content
