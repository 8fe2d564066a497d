"""Intervals held against resamples drawn in the open."""

import math

import numpy as np
import pytest

from surgery.analysis import LossIncrease, Score, score
from surgery.analysis.score import BLOCK, RESAMPLES, interval


def test_perplexity_is_the_exponential_of_the_mean():
    found = Score.of([1.0, 2.0, 3.0] * 20)
    assert found.perplexity == pytest.approx(math.exp(2))
    assert found.tokens == 60 and found.mean == pytest.approx(2)
    assert found.low < found.perplexity < found.high


def test_an_interval_is_that_of_blocks_in_a_circle():
    values = np.random.default_rng(1).exponential(2.0, 203)
    starts = np.random.default_rng(0).integers(0, 203, (RESAMPLES, math.ceil(203 / BLOCK)))
    means = [
        np.mean([values[(s + k) % 203] for s in row for k in range(BLOCK)]) for row in starts[:400]
    ]
    low, high = interval(values)
    assert low == pytest.approx(np.quantile(means, 0.025), abs=0.05)
    assert high == pytest.approx(np.quantile(means, 0.975), abs=0.05)
    assert interval(values) == (low, high)  # the same again


@pytest.mark.parametrize("kept", [1, 13 * 7, 13 * 1001])
def test_long_series_are_resampled_some_at_a_time(monkeypatch, kept):
    """With the same draws, of which no more are in memory at once."""
    values = np.random.default_rng(1).exponential(2.0, 203)
    whole, most = score.resampled_means(values), []
    monkeypatch.setattr(score, "_KEPT", kept)
    monkeypatch.setattr(score, "_draws", None)  # fails if it is called
    drawn = score._drawn
    monkeypatch.setattr(
        score, "_drawn", lambda length: (most.append(x.size) or x for x in drawn(length))
    )
    assert np.array_equal(score.resampled_means(values), whole)
    assert max(most) == max(kept, 13) and sum(most) == RESAMPLES * 13


def test_an_interval_holds_the_truth_about_as_often_as_it_says():
    """Losses that hang together over a few tokens, as a text's do."""
    draw, hits = np.random.default_rng(7), 0
    for _ in range(200):
        noise = draw.normal(size=404)
        values = 3 + noise[4:] + 0.7 * noise[3:-1] + 0.5 * noise[2:-2]
        low, high = interval(values)
        hits += low <= 3 <= high
    assert 0.88 <= hits / 200 <= 0.99
    # Tokens taken for independent would promise too much.
    naive = 1.96 * values.std() / math.sqrt(len(values))
    assert (high - low) / 2 > 1.2 * naive


def test_a_cost_is_paired():
    base = np.random.default_rng(0).exponential(3.0, 300)
    cost = LossIncrease.of(Score.of(base + 0.1), Score.of(base))
    assert (cost.mean, cost.low, cost.high) == pytest.approx((0.1, 0.1, 0.1))
    with pytest.raises(ValueError, match="different samples"):
        LossIncrease.of(Score.of(base), Score.of(base[1:]))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_broken_model_has_no_small_perplexity(value):
    broken = Score.of([1.0] * 30 + [value])
    assert (broken.perplexity, broken.low, broken.high) == (math.inf,) * 3
    assert LossIncrease.of(broken, Score.of([1.0] * 31)).mean == math.inf
    assert Score.of([800.0] * 20).perplexity == math.inf
