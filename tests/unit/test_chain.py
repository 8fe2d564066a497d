"""Layers run one by one give what the model gives, or the chain says that they can't be."""

import pytest
import tiny
import torch
from torch import nn

from surgery import Base, Plan
from surgery.architecture.inspect.chain import Chain

IDS = torch.arange(3, 43).view(2, 20)
FAMILIES = ["llama", "qwen2", "qwen3", "mixtral", "gemma2", "gemma3", "gpt2"]


def _chain(base):
    model = base.operate(Plan.whole(base.depth)).model
    return Chain.of(base.anatomy, model, IDS)


def _through(chain, sources):
    calls = chain.calls(IDS)
    hidden = calls.first
    for i in sources:
        hidden = chain.run(calls, i, chain.layers[i], hidden)
    return chain.logits(IDS, hidden)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("plan", ["0:6", "0:2, 4:6", "0:4, 2:6"])
def test_layers_one_by_one_are_the_patient(tiny_folder, family, plan):
    base = Base.open(str(tiny_folder(family)))
    plan = Plan.parse(plan, base.depth)
    with torch.no_grad():
        expected = base.operate(plan).model(input_ids=IDS, use_cache=False).logits
    torch.testing.assert_close(_through(_chain(base), plan.sources), expected, rtol=0, atol=1e-6)


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


def test_layers_that_pass_on_something_else_are_no_chain(tiny_folder):
    base = Base.open(str(tiny_folder("llama")))
    model = tiny.model("llama").eval()
    for i, layer in enumerate(list(model.model.layers)):
        before = model.model.layers[i - 1] if i else None
        model.model.layers[i] = _Remembering(layer, before)
    assert Chain.of(base.anatomy, model, IDS) is None
