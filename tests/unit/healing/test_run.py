"""Runs: the loss falls, nobody else's weights change, what was stopped goes on as if it had not."""

import json
import os
from types import SimpleNamespace

import pytest
import tiny
import torch

from surgery import Base, Cancelled, Plan, SaveError, SurgeryError
from surgery.healing import Diverged, HealingRun, heal, run_checkpoint
from surgery.healing.state import snapshot


def losses(run):
    return [event.loss for event in run]


@pytest.mark.parametrize(
    "settings_",
    [
        dict(train="seams"),
        dict(train="all", temperature=2.0, hidden=0.1),
        dict(train="lora", learning_rate=1e-2, dropout=0.05),
        dict(train="seams", objective="next-token", accumulate=2),
    ],
    ids=["seams", "all", "lora", "next-token"],
)
def test_the_loss_falls_and_the_base_stays(base, plan, settings, tmp_path, settings_):
    before = {name: value.clone() for name, value in base.model.state_dict().items()}
    run = HealingRun(base, plan, settings(steps=24, **settings_), tmp_path / "run")
    result = losses(run)
    assert len(result) == 24 and sum(result[-6:]) < 0.97 * sum(result[:6])
    healed = run.result()
    for name, value in base.model.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert healed.facts["steps"] == 24 and healed.facts["tokens"] == 24 * 64
    assert any(
        not torch.equal(healed.tensors[name], value)
        for name, value in base.operate(plan).model.state_dict().items()
        if name in healed.tensors
    )


def test_evaluations_are_of_what_is_saved(base, plan, settings, tmp_path):
    """Adapters without the dropout that they are trained with."""
    changes = dict(train="lora", dropout=0.5, learning_rate=3e-2, steps=12)
    run = HealingRun(base, plan, settings(**changes), tmp_path / "run")
    losses(run)
    healed = run.result().facts["perplexity"]["healed"]
    assert run.evaluations[-1].now.value == pytest.approx(healed, rel=1e-4)
    assert healed != pytest.approx(run.evaluations[0].now.value, rel=1e-2)
    drops = [m for m in run.student.model.modules() if isinstance(m, torch.nn.Dropout) and m.p]
    assert drops and all(module.training for module in drops)


def test_new_layers_begin_where_the_base_is(base, settings, tmp_path):
    """LLaMA-Pro: with identity layers there is nothing to lose, and only they are trained."""
    wanted = Plan.parse("0:3, 2@identity, 3:6", 6)
    changes = dict(train="new", objective="next-token")
    run = HealingRun(base, wanted, settings(**changes), tmp_path / "run")
    (evaluation,) = run.evaluations
    assert (
        evaluation.base.value == pytest.approx(evaluation.now.value, rel=1e-6)
        and evaluation.recovered is None
    )
    losses(run)
    assert {name.split(".")[2] for name in run.result().tensors} == {"3"}


def test_events_say_how_it_goes(base, plan, settings, tmp_path):
    run = HealingRun(
        base, plan, settings(steps=4, evaluate_every=2, save_every=3), tmp_path / "run"
    )
    events = list(run)
    assert [event.step for event in events] == [1, 2, 3, 4]
    assert [event.evaluation is not None for event in events] == [False, True, False, True]
    assert [event.saved for event in events] == [False, False, True, True]
    assert [event.tokens for event in events] == [64, 128, 192, 256]
    assert events[-1].seconds_left == 0 and events[0].tokens_per_second > 0
    evaluation = events[-1].evaluation
    assert (
        evaluation.step == 4
        and evaluation.text.startswith("The")
        and evaluation.now.low < evaluation.now.high
    )
    assert evaluation.cut.value == run.evaluations[0].now.value != evaluation.now.value


def test_stopped_and_resumed_is_as_if_it_never_stopped(base, plan, settings, tmp_path):
    changes = dict(train="lora", dropout=0.1)
    whole = losses(HealingRun(base, plan, settings(**changes), tmp_path / "whole"))
    first = []
    run = HealingRun(base, plan, settings(**changes), tmp_path / "parts")
    for event in run:
        first.append(event.loss)
        if event.step == 5:
            run.stop()
    assert len(first) == 5 and run_checkpoint.states(tmp_path / "parts")[-1] == 5
    again = HealingRun(base, plan, settings(**changes), tmp_path / "parts")
    assert again.step == 5
    assert first + losses(again) == whole


def test_stopped_by_whoever_listens(base, plan, settings, tmp_path):
    def on_event(event):
        if event.step == 3:
            raise Cancelled

    with pytest.raises(Cancelled):
        heal(base, plan, settings(), tmp_path / "run", on_event)
    heard_steps = []
    heal(base, plan, settings(), tmp_path / "run", lambda event: heard_steps.append(event.step))
    assert heard_steps == list(range(4, 9))


def test_minutes_become_steps_once_and_for_all(base, plan, settings, tmp_path):
    changes = dict(steps=None, minutes=0.05)
    run = HealingRun(base, plan, settings(**changes), tmp_path / "run")
    steps = [event.steps for event in run]
    assert steps[0] is None and steps[-1] == len(steps) and run.seconds < 60
    assert HealingRun(base, plan, settings(**changes), tmp_path / "run").finished


def test_a_run_resumed_before_its_length_is_known_keeps_time_to_evaluate(
    base, plan, settings, tmp_path
):
    changes = dict(steps=None, minutes=1.0)
    run = HealingRun(base, plan, settings(**changes), tmp_path / "run")
    run.evaluator.seconds = 5.0
    next(iter(run))
    run.save()
    again = HealingRun(base, plan, settings(**changes), tmp_path / "run")
    assert (again.step, again.steps, again.evaluator.seconds) == (1, None, 5.0)


def test_a_saved_state_s_seconds_include_its_evaluation(
    base, plan, settings, tmp_path, monkeypatch
):
    clock = SimpleNamespace(now=0.0, monotonic=lambda: clock.now)
    run = HealingRun(base, plan, settings(steps=1), tmp_path / "run")
    before, evaluate = run.seconds, run._evaluate

    def evaluated():
        clock.now += 100
        return evaluate()

    monkeypatch.setattr("surgery.healing.run.time", clock)
    run._saved_at = 0.0
    monkeypatch.setattr(run, "_evaluate", evaluated)
    losses(run)
    assert run_checkpoint.read(tmp_path / "run", 1)[2].seconds == run.seconds == before + 100


def test_a_folder_belongs_to_one_run(base, plan, settings, tmp_path):
    HealingRun(base, plan, settings(), tmp_path / "run")
    for other, changes, message in (
        (plan, dict(seed=1), "other settings .seed was 0"),
        (Plan.parse("0:3, 4:6", 6), {}, "a different plan"),
    ):
        with pytest.raises(SurgeryError, match=message):
            HealingRun(base, other, settings(**changes), tmp_path / "run")
    (tmp_path / "thesis").mkdir()
    with pytest.raises(SurgeryError, match="holds no readable healing run"):
        HealingRun(base, plan, settings(), tmp_path / "thesis")


def test_a_run_is_not_resumed_on_other_weights_of_the_same_name(plan, settings, tmp_path):
    folder, run = tmp_path / "base", tmp_path / "run"
    model = tiny.model("llama")
    model.save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    HealingRun(Base.open(str(folder)), plan, settings(), run)
    HealingRun(Base.open(str(folder)), plan, settings(), run)
    with torch.no_grad():
        model.model.norm.weight.add_(0.5)
    model.save_pretrained(folder)
    with pytest.raises(SurgeryError, match="weights of base have changed since the run in"):
        HealingRun(Base.open(str(folder)), plan, settings(), run)


def test_a_state_is_written_from_the_memory_of_the_run(base, plan, settings, tmp_path):
    """Copies would take 12 bytes per trained parameter. A result does not change any more."""
    run = HealingRun(base, plan, settings(steps=2), tmp_path / "run")
    next(iter(run))
    parameters = run._parameters()
    trained, moments = snapshot(parameters, run.optimizer)
    healed = run.result()
    for name, parameter in parameters.items():
        assert trained[name].data_ptr() == parameter.data_ptr()
        mine = run.optimizer.state[parameter]["exp_avg"]
        assert moments[f"{name}/exp_avg"].data_ptr() == mine.data_ptr()
        assert healed.tensors[name].data_ptr() != parameter.data_ptr()


def test_no_pickles_among_the_files(base, plan, settings, tmp_path):
    losses(HealingRun(base, plan, settings(steps=1), tmp_path / "run"))
    files = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".json", ".safetensors"}
    for path in files:
        if path.suffix == ".json":
            json.loads(path.read_text())


@pytest.mark.parametrize("saved_after", [3, 5])
def test_nan_stops_it_and_the_last_good_state_stays(
    base, plan, settings, tmp_path, monkeypatch, saved_after
):
    """Weights go bad at step 6. A state of before is good; one that nothing was computed with since
    may hold them, and is not trusted."""
    learn = HealingRun._train_step

    def broken(self):
        if self.step == 5:
            for parameter in self._parameters().values():
                parameter.data.fill_(torch.nan)
            if saved_after == 5:
                self.save()
        return learn(self)

    monkeypatch.setattr(HealingRun, "_train_step", broken)
    run = HealingRun(base, plan, settings(save_every=3), tmp_path / "run")
    with pytest.raises(Diverged, match=r"not finite at step 6. The state after 3 steps"):
        losses(run)
    assert run_checkpoint.states(tmp_path / "run")[-1] == 3
    monkeypatch.undo()
    again = HealingRun(base, plan, settings(save_every=3), tmp_path / "run")
    assert again.step == 3 and len(losses(again)) == 5


def test_a_loss_that_runs_away_stops_it(base, plan, settings, tmp_path, monkeypatch):
    """What is kept is the state with the lowest loss before it, not the last."""
    loss = HealingRun._loss
    added = lambda self, ids: loss(self, ids) + abs(self.step - 6) / 10  # noqa: E731
    monkeypatch.setattr(HealingRun, "_loss", added)
    run = HealingRun(base, plan, settings(steps=60, save_every=12), tmp_path / "run")
    with pytest.raises(Diverged, match=r"The loss grows: .*The state after 12 steps is kept"):
        losses(run)
    assert run.step < 60 and run_checkpoint.states(tmp_path / "run")[-1] == 12


def test_a_disk_that_fills_up_costs_no_earlier_state(warm, tiny_folder, held_out, tmp_path):
    """A real refusal by the system in the middle of a state, as on a disk that is full."""
    code = """
import resource, sys
from surgery import *
from surgery.healing import HealingRun, Settings
base = Base.open(sys.argv[1])
chosen = Settings(
    steps=6, batch=2, window=16, sampled_tokens=64, held_out=sys.argv[3], save_every=2
)
run = HealingRun(base, Plan.parse("0:2, 4:6", 6), chosen, sys.argv[2])
try:
    for event in run:
        if event.step == 3:
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
except SaveError as error:
    print(error)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
run = HealingRun(base, Plan.parse("0:2, 4:6", 6), chosen, sys.argv[2])
print(run.step, [event.step for event in run])
"""
    folder = tmp_path / "run"
    done = warm.run("-c", code, tiny_folder("llama"), folder, held_out)
    first, second = done.stdout.splitlines()
    assert "could not be written: " in first and "arge" in first, first
    assert second == "2 [3, 4, 5, 6]", done.stderr
    assert not [name for name in os.listdir(folder) if name.endswith(".partial")]


def test_memory_is_looked_at_first(base, plan, settings, tmp_path, monkeypatch):

    monkeypatch.setattr("surgery.healing.cost.free_on", lambda device: 100_000)
    with pytest.raises(SurgeryError, match=r"Healing would need about .* are free"):
        HealingRun(base, plan, settings(), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("changes", [{}, {"text": "held out"}, {"default_text": "python"}])
def test_sequences_fit_the_context(tiny_folder, plan, settings, tmp_path, changes):
    """Whoever writes them: a model with learned positions has none beyond."""
    base = Base.open(str(tiny_folder("gpt2")))
    asked = settings(window=257, **changes)
    with pytest.raises(SurgeryError, match="257 tokens are longer than the context of 256: choose"):
        HealingRun(base, plan, asked, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_save_errors_are_the_library_s(base, plan, settings, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises((SaveError, SurgeryError)):
        HealingRun(base, plan, settings(), tmp_path / "file" / "run")
