"""Random numbers that no other thread can disturb."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import tiny
import torch
from torch import nn

from surgery import Plan
from surgery.architecture import Anatomy
from surgery.architecture.apply.initialise import random_layer
from surgery.seeded_random import Seeded, seeded_on


def draws() -> list[torch.Tensor]:
    """One of everything that initialisers draw with."""
    with torch.no_grad():
        return [
            torch.empty(9).normal_(),
            torch.empty(9).uniform_(),
            torch.empty(9).bernoulli_(0.5),
            nn.init.trunc_normal_(torch.empty(9), std=0.02),
            nn.init.orthogonal_(torch.empty(3, 3)),
            torch.rand(9),
            torch.randn(9),
            torch.randint(9, (9,)),
            torch.rand_like(torch.empty(9)),
            torch.randperm(9),
            torch.multinomial(torch.ones(9), 5),
            torch.normal(torch.zeros(9), 1.0),
            nn.Linear(3, 3).weight.detach(),
        ]


def test_the_numbers_are_those_of_the_seed_and_the_common_generator_stays():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        expected = draws()
    torch.manual_seed(1)
    before = torch.get_rng_state()
    with Seeded(5):
        result = draws()
    assert torch.equal(torch.get_rng_state(), before)
    for ours, theirs in zip(result, expected, strict=True):
        assert torch.equal(ours, theirs)


@pytest.fixture
def noise():
    """A thread that draws from the process's generator all the while, and reseeds it."""
    done = threading.Event()

    def draw():
        while not done.is_set():
            torch.manual_seed(3)
            torch.empty(100).normal_()

    thread = threading.Thread(target=draw)
    thread.start()
    yield
    done.set()
    thread.join()


def test_a_random_layer_is_the_same_whatever_other_threads_draw(noise):
    anatomy = Anatomy.of(tiny.config("llama"))
    plan = Plan.parse("0:3, 2*4@random, 3:6", 6)
    with ThreadPoolExecutor(4) as pool:
        made = list(
            pool.map(lambda i: random_layer(anatomy, plan, 3 + i % 4, torch.float32), range(32))
        )
    for i, layer in enumerate(made):
        for ours, theirs in zip(layer.values(), made[i % 4].values(), strict=True):
            assert torch.equal(ours, theirs)


def test_a_devices_own_generator_is_seeded_and_put_back(monkeypatch):
    """On an accelerator: here the CPU's own generator plays the part of Apple's GPU."""
    monkeypatch.setattr("torch.get_device_module", lambda device: torch.random)
    torch.manual_seed(1)
    expected = torch.rand(4)
    torch.manual_seed(1)
    with seeded_on(torch.device("mps"), 7):
        inside = torch.nn.functional.dropout(torch.ones(64))
    assert torch.equal(torch.rand(4), expected)
    torch.manual_seed(7)
    assert torch.equal(torch.nn.functional.dropout(torch.ones(64)), inside)


def test_on_the_cpu_numbers_are_the_blocks_own():
    assert isinstance(seeded_on(torch.device("cpu"), 7), Seeded)
