"""Products of few rows: the same numbers, in another order of sums."""

import pytest
import torch
import torch.nn.functional as F

from surgery.compute import narrow_products as module
from surgery.compute.narrow_products import narrow_products


@pytest.mark.parametrize("biased", [False, True])
def test_results_differ_by_rounding_alone(biased, monkeypatch):
    calls = []
    transposed = module._transposed
    monkeypatch.setattr(
        module, "_transposed", lambda *args: calls.append(args[0].shape) or transposed(*args)
    )
    x, weight = torch.randn(32, 1, 40), torch.randn(70, 40)
    bias = torch.randn(70) if biased else None
    with narrow_products(32):
        found = F.linear(x, weight, bias)
    assert calls == [x.shape]
    assert found.shape == (32, 1, 70) and found.is_contiguous()
    torch.testing.assert_close(found, F.linear(x, weight, bias))


def test_other_products_are_left_alone(monkeypatch):
    monkeypatch.setattr(module, "_transposed", lambda *args: pytest.fail("transposed"))
    weight = torch.randn(8, 4)
    with narrow_products(32):
        F.linear(torch.randn(100, 4), weight)
        F.linear(torch.randn(2, 4), weight)
        F.linear(torch.randn(32, 4).bfloat16(), weight.bfloat16())
        F.linear(torch.randn(32, 4, device="meta"), weight.to("meta"))
    for rows in (1, 64, 1000):
        with narrow_products(rows):
            F.linear(torch.randn(32, 4), weight)
