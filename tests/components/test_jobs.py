"""Long work in a thread: reports, an estimate, a way to stop."""

import threading

import pytest

from components.jobs import Job, Report
from surgery import BaseError, Cancelled


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


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.2, "1 s"), (59, "59 s"), (61, "1 min"), (9000, "2.5 h")]
)
def test_an_estimate_in_words(seconds, said):
    assert Report("Copying", 1, 2, seconds).view()["text"] == f"Copying, about {said} left"
