"""Stacks of several bases: the right tensor from the right base, or a refusal that says why."""

import copy
import json
import shlex
from functools import cache

import oracle
import pytest
import tiny
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    CamembertConfig,
    GraniteConfig,
    RobertaConfig,
)

from surgery import Base, Plan, Refused, RepairSettings, repair, stack
from surgery.architecture import Anatomy
from surgery.architecture.apply.combine import combine
from surgery.healing import HealingRun, Settings, estimate_cost
from surgery.recipes.export import of_base
from surgery.recipes.recipe import read


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


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Two bases that nobody changes."""
    folder = tmp_path_factory.mktemp("pair")
    return save(folder / "one", seed=1), save(folder / "two", seed=2)


@pytest.mark.parametrize(
    "text", ["0:4, b/2:6", "b/0:2, 1:6", "0:2, b/1:3, 5", "b/0:6", "0:6, b/0:6"]
)
def test_memory_disk_and_hand_agree(pair, tmp_path, text):
    one, two = pair
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
        m.generate(ids[:, :5], max_new_tokens=4, do_sample=False, use_cache=c, pad_token_id=0)
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


def test_a_plan_of_one_base_is_left_alone(pair):
    base, _ = pair
    plan = Plan.parse("0:3", 6)
    assert stack(base, {}, plan) == (base, plan)


def save_roberta(folder, seed, kind=RobertaConfig, **changes):
    """A decoder that counts positions from its padding token's id."""
    sizes = dict(hidden_size=32, num_hidden_layers=4, num_attention_heads=2, intermediate_size=48)
    config = kind(**sizes, vocab_size=tiny.VOCAB, is_decoder=True, **changes)
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config)
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape) * 0.1)
    model.save_pretrained(folder)
    return Base.open(str(folder))


@pytest.fixture(scope="module")
def robertas(tmp_path_factory):
    """A function: two bases of a kind that nobody changes, with special tokens of their own."""

    @cache
    def made(kind):
        folder, free = tmp_path_factory.mktemp("robertas"), dict(tie_word_embeddings=False)
        return (
            save_roberta(folder / "one", 1, kind, pad_token_id=1, eos_token_id=2, **free),
            save_roberta(folder / "two", 2, kind, pad_token_id=9, eos_token_id=5, **free),
        )

    return made


def frankenstein(models, paths, plan):
    """The model of the plan's first layer, with layers and final modules from the others. For plans
    of the same depth, assembled without a config."""
    first, last = models[plan.layers[0].base], models[plan.layers[-1].base]
    made = copy.deepcopy(first)
    for path in paths:
        layers = made.get_submodule(path)
        for p, layer in enumerate(plan.layers):
            layers[p] = copy.deepcopy(models[layer.base].get_submodule(path)[layer.source])
            for module in layers[p].modules():
                if hasattr(module, "layer_idx"):
                    module.layer_idx = p
    made.lm_head = copy.deepcopy(last.lm_head)
    return made


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (RobertaConfig, "b/0:2, 2:4"),
        (RobertaConfig, "0:2, b/2:4"),
        (RobertaConfig, "b/0, 1:3, b/3"),
        (CamembertConfig, "b/0:2, 2:4"),
    ],
)
def test_token_ids_are_those_of_the_base_that_gives_the_embeddings(robertas, tmp_path, kind, text):
    one, two = robertas(kind)
    plan = Plan.parse(text, 4, {"b": 4})
    made, flat = stack(one, {"b": two}, plan)
    patient = made.operate(flat).model
    models, paths = {"": one.model, "b": two.model}, one.anatomy.stack.paths
    expected = oracle.of(frankenstein(models, paths, plan), paths, tiny.tokens(12)).logits(range(4))
    loaded = AutoModelForCausalLM.from_pretrained(made.save(flat, tmp_path / "out"))
    with torch.no_grad():
        for model in (patient, loaded):
            assert torch.equal(model(input_ids=tiny.tokens(12)).logits, expected)
    lead = models[plan.layers[0].base]
    for field in ("pad_token_id", "eos_token_id"):
        wanted = getattr(lead.config, field)
        assert getattr(patient.config, field) == getattr(loaded.config, field) == wanted
        assert getattr(patient.generation_config, field) == wanted
        assert getattr(loaded.generation_config, field) == wanted


def test_layers_of_another_base_alone_are_a_plan_of_that_base(pair, tmp_path):
    one, two = pair[0], save(tmp_path / "two", "mistral")
    made, flat = stack(one, {"b": two}, Plan.parse("b/0:2, b/1@identity, b/4", 6, {"b": 6}))
    assert made is two and str(flat) == "0:2, 1@identity, 4"


def test_tokenizer_and_templates_are_those_of_the_base_that_gives_the_embeddings(tmp_path):
    one, two = save(tmp_path / "one"), save(tmp_path / "two", seed=2)
    for name, ending in (("one", "<pad>"), ("two", "</s>")):
        words = tiny.tokenizer()
        words.chat_template = f"{name}: {{{{ messages[0]['content'] }}}}"
        words.eos_token = ending
        words.save_pretrained(tmp_path / name)
        (tmp_path / name / "generation_config.json").write_text(
            json.dumps({"eos_token_id": 0 if name == "one" else 2, "pad_token_id": 7})
        )
    made, flat = stack(one, {"b": two}, Plan.parse("b/0:2, 2:6", 6, {"b": 6}))
    out = made.save(flat, tmp_path / "out")
    for words in (made.tokenizer, AutoTokenizer.from_pretrained(out)):
        assert words.chat_template.startswith("two") and words.eos_token == "</s>"
    written = json.loads((out / "generation_config.json").read_text())
    assert written["eos_token_id"] == 2
    assert made.operate(flat).model.generation_config.eos_token_id == 2


def test_bases_that_compute_in_two_dtypes_are_refused(pair, tmp_path):
    one, _ = pair
    two = save(tmp_path / "two", dtype=torch.bfloat16)
    with pytest.raises(Refused, match="one is float32 and two is bfloat16"):
        stack(one, {"b": two}, Plan.parse("0:4, b/2:6", 6, {"b": 6}))


def test_towers_beside_the_text_model_are_compared(tmp_path):
    """Their settings are not in the text config, which describes the layers."""
    one, two = (tiny.config("gemma3") for _ in range(2))
    two.vision_config.layer_norm_eps = 1e-3
    two.vision_config.dtype = "bfloat16"
    anatomies = {"one": Anatomy.of(one), "two": Anatomy.of(two)}
    with pytest.raises(Refused, match="vision_config differs"):
        combine(anatomies)
    two.vision_config.layer_norm_eps = one.vision_config.layer_norm_eps
    assert combine(anatomies).text_config.num_hidden_layers == 12


@pytest.mark.parametrize(
    ("family", "changes", "message"),
    [
        ("llama", dict(hidden_size=32), "hidden_size is 64 in one and 32"),
        ("llama", dict(rope_parameters={"rope_type": "default", "rope_theta": 5e5}), "rope_param"),
        ("llama", dict(num_key_value_heads=4), "num_key_value_heads"),
        ("llama", dict(rms_norm_eps=1e-3), "rms_norm_eps"),
        ("mistral", {}, "model_type"),
        ("qwen2", dict(sliding_window=4), "sliding_window"),
    ],
)
def test_what_does_not_fit_is_named(family, changes, message):
    one, two = "llama" if family == "mistral" else family, tiny.config(family, **changes)
    with pytest.raises(Refused, match=message):
        combine({"one": Anatomy.of(tiny.config(one)), "two": Anatomy.of(two)})


def test_a_stack_of_what_does_not_fit_is_refused(pair, tmp_path):
    two = save(tmp_path / "two", rms_norm_eps=1e-3)
    with pytest.raises(Refused, match="rms_norm_eps"):
        stack(pair[0], {"b": two}, Plan.parse("0:4, b/2:6", 6, {"b": 6}))


@pytest.mark.parametrize(
    "field",
    ["embedding_multiplier", "logits_scaling", "residual_multiplier", "attention_multiplier"],
)
def test_multipliers_have_to_agree(field):
    sizes = {k: v for k, v in tiny.FAMILIES["llama"][1].items() if k != "head_dim"}
    anatomies = {n: Anatomy.of(GraniteConfig(**sizes, **{field: n})) for n in (0.5, 2.0)}
    with pytest.raises(Refused, match=f"{field} is 0.5 in one and 2.0"):
        combine(anatomies)


def test_tied_embeddings_can_not_come_from_two_bases(tmp_path):
    one, two = (save(tmp_path / n, "llama-tied-biased", seed=i) for i, n in enumerate("ab"))
    with pytest.raises(Refused, match="one tensor"):
        stack(one, {"b": two}, Plan.parse("0:4, b/2:6", 6, {"b": 6}))
    made, flat = stack(one, {"b": two}, Plan.parse("0:2, b/2:4, 4:6", 6, {"b": 6}))
    patient = made.operate(flat).model
    assert patient.lm_head.weight is patient.model.embed_tokens.weight
    assert patient.lm_head.weight.data_ptr() == one.model.lm_head.weight.data_ptr()


def with_tokens(folder, seed, rows=tiny.VOCAB, added=(), family="llama"):
    """A base whose tokenizer has more tokens, and one embedding or more for each."""
    save(folder, family, seed, vocab_size=rows)
    tokenizer = tiny.tokenizer()
    tokenizer.add_tokens(list(added))
    tokenizer.save_pretrained(folder)
    return Base.open(str(folder))


def test_different_vocabularies_are_refused(tmp_path):
    one = with_tokens(tmp_path / "one", 1, added=["red", "green", "blue", "grey", "pink"])
    two = with_tokens(tmp_path / "two", 2, added=["green", "red", "blue", "pink", "grey", "xx"])
    with pytest.raises(Refused, match=r"4 of their tokens .*“green” is token 99 in one and 98"):
        stack(one, {"b": two}, Plan.parse("0:4, b/2:6", 6, {"b": 6}))
    bare = save(tmp_path / "bare", vocab_size=100)
    with pytest.raises(Refused, match=r"128 embeddings and bare has 100\. Without both tokenizers"):
        stack(one, {"b": bare}, Plan.parse("0:4, b/2:6", 6, {"b": 6}))


@pytest.mark.parametrize(
    ("family", "rows", "added"),
    [
        ("llama", (112, 128), ([], [])),
        ("llama", (128, 112), (["a b"], [])),
        ("llama", (128, 128), ([], ["xx"])),
        ("llama-tied-biased", (112, 128), ([], [])),
    ],
)
def test_vocabularies_that_agree_where_they_overlap(tmp_path, family, rows, added):
    """Padded, or with added tokens: embeddings and head are the first base's."""
    one, two = (
        with_tokens(tmp_path / name, i, rows[i], added[i], family)
        for i, name in enumerate(["one", "two"])
    )
    plan = Plan.parse("0:4, b/2:6", 6, {"b": 6})
    made, flat = stack(one, {"b": two}, plan)
    assert made.note == "embeddings and head of one, for its vocabulary"
    ids, bases = tiny.tokens(12) % 98, {"": one.model, "b": two.model}
    with torch.no_grad():
        last = copy.deepcopy(two.model)
        last.lm_head = one.model.lm_head
        expected = by_hand({**bases, "b": last}, "model.layers", plan, ids)
        assert torch.equal(made.operate(flat).model(input_ids=ids).logits, expected)
        out = made.save(flat, tmp_path / "out")
        model = AutoModelForCausalLM.from_pretrained(out)
        assert torch.equal(model(input_ids=ids).logits, expected)
    assert model.config.vocab_size == rows[0] == made.known_tokens
    assert made.preview(flat).parameters == sum(p.numel() for p in model.parameters())
    assert AutoTokenizer.from_pretrained(out).get_vocab() == one.tokenizer.get_vocab()
    assert made.note in (out / "README.md").read_text()


def test_the_command_line_stacks_too(pair, tmp_path, capsys):
    from surgery.cli.main import main

    homes = [one.source.home for one in pair]
    base, other = str(homes[0]), f"b={homes[1]}"
    out = tmp_path / "out"
    assert main(["save", base, "0:4, b/2:6", str(out), "--with", other]) == 0
    assert AutoModelForCausalLM.from_pretrained(out).config.num_hidden_layers == 8
    capsys.readouterr()
    assert main(["recipe", base, "0:4, b/2:6", "--with", other]) == 0
    message = capsys.readouterr().out
    assert all(f"model: {home}\n" in message for home in homes)
    assert message.count("- 2\n") == 1
    assert main(["preview", base, "0:4, c/2:6", "--with", other]) == 1
    assert "names a base that is not known (b)" in capsys.readouterr().err
    assert main(["preview", base, "0:4", "--with", "x"]) == 1
    assert "should be NAME=BASE" in capsys.readouterr().err


@pytest.mark.parametrize("depths", [(6, 6, 3), (3, 6, 3), (6, 3, 9), (3, 3, 3)])
def test_configs_of_three_bases_of_different_depths(depths):
    kinds = ["sliding_attention", "sliding_attention", "full_attention"]
    llamas = [tiny.config("llama", num_hidden_layers=depth) for depth in depths]
    gemmas = [
        tiny.config("gemma3_text", num_hidden_layers=depth, layer_types=kinds * (depth // 3))
        for depth in depths
    ]
    made = [combine(dict(enumerate(map(Anatomy.of, each)))) for each in (llamas, gemmas)]
    assert [config.num_hidden_layers for config in made] == [sum(depths)] * 2
    assert made[1].layer_types == kinds * (sum(depths) // 3)


def test_bases_of_one_name_are_told_apart_in_recipes(tmp_path, capsys):
    from surgery.cli.main import main

    one, two = (save(tmp_path / f"run{seed}/final", seed=seed) for seed in (1, 2))
    base, other = f"{tmp_path}/run1/final", f"b={tmp_path}/run2/final"
    made, flat = stack(one, {"b": two, "c": one}, Plan.parse("0, b/1, c/2", 6, {"b": 6, "c": 6}))
    assert made.parts == (("final", 0), ("final-2", 6), ("final", 12))
    recipe = read(of_base(made, flat, made.recipe_name, None))
    assert recipe.names == {"final": "", "final-2": "b"}
    out = str(tmp_path / "out")
    assert main(["save", base, "0:4, b/2:6", out, "--with", other]) == 0
    assert main(["verify", out, base, "--with", other]) == 0
    assert main(["verify", out, base, "--with", f"b={base}"]) == 1
    assert "all as planned" in capsys.readouterr().out


def test_the_card_s_command_makes_the_stack_again(tmp_path, monkeypatch):
    from surgery.cli.main import main

    one, two = save(tmp_path / "one", seed=1), save(tmp_path / "the other", seed=2)
    made, flat = stack(one, {"x": two}, Plan.parse("0:2, x/1:3@scale=0.5, 5", 6, {"x": 6}))
    out = made.save(flat, tmp_path / "out")
    card = (out / "README.md").read_text()
    assert "**0:2, b/1:3@scale=0.5, 5**" in card and "`b/` marks layers of the other." in card
    block = card.rpartition("```bash")[2].partition("```")[0]
    monkeypatch.chdir(tmp_path)
    for line in block.strip().splitlines():
        words = shlex.split(line.replace("BASE", "./one"), comments=True)
        if words[:3] == ["python", "-m", "surgery"]:
            words = [word.replace("=the other", "=./the other") for word in words]
            assert main([word.replace("OUT", "again") for word in words[3:]]) == 0
    for name in ("model.safetensors", "recipe.yaml", "config.json"):
        assert (tmp_path / "again" / name).read_bytes() == (out / name).read_bytes()


def test_a_card_without_a_recipe_names_none(pair, tmp_path):
    base, _ = pair
    out = base.save(Plan.parse("0:2, 3@random", 6), tmp_path / "out")
    card = (out / "README.md").read_text()
    assert not (out / "recipe.yaml").exists() and "recipe.yaml" not in card
    assert 'surgery save BASE "0:2, 3@random" OUT ' in card and "verify OUT BASE" not in card


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


def test_without_an_uncut_base_nothing_is_healed_or_repaired(pair, tmp_path):
    """A whole stack is all layers of one base before all of the other: no model to learn from."""
    one, two = pair
    made, flat = stack(one, {"b": two}, Plan.parse("0:4, b/2:6", 6, {"b": 6}))
    settings = Settings(steps=1)
    for attempt in (
        lambda: HealingRun(made, flat, settings, tmp_path / "run"),
        lambda: estimate_cost(made, flat, settings),
        lambda: repair(made, flat, RepairSettings("damped")),
    ):
        with pytest.raises(Refused, match=r"no uncut base .* save this model, then heal or repair"):
            attempt()
    assert not (tmp_path / "run").exists()
