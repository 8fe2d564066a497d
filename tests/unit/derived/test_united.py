"""Stacks with the added tokens of all bases: the first's ids, the others' rows behind them."""

import json
import shutil
import sys
from functools import cache

import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file
from transformers import AddedToken, AutoModelForCausalLM, AutoTokenizer

from surgery import Base, Plan, Refused, SaveError, stack, stack_united
from surgery.verification.saved import verify_saved

PLAN = Plan.parse("0:4, b/2:6", 6, {"b": 6})


def base_with(folder, seed, *added, family="llama", **changes):
    """A tiny base with weights of its own, 128 embeddings, and tokens behind the common 98."""
    model = tiny.model(family, **changes)
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, dtype=parameter.dtype) * 0.05)
    model.save_pretrained(folder)
    words = tiny.tokenizer()
    words.add_tokens([AddedToken(word, special=True, normalized=False) for word in added])
    words.chat_template = f"{folder.name}: {{{{ messages[0]['content'] }}}}"
    words.save_pretrained(folder)
    return Base.open(str(folder))


def logits(model, ids):
    with torch.no_grad():
        return model(input_ids=ids).logits


def verified(out, one, two):
    homes = {"b": str(two.source.home)}
    return verify_saved(out, str(one.source.home), lambda *args: None, Base.open, homes)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Two bases that nobody changes, each with a token that the other lacks."""
    folder = tmp_path_factory.mktemp("pair")
    return base_with(folder / "one", 1, "<p>"), base_with(folder / "two", 2, "<q>")


@pytest.fixture(scope="module")
def apart(tmp_path_factory):
    """A function: two bases of a family that nobody changes. One has added <pad2> and the other
    ChatML's tokens, one of which both have."""

    @cache
    def made(family):
        folder = tmp_path_factory.mktemp("apart")
        changes = {}
        if family == "gemma3":
            changes = dict(boi_token_index=95, eoi_token_index=96, image_token_index=97)
        added = {"one": ("<pad2>", "<|im_end|>"), "two": ("<|im_start|>", "<|im_end|>", "<|x|>")}
        return [
            base_with(folder / name, seed, *words, family=family, **changes)
            for seed, (name, words) in enumerate(added.items(), 1)
        ]

    return made


@pytest.mark.parametrize(
    ("text", "family"),
    [
        ("0:4, b/2:6", "llama"),
        ("0:2, b/2:4, 4:6", "llama"),
        ("0:4, b/2:6", "llama-tied-biased"),
        ("0:2, b/2:4, 4:6", "gemma3"),
    ],
)
def test_tokens_at_the_same_ids_stay_apart(apart, tmp_path, text, family):
    one, two = apart(family)
    plan = Plan.parse(text, 6, {"b": 6})
    with pytest.raises(Refused, match=r"“<pad2>” is token \d+ in one.*--union-vocabulary"):
        stack(one, {"b": two}, plan)
    made, flat = stack_united(one, {"b": two}, plan)
    ids = {word: one.tokenizer.get_vocab()[word] for word in ("<pad2>", "<|im_end|>")}
    first = max(one.tokenizer.get_vocab().values()) + 1
    ids |= {"<|im_start|>": first, "<|x|>": first + 1}
    words = made.tokenizer.get_vocab()
    assert words == {**one.tokenizer.get_vocab(), **ids} and made.known_tokens == first + 2
    assert "extended by 2 added tokens of two: <|im_start|>, <|x|>" in made.note

    out, patient = made.save(flat, tmp_path / "out", shard_size="60KB"), made.operate(flat)
    model = AutoModelForCausalLM.from_pretrained(out).eval()
    saved = AutoTokenizer.from_pretrained(out)
    assert saved.get_vocab() == words
    for name in ("get_input_embeddings", "get_output_embeddings"):
        rows, ours, theirs = (getattr(m, name)().weight for m in (model, one.model, two.model))
        assert torch.equal(rows[:first], ours[:first])
        for word in ("<|im_start|>", "<|x|>"):
            assert torch.equal(rows[words[word]], theirs[two.tokenizer.get_vocab()[word]])
        assert torch.equal(rows, getattr(patient.model, name)().weight)
    text = "a<|im_start|>b<|im_end|><|x|><pad2>"
    tokens = made.tokenizer(text).input_ids
    assert tokens == saved(text).input_ids and set(ids.values()) <= set(tokens)
    batch = torch.tensor([tokens])
    assert torch.equal(logits(model, batch), logits(patient.model, batch))
    assert made.preview(flat).parameters == sum(p.numel() for p in model.parameters())
    assert saved.chat_template.startswith("one")
    assert saved.added_tokens_decoder[first].special
    verified(out, one, two)
    stream = patient.stream("a<|x|>b", max_new_tokens=4, greedy=True)
    list(stream)
    greedy = model.generate(
        torch.tensor([stream.prompt_ids]), max_new_tokens=4, do_sample=False, pad_token_id=0
    )
    assert greedy[0, len(stream.prompt_ids) :].tolist() == stream.ids
    again = Base.open(str(out))
    assert again.tokenizer.get_vocab() == words and again.known_tokens == first + 2


def test_verify_follows_the_record(pair, tmp_path):
    one, two = pair
    made, flat = stack_united(one, {"b": two}, PLAN)
    out = made.save(flat, tmp_path / "out")
    record = json.loads((out / "resized_embeddings.json").read_text())
    assert (record["base_embeddings"], record["embeddings"]) == (128, 100)
    assert "OUT --union-vocabulary" in (out / "README.md").read_text()
    path = out / "model.safetensors"
    tensors = load_file(path)
    tensors["lm_head.weight"][99] = one.model.lm_head.weight[98]
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(SaveError, match=r"lm_head\.weight differ"):
        verified(out, one, two)
    (out / "resized_embeddings.json").unlink()
    with pytest.raises(Refused, match="different vocabularies"):
        verified(out, one, two)


def test_the_same_tokens_in_another_order_add_none(tmp_path):
    one = base_with(tmp_path / "one", 1, "<p>", "<q>")
    two = base_with(tmp_path / "two", 2, "<q>", "<p>")
    made, flat = stack_united(one, {"b": two}, PLAN)
    assert made.tokenizer.get_vocab() == one.tokenizer.get_vocab() and made.known_tokens == 100
    verified(made.save(flat, tmp_path / "out"), one, two)
    same, flat = stack_united(one, {"b": one}, PLAN)
    assert same.known_tokens == 128 and not same.union


def test_what_can_not_be_united(pair, tmp_path):
    one, two = pair
    home = two.source.home

    def refused(other, message):
        before = sorted(tmp_path.iterdir())
        with pytest.raises(Refused, match=message):
            stack_united(one, {"b": other}, PLAN)
        assert sorted(tmp_path.iterdir()) == before

    shutil.copytree(home, tmp_path / "renamed")
    path = tmp_path / "renamed" / "tokenizer.json"
    fields = json.loads(path.read_text())
    fields["model"]["vocab"]["green"] = fields["model"]["vocab"].pop("g")
    path.write_text(json.dumps(fields))
    refused(Base.open(str(tmp_path / "renamed")), "“g” is token .* A union needs the same voc")
    tiny.model("llama").save_pretrained(tmp_path / "mute")
    refused(Base.open(str(tmp_path / "mute")), "mute has no fast tokenizer")
    many = base_with(tmp_path / "many", 3, *(f"<{i}>" for i in range(40)))
    refused(many, "“<30>” is token 128 of many, which has embeddings only for the first 128")
    tensors = load_file(home / "model.safetensors")
    tensors["lm_head.weight"] = tensors["lm_head.weight"].bfloat16()
    shutil.copytree(home, tmp_path / "mixed")
    save_file(tensors, tmp_path / "mixed" / "model.safetensors", metadata={"format": "pt"})
    refused(Base.open(str(tmp_path / "mixed")), "lm_head.weight is stored as F32 in one base and")
    padded = base_with(tmp_path / "padded", 4, "<p>", pad_token_id=120)
    with pytest.raises(Refused, match=r"pad_token_id in config\.json is 120"):
        stack_united(padded, {"b": two}, PLAN)


def test_on_the_command_line(pair, tmp_path, capsys, monkeypatch, warm):
    from surgery.cli.main import main

    monkeypatch.setattr(sys, "executable", warm.executable)  # for what runs transformers
    monkeypatch.setattr("surgery.verification.folder.TEXTS", ("ab", "a<q>c"))
    # One text of each model, which no other test may find in the cache.
    monkeypatch.setattr("surgery.skills.repetition.PROMPTS", ("Water boils when",))
    monkeypatch.setenv("LAYER_SURGERY_CACHE", str(tmp_path / "cache"))
    # As many tokens as characters: more than are read to find out how many it takes.
    words = "the quick brown fox jumps over the lazy dog " * 16

    base, other = (str(each.source.home) for each in pair)
    given, second = [base, "0:4, b/2:6"], ["--with", f"b={other}"]
    both, out = [*second, "--union-vocabulary"], tmp_path / "out"
    assert main(["save", *given, str(out), *both]) == 0
    assert "extended by 1 added token of two: <q>" in capsys.readouterr().err
    assert main(["verify", str(out), base, *second]) == 0
    assert main(["preview", *given, *both]) == 0
    assert main(["generate", *given, "--prompt", "a<q>", "--max-new-tokens", "3", *both]) == 0
    text = tmp_path / "text.txt"
    text.write_text(words)
    capsys.readouterr()
    assert main(["compare", *given, *both, "--text", str(text), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["kl"]["nats_per_token"] > 0
    # A plan that begins with the other base follows its ids: “<p>” is none of them.
    text.write_text("the quick<p> brown fox " * 30)
    turned = [base, "b/0:4, 2:6", *both, "--text", str(text)]
    assert main(["compare", *turned]) == 1
    assert "“<p>” in the text is another token in" in " ".join(capsys.readouterr().err.split())
    text.write_text(words)
    assert main(["compare", *turned]) == 0
    assert main(["skills", *given, *both, "--items", "8"]) == 0
    assert main(["tokens", *given, *both, "--prompt", "a<q>", "--answer", " b"]) == 0
    for command in ("repair", "heal"):
        capsys.readouterr()
        assert main([command, *given, str(tmp_path / command), *both]) == 1
        assert "no uncut base to learn from" in " ".join(capsys.readouterr().err.split())
        assert not (tmp_path / command).exists()
    assert main(["verify", str(out), base, "--runtime", "transformers", *second]) == 0
    assert main(["save", *given, str(tmp_path / "o.gguf"), *both]) == 1
    assert "--union-vocabulary is for folders" in capsys.readouterr().err


def test_recipes_of_a_union(tmp_path, monkeypatch, capsys):
    """`recipe` names each base as it was named, so that what it prints makes the same model."""
    from surgery.cli.main import main

    monkeypatch.chdir(tmp_path)
    base_with(tmp_path / "one", 1, "<a>")
    base_with(tmp_path / "two", 2, "<b>")
    named = ["./one", "0:4, b/2:6", "--with", "b=./two"]
    assert main(["recipe", *named]) == 1
    assert "--union-vocabulary stacks them" in capsys.readouterr().err
    assert main(["recipe", *named, "--union-vocabulary", "--format", "python"]) == 0
    exec(capsys.readouterr().out, {})
    assert main(["recipe", *named, "--union-vocabulary"]) == 0
    printed = capsys.readouterr()
    assert "model: ./one" in printed.out and "model: ./two" in printed.out
    assert "keeps those of the first base alone" in " ".join(printed.err.split())
    (tmp_path / "again.yaml").write_text(printed.out)
    again = ["save", "./one", "@again.yaml", "again", "--union-vocabulary"]
    assert main(again) == 0
    for name in ("model.safetensors", "tokenizer.json", "config.json"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "out" / name).read_bytes()


def test_the_recipe_of_another_base_s_layers_names_that_one(pair, capsys):
    from surgery.cli.main import main

    base, other = (str(each.source.home) for each in pair)
    assert main(["recipe", base, "b/0:3", "--with", f"b={other}"]) == 0
    assert f"model: {other}" in capsys.readouterr().out
