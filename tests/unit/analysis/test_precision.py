"""How precisely costs are known, and whether as many tokens as are asked for make them so."""

import math
import time
from types import SimpleNamespace

import numpy as np
import pytest

from surgery import SurgeryError
from surgery.analysis import LossIncrease
from surgery.analysis.precision import (
    FINEST,
    check_precision,
    median_precision,
    median_tokens,
    precision_of,
    size_of,
    tokens_for,
)
from surgery.analysis.score import interval


def cost(values):
    return LossIncrease(float(np.mean(values)), *interval(values))


def test_by_hand():
    one = LossIncrease(0.5, 0.4, 0.6)
    assert precision_of(one) == pytest.approx(0.2)
    assert tokens_for(one, 500, 0.1) == 2000 and tokens_for(one, 500, 0.4) == 125
    none = LossIncrease(0.0, -0.01, 0.01)  # a cost near zero isn't known to a share of itself
    assert precision_of(none) is None and tokens_for(none, 500, 0.1) == 500 * (0.01 / FINEST) ** 2
    broken = LossIncrease(math.inf, math.inf, math.inf)
    assert precision_of(broken) is None and tokens_for(broken, 500) is None
    assert median_precision([one, broken, LossIncrease(1, 0.7, 1.3)]) == pytest.approx(0.25)
    assert median_precision([none]) is None and median_tokens([broken], 500) is None
    assert median_tokens([one, one, LossIncrease(1, 0, 2)], 500, 0.1) == 2000


def test_as_many_tokens_are_as_precise():
    rng = np.random.default_rng(0)
    losses = 0.3 + np.convolve(rng.standard_t(5, 40_000), [0.5, 0.4, 0.3, 0.2], "valid")
    tokens = tokens_for(cost(losses[:2000]), 2000, 0.15)
    assert 2000 < tokens < len(losses)
    assert precision_of(cost(losses[:tokens])) == pytest.approx(0.15, rel=0.25)


def test_the_size_of_a_text():
    class Short:
        tokens = 100

    def measure(sample, progress):
        progress("Measuring", 0, 1)
        time.sleep(0.01)
        return [LossIncrease(1.0, 0.8, 1.2)]

    size = size_of(Short(), measure, 0.1)
    assert size.tokens == 400 and 0.04 <= size.seconds < 10
    known = size_of(Short(), lambda sample, progress: [LossIncrease(1.0, 0.8, 1.2)], 0.1)
    assert known.tokens == 400 and known.seconds is None
    assert size_of(Short(), lambda sample, progress: []).tokens is None


def test_the_time_that_loading_takes_is_not_of_the_text(monkeypatch):
    clock = SimpleNamespace(now=0.0, monotonic=lambda: clock.now)
    monkeypatch.setattr("surgery.analysis.precision.time", clock)
    base = SimpleNamespace(is_loaded=False)

    def measure(sample, progress):
        progress("Loading weights", 0, 1)
        clock.now += 100
        base.is_loaded = True
        progress("Measuring", 0, 1)
        clock.now += 1
        progress("Measuring", 1, 1)
        return [LossIncrease(1.0, 0.8, 1.2)]

    short = SimpleNamespace(tokens=100)
    assert size_of(short, measure, 0.1, base=base).seconds == 4


@pytest.mark.parametrize("precision", [0, -0.1, 1, 5, math.nan])
def test_what_is_no_precision(precision):
    with pytest.raises(SurgeryError, match="between 0 and 100 %"):
        check_precision(precision)
