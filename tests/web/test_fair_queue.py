"""Turns: so many at a time, fair among sessions, places told, turns given back."""

import threading
import time

import pytest

from components.services.client_address import Visitor
from components.services.fair_queue import FairQueue
from surgery import SurgeryError


def work(log, name, gate=None):
    log.append(f"{name} begins")
    yield name
    if gate:
        gate.wait(10)
    log.append(f"{name} ends")


def run(turns, who, name, log, gate=None, places=None):
    """In a thread, to its end."""

    def go():
        for item in turns.queued(who, work(log, name, gate), lambda place: place):
            if isinstance(item, int) and places is not None and item not in places[-1:]:
                places.append(item)

    thread = threading.Thread(target=go, daemon=True)
    thread.start()
    return thread


def until(condition):
    for _ in range(500):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it does not come to pass")


def test_one_sessions_many_requests_do_not_go_before_anothers_first():
    turns, log, gate = FairQueue(1), [], threading.Event()
    threads = [run(turns, "greedy", "g0", log, gate)]
    until(lambda: log)
    for i in (1, 2, 3):
        threads.append(run(turns, "greedy", f"g{i}", log))
        until(lambda i=i: len(turns) == i)
    for name in ("modest", "shy"):
        before = len(turns)
        threads.append(run(turns, name, name, log))
        until(lambda before=before: len(turns) == before + 1)
    gate.set()
    for thread in threads:
        thread.join(10)
    order = [line.split()[0] for line in log if line.endswith("begins")]
    assert order == ["g0", "modest", "shy", "g1", "g2", "g3"]
    assert log == [f"{name} {what}" for name in order for what in ("begins", "ends")]


def test_invented_sessions_of_an_address_do_not_go_before_another_address():
    turns, log, gate = FairQueue(1), [], threading.Event()
    threads = [run(turns, Visitor("s0", "10.0.0.1"), "first", log, gate)]
    until(lambda: log)
    for i in range(1, 6):
        threads.append(run(turns, Visitor(f"s{i}", "10.0.0.1"), f"crowd{i}", log))
        until(lambda i=i: len(turns) == i)
    for i in range(2):
        threads.append(run(turns, Visitor(f"t{i}", "10.0.0.2"), f"other{i}", log))
        until(lambda i=i: len(turns) == 6 + i)
    gate.set()
    for thread in threads:
        thread.join(10)
    order = [line.split()[0] for line in log if line.endswith("begins")]
    # Alternating between addresses, in order of arrival within one.
    assert order == ["first", "other0", "crowd1", "other1", *(f"crowd{i}" for i in range(2, 6))]


def test_an_address_has_so_many_places_and_no_more():
    turns, log = FairQueue(1, people=3), []
    held = turns.queued(Visitor("a", "10.0.0.1"), work(log, "a"), lambda p: p)
    next(held)
    waiting = []
    for i in range(3):
        waiting.append(turns.queued(Visitor(f"s{i}", "10.0.0.1"), work(log, "x"), lambda p: p))
        assert next(waiting[-1]) == i + 1
    with pytest.raises(SurgeryError, match="Too many visitors"):
        next(turns.queued(Visitor("s9", "10.0.0.1"), work(log, "x"), lambda p: p))
    other = turns.queued(Visitor("b", "10.0.0.2"), work(log, "b"), lambda p: p)
    assert next(other) == 1
    for one in (*waiting, other, held):
        one.close()
    assert not turns.taken and not turns.sessions


def test_places_are_told_as_they_change():
    turns, log, gate, places = FairQueue(1), [], threading.Event(), []
    threads = [run(turns, "a", "a", log, gate)]
    until(lambda: log)
    gates = [threading.Event() for _ in range(2)]
    for i, name in enumerate(("b", "c")):
        threads.append(run(turns, name, name, log, gates[i]))
        until(lambda i=i: len(turns) == i + 1)
    threads.append(run(turns, "d", "d", log, None, places))
    until(lambda: places == [3])
    gate.set()
    until(lambda: places == [3, 2])
    gates[0].set()
    until(lambda: places == [3, 2, 1])
    gates[1].set()
    for thread in threads:
        thread.join(10)
    assert places == [3, 2, 1] and len(turns) == 0


def test_who_leaves_gives_the_turn_on_at_work_or_waiting():
    turns, log = FairQueue(1), []
    first = turns.queued("a", work(log, "a"), lambda place: place)
    assert next(first) == "a"
    second = turns.queued("b", work(log, "b"), lambda place: place)
    third = turns.queued("c", work(log, "c"), lambda place: place)
    assert next(second) == 1 and next(third) == 2
    second.close()  # a tab that is closed while it waits
    first.close()  # and one that is closed while it is served
    assert next(third) == "c"
    third.close()
    until(lambda: not turns.sessions and not turns.taken)


def test_work_that_fails_gives_the_turn_on():
    def broken():
        raise SurgeryError("no")
        yield

    turns = FairQueue(1)
    for _ in range(3):
        with pytest.raises(SurgeryError, match="no"):
            list(turns.queued("a", broken(), lambda place: place))
    until(lambda: not turns.taken)


def test_it_comes_back_while_a_step_is_computed_and_the_turn_with_the_end_of_the_step():
    begun, go = threading.Event(), threading.Event()

    def slow():
        begun.set()
        go.wait(10)
        yield "late"

    turns = FairQueue(1)
    first = turns.queued("a", slow(), lambda place: place)
    since = time.monotonic()
    assert next(first) == 0 and begun.is_set()  # a sign of life
    second = turns.queued("b", slow(), lambda place: place)
    assert next(second) == 1
    assert [next(second) for _ in range(3)] == [1, 1, 1]  # in the queue too
    first.close()
    assert time.monotonic() - since < 5
    assert next(second) == 1 and turns.taken == 1  # the step is still running
    go.set()
    assert [item for item in second if item] == ["late"]
    until(lambda: not turns.taken and not turns.sessions)


def test_several_at_once_and_no_more_than_can_wait():
    turns, log = FairQueue(2, most=1), []
    running = [turns.queued(who, work(log, who), lambda p: p) for who in "ab"]
    assert [next(one) for one in running] == ["a", "b"]
    waiting = turns.queued("c", work(log, "c"), lambda p: p)
    assert next(waiting) == 1
    with pytest.raises(SurgeryError, match="Too many visitors"):
        next(turns.queued("d", work(log, "d"), lambda p: p))


def test_the_work_is_told_among_how_many_it_shares_the_machine():
    result, log = [], []
    turns = FairQueue(2, share=result.append)
    first = turns.queued("a", work(log, "a"), lambda p: p)
    assert next(first) == "a" and result == [1]
    second = turns.queued("b", work(log, "b"), lambda p: p)
    assert next(second) == "b" and result == [1, 2]
    assert list(first) == [] and result == [1, 2, 2]
    assert list(second) == [] and result == [1, 2, 2, 1]


def test_speaking_alone_has_all_processors_and_a_share_of_them_among_others(monkeypatch):
    import torch

    from surgery.memory import devices

    monkeypatch.setattr(devices.os, "cpu_count", lambda: 6)
    before = torch.get_num_threads()
    try:
        for among, threads in ((1, 6), (2, 3), (4, 1), (9, 1)):
            devices.share_processors(among)
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
