"""Shared work: done once, progress for all callers, not stopped by one who leaves."""

import threading

import pytest

from components.services import shared_work
from components.services.shared_work import at_most, shared
from surgery import BaseError
from surgery.progress import Cancelled, silent


class Work:
    """Counts how often it is started, and continues on request."""

    def __init__(self, error=None):
        self.begun, self.go, self.stopped = 0, threading.Event(), threading.Event()
        self.running, self.error = threading.Event(), error

    def __call__(self, progress):
        self.begun += 1
        self.running.set()
        try:
            while not self.go.wait(0.02):
                progress("Unpacking", 1, 4)
        except Cancelled:
            self.stopped.set()
            raise
        if self.error:
            raise self.error
        return self.begun


def asking(work, key="it", **options):
    """A visitor in a thread: its progress and result, and a way to leave."""
    heard, came, leave = [], [], threading.Event()

    def progress(*news):
        heard.append(news)
        if leave.is_set():
            raise Cancelled

    def ask():
        try:
            came.append(shared(key, work, progress, **options))
        except BaseException as error:
            came.append(error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    return thread, heard, came, leave


def until(condition):
    waited = threading.Event()
    for _ in range(500):
        if condition():
            return
        waited.wait(0.01)
    raise AssertionError("it does not come to pass")


@pytest.fixture(autouse=True)
def nothing_left():
    yield
    until(lambda: not shared_work._under_way)


def test_it_is_done_once_and_everybody_sees_how_far_it_is():
    work = Work()
    all_of_them = [asking(work) for _ in range(3)]
    for _, heard, _, _ in all_of_them:
        until(lambda heard=heard: ("Unpacking", 1, 4) in heard)
    work.go.set()
    for thread, _, came, _ in all_of_them:
        thread.join(5)
        assert came == [1]
    assert shared("it", work, silent) == 2  # the result is not kept: the next call starts again


def test_who_leaves_stops_nothing_that_another_waits_for(monkeypatch):
    monkeypatch.setattr(shared_work, "_RETURN", 0.0)
    work = Work()
    first, _, came_first, leave = asking(work)
    assert work.running.wait(5)
    second, heard, came_second, _ = asking(work)
    until(lambda: heard)
    leave.set()
    first.join(5)
    assert isinstance(came_first[0], Cancelled) and not work.stopped.wait(0.3)
    work.go.set()
    second.join(5)
    assert came_second == [1] and work.begun == 1


def test_who_comes_back_soon_finds_it_as_far_as_it_was(monkeypatch):
    monkeypatch.setattr(shared_work, "_RETURN", 5.0)
    work = Work()
    thread, _, _, leave = asking(work)
    assert work.running.wait(5)
    leave.set()
    thread.join(5)
    again, heard, came, _ = asking(work)
    until(lambda: heard)
    work.go.set()
    again.join(5)
    assert came == [1] and work.begun == 1


def test_nobody_wants_it_any_more_so_it_stops_and_can_be_begun_anew(monkeypatch):
    monkeypatch.setattr(shared_work, "_RETURN", 0.1)
    work = Work()
    thread, _, _, leave = asking(work)
    assert work.running.wait(5)
    leave.set()
    thread.join(5)
    assert work.stopped.wait(5)
    work.go.set()
    assert shared("it", work, silent) == 2


def test_what_the_app_wants_for_itself_goes_on_without_anybody(monkeypatch):
    monkeypatch.setattr(shared_work, "_RETURN", 0.0)
    work = Work()
    app, *_ = asking(work, lasting=True)
    assert work.running.wait(5)
    visitor, _, _, leave = asking(work)
    leave.set()
    visitor.join(5)
    assert not work.stopped.wait(0.3)
    work.go.set()
    app.join(5)
    assert work.begun == 1


def test_a_failure_is_told_to_all_and_can_be_tried_again():
    work = Work(BaseError("no network"))
    both = [asking(work) for _ in range(2)]
    for _, heard, _, _ in both:
        until(lambda heard=heard: heard)
    work.go.set()
    for thread, _, came, _ in both:
        thread.join(5)
        assert [str(error) for error in came] == ["no network"]
    work.error = None
    assert shared("it", work, silent) == 2


def test_who_can_show_no_progress_waits_no_longer_than_is_said():
    work = Work()
    with pytest.raises(BaseError, match="Unpacking: this is still in progress"):
        shared("it", work, at_most(0.4))
    work.go.set()
