"""Which layers train, and that nothing else can."""

import pytest
import torch

from surgery import Base, Plan, SurgeryError
from surgery.healing.settings import Settings
from surgery.healing.student import make_student, trainable, trained_layers


def positions(text, **settings):
    return trained_layers(Plan.parse(text, 6), Settings(steps=1, **settings))


def test_seams_are_where_a_plan_leaves_the_base_s_order():
    result = {text: Plan.parse(text, 6).seams for text in ("0:6", "0:2, 4:6", "2:4", "0:4, 2:6")}
    assert result == {"0:6": (), "0:2, 4:6": (2,), "2:4": (0, 2), "0:4, 2:6": (4,)}


def test_which_layers_train():
    assert positions("0:2, 4:6", radius=1) == (1, 2)
    assert positions("0:5", radius=2) == (3, 4)
    assert positions("0:2, 4:6", train="all") == positions("0:2, 4:6", train="lora") == (0, 1, 2, 3)
    assert positions("0:4, 3@identity, 4:6", train="new") == (4,)
    assert positions("0:4, 2:6", train="new") == (4, 5)
    assert positions("0:4", layers=(3, 1, 3)) == (1, 3)
    for text, settings, message in (
        ("0:6", {}, "no seam to heal"),
        ("0:4", dict(train="new"), "adds no layers"),
        ("0:4", dict(layers=(4,)), "no layer 4 to train"),
    ):
        with pytest.raises(SurgeryError, match=message):
            positions(text, **settings)


@pytest.mark.parametrize("train", ["seams", "lora", "new", "all"])
@pytest.mark.parametrize("family", ["llama", "gpt2", "llama-tied-biased"])
def test_what_is_frozen_is_the_base_s_own_memory(tiny_folder, family, train):
    base = Base.open(str(tiny_folder(family)))
    for parameter in base.model.parameters():
        parameter.requires_grad_(True)  # by other code
    model = make_student(
        base.operate(Plan.parse("0:3, 2@identity, 4:6", 6)), Settings(steps=1, train=train)
    )
    theirs = {p.data_ptr() for p in base.model.parameters()}
    mine = trainable(model)
    assert mine and all(p.data_ptr() not in theirs for p in mine.values())
    assert all(p.dtype == torch.float32 for p in mine.values())
    frozen = [p for p in model.parameters() if not p.requires_grad]
    zeroed = [p for p in frozen if p.data_ptr() not in theirs]
    assert all(not p.any() for p in zeroed)  # what begins as zeros is nobody's
    assert all(p.requires_grad for p in base.model.parameters())
