"""Counts held against numpy on the numbers themselves: every dtype, every kind of value."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from surgery.weight_stats import ValueCounts, count_tensor
from surgery.weight_stats.counting import bit_patterns
from surgery.weight_stats.value_counts import normal_beyond

NARROW = (torch.bfloat16, torch.float16, torch.float8_e4m3fn, torch.float8_e5m2)
WIDE = (torch.float32, torch.float64)
SPECIAL = (0.0, -0.0, math.nan, math.inf, -math.inf, 1e-45, -1e-40, 6e-8, 3e38, -65504.0)


@st.composite
def tensors(draw, dtypes):
    """Random weights with any share of special values, or any bit patterns at all; maybe none."""
    dtype = draw(st.sampled_from(dtypes))
    size = draw(st.one_of(st.integers(0, 40), st.integers(0, 3000)))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    if draw(st.booleans()):
        raw = torch.randint(0, 256, (size * dtype.itemsize,), generator=generator).to(torch.uint8)
        return raw.view(dtype)
    width = 10.0 ** draw(st.integers(-6, 3))
    values = torch.randn(size, generator=generator, dtype=torch.float64) * width
    values += draw(st.sampled_from([0, 0, 3])) * width
    special = torch.tensor(SPECIAL, dtype=torch.float64)
    chosen = torch.rand(size, generator=generator) < draw(st.sampled_from([0, 0.01, 0.5, 1]))
    picked = torch.randint(0, len(SPECIAL), (size,), generator=generator)
    return torch.where(chosen, special[picked], values).to(dtype)


def check(counts: ValueCounts, numbers: np.ndarray, edges: np.ndarray) -> None:
    """The counts say of float64 `numbers` what numpy says."""
    finite = numbers[np.isfinite(numbers)]
    assert counts.size == len(numbers) and counts.finite == len(finite)
    assert counts.nan == np.isnan(numbers).sum()
    assert (counts.above, counts.below) == ((numbers == np.inf).sum(), (numbers == -np.inf).sum())
    assert counts.zeros == (finite == 0).sum()
    assert np.array_equal(counts.histogram(edges), np.histogram(finite, edges)[0])
    low, high = edges[0], edges[-1]
    assert counts.outside(low, high) == ((finite < low).sum(), (finite > high).sum())
    assert np.all(np.diff(counts.values) > 0) and np.all(counts.counts > 0)
    if not len(finite):
        assert math.isnan(counts.mean) and math.isnan(counts.quantile(0.5)) and counts.norm == 0
        assert counts.facts().mean is None
        return
    scale = np.abs(finite).max() or 1.0
    assert (counts.minimum, counts.maximum) == (finite.min(), finite.max())
    assert counts.mean == pytest.approx(finite.mean(), rel=1e-9, abs=1e-12 * scale)
    assert counts.deviation == pytest.approx(finite.std(), rel=1e-9, abs=1e-12 * scale)
    assert counts.norm == pytest.approx(np.linalg.norm(finite), rel=1e-9)
    for share in (0, 0.001, 0.25, 0.5, 0.9, 1):
        ordered = np.sort(finite)
        assert counts.quantile(share) == ordered[max(1, math.ceil(share * len(finite))) - 1]
    for k in (0, 0.5, 2.0, 4):
        # Away from values that lie on the border to within rounding.
        distance = np.abs(finite - counts.mean) - k * counts.deviation
        if np.all(np.abs(distance) > 1e-12 * scale):
            assert counts.beyond(k) == (distance > 0).mean()
    if finite.std() > 1e-6 * scale:
        moment = (((finite - finite.mean()) / finite.std()) ** 4).mean() - 3
        assert counts.kurtosis == pytest.approx(moment, rel=1e-6, abs=1e-6)


def edges(numbers: np.ndarray, bins: int) -> np.ndarray:
    finite = numbers[np.isfinite(numbers)]
    middle = finite[(len(finite) // 4) : (3 * len(finite)) // 4]
    low, high = (np.sort(middle)[[0, -1]]) if len(middle) else (0.0, 1.0)
    return np.linspace(low, high if high > low else low + 1, bins + 1)


@given(tensors(NARROW), st.integers(1, 50))
def test_narrow_types_are_exact(tensor, bins):
    numbers = tensor.double().numpy()
    counts = count_tensor(tensor)
    assert not counts.rounded
    check(counts, numbers, edges(numbers, bins))


@given(tensors(WIDE), st.integers(1, 50))
def test_wide_types_are_counted_at_the_nearest_bfloat16(tensor, bins):
    numbers = tensor.to(torch.bfloat16).double().numpy()
    counts = count_tensor(tensor)
    assert counts.rounded
    check(counts, numbers, edges(numbers, bins))
    true = tensor.double()
    ordinary = true[true.isfinite() & (true.abs() < 3e38) & (true.abs() > 1e-37)].numpy()
    if len(ordinary) == len(numbers) and len(numbers):
        assert counts.maximum == pytest.approx(ordinary.max(), rel=1 / 256)
        assert counts.norm == pytest.approx(np.linalg.norm(ordinary), rel=1 / 256)


@given(st.lists(tensors(NARROW), max_size=4), st.integers(1, 20))
def test_merging_is_counting_together(parts, bins):
    numbers = np.concatenate([np.empty(0), *(part.double().numpy() for part in parts)])
    check(ValueCounts.merged(count_tensor(p) for p in parts), numbers, edges(numbers, bins))


def test_every_bit_pattern_at_once():
    for dtype in (torch.bfloat16, torch.float16):
        tensor = torch.arange(65_536).to(torch.uint16).view(dtype).repeat(3, 5)
        numbers = tensor.double().numpy().ravel()
        check(count_tensor(tensor), numbers, np.linspace(-2, 2, 40))


def test_pieces_and_strides_do_not_show():
    tensor = torch.randn(1000, 1100).to(torch.bfloat16)
    whole = count_tensor(tensor.t()[::2])
    numbers = tensor.t()[::2].double().numpy().ravel()
    check(whole, numbers, np.linspace(-1, 1, 9))
    assert whole.size == 550_000


def test_the_normal_distribution_beyond_two_deviations():
    assert normal_beyond(2) == pytest.approx(0.0455, abs=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float8_e4m3fn])
def test_bit_patterns_on_a_device_without_unsigned_numbers(dtype):
    """All of them, in their order: a GPU counts what the CPU counts."""
    size = 1 << 8 * dtype.itemsize
    every = torch.arange(size).to(torch.uint8 if dtype.itemsize == 1 else torch.uint16).view(dtype)
    assert torch.equal(bit_patterns(every), torch.arange(size, dtype=torch.int32))
