"""Which output projections can be fitted, over kinds of model."""

import pytest
import torch
from zoo import build

from surgery.architecture import Anatomy
from surgery.architecture.inspect.chain import Chain
from surgery.architecture.inspect.hooks import layers_of
from surgery.repairing.outputs import output_projections

LAYER = 5  # the last one, since experts may come after dense layers


def found(model_type: str):
    model = build.model(model_type)
    anatomy = Anatomy.of(model.config)
    ids = build.tokens()
    depth = anatomy.stack.depth
    chain = Chain.of(anatomy, model, ids, range(depth))
    calls = chain.calls(ids)
    layer = layers_of(anatomy, model)[LAYER]
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    projections = output_projections(
        layer, lambda states: chain.run(calls, LAYER, layer, states), calls.first
    )
    assert all(torch.equal(before[name], value) for name, value in layer.state_dict().items())
    return {one.name: one for one in projections}, layer, chain, calls


@pytest.mark.parametrize(
    "model_type, names",
    [
        ("llama", ["self_attn.o_proj", "mlp.down_proj"]),
        ("gpt2", ["attn.c_proj", "mlp.c_proj"]),  # with biases, and weights transposed
        ("gpt_neox", ["attention.dense", "mlp.dense_4h_to_h"]),  # attention and MLP side by side
        ("mixtral", ["self_attn.o_proj"]),  # routed experts stay as they are
        ("qwen2_moe", ["self_attn.o_proj"]),  # and a gated shared expert
        ("deepseek_v3", ["self_attn.o_proj", "mlp.shared_experts.down_proj"]),
        ("gemma2", []),  # a norm follows each
        ("olmo2", []),
    ],
)
def test_what_is_added_as_it_is(model_type, names):
    projections, *_ = found(model_type)
    assert sorted(projections) == sorted(names)
    assert all(one.factor == pytest.approx(1, abs=1e-5) for one in projections.values())


def test_a_factor_on_the_residual_is_found():
    model = build.model("granite")
    projections, *_ = found("granite")
    wanted = model.config.residual_multiplier
    assert len(projections) == 2
    assert all(one.factor == pytest.approx(wanted, rel=1e-4) for one in projections.values())


@pytest.mark.parametrize("model_type", ["llama", "gpt2", "granite", "deepseek_v3"])
def test_a_change_has_the_effect_that_fits_reckon_with(model_type):
    projections, layer, chain, calls = found(model_type)
    one = list(projections.values())[-1]
    given = []
    hook = one.module.register_forward_pre_hook(lambda _, args: given.append(args[0]))
    before = chain.run(calls, LAYER, layer, calls.first)
    hook.remove()
    x = given[0].view(*before.shape[:-1], -1)
    inputs = one.inputs + (one.bias is not None)
    change = torch.randn(before.shape[-1], inputs, generator=torch.Generator().manual_seed(0))
    for leaf, value in one.changed(change).items():
        setattr(one.module, leaf, torch.nn.Parameter(value, requires_grad=False))
    after = chain.run(calls, LAYER, layer, calls.first)
    if one.bias is not None:
        x = torch.cat([x, torch.ones(*x.shape[:-1], 1)], -1)
    assert torch.allclose(after - before, one.factor * x @ change.T, rtol=1e-3, atol=1e-4)
