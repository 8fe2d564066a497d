"""The step that is tried before a run: it takes what a step takes, and nothing remains of it."""

import math

import torch

from surgery.healing import HealingRun
from surgery.healing.trial_step import step_seconds


def test_it_takes_the_optimizer_s_states_and_leaves_the_run_as_it_was(
    base, plan, settings, tmp_path
):
    changes = dict(accumulate=2, weight_decay=0.1)
    run = HealingRun(base, plan, settings(**changes), tmp_path / "run")
    before = {name: value.detach().clone() for name, value in run._parameters().items()}
    states = []
    run.optimizer.optimizer.register_step_post_hook(lambda own, *_: states.append(len(own.state)))
    assert run._step_seconds() > 0
    assert states == [len(before)] * 2 and not run.optimizer.state
    for name, value in run._parameters().items():
        assert torch.equal(value, before[name]) and value.grad is None
    plain = HealingRun(base, plan, settings(**changes), tmp_path / "plain")
    assert [event.loss for event in run] == [event.loss for event in plain]


def test_gradients_that_are_not_finite_change_no_weight(base, plan, settings, tmp_path):
    run = HealingRun(base, plan, settings(), tmp_path / "run")
    before = {name: value.detach().clone() for name, value in run._parameters().items()}
    ids = torch.zeros(2, 8, dtype=torch.int64)

    def loss(ids):
        return run._loss(ids) * math.inf

    assert step_seconds(run.accelerator, run.model, run.optimizer, loss, ids, 1, 1.0) > 0
    assert all(torch.equal(value, before[name]) for name, value in run._parameters().items())
