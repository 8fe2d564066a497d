"""The registry of initialisers: an entry is all that one needs."""

import pytest
import tiny
import torch
from transformers import AutoModelForCausalLM

from surgery import Base, Plan, PlanError, Refused
from surgery.initialisers import INITIALISERS, Block, Changes, Initialiser, Needs
from surgery.plan import Init

COMPUTED = [one for one in INITIALISERS.values() if one.values]


@pytest.mark.parametrize("name", INITIALISERS)
def test_its_notation_is_read_and_written(name):
    one = INITIALISERS[name]
    assert one.name == name and one.hint
    init = Init.parse(one.notation)
    assert (str(init), init.initialiser) == (one.notation, one)
    with pytest.raises(PlanError, match="number"):
        Init.parse(name if one.takes_factor else f"{name}=0.5")


@pytest.mark.parametrize("name", INITIALISERS)
def test_exactly_one_thing_makes_new_values(name):
    one = INITIALISERS[name]
    ways = [one.changes is Changes.NOTHING, one.values is not None, one.drawn, one.fitted]
    assert ways.count(True) == 1


@pytest.mark.parametrize("one", COMPUTED, ids=lambda one: one.name)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_stretches_give_what_the_whole_tensor_gives(one, dtype):
    """On disk it works on a few bytes at a time, in memory on whole tensors."""
    own, after = torch.randn(2, 6, 8, generator=torch.Generator().manual_seed(0)).to(dtype)
    whole = one.values(own, after, 0.3)
    assert (whole.shape, whole.dtype) == (own.shape, own.dtype)
    flat = [one.values(own.view(-1)[i : i + 7], after.view(-1)[i : i + 7], 0.3) for i in (0, 7, 14)]
    assert torch.equal(torch.cat(flat), whole.view(-1)[:21])


@pytest.mark.parametrize("one", COMPUTED, ids=lambda one: one.name)
def test_its_factors_are_what_it_multiplies_by(one):
    init = Init(one.name, 0.3)
    own = torch.tensor([1.0, -2.0, 0.5])
    for output_of in (None, *Block):
        factor = init.factor_of(output_of)
        if one.changes_tensor(output_of) and factor is not None:
            assert torch.equal(one.values(own, None, 0.3), own * factor)
        else:
            assert factor is None or factor == 1.0
    if one.output_factor is None and one.block is None:
        assert one.changes is Changes.EVERYTHING


@pytest.fixture
def trial(monkeypatch):
    """A new initialiser, as its author would add it: the weighted mean with the next layer."""
    one = Initialiser(
        "mix",
        "part of the way to the next layer",
        Changes.EVERYTHING,
        lambda own, after, factor: own + factor * (after - own),
        takes_factor=True,
        reads_next=True,
        rounds=True,
        needs=(Needs.WHOLE_LAYER, Needs.NEXT_LAYER),
    )
    monkeypatch.setitem(INITIALISERS, "mix", one)


def test_an_entry_is_all_that_a_new_initialiser_needs(trial, tiny_folder, tmp_path):
    base = Base.open(str(tiny_folder("qwen3")))
    plan = Plan.parse("0:2, 1@mix=0.25, 2:6", base.depth)
    assert str(plan) == "0:2, 1@mix=0.25, 2:6"
    patient = base.operate(plan).model
    old, layers = base.model.model.layers, patient.model.layers
    expected = 0.75 * old[1].mlp.up_proj.weight + 0.25 * old[2].mlp.up_proj.weight
    torch.testing.assert_close(layers[2].mlp.up_proj.weight, expected)
    saved = AutoModelForCausalLM.from_pretrained(base.save(plan, tmp_path / "out"))
    ids = tiny.tokens()
    with torch.no_grad():
        assert torch.equal(saved(input_ids=ids).logits, patient(input_ids=ids).logits)
    with pytest.raises(Refused, match="last layer has none"):
        base.operate(Plan.parse("0:5, 5@mix=0.5", base.depth))
    with pytest.raises(PlanError, match=r"average, lstsq, refit or mix=0\.5"):
        Plan.parse("0@nothing", 6)
