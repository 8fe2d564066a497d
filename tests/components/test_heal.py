"""The heal panel without a browser: what it yields, what it keeps, what it refuses."""

import pytest

from components.heal import Clinic, Runs, curve, heal, price, read
from surgery import Plan, SurgeryError
from surgery.heal import kept

PLAN = Plan.parse("0:2, 4:6", 6)
SHORT = ("layers beside the seams", "what the base would say", 6, 5, 2, 16, 3e-3, 4, 0)


@pytest.fixture
def spec(tiny_folder):
    return str(tiny_folder("llama"))


def test_a_run_is_shown_and_its_patient_kept(spec):
    clinic, runs = Clinic(), Runs()
    *_, (status, words, picture) = heal(clinic, runs, "one", spec, PLAN, SHORT, False)
    assert status["text"].startswith("Healed.") and "Step 6 of 6, loss" in words
    drawn = picture["value"]["data"]
    assert picture["visible"] and len(drawn[0]["y"]) == 6 and len(drawn) == 4
    healed = clinic.patient(spec, PLAN)
    assert healed.facts["steps"] == 6 and "".join(healed.stream("Once", max_new_tokens=2))
    assert clinic.patient(spec, Plan.parse("0:3, 4:6", 6)) is None
    runs.forget("one")
    assert not list(runs.folder.iterdir())


def test_paused_it_goes_on_where_it_was(spec):
    clinic, runs = Clinic(), Runs()
    long = (*SHORT[:2], 400, *SHORT[3:])
    updates = heal(clinic, runs, "one", spec, PLAN, long, False)
    for status, *_ in updates:
        if status["text"].startswith("Healing"):
            break
    updates.close()
    with clinic.busy:  # it ends its step first
        (folder,) = next(runs.folder.iterdir()).iterdir()
        done = kept.states(folder)[-1]
    assert 0 < done < 400 and clinic.patient(spec, PLAN) is None
    updates = heal(clinic, runs, "one", spec, PLAN, long, False)
    steps = [words for _, words, _ in updates if isinstance(words, str)]
    assert int(steps[0].split()[1].rstrip(",")) >= done
    assert clinic.patient(spec, PLAN).facts["steps"] == 400


def test_what_it_would_cost(spec):
    status, words = price(spec, PLAN, SHORT, False)
    assert status["text"] == "" and "An estimate: 192 tokens" in words and "fits here" in words


def test_what_is_refused_is_said(spec):
    none = ("layers that were added", *SHORT[1:])
    *_, (status, _, _) = heal(Clinic(), Runs(), "one", spec, PLAN, none, False)
    assert status["failed"] and "adds no layers" in status["text"]
    with pytest.raises(SurgeryError, match="from the lists"):
        read(("everything", *SHORT[1:]), False)
    with pytest.raises(SurgeryError, match="A public page"):
        read((*SHORT[:2], 2000, *SHORT[3:]), True)
    assert read((*SHORT[:2], 0, 1000, *SHORT[4:]), True).minutes == 10


def test_an_empty_picture_is_one():
    assert curve([], [])["data"][0]["y"] == []
