"""Settings are checked when they are made."""

import json

import pytest

from surgery import SurgeryError
from surgery.healing import Settings


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (dict(objective="magic"), "“magic” is no objective: choose distill, next-token."),
        (dict(train="everything"), "is no train: choose lora, new, seams, all"),
        (dict(schedule="step"), "is no schedule"),
        (dict(temperature=0.0), "The temperature can be a number from 0.1 to 100."),
        (dict(learning_rate=float("nan")), "The learning rate can be a number"),
        (dict(batch=2.5), "The batch can be a whole number"),
        (dict(batch=True), "The batch can be a whole number"),
        (dict(window=1), "The window can be"),
        (dict(rank=0), "The rank can be"),
        (dict(batch=4, accumulate=3), "multiple of the parts"),
        (dict(text="a", data="b"), "Choose one source of text"),
        (dict(minutes=1.0), "a number of steps, or minutes"),
        (dict(steps=None), "a number of steps, or minutes"),
        (dict(objective="next-token", hidden=1.0), "belong to distill"),
        (dict(layers=(-1,)), "positions in the plan"),
    ],
)
def test_what_makes_no_sense_is_refused(changes, said):
    with pytest.raises(SurgeryError) as error:
        Settings(**{"steps": 10, **changes})
    assert said in str(error.value) and "\n" not in str(error.value)


def test_they_survive_json():
    settings = Settings(minutes=1.5, train="lora", alpha=8.0, layers=(1, 2))
    assert Settings.from_dict(json.loads(json.dumps(settings.as_dict()))) == settings
    with pytest.raises(SurgeryError, match="another version"):
        Settings.from_dict({**settings.as_dict(), "more": 1})


def test_how_often_it_saves_makes_no_other_run():
    settings = Settings(steps=10)
    assert settings.same_run(Settings(steps=10, save_every=3, evaluate_every=2))
    assert not settings.same_run(Settings(steps=10, seed=1))
