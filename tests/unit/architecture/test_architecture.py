"""Right or refused: patients against an independent replay of the base's own layers."""

import oracle
import pytest
import tiny
import torch

from surgery import Plan, Refused
from surgery.architecture import Anatomy, rewrite, skeleton
from surgery.architecture.apply.build import build_patient

PLANS = ["0:2, 4:6", "0:4, 2:6", "3*3", "5, 4, 3, 2, 1, 0", "1:6"]


@pytest.fixture(scope="module", params=tiny.FAMILIES)
def base(request):
    model = tiny.model(request.param)
    return model, Anatomy.of(model.config)


@pytest.fixture(scope="module")
def truth(base):
    """What its layers compute for twice as many tokens as a sliding window has, in any order."""
    model, anatomy = base
    return oracle.Oracle(model, anatomy.stack.paths[0], tiny.tokens(16, batch=2))


@torch.no_grad()
def cached_logits(model, ids, first=5):
    """Token by token with the cache, after a pass over the first few."""
    out = model(input_ids=ids[:, :first], use_cache=True)
    steps = [out.logits]
    for k in range(first, ids.shape[1]):
        out = model(
            input_ids=ids[:, k : k + 1], past_key_values=out.past_key_values, use_cache=True
        )
        steps.append(out.logits)
    return torch.cat(steps, dim=1)


@pytest.mark.parametrize("text", PLANS)
def test_a_patient_computes_what_the_bases_layers_compute(base, truth, text):
    model, anatomy = base
    plan = Plan.parse(text, tiny.DEPTH)
    patient = build_patient(anatomy, model, plan)
    ids = truth.inputs["input_ids"]
    with torch.no_grad():
        logits = patient(input_ids=ids, use_cache=False).logits
    assert torch.equal(logits, truth.logits(plan.sources))
    # Rounding differs between one long pass and many short ones, nothing else may.
    torch.testing.assert_close(cached_logits(patient, ids), logits, atol=1e-5, rtol=0)


def test_greedy_text_with_the_cache_is_greedy_text_without_it(base):
    model, anatomy = base
    patient = build_patient(anatomy, model, Plan.parse("0:4, 2:6", tiny.DEPTH))
    ids = tiny.tokens(6)  # fewer than a sliding window has; the whole text has more
    with_cache, without = (
        patient.generate(ids, max_new_tokens=8, do_sample=False, use_cache=use, pad_token_id=0)
        for use in (True, False)
    )
    assert torch.equal(with_cache, without)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_the_final_norm_counts(family):
    """The oracle would notice a final norm that was left as it is initialised."""
    model = tiny.model(family)
    anatomy = Anatomy.of(model.config)
    plan = Plan.parse("0:4, 2:6", tiny.DEPTH)
    patient = build_patient(anatomy, model, plan)
    norm = next(m for name, m in patient.named_modules() if name.endswith(("model.norm", "ln_f")))
    lost = torch.nn.Parameter(torch.ones_like(norm.weight))
    norm._parameters["weight"] = lost
    ids = tiny.tokens(8)
    expected = oracle.replay(model, anatomy.stack.paths[0], plan.sources, ids)
    with torch.no_grad():
        assert not torch.allclose(patient(input_ids=ids).logits, expected, atol=1e-3)


def test_a_patient_owns_no_weights_and_leaves_the_base_as_it_was(base):
    model, anatomy = base
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    modules = [id(m) for m in model.modules()]
    config = model.config.to_dict()
    patients = [build_patient(anatomy, model, Plan.parse(text, tiny.DEPTH)) for text in PLANS]
    own = {p.data_ptr() for p in model.parameters()}
    for patient in patients:  # several live at once
        assert {p.data_ptr() for p in patient.parameters()} <= own
        patient.generate(tiny.tokens(4), max_new_tokens=2, pad_token_id=0)
    assert all(torch.equal(before[name], t) for name, t in model.state_dict().items())
    assert [id(m) for m in model.modules()] == modules and model.config.to_dict() == config


def test_layer_indices_count_from_zero(base):
    model, anatomy = base
    patient = build_patient(anatomy, model, Plan.parse("0:4, 2:6", tiny.DEPTH))
    result = [
        [m.layer_idx for m in layer.modules() if hasattr(m, "layer_idx")]
        for layer in patient.get_submodule(anatomy.stack.paths[0])
    ]
    assert all(result[p] and set(result[p]) == {p} for p in range(8))


def test_tied_embeddings_stay_one_tensor():
    model = tiny.model("llama-tied-biased")
    patient = build_patient(Anatomy.of(model.config), model, Plan.parse("0:2, 4:6", 6))
    assert patient.lm_head.weight is patient.model.embed_tokens.weight


def test_identity_layers_change_no_logit(base):
    model, anatomy = base
    plan = Plan.parse("0:3, 2@identity, 3:6, 5@identity", tiny.DEPTH)
    patient = build_patient(anatomy, model, plan)
    ids = tiny.tokens(24)
    with torch.no_grad():
        assert torch.equal(patient(input_ids=ids).logits, model(input_ids=ids).logits)
    shared = {p.data_ptr() for p in model.parameters()}
    own = [n for n, p in patient.named_parameters() if p.data_ptr() not in shared]
    path = anatomy.stack.paths[0]
    assert own and all(n.startswith((f"{path}.3.", f"{path}.7.")) for n in own)


def blocks_of(layer, attention):
    """The attention of a layer, or its MLP, as the names of its children say."""
    names = ("att",) if attention else ("mlp", "moe", "feed_forward", "fc2")
    return [m for name, m in layer.named_children() if name.startswith(names) or (
        attention and name.endswith("_attn"))]  # fmt: skip


def nothing(module, args, output):
    first, *others = output if isinstance(output, tuple) else (output,)
    zeros = torch.zeros_like(first)
    return (zeros, *others) if isinstance(output, tuple) else zeros


@pytest.mark.parametrize("kind", ["no-attention", "no-mlp"])
def test_a_layer_without_attention_or_without_its_mlp(base, kind):
    """It is the base with a hook by which that module returns zeros."""
    model, anatomy = base
    patient = build_patient(anatomy, model, Plan.parse(f"0:2, 2:4@{kind}, 4:6", tiny.DEPTH))
    ids = tiny.tokens(24)
    layers = model.get_submodule(anatomy.stack.paths[0])
    modules = [m for i in (2, 3) for m in blocks_of(layers[i], kind == "no-attention")]
    assert len(modules) == 2
    with torch.no_grad():
        whole = model(input_ids=ids).logits
        hooks = [module.register_forward_hook(nothing) for module in modules]
        expected = model(input_ids=ids).logits
        for hook in hooks:
            hook.remove()
        torch.testing.assert_close(patient(input_ids=ids).logits, expected, atol=1e-5, rtol=0)
    assert not torch.allclose(expected, whole, atol=1e-4)


def test_scaled_layers_add_less(base):
    """@scale=x scales what attention and MLP add to the residual stream."""
    model, anatomy = base
    if "gemma" in model.config.model_type:  # a norm behind each of them undoes any scaling
        with pytest.raises(Refused, match="normalises"):
            build_patient(anatomy, model, Plan.parse("0:6@scale=0.5", 6))
        return
    ids = tiny.tokens(8)
    with torch.no_grad():
        whole, half, none = (
            build_patient(anatomy, model, Plan.parse(f"0:6@scale={x}", 6))(input_ids=ids).logits
            for x in (1.0, 0.5, 0.0)
        )
        assert torch.equal(whole, model(input_ids=ids).logits)
        nothing = build_patient(anatomy, model, Plan.parse("0:6@identity", 6))(input_ids=ids).logits
    assert torch.equal(none, nothing)
    assert not torch.allclose(half, whole, atol=1e-3)


def test_lists_in_the_config_follow_the_layers():
    config = tiny.config("gemma3_text")
    new = rewrite(config, [2, 0, 5, 5], tiny.DEPTH)
    kinds = config.layer_types
    assert new.layer_types == [kinds[2], kinds[0], kinds[5], kinds[5]]
    assert new.num_hidden_layers == 4 and config.num_hidden_layers == 6


def test_a_nested_text_config_is_rewritten_and_the_vision_tower_kept():
    config = tiny.config("gemma3")
    new = rewrite(config, [0, 1, 2, 5, 5], tiny.DEPTH)
    assert new.text_config.num_hidden_layers == 5 and len(new.text_config.layer_types) == 5
    assert new.vision_config.to_dict() == config.vision_config.to_dict()


def test_a_layer_whose_arithmetic_depends_on_its_position_is_refused():
    anatomy = Anatomy.of(tiny.config("gpt2", scale_attn_by_inverse_layer_idx=True))
    with pytest.raises(Refused, match="position"):
        skeleton(anatomy, [0, 1, 3, 4, 5])
    skeleton(anatomy, [0, 1, 2])  # nobody moves


def test_operating_takes_milliseconds_of_work_not_copies():
    """Beyond the base, a patient allocates little more than its modules."""
    model = tiny.model("llama", hidden_size=512, intermediate_size=1024)
    anatomy = Anatomy.of(model.config)
    build_patient(anatomy, model, Plan.whole(6))
    weights = sum(p.nbytes for p in model.parameters())
    with torch.profiler.profile(profile_memory=True) as profile:
        patient = build_patient(anatomy, model, Plan.parse("0:6*3", 6))
    allocated = sum(max(0, e.self_cpu_memory_usage) for e in profile.events())
    assert len(patient.model.layers) == 18 and weights > 40e6
    assert allocated < weights / 100
