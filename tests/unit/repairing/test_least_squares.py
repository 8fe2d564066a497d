"""Ridge regression from sums over tokens, beside numpy's least squares over all tokens."""

import numpy as np
import pytest
import torch

from surgery.repairing.least_squares import RIDGES, Sums, fit


def tokens(count: int, seed: int = 0):
    random = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 12, generator=random) * torch.logspace(-1, 1, 12)
    true = torch.randn(5, 12, generator=torch.Generator().manual_seed(9))
    r = x @ true.T + 0.5 * torch.randn(count, 5, generator=random)
    return x, r, torch.rand(count, generator=random) + 0.1


def sums(x, r, w, parts: int = 3) -> Sums:
    result = Sums(x.shape[1], r.shape[1], x.device)
    for each in zip(x.chunk(parts), r.chunk(parts), w.chunk(parts), strict=True):
        result.add(*each)
    return result


def reference(x, r, w, ridge: float) -> np.ndarray:
    """The same by numpy: the penalty as further rows."""
    x, r, root = x.double().numpy(), r.double().numpy(), w.double().sqrt().numpy()[:, None]
    scale = ridge * ((root * x) ** 2).sum(0).mean()
    rows = np.vstack([root * x, np.sqrt(scale) * np.eye(x.shape[1])])
    targets = np.vstack([root * r, np.zeros((x.shape[1], r.shape[1]))])
    return np.linalg.lstsq(rows, targets, rcond=None)[0].T


def test_it_is_the_least_squares_solution():
    x, r, w = tokens(400)
    held = tokens(200, seed=1)
    found = fit(sums(x, r, w), sums(*held))
    assert found.ridge in RIDGES
    assert np.allclose(found.change, reference(x, r, w, found.ridge), rtol=1e-4, atol=1e-4)


def test_the_ridge_is_the_best_on_tokens_that_were_not_fitted():
    x, r, w = tokens(14)  # hardly more than unknowns: a small ridge would follow the noise
    xh, rh, wh = (part.double().numpy() for part in tokens(300, seed=1))
    errors = {}
    for ridge in RIDGES:
        missed = xh @ reference(x, r, w, ridge).T - rh
        errors[ridge] = float((wh * (missed**2).sum(1)).sum() / len(wh))
    found = fit(sums(x, r, w), sums(*tokens(300, seed=1)))
    assert found.ridge == min(errors, key=errors.__getitem__)
    assert found.after == pytest.approx(errors[found.ridge], rel=1e-4)
    assert found.before == pytest.approx(float((wh * (rh**2).sum(1)).sum() / len(wh)), rel=1e-4)


def test_fewer_tokens_than_unknowns_are_regularised():
    x, r, w = tokens(5)
    found = fit(sums(x, r, w), sums(*tokens(200, seed=1)))
    assert found.change is None or torch.isfinite(found.change).all()
    assert found.after <= found.before


def test_nothing_changes_where_no_ridge_helps():
    x, r, w = tokens(200)
    xh, rh, wh = tokens(200, seed=1)
    found = fit(sums(x, r, w), sums(xh, -rh, wh))  # what is missing there is the opposite
    assert found.change is None and found.ridge is None and found.after == found.before


def test_inputs_that_are_all_zero_change_nothing():
    x, r, w = tokens(50)
    found = fit(sums(0 * x, r, w), sums(0 * x, r, w))
    assert found.change is None


def test_values_that_are_not_finite_are_noticed():
    x, r, w = tokens(20)
    x[3, 2] = float("inf")
    assert not sums(x, r, w).finite and sums(*tokens(20)).finite


def test_a_device_without_float64_keeps_its_sums_on_the_cpu():
    assert Sums(2, 3, torch.device("mps")).gram.device.type == "cpu"
