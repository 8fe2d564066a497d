"""The command that heals: what it writes, says and refuses."""

import json
import shutil
import signal

import pytest

from surgery.cli import main
from surgery.healing import HealingRun
from surgery.repairing import Repaired

SHORT = ["--steps", "4", "--batch", "2", "--window", "16", "--sampled-tokens", "64"]
SHORT += ["--evaluate-every", "4"]


@pytest.fixture
def run(capsys, tiny_folder, tmp_path):
    """Heal into `tmp_path / "out"`: (exit status, stdout, stderr)."""
    held_out = tmp_path / "held-out.txt"
    held_out.write_text("A text that nobody trains on, of a few dozen letters.")

    def run(*arguments, plan="0:2, 4:6"):
        args = [str(tiny_folder("llama")), plan, str(tmp_path / "out"), *SHORT]
        status = main.main(["heal", *args, "--held-out", str(held_out), *arguments])
        return status, *capsys.readouterr()

    return run


def test_it_writes_a_model_and_says_what_came_of_it(run, tmp_path):
    status, out, err = run("--evaluate-every", "1")
    assert status == 0, err
    assert "were trained by distillation from the uncut base" in out
    lines = [line for line in err.splitlines() if line.startswith("step ")]
    assert len(lines) == 5 and "perplexity base" in lines[0] and " left" in lines[-1]
    files = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"config.json", "model.safetensors", "healing.json", "recipe.yaml"} <= files
    assert not (tmp_path / "out.healing").exists()


def test_an_adapter(run, tmp_path):
    status, out, _ = run("--train", "lora", "--adapter", "--json")
    facts = json.loads(out)
    assert status == 0 and len(facts["losses"]) == 4 and facts["steps"] == 4
    assert (tmp_path / "out" / "adapter_config.json").is_file()


def test_ctrl_c_ends_it_after_the_step_and_the_same_command_goes_on(run, tmp_path, monkeypatch):
    train_step = HealingRun._train_step

    def interrupted(self):
        if self.step == 2:
            signal.raise_signal(signal.SIGINT)
        return train_step(self)

    with monkeypatch.context() as patch:
        patch.setattr(HealingRun, "_train_step", interrupted)
        status, out, err = run()
    assert (status, out) == (130, "") and "Stopped after step 3" in err
    assert (tmp_path / "out.healing" / "state-00000003").is_dir()
    status, out, err = run()
    assert status == 0 and "resuming after step 3" in err and "for 4 steps" in out


def test_a_stopped_run_can_be_kept_as_it_is(run, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(HealingRun, "_agreed", lambda self, word: word or self.step >= 2)
        assert run()[0] == 130
    status, out, err = run("--keep")
    assert status == 0 and "for 2 steps" in out, err
    assert (tmp_path / "out" / "model.safetensors").is_file()


@pytest.mark.parametrize(
    ("plan", "method", "others"),
    [
        ("0:2, 4:6", "refit", ["lstsq", "alpha"]),
        ("0:4, 2:6", "damped", ["refit", "alpha"]),
        ("0:2, 4:6", "alpha", ["refit"]),
        ("0:4, 2:6", None, ["refit", "damped"]),
    ],
)
def test_a_run_is_resumed_with_its_plan_and_its_repair(
    run, tmp_path, monkeypatch, plan, method, others
):
    """Also one that an earlier version began, which did not record its repair."""
    monkeypatch.setattr(Repaired, "helps", True)
    asked = ["--repair", method, "--repair-tokens", "640"] if method else []
    with monkeypatch.context() as patch:
        patch.setattr(HealingRun, "_agreed", lambda self, word: word or self.step >= 1)
        assert run(*asked, plan=plan)[0] == 130
    for other in others:
        status, _, err = run("--repair", other, plan=plan)
        began = f"began with --repair {method}" if method else "began without --repair"
        assert status == 1 and began in err
    status, _, err = run("--repair", method or "refit", plan=f"0, {plan}")
    assert status == 1 and "a run with a different plan" in err
    older = shutil.copytree(tmp_path / "out.healing", tmp_path / "older")
    record = json.loads((older / "run.json").read_text())
    assert (record.pop("repair") is None) is (method is None)
    (older / "run.json").write_text(json.dumps(record))
    status, _, err = run(*asked, plan=plan)
    assert status == 0 and "resuming after step 1" in err, err
    shutil.rmtree(tmp_path / "out")
    older.rename(tmp_path / "out.healing")
    status, _, err = run(*asked, plan=plan)
    assert status == 0 and "resuming after step 1" in err, err


def test_scales_of_a_plan_are_not_taken_for_a_repair(run, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(HealingRun, "_agreed", lambda self, word: word or self.step >= 1)
        assert run(plan="0, 1@scale=0.5, 4:6")[0] == 130
    for method in ("alpha", "refit"):
        status, _, err = run("--repair", method, plan="0:2, 4:6")
        assert status == 1 and "a run with a different plan" in err


def test_what_it_would_cost(run, tmp_path):
    status, out, err = run("--cost", "--accelerator", "H100")
    assert (status, err) == (0, "") and "price         $" in out and "optimizer states" in out
    assert "An estimate:" in out and "1,000 billion tokens, about $1,000,000" in out
    facts = json.loads(run("--cost", "--json", "--tokens", "1000")[1])
    assert facts["tokens"] == 1000 and facts["fits"] is True and facts["estimate"] is True
    assert not (tmp_path / "out.healing").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--adapter"], "Only LoRA gives an adapter"),
        (["--objective", "magic"], "Objective can't be “magic”"),
        (["--dtype", "float8"], "“float8” is not a dtype"),
        (["--train", "lora", "--adapter", "--dtype", "float16"], "An adapter is written in"),
        (["--tokens", "9"], "are for an estimate: add --cost"),
        (["--accelerator", "H100"], "are for an estimate: add --cost"),
        (["--devices", "2"], "are for an estimate: add --cost"),
        (["--mfu", "0.5"], "are for an estimate: add --cost"),
        (["--repair-tokens", "3000"], "--repair-tokens is for a repair: add --repair"),
        (["--keep"], "There is no stopped run"),
        (["--layers", "9"], "There is no layer 9 to train"),
        (["--text", "/nowhere/at/all"], "can't be read"),
        (["--cost", "--accelerator", "abacus"], "is not a known accelerator"),
    ],
)
def test_refusals_are_one_line(run, tmp_path, arguments, message):
    status, out, err = run(*arguments)
    assert (status, out) == (1, "") and message in err and len(err.splitlines()) == 1
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.healing").exists()


def test_what_is_there_is_not_replaced(run, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    status, _, err = run()
    assert status == 1 and "exists already" in err and not (tmp_path / "out.healing").exists()
