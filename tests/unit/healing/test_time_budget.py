"""How a run's minutes are divided."""

import pytest

from surgery.healing import Settings, time_budget


def test_short_runs_look_less_often():
    """A tenth of the time at most goes to looks, ten of them at most, one at least."""
    for given, each, count in ((14, 5, 10), (5, 7, 4), (2, 7, 1), (0.1, 7, 1), (5, 0, 10)):
        assert time_budget.evaluations(Settings(minutes=given), each) == count
    assert time_budget.evaluations(Settings(steps=5), 7) == 10


def test_what_is_left_is_divided():
    settings = Settings(minutes=5)
    assert time_budget.left(settings, 25, 7) == 300 - 25 - 5 * 7
    for kind, share in (("mixed", 0.35), ("own", 0.55)):
        settings = Settings(minutes=5, default_text=kind)
        assert time_budget.writing(settings, 25, 7) == pytest.approx(share * 240)
        assert time_budget.training_share(settings) == pytest.approx(1 - share)
        assert time_budget.writing(settings, 999, 7) == 0


@pytest.mark.parametrize(
    "settings",
    [
        dict(steps=5),
        dict(minutes=5, text="a file"),
        dict(minutes=5, data="org/name"),
        dict(minutes=5, default_text="python"),
        dict(minutes=5, sampled_tokens=512),
    ],
)
def test_only_what_is_not_said_takes_time(settings):
    assert time_budget.writing(Settings(**settings), 25, 7) is None
