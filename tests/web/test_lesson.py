"""What the lesson's steps say and show, without a page."""

import pytest

from components.panels import lesson
from components.panels.lesson import blocks, demonstrations
from components.panels.lesson.demonstrations import DEMONSTRATIONS
from components.panels.lesson.wiring import PRESSED
from components.services.deployment import Deployment
from surgery import Base, BaseError, Plan
from surgery.lesson.contrast import Contrast, Difference
from surgery.lesson.course import BARE, LONG, SHORT, STEPS, Step
from surgery.lesson.figures import InitialWeights


@pytest.fixture
def step(tiny_folder, monkeypatch):
    """A function: a step of the lesson on a tiny base, with plans that fit it."""
    monkeypatch.setattr(demonstrations, "LONG", "0:4, 2:6")
    monkeypatch.setattr(demonstrations, "SHORT", "0:2, 4:6")
    monkeypatch.setattr(demonstrations, "WHOLE", "0:6")

    def made(act: str) -> Step:
        result = next(step for step in STEPS if step.act == act)
        changes = dict(base=str(tiny_folder("llama")), plan="0:4, 2:6", prompt="hello")
        return Step(**{**result.__dict__, **changes})

    return made


@pytest.fixture
def last(bases, step):
    """A function: the last blocks of a demonstration."""

    def run(act):
        *_, (status, shown) = DEMONSTRATIONS[act](bases, step(act))
        assert not status["failed"] and status["text"] == ""
        return shown

    return run


def test_the_panel_has_every_step():
    panel = lesson.layout()
    steps = panel.value["steps"]
    assert [step["parameters"] for step in steps] == [step.parameters for step in STEPS]
    assert all(step["base_name"] and step["words"] and step["notice"] for step in steps)
    assert len({step["short"] for step in steps}) == len(steps) == 11
    assert sum(step["fault"] for step in steps) == 3


def test_every_step_that_measures_has_something_that_does():
    acts = {step.act for step in STEPS}
    assert acts == {"write", *DEMONSTRATIONS, *PRESSED}


def test_the_base_is_in_use_while_it_is_demonstrated(bases, step, last, monkeypatch):
    used = []

    def in_use(*given):
        used.append(id(given[-2]) in bases._used)
        raise BaseError("enough")

    for act, place in (("norm", "Contrast.forgotten_norm"), ("index", "Contrast.old_indices")):
        monkeypatch.setattr(f"surgery.lesson.contrast.{place}", in_use)
        with pytest.raises(BaseError, match="enough"):
            last(act)
    assert used == [True, True] and not bases.used


def test_the_forgotten_norm_is_shown_beside_the_right_way(step, last):
    texts, lines = last("norm")
    right, wrong = texts["sides"]
    base = Base.open(step("norm").base)
    plan = base.operate(Plan.parse("0:4, 2:6", 6))
    assert right["text"] == "".join(plan.stream("hello", max_new_tokens=24, greedy=True))
    assert wrong["text"] != right["text"] and wrong["error"] == "" and wrong["ended"]
    assert lines["lines"][0]["right"] is True and "off by up to" in lines["lines"][0]["text"]


def test_old_numbers_are_shown_on_both_models(last):
    longer, silent, shorter, stopped = last("index")
    assert longer["title"].endswith("0:4, 2:6") and longer["sides"][1]["error"] == ""
    assert "No error is raised" in silent["lines"][0]["text"]
    assert silent["lines"][-1] == {
        "right": True,
        "text": "Without the cache both agree exactly: difference 0.0.",
    }
    assert shorter["title"].endswith("0:2, 4:6")
    assert shorter["sides"][1]["error"].startswith("IndexError")
    assert stopped["lines"][0]["text"].startswith("It stops: transformers raises IndexError")


def test_a_mistake_that_does_not_show_is_not_called_one():
    (line,) = blocks.difference_lines(Difference(9, 0.0, 40.0, 0, 0.0), False)
    assert line == (False, "No difference was found: the mistake has no effect here.")
    *_, (same, message) = blocks.difference_lines(Difference(9, 3.0, 40.0, 0, 1.5), True)
    assert same is False and "by up to 1.5" in message


def test_weights_are_counted_and_judged_by_their_counts(last):
    table, lines = last("drawn")
    assert table["rows"][0][0] == "beyond 2σ" and table["rows"][0][3] == "4.55 %"
    assert [line["right"] for line in lines["lines"]].count(True) >= 1
    truncated = InitialWeights(1000, 0.018, 0.0, 46, 0.0, 46, 0.0455)
    assert [right for right, _ in blocks.spread_lines(truncated)] == [False, False]


def test_harm_is_shown_with_its_sample_and_costs_in_print(last):
    harm, compared, money, _ = last("heal")
    assert [row[0] for row in harm["rows"]] == [
        "base, 0:6",
        "shorter, 0:2, 4:6",
        "longer, 0:4, 2:6",
    ]
    assert "tokens" in harm["title"] and harm["head"][2] == "95 % interval"
    values = [float(row[1]) for row in harm["rows"]]
    worse = min(values[1:]) > values[0]
    assert compared["lines"][0]["right"] is worse  # said as it came out, for a random model too
    assert [row[3] for row in money["rows"][1:]] == ["$0.2 M", "$1.0 M", "$3.0 M"]


def test_leaving_early_closes_the_streams(bases, step, monkeypatch):
    closed = []
    make = Contrast.forgotten_norm

    def watched(*args):
        contrast = make(*args)
        close = contrast.stream

        def stream(*a, **k):
            try:
                yield from close(*a, **k)
            finally:
                closed.append(True)

        contrast.stream = stream
        return contrast

    monkeypatch.setattr(Contrast, "forgotten_norm", watched)
    running = demonstrations.forget_norm(bases, step("norm"))
    next(shown for _, shown in running if shown and shown[0]["sides"][0]["text"])
    running.close()  # as Gradio does when the event is cancelled
    assert closed == [True]


def test_strangers_may_open_the_lesson_s_model_and_no_config_of_this_machine():
    strangers = Deployment.of(public=True)
    strangers.check_spec(BARE)
    with pytest.raises(BaseError):
        strangers.check_spec(f"config:{__file__}")


def test_plans_of_the_mistakes_are_the_lesson_s():
    assert {step.plan for step in STEPS if step.fault} == {"0:12", LONG}
    assert any(step.plan == SHORT for step in STEPS)
