"""The losses against what they are by definition."""

import pytest
import torch

from surgery.healing.objective import HiddenStates, distance, distill, next_token


def test_distillation_is_the_divergence_of_what_is_expected_next():
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 5, 7), torch.randn(2, 5, 7)
    for temperature in (1.0, 3.0):
        p = (teacher / temperature).softmax(-1)
        q = (student / temperature).softmax(-1)
        expected = temperature**2 * (p * (p / q).log()).sum(-1).mean()
        assert distill(student, teacher, temperature).item() == pytest.approx(expected.item(), 1e-5)
    assert distill(teacher, teacher, 1.0).item() == pytest.approx(0, abs=1e-6)


def test_next_token_is_the_cross_entropy_of_what_follows():
    torch.manual_seed(0)
    logits, ids = torch.randn(2, 5, 7), torch.randint(0, 7, (2, 5))
    chosen = logits.log_softmax(-1)[:, :-1].gather(-1, ids[:, 1:, None])
    assert next_token(logits, ids).item() == pytest.approx(-chosen.mean().item(), 1e-5)


def test_the_distance_of_hidden_states_is_relative():
    torch.manual_seed(0)
    hidden = torch.randn(2, 3, 8)
    assert distance(hidden, hidden) == 0
    assert distance(3 * hidden, hidden).item() == pytest.approx(4)


def test_watched_modules_come_in_the_order_asked_for():
    a, b = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    watched, x = HiddenStates([b, a, b]), torch.ones(1, 2)
    middle = a(x)
    last = b(middle)
    result = watched.take()
    assert [torch.equal(f, t) for f, t in zip(result, (last, middle, last), strict=True)] == [
        True
    ] * 3
    assert watched.take() == []
