"""Layers run one by one give what the model gives, or the chain says that they can't be."""

from itertools import pairwise

import pytest
import tiny
import torch
from torch import nn

from surgery import Base, Plan
from surgery.architecture.inspect.chain import Chain, is_shown
from surgery.architecture.inspect.layer_copies import LayerCopies

IDS = torch.arange(3, 43).view(2, 20)
FAMILIES = ["llama", "qwen3", "mixtral", "gemma3", "gpt2"]


def _chain(base):
    model = base.operate(Plan.whole(base.depth)).model
    return Chain.of(base.anatomy, model, IDS, range(base.depth))


def _through(chain, sources):
    calls = chain.calls(IDS)
    hidden = calls.first
    for i in sources:
        hidden = chain.run(calls, i, chain.layers[i], hidden)
    return chain.logits(IDS, hidden)


@pytest.mark.parametrize("family", FAMILIES)
def test_layers_one_by_one_are_the_patient(tiny_folder, family):
    base = Base.open(str(tiny_folder(family)))
    for text in ("0:6", "0:4, 2:6"):
        plan = Plan.parse(text, base.depth)
        with torch.no_grad():
            expected = base.operate(plan).model(input_ids=IDS, use_cache=False).logits
        found = _through(_chain(base), plan.sources)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_the_model_is_left_as_it_was(tiny_folder):
    base = Base.open(str(tiny_folder("llama")))
    chain = _chain(base)
    assert not any("forward" in vars(layer) for layer in chain.layers)


class _Remembering(nn.Module):
    """A layer that looks at what another one left on it."""

    def __init__(self, layer, before):
        super().__init__()
        self.layer, self.before = layer, before

    def forward(self, hidden, *args, **kwargs):
        kept = hidden if self.before is None else self.before.kept
        self.kept = hidden
        return self.layer(hidden + 0.1 * kept, *args, **kwargs)


def test_layers_that_pass_on_something_else_are_no_chain(tmp_path):
    tiny.model("llama").save_pretrained(tmp_path)  # a base of which nothing was shown before
    base = Base.open(str(tmp_path))
    model = tiny.model("llama").eval()
    for i, layer in enumerate(list(model.model.layers)):
        before = model.model.layers[i - 1] if i else None
        model.model.layers[i] = _Remembering(layer, before)
    assert Chain.of(base.anatomy, model, IDS, range(base.depth)) is None
    assert not is_shown(base.anatomy)


def test_what_was_shown_for_a_base_holds_for_its_patients(tmp_path):
    tiny.model("llama").save_pretrained(tmp_path)
    base = Base.open(str(tmp_path))
    plan = Plan.parse("0:2, 1:4", base.depth)
    patient = base.operate(plan).model
    assert Chain.of(base.anatomy, patient, IDS, plan.sources) is not None
    assert not is_shown(base.anatomy)  # a patient alone shows nothing of the other layers
    _chain(base)
    assert is_shown(base.anatomy)
    ran = []
    patient.model.layers[0].register_forward_pre_hook(lambda *_: ran.append(0))
    chain = Chain.of(base.anatomy, patient, IDS, plan.sources)
    assert not ran
    hidden, calls = chain.calls(IDS).first, chain.calls(IDS)
    for p, layer in enumerate(chain.layers):
        hidden = chain.run(calls, p, layer, hidden)
    with torch.no_grad():
        assert torch.equal(chain.logits(IDS, hidden), patient(IDS, use_cache=False).logits)


@pytest.mark.parametrize("family", FAMILIES)
def test_layers_run_on_another_device_are_the_same(tiny_folder, family):
    base = Base.open(str(tiny_folder(family)))
    here, there = _chain(base), _chain(base)
    there.run_on(torch.device("cpu"), base.anatomy)
    sources = [0, 1, 1, 2, 5]
    assert torch.equal(_through(here, sources), _through(there, sources))


def test_two_layers_at_a_time_are_on_an_accelerator(tiny_folder):
    base = Base.open(str(tiny_folder("llama")))
    layers = base.operate(Plan.whole(base.depth)).model.model.layers
    copies = LayerCopies(torch.device("meta"))
    for layer, following in pairwise(layers):
        tensors = copies.of(layer, following)
        assert {name: (t.shape, t.dtype) for name, t in tensors.items()} == {
            name: (p.shape, p.dtype) for name, p in layer.named_parameters()
        }
        assert all(tensor.is_meta for tensor in tensors.values())
        assert set(copies._made) == {layer, following}
    again = copies.of(following, layer)
    assert again is copies.of(following, layer)  # copied once
