"""Embeddings resized to the tokenizer: every old row keeps its bits, or a refusal says why."""

import json
import shutil

import pytest
import tiny
import tiny_gguf
import torch
from safetensors.torch import load_file, safe_open, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, RobertaConfig
from zoo import build

from surgery import Base, Plan, Refused, SaveError, resize_embeddings, stack
from surgery.verification.saved import verify_saved

PLAN = "0:2, 4@identity, 5"


def base_with(folder, family="llama", added=0, **changes):
    """A tiny base with 128 embeddings; its tokenizer has 98 ids, and some that were added."""
    tiny.model(family, **changes).save_pretrained(folder)
    return with_ids(folder, added)


def with_ids(folder, added=0):
    words = tiny.tokenizer()
    words.add_tokens([f"<extra {i}>" for i in range(added)])
    words.save_pretrained(folder)
    return Base.open(str(folder))


def reload(folder):
    model, info = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    return model.eval()


def logits(model, length=24):
    with torch.no_grad():
        return model(input_ids=tiny.tokens(length) % 98).logits


def checked(home, out):
    return verify_saved(out, str(home), lambda *args: None, Base.open)


def stored(folder):
    tensors = {}
    for path in folder.glob("*.safetensors"):
        tensors |= load_file(path)
    return tensors


@pytest.mark.parametrize(
    ("family", "added"),
    [
        ("llama", 0),
        ("llama", 52),
        ("llama-tied-biased", 0),
        ("gpt2", 52),  # whose embeddings are tied, too
        ("gemma3", 0),  # whose text model is a part of its config
    ],
)
def test_a_resized_save_is_the_plain_one_with_other_rows(tmp_path, family, added):
    base = base_with(tmp_path / "base", family, added or 6)
    rows = max(base.tokenizer.get_vocab().values()) + 1
    made, plan = resize_embeddings(base), Plan.parse(PLAN, base.depth)
    assert made.resized == (128, rows) and (rows < 128) == (not added)
    plain = reload(base.save(plan, tmp_path / "plain"))
    out = made.save(plan, tmp_path / "out", shard_size="60KB")
    model, patient = reload(out), made.operate(plan).model
    common = min(rows, 128)
    assert torch.equal(logits(model)[..., :common], logits(plain)[..., :common])
    assert torch.equal(logits(model), logits(patient))
    assert model.config.get_text_config().vocab_size == rows == logits(model).shape[-1]
    assert len(list(out.glob("*.safetensors"))) > 2
    for at in ("get_input_embeddings", "get_output_embeddings"):
        old, new = (getattr(one, at)().weight for one in (plain, model))
        assert torch.equal(new[:common], old[:common])
        mean = old.double().mean(0).float().expand(rows - common, -1)
        assert torch.allclose(new[common:], mean, rtol=0, atol=1e-9)
    preview = made.preview(plan)
    assert preview.parameters == sum(p.numel() for p in model.parameters())
    assert preview.bytes == sum(t.nbytes for t in stored(out).values())
    assert patient.num_parameters() == preview.parameters  # tied ones are one
    again = Base.open(str(out))
    assert again.tokenizer.get_vocab() == base.tokenizer.get_vocab()
    assert resize_embeddings(again) is again
    assert checked(tmp_path / "base", out)[0] == len(stored(out))


def test_a_patient_shares_the_rows_that_it_keeps(tiny_folder):
    base = Base.open(str(tiny_folder("llama")))
    patient = resize_embeddings(base).operate(Plan.whole(6)).model
    for name, parameter in patient.named_parameters():
        assert parameter.data_ptr() == base.model.get_parameter(name).data_ptr()
    assert base.model.lm_head.weight.shape == (128, 64)


def test_the_heads_bias_goes_along(tmp_path):
    sizes = dict(hidden_size=32, num_hidden_layers=4, num_attention_heads=2, intermediate_size=48)
    config = RobertaConfig(**sizes, vocab_size=128, is_decoder=True, tie_word_embeddings=False)
    for added in (0, 40):
        build.drawn_model(config, AutoModelForCausalLM).save_pretrained(tmp_path / f"base{added}")
        base = with_ids(tmp_path / f"base{added}", added)
        made, plan = resize_embeddings(base), Plan.whole(4)
        model = reload(made.save(plan, tmp_path / f"out{added}"))
        bias, old = model.lm_head.bias, base.model.lm_head.bias
        assert len(bias) == 98 + added
        assert torch.equal(bias[:98], old[:98])
        assert torch.allclose(bias[128:], old.mean())
        assert torch.equal(logits(model), logits(made.operate(plan).model))


def test_new_rows_are_converted_and_the_same_each_time(tmp_path):
    base = base_with(tmp_path / "base", "qwen3", 60, dtype=torch.bfloat16)
    outs = [
        resize_embeddings(base).save(Plan.whole(6), tmp_path / f"{i}", dtype=dtype)
        for i, dtype in enumerate([None, None, "float32"])
    ]
    one, two, wide = (stored(out)["lm_head.weight"] for out in outs)
    assert one.dtype == torch.bfloat16 and torch.equal(one, two)
    assert wide.dtype == torch.float32 and torch.equal(wide.to(torch.bfloat16), one)
    assert len({tuple(row.tolist()) for row in one[128:]}) == 1
    checked(tmp_path / "base", outs[2])


def test_verify_finds_a_wrong_bit_in_a_new_row(tmp_path):
    base = base_with(tmp_path / "base", added=52)
    out = resize_embeddings(base).save(Plan.whole(6), tmp_path / "out")
    path = out / "model.safetensors"
    with safe_open(path, "pt") as file:
        meta = file.metadata()
    tensors = load_file(path)
    tensors["lm_head.weight"][-1, -1] += 1
    save_file(tensors, path, metadata=meta)
    with pytest.raises(SaveError, match=r"lm_head\.weight differ from the base's"):
        checked(tmp_path / "base", out)


def test_the_record_is_what_verify_goes_by(tiny_folder, tmp_path):
    home = tiny_folder("llama")
    base = Base.open(str(home))
    out = resize_embeddings(base).save(Plan.whole(6), tmp_path / "out")
    further = Base.open(str(out)).save(Plan.parse("0:2", 6), tmp_path / "further")
    assert not (further / "resized_embeddings.json").exists()
    record = out / "resized_embeddings.json"
    assert json.loads(record.read_text()) == {"base_embeddings": 128, "embeddings": 98}
    card = (out / "README.md").read_text()
    assert "cropped from 128 to 98 embeddings: 30 belonged to no token" in card
    assert f'"{Plan.whole(6)}" OUT --resize-embeddings' in card
    assert f"| parameters | {base.preview(Plan.whole(6)).parameters:,} |" in card
    for text, message in (
        ('{"base_embeddings": 100, "embeddings": 98}', "base with 100 embeddings"),
        ('{"base_embeddings": 128, "embeddings": 97}', r"is F32 \[98, 64\], not F32 \[97, 64\]"),
        ('{"base_embeddings": 128}', "can't be read"),
    ):
        record.write_text(text)
        with pytest.raises(SaveError, match=message):
            checked(home, out)
    record.unlink()
    with pytest.raises(SaveError, match=r"is F32 \[98, 64\], not F32 \[128, 64\]"):
        checked(home, out)


def refused(base, tmp_path, message):
    before = sorted(tmp_path.iterdir())
    with pytest.raises(Refused, match=message):
        resize_embeddings(base).save(Plan.whole(base.depth), tmp_path / "out")
    assert sorted(tmp_path.iterdir()) == before


def test_tokens_that_the_settings_need_keep_their_embeddings(tmp_path):
    """An image's tokens in the config of a multimodal model, and any in the generation config."""
    base = base_with(tmp_path / "a", "gemma3")
    refused(base, tmp_path, "boi_token_index in config.json is 100, which is no token of the tok")
    base = base_with(tmp_path / "b", eos_token_id=[2, 127])
    refused(base, tmp_path, r"eos_token_id in config\.json is 127")
    base_with(tmp_path / "c")
    for field, value in (("eos_token_id", 98), ("bad_words_ids", [[3], [4, 99]])):
        path = tmp_path / "c" / "generation_config.json"
        path.write_text(json.dumps({"pad_token_id": 0, field: value}))
        refused(Base.open(str(tmp_path / "c")), tmp_path, f"{field} in generation_config.json is 9")
    path.write_text(json.dumps({"eos_token_id": 97}))
    assert resize_embeddings(Base.open(str(tmp_path / "c"))).known_tokens == 98


@pytest.mark.parametrize("kind", ["gemma3n_text", "gemma4_text"])
def test_embeddings_per_layer_are_refused(tmp_path, kind):
    build.model(kind).save_pretrained(tmp_path / "base")
    refused(with_ids(tmp_path / "base"), tmp_path, "the config has vocab_size_per_layer_input")


def test_what_can_not_be_resized(tmp_path):
    base = base_with(tmp_path / "base")
    config = json.loads((tmp_path / "base" / "config.json").read_text())
    shutil.copytree(tmp_path / "base", tmp_path / "packed")
    config["quantization_config"] = {"quant_method": "fp8", "weight_block_size": [32, 32]}
    (tmp_path / "packed" / "config.json").write_text(json.dumps(config))
    refused(Base.open(str(tmp_path / "packed")), tmp_path, "quantized, so its embeddings can't")
    tiny.model("llama").save_pretrained(tmp_path / "mute")
    refused(Base.open(str(tmp_path / "mute")), tmp_path, "mute has no tokenizer")
    file = tiny_gguf.write(tmp_path / "m.gguf")
    refused(Base.open(str(file)), tmp_path, "is a GGUF file, whose tokenizer is rebuilt")
    refused(base_with(tmp_path / "other", added=500), tmp_path, "belongs to another model")
    # A tensor that the model has no place for, with something for each token.
    tensors = load_file(tmp_path / "base" / "model.safetensors")
    path = tmp_path / "base" / "model.safetensors"
    save_file({**tensors, "seen.tokens": torch.zeros(3, 128)}, path, metadata={"format": "pt"})
    refused(Base.open(str(tmp_path / "base")), tmp_path, r"seen.tokens, of shape \[3, 128\]")
    assert base.known_tokens == 128


def test_a_stack_is_resized_as_a_whole(tmp_path):
    one = base_with(tmp_path / "one", added=40)
    two = base_with(tmp_path / "two", added=40)
    plan = Plan.parse("0:3, b/2:5", 6, {"b": 6})
    made, flat = stack(one, {"b": two}, plan)
    out = resize_embeddings(made).save(flat, tmp_path / "out")
    assert reload(out).config.vocab_size == 138
    homes = {"b": str(tmp_path / "two")}
    verify_saved(out, str(tmp_path / "one"), lambda *args: None, Base.open, homes)
    # Rows that no file has can't be stacked.
    grown, flat = stack(resize_embeddings(one), {"b": resize_embeddings(two)}, plan)
    with pytest.raises(Refused, match="are in no file yet"):
        grown.save(flat, tmp_path / "never")


def test_on_the_command_line(tiny_folder, tmp_path, capsys):
    from surgery.cli.main import main

    home, out = str(tiny_folder("llama")), tmp_path / "out"
    assert main(["save", home, "0:4", str(out), "--resize-embeddings"]) == 0
    assert "Cropped from 128 to 98 embeddings: 30" in capsys.readouterr().err
    assert AutoTokenizer.from_pretrained(out) and reload(out).config.vocab_size == 98
    assert main(["verify", str(out), home]) == 0
    assert main(["save", home, "0:3", str(out), "--resize-embeddings", "--overwrite"]) == 0
    assert main(["save", str(out), "0:2", str(tmp_path / "two"), "--resize-embeddings"]) == 0
    assert "Not resized: the tokenizer has as many ids, 98." in capsys.readouterr().err
    assert main(["preview", home, "0:4", "--resize-embeddings", "--json"]) == 0
    parameters = json.loads(capsys.readouterr().out)["parameters"]
    assert parameters == Base.open(home).preview(Plan.parse("0:4", 6)).parameters - 2 * 30 * 64
    assert main(["save", home, "0:4", str(tmp_path / "x.gguf"), "--resize-embeddings"]) == 1
    assert "--resize-embeddings is for folders" in capsys.readouterr().err
