"""How a run's minutes are divided."""

import pytest

from surgery.healing import Settings, time_budget
from surgery.healing.time_budget import Writing


def test_short_runs_evaluate_less_often():
    """A tenth of the time at most goes to evaluations: ten at most, one at least."""
    for given, each, count in ((14, 5, 10), (5, 7, 4), (2, 7, 1), (0.1, 7, 1), (5, 0, 10)):
        assert time_budget.evaluations(Settings(minutes=given), each) == count
    assert time_budget.evaluations(Settings(steps=5), 7) == 10


@pytest.mark.parametrize("steps", [1, 2, 15, 101, 343])
def test_evaluations_are_evenly_spread(steps):
    """So none is made just before that of the last step."""
    for minutes, each in ((5, 11), (14, 5), (0.1, 7)):
        settings = Settings(minutes=minutes)
        count = min(steps, time_budget.evaluations(settings, each))
        every = range(1, steps + 1)
        made = [step for step in every if time_budget.evaluates(settings, step, steps, each)]
        assert len(made) == count and made[-1] == steps
        gaps = [b - a for a, b in zip([0, *made], made, strict=False)]
        assert max(gaps) - min(gaps) <= 1


def test_what_is_left_is_divided():
    settings = Settings(minutes=5)
    assert time_budget.left(settings, 25, 7) == 300 - 25 - 5 * 7
    for kind, share in (("mixed", 0.35), ("own", 0.55)):
        settings = Settings(minutes=5, default_text=kind)
        assert time_budget.training_share(settings) == pytest.approx(1 - share)
        assert time_budget.training_share(settings, 0.25) == 0.75
    assert time_budget.training_share(Settings(steps=5)) == 1


@pytest.mark.parametrize("kinds", [1, 2])
@pytest.mark.parametrize("have", [0, 20])
def test_as_much_is_written_as_steps_read_in_the_rest(kinds, have):
    """100 seconds; steps read two windows a second, and writing one takes a quarter."""
    count = Writing(100, 2, kinds, have).windows(0.25)
    unread = kinds * (have + count) - 2 * (100 - 0.25 * count)
    assert count > 0 and -kinds - 0.5 < unread <= 0


def test_nothing_is_written_if_there_is_enough_or_no_time():
    assert Writing(100, 2, 2, 100).windows(0.25) == 0
    assert Writing(-1, 2).windows(0.25) == 0
    assert Writing(100, 2).windows(1e9) == 0


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
    assert not Settings(**settings).writes_in_time
