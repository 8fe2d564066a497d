"""Copies of modules: alike in everything, and with nothing in common that can change."""

import gc

import pytest
import tiny
from torch import nn
from transformers import PreTrainedConfig

from surgery import Plan
from surgery.architecture import Anatomy
from surgery.architecture.apply import build
from surgery.architecture.apply.copy_modules import copy_modules
from surgery.architecture.config.rewrite import config_key
from surgery.architecture.inspect.anatomy import build_meta
from surgery.architecture.inspect.module_diff import ModuleDiff
from surgery.memory.garbage import uncollected

DEPTH = tiny.DEPTH


def changeable(value, found):
    """Collect what `value` leads to and code could change, by id: all but tensors."""
    if id(value) in found:
        return found
    if isinstance(value, (nn.Module, PreTrainedConfig)):
        parts = [vars(value)]
    elif isinstance(value, dict):
        parts = value.values()
    elif isinstance(value, (list, tuple, set, frozenset)):
        parts = value
    else:
        return found
    if not isinstance(value, (tuple, frozenset)):
        found[id(value)] = value
    for part in parts:
        changeable(part, found)
    return found


@pytest.mark.parametrize("family", ["llama-tied-biased", "mixtral", "qwen2", "gemma3", "gpt2"])
def test_a_copy_is_alike_and_shares_nothing_but_tensors(family):
    model = build_meta(tiny.config(family))
    copy = copy_modules(model)
    pairs = list(zip(model.named_modules(), copy.named_modules(), strict=True))
    diff = ModuleDiff(model, copy, range(DEPTH), DEPTH)
    for (name, one), (other_name, other) in pairs:
        assert name == other_name and one is not other
        assert vars(one).keys() == vars(other).keys() and not diff.difference(one, other)
    mine, theirs = model.state_dict(keep_vars=True), copy.state_dict(keep_vars=True)
    assert list(mine) == list(theirs) and all(mine[name] is theirs[name] for name in mine)
    assert config_key(copy.config) == config_key(model.config)
    common = changeable(model, {}).keys() & changeable(copy, {}).keys()
    assert len(changeable(copy, {})) > 100 and not common


def test_a_copy_goes_on_sharing_what_its_modules_shared():
    model = build_meta(tiny.config("llama-tied-biased"))
    first, second = model.model.layers[:2]
    second.mlp = first.mlp
    first.seen = second.seen = {}
    copy = copy_modules(model)
    one, other = copy.model.layers[:2]
    assert one.mlp is other.mlp and one.mlp is not first.mlp
    assert one.seen is other.seen and one.seen is not first.seen
    assert {id(m.config) for m in copy.modules() if hasattr(m, "config")} == {id(copy.config)}


def test_what_may_lead_back_to_the_model_is_not_copied():
    model = build_meta(tiny.config("llama"))
    for held in (lambda: model, iter(()), object()):
        model.model.layers[3].held = held
        assert copy_modules(model) is None
    model.model.layers[3].held = tiny.config
    assert copy_modules(model) is not None


def test_transformers_builds_a_model_once_for_plans_of_equal_configs(monkeypatch):
    built = []
    monkeypatch.setattr(build, "build_meta", lambda c: built.append(c) or build_meta(c))
    anatomy = Anatomy.of(tiny.config("llama"))
    for text in ("0:4, 5", "0:3, 4:6", "0:4, 5"):
        model = build.skeleton(anatomy, Plan.parse(text, DEPTH).sources)
        assert len(model.model.layers) == 5
    assert len(built) == 1
    build.skeleton(anatomy, range(4))
    assert len(built) == 2
    anatomy.whole._attn_implementation = "eager"
    build.skeleton(anatomy, range(4))
    assert len(built) == 3


def test_layers_of_several_kinds_are_built_for_each_order_of_them():
    anatomy = Anatomy.of(tiny.config("gemma3_text"))
    for text in ("0:5", "1:6", "0:5"):
        sources = Plan.parse(text, DEPTH).sources
        model = build.skeleton(anatomy, sources)
        kinds = [anatomy.config.layer_types[i] for i in sources]
        assert model.config.layer_types == kinds
        assert [layer.self_attn.is_sliding for layer in model.model.layers] == [
            kind == "sliding_attention" for kind in kinds
        ]


def test_the_collector_is_paused_and_goes_on():
    assert gc.isenabled()
    with uncollected():
        with uncollected():
            assert not gc.isenabled()
        assert not gc.isenabled()
    assert gc.isenabled()
    gc.disable()
    with uncollected():
        pass
    assert not gc.isenabled()  # as it was
    gc.enable()
