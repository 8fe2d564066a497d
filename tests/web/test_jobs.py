"""Long work in a thread: reports, an estimate, a way to stop."""

import threading
import time
import weakref

import pytest

from components.services import jobs
from components.services.jobs import Job, Report
from surgery import BaseError, Cancelled, SurgeryError


def test_it_reports_and_returns():
    go = threading.Event()

    def work(progress):
        progress("Half way", 1, 2)
        go.wait(10)
        return 42

    job = Job(work)
    reports = iter(job)
    first = next(reports)
    assert (first.what, first.done, first.total) == ("Half way", 1, 2)
    assert first.view() == {"text": "Half way", "share": 0.5}
    go.set()
    assert list(reports) == [] and job.result() == 42


def test_what_goes_wrong_is_raised_by_the_result():
    def work(progress):
        raise BaseError("no such model")

    job = Job(work)
    assert list(job) == []
    with pytest.raises(BaseError, match="no such model"):
        job.result()


def test_leaving_the_loop_stops_the_work():
    ended = threading.Event()

    def work(progress):
        try:
            while True:
                progress("Working", 0, 0)
                ended.wait(0.01)
        except Cancelled:
            ended.set()
            raise

    reports = iter(Job(work))
    assert next(reports).view() == {"text": "Working", "share": None}
    reports.close()
    assert ended.wait(10)


def test_it_comes_back_twice_a_second_whatever_the_work_does():
    go = threading.Event()
    reports = iter(Job(lambda progress: go.wait(10)))
    for _ in range(3):
        since = time.monotonic()
        assert next(reports).view() == {"text": "Working", "share": None}
        assert time.monotonic() - since < 1
    since = time.monotonic()
    reports.close()
    assert time.monotonic() - since < 0.5
    go.set()


def test_work_that_does_not_notice_that_it_was_stopped_holds_up_new_work_but_not_for_ever(
    monkeypatch,
):
    monkeypatch.setattr(jobs, "_MOST_ENDING", 2)
    monkeypatch.setattr(jobs, "_PATIENCE", 0.5)
    until(lambda: not jobs.ending())
    go = threading.Event()
    for _ in range(2):
        silent = iter(Job(lambda progress: go.wait(10)))
        next(silent)
        silent.close()
    assert len(jobs.ending()) == 2
    late = Job(lambda progress: 1)
    assert {report.what for report in late} == {"Waiting for cancelled work to finish"}
    with pytest.raises(SurgeryError, match="still finishing"):
        late.result()
    waiting = Job(lambda progress: 2)
    reports = iter(waiting)
    next(reports)
    go.set()
    until(lambda: not jobs.ending())
    list(reports)
    assert waiting.result() == 2


def test_an_error_that_is_kept_keeps_nothing_else():
    class Large:
        pass

    seen = []

    def work(progress):
        large = Large()
        seen.append(weakref.ref(large))
        raise BaseError("no")

    job = Job(work)
    list(job)
    until(lambda: seen[0]() is None)
    with pytest.raises(BaseError):
        job.result()


def until(condition):
    for _ in range(500):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it does not come to pass")


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.2, "1 s"), (59, "59 s"), (61, "1 min"), (9000, "2.5 h")]
)
def test_an_estimate_in_words(seconds, said):
    assert Report("Copying", 1, 2, seconds).view()["text"] == f"Copying, about {said} left"
