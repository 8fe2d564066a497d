"""Estimates of what a plan costs: refined to the very numbers of a measurement."""

import pytest

from surgery import Cancelled, Plan, Refused
from surgery.analysis import (
    LossIncrease,
    MeasurementCache,
    control,
    estimate,
    known_estimate,
    measured_score,
    suggest,
)

PLANS = ("0:2, 4:6", "0:6, 2:4", "0:4, 3:4@identity, 4:6", "0:6")


@pytest.mark.parametrize(
    ("family", "text"),
    [*(("gemma3_text", text) for text in PLANS), ("gpt2", PLANS[0]), ("gpt2", PLANS[2])],
)
def test_the_last_estimate_is_the_measurement(opened, family, text):
    base, sample = opened(family)
    plan = Plan.parse(text, base.depth)
    seen = []
    last = estimate(base, plan, sample, seen.append)
    MeasurementCache(base, sample).forget()
    for found, of in ((last.base, Plan.whole(base.depth)), (last.patient, plan)):
        expected = measured_score(base, of, sample)
        assert found.tokens == expected.tokens == sample.tokens
        assert found.nll == pytest.approx(expected.nll, abs=1e-5)
        assert found.perplexity == pytest.approx(expected.perplexity, rel=1e-5)
    assert last.is_final and last.increase == LossIncrease.of(last.patient, last.base)
    # One for each window, on the tokens so far.
    scored = [len(window) - 1 for window in sample.windows]
    assert [one.patient.tokens for one in seen] == [sum(scored[:n]) for n in (1, 2)]
    for one in seen:
        assert not one.is_final
        assert one.patient.nll == last.patient.nll[: one.patient.tokens]
        assert one.base.nll == last.base.nll[: one.base.tokens]


def test_what_is_known_is_not_measured_again(opened, monkeypatch):
    base, sample = opened("llama")
    plan = Plan.parse("0:2, 4:6", 6)
    assert known_estimate(base, plan, sample) is None
    last = estimate(base, plan, sample)
    counts = []
    other = Plan.parse("0:5", 6)
    estimate(base, other, sample, progress=lambda what, done, total: counts.append(total))
    assert counts[-1] == 5 * len(sample)  # layers of the patient: the base's losses are known
    monkeypatch.setattr("surgery.analysis.estimation.run", None)
    again = estimate(base, plan, sample)
    assert again == known_estimate(base, plan, sample)
    assert again.patient.nll == pytest.approx(last.patient.nll)


def test_it_stops_between_two_layers(opened):
    base, sample = opened("llama")
    calls = []

    def progress(what, done, total):
        if what == "Measuring":
            calls.append(done)
            if done >= 3:
                raise Cancelled

    with pytest.raises(Cancelled):
        estimate(base, Plan.parse("0:5", 6), sample, progress=progress)
    assert calls[-1] == 3
    assert known_estimate(base, Plan.parse("0:5", 6), sample) is None


def test_a_patient_has_its_own_value(opened):
    """A healed patient is one whose weights are others than its plan's."""
    base, sample = opened("llama")
    plan = Plan.parse("0:2, 4:6", 6)
    patient = base.operate(Plan.parse("0:2, 3:4, 5:6", 6))
    last = estimate(base, patient, sample)
    assert last.patient.nll == pytest.approx(
        measured_score(base, patient.plan, sample).nll, abs=1e-5
    )
    # It isn't kept as the plan's.
    assert known_estimate(base, plan, sample) is None


def test_a_plan_that_is_refused(opened):
    base, sample = opened("llama")
    with pytest.raises(Refused, match="average"):
        estimate(base, Plan.parse("0:6@average", 6), sample)


def test_the_control_is_that_of_the_suggestions(opened):
    base, sample = opened("llama")
    for text, layers in (("0:2, 4:6", 4), ("0:6, 2:4", 8)):
        expected = suggest(base, sample, layers=layers, methods=["random"], measured=False)
        assert control(base, Plan.parse(text, 6)) == expected[0].plan
    assert control(base, Plan.whole(6)) is None
    assert control(base, Plan.parse("2:3", 6)) is None  # both ends of the base stay
