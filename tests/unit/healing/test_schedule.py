"""Which windows a step reads, and at which rate: functions of its number alone."""

import pytest

from surgery.healing.schedule import rate, windows_of


@pytest.mark.parametrize(("batch", "count"), [(4, 10), (3, 9), (8, 3)])
def test_every_window_is_read_once_before_any_is_read_again(batch, count):
    read = [i for step in range(3 * count) for i in windows_of(step, batch, count, seed=1)]
    rounds = [read[i : i + count] for i in range(0, len(read) - count + 1, count)]
    assert all(sorted(each) == list(range(count)) for each in rounds)
    assert len({tuple(each) for each in rounds}) > 1  # shuffled anew


def test_the_order_follows_the_seed():
    first = [windows_of(step, 2, 50, 0) for step in range(10)]
    assert first == [windows_of(step, 2, 50, 0) for step in range(10)]
    assert first != [windows_of(step, 2, 50, 1) for step in range(10)]


def test_the_rate_goes_up_then_down():
    cosine = [rate(step, 100, 1.0, "cosine", 10) for step in range(101)]
    assert cosine[0] == pytest.approx(1 / 11) and cosine[10] == 1.0
    assert cosine[55] == pytest.approx(0.55) and cosine[100] == pytest.approx(0.1)
    assert cosine[10:] == sorted(cosine[10:], reverse=True)
    assert rate(55, 100, 1.0, "linear", 10) == pytest.approx(0.55)
    assert rate(99, 100, 0.5, "constant", 10) == 0.5


def test_the_first_steps_don_t_ask_how_many_there_will_be():
    known = [rate(step, 500, 1.0, "cosine", 10) for step in range(10)]
    assert known == [rate(step, None, 1.0, "cosine", 10) for step in range(10)]
