"""Float32 copies of weights: shared by passes, and dropped when they aren't needed."""

import time

import pytest
import torch
from torch import nn

from surgery.compute import float32_copies
from surgery.compute.float32_copies import Copies
from surgery.memory import devices


@pytest.fixture
def shared(monkeypatch):
    copies = Copies()
    monkeypatch.setattr(devices, "_caches", [copies.drop])
    return copies


@pytest.fixture
def model():
    return nn.Linear(4, 3, bias=False).to(torch.bfloat16).requires_grad_(False)


def test_a_copy_is_made_once_and_again_when_the_weight_changes(model):
    copies = Copies()
    first = copies.of(model.weight)
    assert torch.equal(first, model.weight.float()) and copies.of(model.weight) is first
    model.weight.mul_(2)
    assert torch.equal(copies.of(model.weight), model.weight.float())
    assert not torch.equal(copies.of(model.weight), first)


def test_a_copy_goes_with_its_weight(model):
    copies = Copies()
    copies.of(model.weight)
    assert copies.missing(model) == 0
    del model.weight
    with copies.used(model):
        assert not copies._kept


def test_a_weight_that_is_shared_is_copied_once(model):
    copies = Copies()
    twin = nn.Parameter(model.weight.detach(), requires_grad=False)
    assert copies.of(twin) is copies.of(model.weight)
    model.weight.mul_(2)
    assert torch.equal(copies.of(twin), model.weight.float())
    assert copies.of(model.weight[:2]).shape == (2, 4)
    assert torch.equal(copies.of(model.weight.t()), model.weight.float().t())


def test_weights_that_were_made_in_inference_mode():
    copies = Copies()
    with torch.inference_mode():
        weight = nn.Parameter(torch.ones(2, 3, dtype=torch.bfloat16), requires_grad=False)
        assert copies.of(weight) is copies.of(weight)
    assert torch.equal(copies.of(weight), weight.float())


def test_what_a_text_was_written_with_can_be_trained_with(model):
    copies = Copies()
    with torch.inference_mode():
        copies.of(model.weight)
    hidden = torch.ones(1, 4, requires_grad=True)
    nn.functional.linear(hidden, copies.of(model.weight)).sum().backward()
    assert hidden.grad is not None


def test_the_next_pass_finds_them(shared, model):
    with shared.used(model) as copies:
        first = copies.of(model.weight)
    with shared.used(model) as copies:
        assert copies.of(model.weight) is first


def test_they_are_dropped_after_a_while(shared, model, monkeypatch):
    monkeypatch.setattr(float32_copies, "LINGER", 0.05)
    with shared.used(model) as copies:
        copies.of(model.weight)
        time.sleep(0.2)
        assert copies.missing(model) == 0
    end = time.monotonic() + 20
    while shared._kept and time.monotonic() < end:
        time.sleep(0.05)
    assert not shared._kept


def test_they_make_room_for_what_needs_memory(shared, model):
    with shared.used(model) as copies:
        copies.of(model.weight)
        devices.main_memory()
        assert copies.missing(model) == 0  # in use
    devices.main_memory()
    assert shared.missing(model) == 4 * 12


def test_no_copies_where_they_do_not_fit(shared, model, monkeypatch):
    monkeypatch.setattr(float32_copies, "free_on", lambda device: 100)
    with shared.used(model) as copies:
        assert copies is None
    with shared.used(model, fit=True) as copies:
        assert copies is shared
    monkeypatch.setattr(float32_copies, "free_on", lambda device: 200)
    with shared.used(model) as copies:
        assert copies is shared


def test_another_thread_adds_copies_while_dead_ones_are_removed(shared, model):
    class Racing:
        def expired(self):
            shared.of(model.weight)  # as if another thread did
            return False

    shared._kept["another"] = float32_copies._Copy(Racing(), 0, torch.ones(1))
    with shared.used(model) as copies:
        assert copies.missing(model) == 0
