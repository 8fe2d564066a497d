"""Files beside the weights: a model's own are copied, and nothing else."""

import base64
import json
import os
import shutil

import pytest
import tiny
from transformers import AutoTokenizer

from surgery import Base, BaseError, Plan
from surgery.sources.companions import LARGEST, choose, companions, is_companion, is_needed

# Of published models: Llama, Mistral, Gemma, Qwen, sentence-transformers, XLM, Marian, RWKV, …
_CARRIED = """
    tokenizer.json tokenizer_config.json tokenizer.model tokenizer.model.v3 tekken.json vocab.json
    vocab.txt merges.txt special_tokens_map.json added_tokens.json qwen.tiktoken bpe.codes dict.txt
    source.spm target.spm target_vocab.json vocab-src.json sentencepiece.bpe.model spiece.model
    entity_vocab.json rwkv_vocab_v20230424.txt word_shape.json emoji.json byte_maps.json
    chat_template.jinja chat_template.json additional_chat_templates/tool_use.jinja
    generation_config.json preprocessor_config.json processor_config.json
    video_preprocessor_config.json image_processor_config.json feature_extractor_config.json
    audio_tokenizer_config.json configuration.json
    modules.json sentence_bert_config.json config_sentence_transformers.json 1_Pooling/config.json
    2_Dense/config.json 2_Dense/model.safetensors 3_Normalize/config.json
    LICENSE LICENSE.md LICENSE.txt LICENCE NOTICE Notice.txt USE_POLICY.md COPYING CITATION.cff
    SYSTEM_PROMPT.txt MODEL_CARD.md acceptable_use_policy.txt thinking_budget.yaml
    some_thing_that_a_library_invents.json
"""
NEEDED = "tokenizer.json tekken.json bpe.codes source.spm vocab.txt video_preprocessor_config.json"
_LEFT = """
    config.json README.md README_zh.md recipe.yaml healing.json params.json mergekit_config.yml
    quantize_config.json hf_quant_config.json
    model.safetensors model-00001-of-00002.safetensors model.safetensors.index.json mtp.safetensors
    pytorch_model.bin pytorch_model.bin.index.json consolidated.safetensors consolidated.00.pth
    tf_model.h5 flax_model.msgpack rust_model.ot model.onnx onnx/model.onnx onnx/config.json
    original/tokenizer.model original/params.json model-q4.gguf model.nemo tokenizer.bin vocab.pkl
    adapter_config.json adapter_model.safetensors adapter_model.bin speech-lora/adapter_config.json
    modeling_mine.py tokenization_mine.py tokenizer.py tokenizer.so run.sh notebook.ipynb
    training_args.bin trainer_state.json optimizer.pt scheduler.pt rng_state_0.pth
    all_results.json train_results.json events.out.tfevents.1 runs/x/y checkpoint-500/config.json
    .gitattributes .git/config .cache/huggingface/x .env assets/logo.txt logo.png paper.pdf
    train.csv data.jsonl tokenizer.tar.gz a/b/c.json
"""
CARRIED, LEFT = _CARRIED.split(), _LEFT.split()


@pytest.fixture
def folder(tiny_folder, tmp_path):
    copy = tmp_path / "model"
    shutil.copytree(tiny_folder("llama"), copy)
    return copy


def put(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            path.write_text(f"this is {name}")


def beside(out):
    return {
        path.relative_to(out).as_posix()
        for path in out.rglob("*")
        if path.is_file() and path.name != "model.safetensors"
    } - {"config.json", "README.md", "recipe.yaml"}


def test_names():
    assert [name for name in CARRIED if not is_companion(name)] == []
    assert [name for name in LEFT if is_companion(name)] == []
    assert all(map(is_needed, NEEDED.split()))
    assert not is_needed("LICENSE") and not any(map(is_needed, LEFT))


@pytest.mark.parametrize(
    "name",
    [
        "../x.json",
        "/etc/passwd",
        "a/../x",
        "a\nb",
        "a\\b",
        "C:x",
        "x" * 250,
        "\ud800.json",
        "",
        "a/",
    ],
)
def test_odd_names_are_left(name):
    assert not is_companion(name)


def test_a_save_carries_what_belongs_to_the_model(folder, tmp_path):
    names = [name for name in CARRIED if name not in ("generation_config.json",)]
    read = ("adapter_", "quant", "hf_quant")  # these are handled separately
    put(folder, *names, *(name for name in LEFT if not name.startswith(read)))
    base = Base.open(str(folder))
    out = base.save(Plan.parse("0:2, 4:6", 6), tmp_path / "out")
    weights = {"2_Dense/model.safetensors"}
    assert beside(out) | weights == {*CARRIED}
    assert (out / "2_Dense/model.safetensors").read_text() == "this is 2_Dense/model.safetensors"
    for name in {*CARRIED} - {"config.json", "tokenizer_config.json"}:  # written for old readers
        assert (out / name).read_bytes() == (folder / name).read_bytes()
    assert "this is" not in (out / "README.md").read_text()
    # A checkpoint can be a base itself, and its copies keep the same files.
    again = Base.open(str(out)).save(Plan.parse("0:2", 4), tmp_path / "again")
    assert beside(again) == beside(out)


def test_sizes_and_numbers_are_bounded():
    many = [(f"extra{i:05}.json", 10) for i in range(5000)]
    result = choose([*many, ("tokenizer.json", 10), ("zzz/tokenizer.json", 5)], "x")
    assert len(result) == 100 and result[0] == "tokenizer.json"
    assert choose([("LICENSE", LARGEST + 1), ("NOTICE", 5)], "x") == ["NOTICE"]
    assert len(choose([(f"n{i}.json", LARGEST) for i in range(5)], "x")) == 2
    with pytest.raises(BaseError, match=r"tokenizer\.json in x is 10,000 MB"):
        choose([("tokenizer.json", 10**10)], "x")
    with pytest.raises(BaseError, match="too many tokenizer files"):
        choose([(f"tokenizer{i}.json", 10) for i in range(5000)], "x")


def test_a_tokenizer_of_ten_gigabytes_stops_a_save_before_it_writes(folder, tmp_path):
    os.truncate(folder / "tokenizer.json", 10**10)
    with pytest.raises(BaseError, match="too large"):
        Base.open(str(folder)).save(Plan.whole(6), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_links_lead_nowhere_else(folder, tmp_path):
    (tmp_path / "secret.txt").write_text("secret")
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "key.json").write_text("secret")
    (folder / "NOTICE").symlink_to(tmp_path / "secret.txt")
    (folder / "more").symlink_to(tmp_path / "secrets")
    (folder / "LICENSE").symlink_to("tokenizer.json")
    os.mkfifo(folder / "pipe.json")
    assert "LICENSE" in companions(folder)
    assert not {"NOTICE", "more/key.json", "pipe.json"} & {*companions(folder)}


def test_a_tokenizer_that_lies_elsewhere_is_not_lost_silently(folder, tmp_path):
    (folder / "tokenizer.json").rename(tmp_path / "tokenizer.json")
    (folder / "tokenizer.json").symlink_to(tmp_path / "tokenizer.json")
    with pytest.raises(BaseError, match=r"tokenizer.json .* is a link .* Put a copy"):
        Base.open(str(folder)).save(Plan.parse("0:2", 6), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_of_links_to_a_model_is_that_model(folder, tmp_path):
    """Like snapshots in the Hub's cache."""
    put(folder, "tekken.json", "1_Pooling/config.json")
    farm = tmp_path / "farm"
    (farm / "1_Pooling").mkdir(parents=True)
    for path in folder.rglob("*"):
        if path.is_file():
            (farm / path.relative_to(folder)).symlink_to(path)
    assert companions(farm) == companions(folder)


def test_a_folder_that_may_not_be_read_is_passed_over(folder, monkeypatch):
    put(folder, "1_Pooling/config.json")
    assert "1_Pooling/config.json" in companions(folder)
    monkeypatch.setattr("os.access", lambda path, mode: False)
    assert "1_Pooling/config.json" not in companions(folder)


def test_a_config_brings_its_tokenizer_and_nothing_else(folder, tmp_path):
    put(folder, "diary.txt", "LICENSE")
    base = Base.open(f"config:{folder}/config.json")
    out = base.save(Plan.parse("0:2", 6), tmp_path / "out")
    assert {"tokenizer.json", "tokenizer_config.json", "generation_config.json"} == beside(out)
    assert base.has_tokenizer and AutoTokenizer.from_pretrained(out)("ab")["input_ids"]


def tekken(folder):
    """A byte-level tokenizer in Mistral's own format."""
    words = [bytes([i]) for i in range(107)]
    vocab = [
        {"rank": i, "token_bytes": base64.b64encode(word).decode(), "token_str": None}
        for i, word in enumerate(words)
    ]
    special = [
        "<unk>",
        "<s>",
        "</s>",
        "[INST]",
        "[/INST]",
        *(f"<SPECIAL_{i}>" for i in range(5, 20)),
    ]
    config = dict(
        pattern=r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s+",
        num_vocab_tokens=len(words),
        default_vocab_size=len(words) + 20,
        default_num_special_tokens=20,
        version="v3",
    )
    tokens = [{"rank": i, "token_str": s, "is_control": True} for i, s in enumerate(special)]
    content = {"config": config, "vocab": vocab, "special_tokens": tokens}
    (folder / "tekken.json").write_text(json.dumps(content))


def test_mistral_s_tekken_is_a_tokenizer(tmp_path):
    tiny.model("mistral").save_pretrained(tmp_path / "base")
    tekken(tmp_path / "base")
    base = Base.open(str(tmp_path / "base"))
    assert base.has_tokenizer
    out = base.save(Plan.parse("0:2, 4:6", 6), tmp_path / "out")
    ids = base.tokenizer("ab")["input_ids"]
    assert ids and AutoTokenizer.from_pretrained(out)("ab")["input_ids"] == ids


@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen2", "gemma2"])
def test_a_tokenizer_that_transformers_makes_up_is_none(tmp_path, family):
    """It has its special tokens and no others."""
    tiny.model(family).save_pretrained(tmp_path)
    assert not Base.open(str(tmp_path)).has_tokenizer
    for settings in ({}, {"tokenizer_class": "GPT2Tokenizer"}):
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
        assert not Base.open(str(tmp_path)).has_tokenizer, settings


def test_a_tokenizer_that_can_not_be_loaded_here_is_named_and_carried(tmp_path):
    tiny.model("llama").save_pretrained(tmp_path / "base")
    (tmp_path / "base" / "tokenizer_config.json").write_text('{"tokenizer_class": "XLMTokenizer"}')
    put(tmp_path / "base", "vocab.json", "bpe.codes")
    base = Base.open(str(tmp_path / "base"))
    assert not base.has_tokenizer
    with pytest.raises(BaseError, match=r"tokenizer of base can.t be used.*“.+”"):
        _ = base.tokenizer
    out = base.save(Plan.parse("0:2", 6), tmp_path / "out")
    assert {"vocab.json", "bpe.codes", "tokenizer_config.json"} <= beside(out)
