"""Passes on the meta device: what was worked out once is what torch would work out again."""

import pytest
import torch
from zoo import build

from surgery.architecture.inspect import meta
from surgery.architecture.inspect.anatomy import build_meta


@pytest.mark.parametrize(
    "model_type", ["bloom", "deepseek_v3", "gemma3_text", "jamba", "qwen2_moe"]
)
def test_remembered_results_are_those_that_torch_computes(monkeypatch, model_type):
    remembered, compared = meta._remembered, []

    def both(func, args, kwargs):
        result = remembered(func, args, kwargs)
        if meta._makes_one_tensor(func):
            computed = func(*args, **kwargs)
            compared.append(func)
            for of in (torch.Tensor.size, torch.Tensor.stride):
                assert of(result) == of(computed), func
            assert (result.dtype, result.device) == (computed.dtype, computed.device), func
        return result

    monkeypatch.setattr(meta, "_remembered", both)
    monkeypatch.setattr(meta, "_returned", {})
    model = build_meta(build.config(model_type))
    for length in (3, 5, 3):
        known = len(meta._returned)
        meta.run(model, length, use_cache=False)
    assert 0 < known == len(meta._returned) < len(compared) / 3


def test_numbers_of_different_types_are_told_apart(monkeypatch):
    monkeypatch.setattr(meta, "_returned", {})
    tensor = torch.zeros(2, 3, dtype=torch.long, device="meta")
    multiply = torch.ops.aten.mul.Scalar
    results = [meta._remembered(multiply, (tensor, factor), {}) for factor in (1, 1.0, 1, 1.0)]
    assert [result.dtype for result in results] == [torch.int64, torch.float32] * 2


def test_numbers_in_memory_are_computed_each_time(monkeypatch):
    monkeypatch.setattr(meta, "_returned", {})
    for value in (1.0, 2.0):
        (result,) = meta._remembered(torch.ops.aten.mul.Scalar, (torch.tensor([value]), 3), {})
        assert result == 3 * value
