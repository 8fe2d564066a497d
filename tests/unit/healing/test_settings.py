"""Settings are checked when they are made."""

import json
from typing import get_args

import pytest

from surgery import SurgeryError
from surgery.healing import Settings
from surgery.healing.settings import CHOICES, allowed


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(objective="magic"), "Objective can't be “magic”: choose distill or next-token."),
        (dict(train="everything"), "Train can't be “everything”: choose seams, new, all or lora."),
        (dict(schedule="step"), "Schedule can't be “step”"),
        (dict(temperature=0.0), "Temperature must be a number from 0.1 to 100."),
        (
            dict(learning_rate=float("nan")),
            "Learning rate must be a number from 1e-9 to 10.",
        ),
        (dict(batch=2.5), "Batch size must be a whole number"),
        (dict(batch=True), "Batch size must be a whole number"),
        (dict(window=1), "Sequence length must be"),
        (dict(rank=0), "LoRA rank must be"),
        (dict(batch=4, accumulate=3), "multiple of the parts"),
        (dict(text="a", data="b"), "Choose one source of text"),
        (dict(minutes=1.0), "a number of steps, or minutes"),
        (dict(steps=None), "a number of steps, or minutes"),
        (dict(objective="next-token", hidden=1.0), "choose the objective distill"),
        (dict(layers=(-1,)), "positions in the plan"),
        (dict(layers="1"), "positions in the plan"),
        (dict(seed=10**400), "Seed must be a whole number from 0 to 2,147,483,648."),
        (dict(text=7), "Text file must be a string."),
        (dict(magic=1), "“magic” is not a setting"),
    ],
)
def test_what_makes_no_sense_is_refused(changes, message):
    with pytest.raises(SurgeryError) as error:
        Settings(**{"steps": 10, **changes})
    assert message in str(error.value) and "\n" not in str(error.value)


def test_they_survive_json():
    settings = Settings(minutes=1.5, train="lora", alpha=8.0, layers=(1, 2))
    assert Settings(**json.loads(json.dumps(settings.as_dict()))) == settings
    with pytest.raises(SurgeryError, match="“more” is not a setting"):
        Settings(**settings.as_dict(), more=1)


def test_how_often_it_saves_makes_no_other_run():
    settings = Settings(steps=10)
    assert settings.same_run(Settings(steps=10, save_every=3, evaluate_every=2))
    assert not settings.same_run(Settings(steps=10, seed=1))


def test_every_setting_is_described():
    for name, field in Settings.model_fields.items():
        assert field.title and field.description.endswith("."), name
        assert field.json_schema_extra["group"] in ("basic", "advanced")
        assert name not in CHOICES or set(CHOICES[name]) == set(get_args(field.annotation))


def test_what_a_setting_may_be():
    assert allowed("train") == "seams, new, all or lora"
    assert allowed("temperature") == "0.1 to 100"
    assert allowed("steps") == "at least 1"
    assert allowed("held_out") == ""


def test_some_can_be_changed():
    settings = Settings(steps=10)
    assert settings.replace(batch=4) == Settings(steps=10, batch=4)
    with pytest.raises(SurgeryError):
        settings.replace(batch=0)
