"""Shared work: done once, progress for all callers, not stopped by one who leaves."""

import threading

import pytest

from components.services.shared_work import SharedWork, at_most
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


def asking(shared, work, **options):
    """A visitor in a thread: its progress and result, and a way to leave."""
    reports, came, leave = [], [], threading.Event()

    def progress(*news):
        reports.append(news)
        if leave.is_set():
            raise Cancelled

    def ask():
        try:
            came.append(shared.run("it", work, progress, **options))
        except BaseException as error:
            came.append(error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    return thread, reports, came, leave


def until(condition):
    waited = threading.Event()
    for _ in range(500):
        if condition():
            return
        waited.wait(0.01)
    raise AssertionError("it does not come to pass")


@pytest.fixture
def sharing():
    """A function that makes shared work; nothing may be left of it at the end."""
    made = []

    def make(linger=20.0):
        made.append(SharedWork(linger))
        return made[-1]

    yield make
    until(lambda: not any(len(shared) for shared in made))


def test_it_is_done_once_and_everybody_sees_how_far_it_is(sharing):
    shared = sharing()
    work = Work()
    all_of_them = [asking(shared, work) for _ in range(3)]
    for _, reports, _, _ in all_of_them:
        until(lambda reports=reports: ("Unpacking", 1, 4) in reports)
    work.go.set()
    for thread, _, came, _ in all_of_them:
        thread.join(5)
        assert came == [1]
    assert shared.run("it", work, silent) == 2  # the result is not kept: the next call starts again


def test_who_leaves_stops_nothing_that_another_waits_for(sharing):
    shared = sharing(0.0)
    work = Work()
    first, _, came_first, leave = asking(shared, work)
    assert work.running.wait(5)
    second, reports, came_second, _ = asking(shared, work)
    until(lambda: reports)
    leave.set()
    first.join(5)
    assert isinstance(came_first[0], Cancelled) and not work.stopped.wait(0.3)
    work.go.set()
    second.join(5)
    assert came_second == [1] and work.begun == 1


def test_who_comes_back_soon_finds_it_as_far_as_it_was(sharing):
    shared = sharing(5.0)
    work = Work()
    thread, _, _, leave = asking(shared, work)
    assert work.running.wait(5)
    leave.set()
    thread.join(5)
    again, reports, came, _ = asking(shared, work)
    until(lambda: reports)
    work.go.set()
    again.join(5)
    assert came == [1] and work.begun == 1


def test_nobody_wants_it_any_more_so_it_stops_and_can_be_begun_anew(sharing):
    shared = sharing(0.1)
    work = Work()
    thread, _, _, leave = asking(shared, work)
    assert work.running.wait(5)
    leave.set()
    thread.join(5)
    assert work.stopped.wait(5)
    work.go.set()
    assert shared.run("it", work, silent) == 2


def test_what_the_app_wants_for_itself_goes_on_without_anybody(sharing):
    shared = sharing(0.0)
    work = Work()
    app, *_ = asking(shared, work, lasting=True)
    assert work.running.wait(5)
    visitor, _, _, leave = asking(shared, work)
    leave.set()
    visitor.join(5)
    assert not work.stopped.wait(0.3)
    work.go.set()
    app.join(5)
    assert work.begun == 1


def test_a_failure_is_told_to_all_and_can_be_tried_again(sharing):
    shared = sharing()
    work = Work(BaseError("no network"))
    both = [asking(shared, work) for _ in range(2)]
    for _, reports, _, _ in both:
        until(lambda reports=reports: reports)
    work.go.set()
    for thread, _, came, _ in both:
        thread.join(5)
        assert [str(error) for error in came] == ["no network"]
    work.error = None
    assert shared.run("it", work, silent) == 2


def test_who_can_show_no_progress_waits_no_longer_than_is_said(sharing):
    shared = sharing()
    work = Work()
    with pytest.raises(BaseError, match="Unpacking: this is still in progress"):
        shared.run("it", work, at_most(0.4))
    work.go.set()
