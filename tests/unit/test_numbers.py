"""How numbers are written."""

import math

import pytest

from surgery import numbers


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (48_910.2, "48,910"),
        (5.538e4, "55,380"),
        (9.898, "9.898"),
        (999.96, "1,000"),
        (-0.0313, "-0.03130"),
        (None, ""),
        (math.inf, "∞"),
        (math.nan, "not a number"),
    ],
)
def test_four_significant_digits_and_no_exponent(value, text):
    assert numbers.number(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (3.47e9, "3.47 GFLOPs"),
        (7.89e22, "78.9 ZFLOPs"),
        (999_999, "1.00 MFLOPs"),
        (999, "999 FLOPs"),
        (0, "0 FLOPs"),
        (5e27, "5,000 YFLOPs"),
    ],
)
def test_quantities_have_prefixes(value, text):
    assert numbers.scaled(value, "FLOPs") == text


def test_bounds_are_written_out():
    bounds = (5e-4, 1e-9, 0.1, 4096, 10**9, 100.0)
    written = ["0.0005", "1e-9", "0.1", "4,096", "1,000,000,000", "100"]
    assert [numbers.plain(value) for value in bounds] == written


def test_perplexities_times_changes_and_lists():
    assert [numbers.perplexity(v) for v in (16.432, 217_924.1, math.inf, None)] == [
        "16.43", "217,924", "∞", "",
    ]  # fmt: skip
    assert [numbers.duration(v) for v in (0.05, 8.53, 75, 3600 * 9.898, 86_400 * 2308)] == [
        "0.050 s", "8.5 s", "1.25 min", "9.90 h", "2,308 days",
    ]  # fmt: skip
    assert [numbers.change(30, 26), numbers.change(3, 3), numbers.change(0, 3)] == [
        "-13.3 %", "", "",
    ]  # fmt: skip
    assert [numbers.listed(["a", "b", "c"]), numbers.listed(["a"])] == ["a, b or c", "a"]
