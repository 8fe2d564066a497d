"""Progress and cancellation: locks with visible progress, and nested work."""

import threading

import pytest

from surgery import SurgeryError
from surgery import progress as module
from surgery.progress import Cancelled, Turn, alive, current, reporting_to, silent


def holding(turn, *news):
    """A thread that holds the lock; set the event to end it."""
    begun, go = threading.Event(), threading.Event()

    def hold():
        with turn.taken(silent) as report:
            report(*news)
            begun.set()
            go.wait(10)

    threading.Thread(target=hold, daemon=True).start()
    assert begun.wait(5)
    return go


def test_who_waits_sees_the_holders_progress_and_takes_over():
    turn, reports = Turn(), []
    go = holding(turn, "Loading weights", 3, 4)

    def progress(*news):
        reports.append(news)
        go.set()

    with turn.taken(progress) as report:
        report("Mine", 1, 1)
    assert reports[0] == ("Loading weights", 3, 4) and reports[-1] == ("Mine", 1, 1)


def test_who_waits_can_leave_and_the_turn_is_given_on_whatever_happens():
    turn = Turn()
    go = holding(turn, "Loading weights", 0, 0)

    def leave(*news):
        raise Cancelled

    with pytest.raises(Cancelled), turn.taken(leave):
        raise AssertionError("it has the turn")
    go.set()
    with pytest.raises(KeyError), turn.taken(silent):
        raise KeyError
    with turn.taken(silent):
        pass


def test_waiting_for_what_does_not_move_has_an_end(monkeypatch):
    monkeypatch.setattr(module, "_NO_NEWS", 0.3)
    turn = Turn()
    go = holding(turn, "Loading weights", 0, 0)
    with (
        pytest.raises(SurgeryError, match="Loading weights: no progress for"),
        turn.taken(silent),
    ):
        raise AssertionError("it has the turn")
    go.set()


def test_deep_work_is_stopped_through_its_thread():
    def stop(what, done, total):
        raise Cancelled

    alive()  # without a progress function
    with reporting_to(stop):
        assert current() is stop
        with pytest.raises(Cancelled):
            alive()
    assert current() is silent


def test_layers_are_laid_out_and_checked_in_a_way_that_can_be_stopped():
    """A config with many layers takes long to build."""
    import tiny

    from surgery.architecture import Anatomy
    from surgery.architecture.apply.build import skeleton

    calls = []

    def count(what, done, total):
        calls.append(what)

    with reporting_to(count):
        anatomy = Anatomy.of(tiny.config("llama", num_hidden_layers=12))
    assert len(calls) > 12 * 4
    calls.clear()
    with reporting_to(count):
        skeleton(anatomy, range(1, 12))
    assert len(calls) > 12 * 4

    def stop(what, done, total):
        raise Cancelled

    with reporting_to(stop), pytest.raises(Cancelled):
        Anatomy.of(tiny.config("llama"))
    Anatomy.of(tiny.config("llama"))  # the lock was released


def test_random_weights_are_drawn_with_progress_and_can_be_stopped(tmp_path):
    import tiny

    from surgery import Base

    tiny.config("llama", num_hidden_layers=12).save_pretrained(tmp_path)
    base = Base.open(f"config:{tmp_path / 'config.json'}")
    reports = []

    def stop_half_way(what, done, total):
        reports.append((what, done, total))
        if done > total / 2 > 0:
            raise Cancelled

    with pytest.raises(Cancelled):
        base.load(stop_half_way)
    assert not base.is_loaded and {what for what, *_ in reports} == {"Drawing random weights"}
    assert reports[-1][2] == base.counts.total and len(reports) > 12
    assert base.load() is base.model
