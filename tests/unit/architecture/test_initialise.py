"""How repeated layers begin: identity, scaled, average, random; in memory and on disk alike."""

import pytest
import tiny
import torch
from transformers import AutoModelForCausalLM

from surgery import Base, Init, Plan, Refused
from surgery.architecture import Anatomy
from surgery.architecture.apply.build import build_patient
from surgery.architecture.inspect.anatomy import build_meta
from surgery.architecture.inspect.identity_proof import identity_layers

# All at once: what becomes of a layer doesn't depend on how others begin.
MANY = "0:3, 2@random, 3, 3@identity, 4@no-attention, 5@no-mlp, 5@random"
AVERAGE = "0:4, 3@average, 4:6"  # which some families have no mean for
AVERAGED = ("llama", "mixtral", "gemma2", "gemma3", "gpt2")


def logits(model, ids):
    with torch.no_grad():
        return model(input_ids=ids).logits


@pytest.mark.parametrize(
    ("family", "text"),
    [*((family, MANY) for family in tiny.FAMILIES), *((family, AVERAGE) for family in AVERAGED)],
)
def test_memory_and_disk_agree(tiny_folder, tmp_path, family, text):
    base = Base.open(str(tiny_folder(family)))
    plan = Plan.parse(text, tiny.DEPTH)
    ids = tiny.tokens(16)
    try:
        patient = base.operate(plan)
    except Refused as reason:  # Gemma's kinds of layers have no mean
        assert "different types" in str(reason) and "average" in text
        return
    out = base.save(plan, tmp_path / "out")
    loaded, info = AutoModelForCausalLM.from_pretrained(out, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    ours = patient.model.state_dict()
    assert ours.keys() == loaded.state_dict().keys()
    assert all(torch.equal(value, ours[name]) for name, value in loaded.state_dict().items())
    # Grouped products round differently where tensors lie differently in memory.
    torch.testing.assert_close(logits(loaded, ids), logits(patient.model, ids), atol=1e-5, rtol=0)
    assert not torch.allclose(logits(patient.model, ids), logits(base.model, ids))


def test_average_is_the_mean_with_the_next_layer_in_the_plan():
    model = tiny.model("llama")
    patient = build_patient(Anatomy.of(model.config), model, Plan.parse("0:3, 2@average, 5, 1", 6))
    old, new = model.model.layers, patient.model.layers
    for name, value in new[3].named_parameters():
        a, b = (old[i].get_parameter(name) for i in (2, 5))
        assert torch.equal(value, (a + b) / 2)
    own = {p.data_ptr() for p in model.parameters()}
    assert all(p.data_ptr() in own for i in (0, 1, 2, 4, 5) for p in new[i].parameters())


def test_average_needs_a_next_layer_of_its_kind():
    anatomy = Anatomy.of(tiny.config("llama"))
    with pytest.raises(Refused, match="the last layer has none"):
        build_patient(anatomy, tiny.model("llama"), Plan.parse("0:6@average", 6))
    model = tiny.model("gemma3_text")
    with pytest.raises(Refused, match="different types"):
        build_patient(Anatomy.of(model.config), model, Plan.parse("0, 1@average, 2:6", 6))


def test_random_layers_are_drawn_as_transformers_draws_them():
    config = dict(hidden_size=128, intermediate_size=256, initializer_range=0.02)
    model = tiny.model("llama", **config)
    anatomy = Anatomy.of(model.config)
    plan = Plan.parse("0:3, 2*2@random, 3:6", 6)
    one, two = (build_patient(anatomy, model, plan).model.layers for _ in range(2))
    for name, value in one[3].named_parameters():
        assert torch.equal(value, two[3].get_parameter(name))  # seeded
        if value.dim() == 1:
            assert torch.equal(value, torch.ones_like(value))  # norms
            continue
        assert not torch.equal(value, one[4].get_parameter(name))  # each layer its own
        assert abs(value.std().item() - 0.02) < 0.001 and abs(value.mean().item()) < 0.001
        beyond = (value.abs() > 0.04).float().mean().item()
        assert 0.03 < beyond < 0.06 and not (value == 0).any()  # a plain normal, nothing cut off


@pytest.mark.parametrize("family", ["gemma3", "gpt2", "mixtral"])
def test_the_identity_is_proven_for_the_common_families(family):
    anatomy = Anatomy.of(tiny.config(family))
    assert anatomy.identity_layers == set(range(tiny.DEPTH))


def test_what_is_not_the_identity_is_not_proven():
    """A layer that was tampered with computes something else, and the proof sees it."""

    def tampered(change):
        model = build_meta(tiny.config("llama"))
        change(model.model.layers[2])
        return identity_layers(model, ["model.layers"])

    assert tampered(lambda layer: None) == {0, 1, 2, 3, 4, 5}

    def wrap(layer, after):
        forward = layer.forward
        layer.forward = lambda *args, **kwargs: after(forward(*args, **kwargs))

    for after in (
        lambda hidden: hidden * 0.5,
        lambda hidden: hidden + 1,
        lambda hidden: torch.tanh(hidden),
        lambda hidden: hidden.flip(1),
        lambda hidden: hidden.mul_(2),
        lambda hidden: hidden.view(-1).add_(1).view(hidden.shape),
        lambda hidden: torch.nn.functional.layer_norm(hidden, hidden.shape[-1:]),
        lambda hidden: hidden.transpose(0, 1).reshape(hidden.shape) + hidden,
    ):
        assert tampered(lambda layer, after=after: wrap(layer, after)) == {0, 1, 3, 4, 5}
    harmless = [lambda hidden: hidden * 1.0, lambda hidden: (hidden + 0).clone()]
    for after in harmless:
        assert tampered(lambda layer, after=after: wrap(layer, after)) == {0, 1, 2, 3, 4, 5}

    def with_bias(layer):  # not zeroed, since nothing is called so
        layer.mlp.down_proj.extra = torch.nn.Parameter(torch.empty(64, device="meta"))
        forward = layer.mlp.forward
        layer.mlp.forward = lambda x: forward(x) + layer.mlp.down_proj.extra

    assert tampered(with_bias) == {0, 1, 3, 4, 5}


def test_a_layer_that_hands_on_more_than_hidden_states_is_not_the_identity():
    """Its attention selects indices that later layers use, whatever it adds."""
    from zoo import build

    for model_type in ("glm_moe_dsa", "hy_v4"):
        assert not Anatomy.of(build.config(model_type)).identity_layers


@pytest.mark.parametrize("model_type", ["mamba2", "falcon_h1"])
def test_blocks_are_told_apart_or_refused(model_type):
    """State-space layers are neither attention nor an MLP, and some layers have all three."""
    from zoo import build

    config = build.config(model_type)
    model = AutoModelForCausalLM.from_config(config)
    depth = Anatomy.of(config).stack.depth
    for kind in ("no-attention", "no-mlp"):
        plan = Plan.whole(depth).initialise(1, 2, Init(kind))
        with pytest.raises(Refused, match=r"isn't made of attention|can't be promised"):
            build_patient(Anatomy.of(config), model, plan)


def test_identity_is_refused_where_it_is_not_proven():
    from transformers import BertConfig

    config = BertConfig(
        hidden_size=32,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=48,
        vocab_size=128,
        is_decoder=True,
    )
    model = AutoModelForCausalLM.from_config(config)
    for text in ("0:4, 3@identity", "0:4, 3@scale=0.5"):
        with pytest.raises(Refused, match="can't be promised"):
            build_patient(Anatomy.of(config), model, Plan.parse(text, 4))
