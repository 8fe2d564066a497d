"""Where weights go, decided on made-up machines."""

import pytest

from surgery import BaseError
from surgery.devices import Room, accelerators, choose, main_memory

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
