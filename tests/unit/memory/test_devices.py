"""Where weights go, decided on made-up machines."""

import pytest
import torch

from surgery import BaseError
from surgery.memory import devices
from surgery.memory.devices import (
    Room,
    accelerators,
    accelerators_shown,
    choose,
    free_on,
    hide_accelerators,
    main_memory,
    release_unused,
)

CPU = Room("cpu", 16 * 10**9)
GPUS = [Room("cuda:1", 24 * 10**9), Room("cuda:0", 8 * 10**9)]


@pytest.mark.parametrize(
    ("size", "gpus", "devices"),
    [
        (10**9, [], ("cpu",)),
        (10**9, GPUS, ("cuda:1",)),
        (25 * 10**9, GPUS, ("cuda:1", "cuda:0")),
        (10 * 10**9, [Room("cuda:0", 8 * 10**9)], ("cpu",)),
        (10**9, [Room("mps", 8 * 10**9)], ("mps",)),
    ],
)
def test_the_best_device_that_has_room(size, gpus, devices):
    assert choose(size, gpus, CPU) == devices


def test_no_room_is_said_with_figures():
    with pytest.raises(BaseError) as caught:
        choose(140 * 10**9, GPUS, CPU)
    for part in ("140.0 GB", "24.0 GB on cuda:1", "16.0 GB on cpu", "smaller model"):
        assert part in str(caught.value)


def test_main_memory_is_measured():
    assert 10**8 < main_memory().free < 10**14


def test_one_of_several_processes_has_a_device_of_its_own(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda i: (10 - i, 10))
    assert [room.device for room in accelerators()] == ["cuda:0", "cuda:1"]
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert len(accelerators()) == 2  # alone, it may use both
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert [room.device for room in accelerators()] == ["cuda:1"]


@pytest.fixture
def two_gpus(monkeypatch):
    """Two GPUs, or so PyTorch says: bytes that are free on each, and those that it holds."""
    free, held = {0: 10, 1: 9}, {}
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda i: (free[i], 10))
    monkeypatch.setattr("torch.cuda.memory_stats", lambda i: held.get(i, {}))
    return free, held


def test_memory_that_pytorch_keeps_for_later_counts_as_free(two_gpus):
    _, held = two_gpus
    sizes = {"reserved_bytes": 100, "allocated_bytes": 60, "inactive_split_bytes": 5}
    held[1] = {f"{what}.all.current": size for what, size in sizes.items()}
    assert accelerators() == [Room("cuda:1", 9 + 100 - 60 - 5), Room("cuda:0", 10)]
    assert free_on(torch.device("cuda:1")) == 44
    assert free_on(torch.device("mps")) == 0


def test_a_gpu_that_another_program_fills_is_left_out(two_gpus, monkeypatch):
    def info(index):
        if index == 0:
            raise torch.OutOfMemoryError("CUDA error: out of memory")
        return 9, 10

    monkeypatch.setattr("torch.cuda.mem_get_info", info)
    assert [room.device for room in accelerators()] == ["cuda:1"]


def test_hidden_gpus_are_none(two_gpus, monkeypatch):
    monkeypatch.setattr(devices, "_hidden", False)
    hide_accelerators()
    assert accelerators() == []
    with accelerators_shown():
        assert len(accelerators()) == 2
    assert accelerators() == []


def test_unused_memory_is_given_back_only_once_there_is_some(two_gpus, monkeypatch):
    given = []
    monkeypatch.setattr("torch.cuda.empty_cache", lambda: given.append(True))
    release_unused()  # CUDA isn't in use, and doesn't begin to be
    assert not given
    monkeypatch.setattr("torch.cuda.is_initialized", lambda: True)
    release_unused()
    assert given
