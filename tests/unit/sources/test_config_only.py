"""Bases of random weights: from a file, or from another base with some settings changed."""

import errno
import json
import tempfile

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedModel

from surgery import Base, BaseError, Plan, Refused, SaveError
from surgery.architecture.config.rewrite import edit
from surgery.io import ownership
from surgery.sources import open_source

LESSON = dict(
    model_type="llama",
    hidden_size=1024,
    intermediate_size=4096,
    num_hidden_layers=12,
    num_attention_heads=32,
    num_key_value_heads=8,
    vocab_size=32000,
)


@pytest.fixture
def lesson(tmp_path):
    path = tmp_path / "lesson.json"
    path.write_text(json.dumps(LESSON))
    return f"config:{path}"


def test_settings_are_changed_and_previewed_without_memory(lesson):
    base = Base.open(f"{lesson}, num_hidden_layers=32, hidden_size=4096,intermediate_size=14336")
    assert base.depth == 32 and not base.is_loaded
    # Mistral-7B's shape: its published count.
    assert base.preview(Plan.whole(32)).parameters == 7_241_732_096
    assert "num_hidden_layers 32" in base.name and "randomly initialised" in base.note


def test_any_base_will_do(bundled):
    base = Base.open("config:bundled,num_hidden_layers=2,vocab_size=1000")
    assert (base.depth, base.kind) == (2, "config") and base.has_tokenizer
    assert base.model.config.hidden_size == bundled.model.config.hidden_size


def test_random_weights_are_those_of_transformers_for_that_seed(tmp_path):
    fields = dict(LESSON, hidden_size=64, intermediate_size=96, num_hidden_layers=3, vocab_size=50)
    (tmp_path / "config.json").write_text(json.dumps(fields))
    base = Base.open(f"config:{tmp_path},num_attention_heads=4,num_key_value_heads=2")
    torch.manual_seed(0)
    changed = {k: v for k, v in fields.items() if k != "model_type"}
    config = LlamaConfig(**changed | dict(num_attention_heads=4, num_key_value_heads=2))
    expected = AutoModelForCausalLM.from_config(config, dtype=base.torch_dtype)
    for name, value in expected.state_dict().items():
        assert torch.equal(value, base.model.state_dict()[name])


def test_random_weights_that_can_not_be_written_are_not_left_behind(tmp_path, monkeypatch):
    fields = dict(LESSON, hidden_size=64, intermediate_size=96, num_hidden_layers=2, vocab_size=50)
    (tmp_path / "config.json").write_text(json.dumps(fields))
    base = Base.open(f"config:{tmp_path},num_attention_heads=4,num_key_value_heads=2")
    place = tmp_path / "temporary"
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    real, full = PreTrainedModel.save_pretrained, OSError(errno.ENOSPC, "full")

    def fails(model, folder):
        real(model, folder)
        raise full

    monkeypatch.setattr(PreTrainedModel, "save_pretrained", fails)
    with pytest.raises(SaveError, match=rf"disk of {place} is full"):
        base.stored()
    assert not list(place.iterdir())

    def no_lock(*_):
        raise full

    monkeypatch.setattr(ownership, "own", no_lock)
    with pytest.raises(SaveError, match=rf"disk of {place} is full"):
        base.stored()
    assert not list(place.iterdir())
    monkeypatch.undo()
    assert base.stored()[1].keys() == base.model.state_dict().keys()


def test_patterns_of_layers_go_on(tmp_path):
    kinds = ["sliding_attention", "full_attention"] * 2
    fields = dict(model_type="gemma3_text", num_hidden_layers=4, layer_types=kinds)
    (tmp_path / "config.json").write_text(json.dumps(fields))
    base = Base.open(f"config:{tmp_path},num_hidden_layers=7")
    assert base.kinds == ("sliding", "full") * 3 + ("sliding",)


def test_a_file_that_changes_is_noticed(lesson, tmp_path):
    base = Base.open(f"{lesson},num_hidden_layers=2")
    assert not base.source.has_changed
    (tmp_path / "lesson.json").write_text(json.dumps({**LESSON, "hidden_size": 64}))
    assert base.source.has_changed
    again = Base.open(f"{lesson},num_hidden_layers=2")
    assert again.anatomy.config.hidden_size == 64 and not again.source.has_changed
    (tmp_path / "lesson.json").unlink()  # all that was in it is known
    assert not again.source.has_changed


def test_a_depth_over_the_limit_is_refused_before_a_config_is_made(tmp_path, monkeypatch):
    """Some config classes make a list of that length."""
    fields = dict(model_type="gemma3_text", num_hidden_layers=4)
    (tmp_path / "config.json").write_text(json.dumps(fields))
    config = open_source(f"config:{tmp_path}").config
    monkeypatch.setattr(type(config), "from_dict", None)
    with pytest.raises(Refused, match="no more than 4,096 layers"):
        edit(config, {"num_hidden_layers": 4097})


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ("hiden_size=64", Refused, "Did you mean hidden_size"),
        ("hidden_size=abc", Refused, "does not accept"),
        ("hidden_size=100", Refused, "can't build|does not accept"),
        ("num_hidden_layers=0", (BaseError, Refused), "layer"),
        ("num_hidden_layers=-3", (BaseError, Refused), "layer|accept"),
        ("num_hidden_layers=4097", Refused, "no more than 4,096"),
        ("num_hidden_layers=999999999", BaseError, "num_hidden_layers over 1,000,000"),
        (f"num_attention_heads=1{'0' * 400}", BaseError, "num_attention_heads over 1,000,000"),
        ("rope_parameters={}", BaseError, "one number or word"),
    ],
)
def test_settings_that_make_no_sense(lesson, settings, error, message):
    with pytest.raises(error, match=message):
        _ = Base.open(f"{lesson},{settings}").depth
