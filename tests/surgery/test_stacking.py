"""Stacks of several bases: the right tensor from the right base, or a refusal that says why."""

import pytest
import tiny
import torch
from transformers import AutoModelForCausalLM

from surgery import Base, Plan, Refused, stack


def save(folder, family="llama", seed=1, **changes):
    """A tiny base with weights of its own."""
    model = tiny.model(family, **changes)
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape) * 0.05)
    model.save_pretrained(folder)
    return Base.open(str(folder))


def by_hand(models, path, plan, ids):
    """Logits of the first base's embeddings, the plan's layers and the last base's head."""
    first, last = models[plan.layers[0].base], models[plan.layers[-1].base]
    inner = first.model
    hidden = inner.embed_tokens(ids)
    positions = torch.arange(ids.shape[1])[None]
    rotary = inner.rotary_emb(hidden, positions)
    for layer in plan.layers:
        block = models[layer.base].model.layers[layer.source]
        hidden = block(hidden, position_embeddings=rotary, position_ids=positions)
        hidden = hidden[0] if isinstance(hidden, tuple) else hidden
    return last.lm_head(last.model.norm(hidden))


@pytest.mark.parametrize(
    "text", ["0:4, b/2:6", "b/0:2, 1:6", "0:2, b/1:3, 5", "b/0:6", "0:6, b/0:6"]
)
def test_memory_disk_and_hand_agree(tmp_path, text):
    one, two = save(tmp_path / "one", seed=1), save(tmp_path / "two", seed=2)
    plan = Plan.parse(text, 6, {"b": 6})
    made, flat = stack(one, {"b": two}, plan)
    patient = made.operate(flat)
    ids = tiny.tokens(12)
    models = {"": one.model, "b": two.model}
    with torch.no_grad():
        expected = by_hand(models, "model.layers", plan, ids)
        assert torch.equal(patient.model(input_ids=ids).logits, expected)
        out = made.save(flat, tmp_path / "out")
        loaded, info = AutoModelForCausalLM.from_pretrained(out, output_loading_info=True)
        assert not info["missing_keys"] and not info["unexpected_keys"]
        assert torch.equal(loaded(input_ids=ids).logits, expected)
    assert made.preview(flat).parameters == sum(p.numel() for p in loaded.parameters())
    own = {p.data_ptr() for model in models.values() for p in model.parameters()}
    assert {p.data_ptr() for p in patient.model.parameters()} <= own
    greedy = [
        m.generate(ids[:, :5], max_new_tokens=8, do_sample=False, use_cache=c, pad_token_id=0)
        for m, c in ((patient.model, True), (patient.model, False), (loaded, True))
    ]
    assert torch.equal(greedy[0], greedy[1]) and torch.equal(greedy[0], greedy[2])


def test_kinds_of_layers_and_depths_may_differ(tmp_path):
    one = save(tmp_path / "one", "gemma3_text")
    kinds = ["full_attention", "sliding_attention", "sliding_attention", "full_attention"]
    two = save(tmp_path / "two", "gemma3_text", num_hidden_layers=4, layer_types=kinds)
    plan = Plan.parse("0:3, b/0:4, 5", 6, {"b": 4})
    made, flat = stack(one, {"b": two}, plan)
    config = made.operate(flat).model.config
    assert config.layer_types == [*one.anatomy.config.layer_types[:3], *kinds, "full_attention"]


def test_a_plan_of_one_base_is_left_alone(tmp_path):
    base = save(tmp_path / "one")
    plan = Plan.parse("0:3", 6)
    assert stack(base, {}, plan) == (base, plan)


@pytest.mark.parametrize(
    ("family", "changes", "said"),
    [
        ("llama", dict(hidden_size=32), "hidden_size is 64 in one and 32"),
        ("llama", dict(vocab_size=100), "vocab_size is 128 in one and 100"),
        ("llama", dict(rope_parameters={"rope_type": "default", "rope_theta": 5e5}), "rope_param"),
        ("llama", dict(num_key_value_heads=4), "num_key_value_heads"),
        ("llama", dict(rms_norm_eps=1e-3), "rms_norm_eps"),
        ("mistral", {}, "model_type"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, family, changes, said):
    one = save(tmp_path / "one")
    two = save(tmp_path / "two", family, **changes)
    with pytest.raises(Refused, match=said):
        stack(one, {"b": two}, Plan.parse("0:4, b/2:6", 6, {"b": 6}))


def test_tied_embeddings_can_not_come_from_two_bases(tmp_path):
    one, two = (save(tmp_path / n, "llama-tied-biased", seed=i) for i, n in enumerate("ab"))
    with pytest.raises(Refused, match="one tensor"):
        stack(one, {"b": two}, Plan.parse("0:4, b/2:6", 6, {"b": 6}))
    made, flat = stack(one, {"b": two}, Plan.parse("0:2, b/2:4, 4:6", 6, {"b": 6}))
    patient = made.operate(flat).model
    assert patient.lm_head.weight is patient.model.embed_tokens.weight
    assert patient.lm_head.weight is one.model.lm_head.weight


def test_vocabularies_are_compared(tmp_path):
    one, two = save(tmp_path / "one"), save(tmp_path / "two")
    tiny.tokenizer().save_pretrained(tmp_path / "one")
    other = tiny.tokenizer()
    other.add_tokens(["extra"])
    other.save_pretrained(tmp_path / "two")
    with pytest.raises(Refused, match="different vocabularies"):
        stack(one, {"b": two}, Plan.parse("0:4, b/2:6", 6, {"b": 6}))


def test_the_command_line_stacks_too(tmp_path, capsys, monkeypatch):
    from surgery.cli import main

    save(tmp_path / "one", seed=1)
    save(tmp_path / "two", seed=2)
    base, other = str(tmp_path / "one"), f"b={tmp_path}/two"
    out = tmp_path / "out"
    assert main(["save", base, "0:4, b/2:6", str(out), "--with", other]) == 0
    assert AutoModelForCausalLM.from_pretrained(out).config.num_hidden_layers == 8
    capsys.readouterr()
    assert main(["recipe", base, "0:4, b/2:6", "--with", other]) == 0
    said = capsys.readouterr().out
    assert "model: one" in said and "model: two" in said and said.count("- 2\n") == 1
    assert main(["preview", base, "0:4, c/2:6", "--with", other]) == 1
    assert "names a base that is not known (b)" in capsys.readouterr().err
    assert main(["preview", base, "0:4", "--with", "x"]) == 1
    assert "should be NAME=BASE" in capsys.readouterr().err


def test_towers_come_with_the_embeddings_that_they_feed(tmp_path):
    one, two = save(tmp_path / "one", "gemma3", seed=1), save(tmp_path / "two", "gemma3", seed=2)
    made, flat = stack(one, {"b": two}, Plan.parse("b/0:2, 2:5, b/5", 6, {"b": 6}))
    out = made.save(flat, tmp_path / "out")
    loaded = AutoModelForCausalLM.from_pretrained(out)
    towers = {n: t for n, t in loaded.state_dict().items() if made.anatomy.is_tower(n)}
    assert towers
    for name, tensor in towers.items():
        assert torch.equal(tensor, two.model.state_dict()[name])
        assert not torch.equal(tensor, one.model.state_dict()[name])
    ids = tiny.tokens(12)
    with torch.no_grad():
        logits = made.operate(flat).model(input_ids=ids).logits
        assert torch.equal(loaded(input_ids=ids).logits, logits)
