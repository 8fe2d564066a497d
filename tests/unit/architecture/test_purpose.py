"""Models that are not decoders are identified before any weights are needed."""

import json

import pytest
import transformers as t
from zoo import build

from surgery import Base, BaseError, Plan, Refused
from surgery.architecture.inspect.loader import auto_class

SMALL = dict(
    vocab_size=100,
    d_model=32,
    encoder_layers=2,
    decoder_layers=4,
    encoder_attention_heads=2,
    decoder_attention_heads=2,
    encoder_ffn_dim=32,
    decoder_ffn_dim=32,
    max_position_embeddings=64,
    pad_token_id=1,
    bos_token_id=0,
    eos_token_id=2,
    decoder_start_token_id=2,
)
BERT = dict(
    vocab_size=100,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=4,
    num_attention_heads=2,
    pad_token_id=0,
)


def opened(place, fields: dict) -> Base:
    (place / "config.json").write_text(json.dumps(fields))
    return Base.open(f"config:{place / 'config.json'}")


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("t5", "t5 is an encoder-decoder model"),
        ("bart", "bart is an encoder-decoder model"),
        ("whisper", "whisper is an encoder-decoder model"),
        ("bert", "This bert model is an encoder"),
        ("modernbert", "modernbert is an encoder"),
        ("vit", "vit is a vision model"),
        ("clip", "clip is an image-text model"),
        ("udop", "udop is an encoder-decoder model"),
        ("florence2", "florence2 is an encoder-decoder model"),
        ("wav2vec2", "wav2vec2 is a speech model"),
        ("timesfm", "timesfm is a time series model"),
        ("decision_transformer", "decision_transformer is not a language model"),
    ],
)
def test_what_is_no_decoder(tmp_path, kind, message):
    base = opened(tmp_path, {"model_type": kind})
    with pytest.raises(Refused, match=message) as caught:
        base.preview(Plan.whole(1))
    assert "decoder-only" in str(caught.value) and "GPT2Config" not in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model_type": "frob"}, "“frob” as its model_type, .* does not know"),
        ({"model_type": "frob", "auto_map": {"AutoConfig": "a.B"}}, "“frob”.* needs code of its"),
        ({"auto_map": {"AutoConfig": "a.B"}}, "This model needs code of its own"),
        ({"hidden_size": 64}, "has no model_type"),
        ({"_class_name": "UNet2DConditionModel"}, "component of a diffusion model"),
    ],
)
def test_configs_of_no_known_model(tmp_path, fields, message):
    with pytest.raises(BaseError, match=message):
        opened(tmp_path, fields)


def test_a_diffusion_model(tmp_path):
    (tmp_path / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')
    with pytest.raises(BaseError, match="is a diffusion model"):
        Base.open(str(tmp_path))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: t.BartForConditionalGeneration(t.BartConfig(**SMALL)), "encoder-decoder"),
        (
            lambda: t.WhisperForConditionalGeneration(
                t.WhisperConfig(**SMALL, suppress_tokens=[], begin_suppress_tokens=[])
            ),
            "encoder-decoder",
        ),
        (lambda: t.BertForMaskedLM(t.BertConfig(**BERT)), "is an encoder"),
        (
            lambda: t.LlamaForSequenceClassification(t.LlamaConfig(**BERT)),
            "no lm_head.weight, the head .*LlamaWithValueHead",
        ),
    ],
    ids=["bart", "whisper", "bert", "value head"],
)
def test_real_checkpoints_of_them_are_neither_run_nor_saved(tmp_path, model, message):
    model().save_pretrained(tmp_path / "base")
    config = tmp_path / "base" / "config.json"
    # A head of somebody's own, which transformers has no class for.
    text = config.read_text().replace("LlamaForSequenceClassification", "LlamaWithValueHead")
    config.write_text(text)
    base = Base.open(str(tmp_path / "base"))
    for attempt in (
        lambda: base.preview(Plan.whole(base.depth)),
        lambda: base.operate(Plan.whole(base.depth)),
        lambda: base.save(Plan.whole(base.depth), tmp_path / "out"),
    ):
        with pytest.raises((Refused, BaseError), match=message):
            attempt()
    assert not (tmp_path / "out").exists()


def test_a_decoder_of_such_a_family_is_one(tmp_path):
    t.BartForCausalLM(t.BartConfig(**SMALL)).save_pretrained(tmp_path / "bart")
    t.BertLMHeadModel(t.BertConfig(**BERT, is_decoder=True)).save_pretrained(tmp_path / "bert")
    for name in ("bart", "bert"):
        base = Base.open(str(tmp_path / name))
        assert base.depth == 4 and base.operate(Plan.parse("0:2, 1:4", 4)).model


@pytest.mark.parametrize("model_type", ["inkling_text", "llama"])
def test_a_config_without_architectures_is_one_of_a_language_model(model_type):
    """Some configs don't say either whether embeddings and head are one."""
    config = build.config(model_type)
    config.architectures = None
    assert auto_class(config) is t.AutoModelForCausalLM
