"""`repair` on the command line."""

import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from surgery import Base, texts
from surgery.analysis import Sample
from surgery.healing import evaluation

SHORT = ["--text", "python", "--tokens", "2048"]


@pytest.fixture(autouse=True)
def short_texts(monkeypatch):
    """The texts that a gain is measured on, which have as many tokens as characters."""
    get = texts.get
    monkeypatch.setattr(texts, "get", lambda *which: get(*which)[:300])


def test_it_writes_what_it_fitted(run, tiny_folder, tmp_path):
    folder, out = tiny_folder("gpt2"), tmp_path / "out"
    status, text, _ = run("repair", folder, "0:2, 4:6", out, *SHORT)
    assert status == 0 and "recovered" in text and "0, 1@refit, 4:6@refit" in text
    assert AutoModelForCausalLM.from_pretrained(out).config.n_layer == 4
    status, text, _ = run("verify", out, folder)
    assert status == 0
    status, text, _ = run("repair", folder, "0:2, 4:6", tmp_path / "other", *SHORT, "--json")
    facts = json.loads(text)
    assert facts["helps"] and facts["method"] == "refit" and facts["tokens"] == 2048
    assert {"base", "cut", "repaired"} <= facts["perplexity"].keys()


def test_a_repair_that_is_no_better_writes_nothing(run, tiny_folder, tmp_path):
    out = tmp_path / "out"
    ask = ["repair", tiny_folder("llama"), "0:2, 4:6", out, *SHORT]
    status, text, errors = run(*ask)
    assert status == 1 and "perplexity" in text and "no better" in errors and not out.exists()
    status, text, _ = run(*ask, "--json")
    assert status == 1 and json.loads(text)["folder"] is None and not out.exists()
    assert run(*ask, "--anyway")[0] == 0 and (out / "repair.json").is_file()


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--method", "magic"], "the methods are refit"),
        (["--tokens", "0"], "tokens of text"),
        (["--text", "no-such-file.txt"], "can't be read"),
        (["--held-out", "no-such-file.txt"], "can't be read"),
    ],
)
def test_errors_are_one_plain_line(run, tiny_folder, tmp_path, arguments, words):
    status, _, errors = run("repair", tiny_folder("gpt2"), "0:2, 4:6", tmp_path / "out", *arguments)
    assert status == 1 and words in " ".join(errors.split()) and not (tmp_path / "out").exists()


def test_a_dtype_is_refused_before_anything_is_computed(run, tiny_folder, tmp_path, monkeypatch):
    monkeypatch.setattr("surgery.repairing.repair", None)  # fails if it is called
    ask = ["repair", tiny_folder("gpt2"), "0:2, 4:6", tmp_path / "out", "--dtype", "float8"]
    status, _, errors = run(*ask)
    assert status == 1 and "“float8” is not a dtype: choose" in errors


def test_a_folder_that_is_there_is_refused_before_anything_is_computed(run, tiny_folder, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    status, _, errors = run("repair", tiny_folder("gpt2"), "0:2, 4:6", tmp_path / "out", *SHORT)
    assert status == 1 and "exists" in errors


@pytest.mark.parametrize("command", ["repair", "heal"])
def test_a_model_cache_is_refused_before_anything_is_computed(
    run, tiny_folder, tmp_path, monkeypatch, command
):
    monkeypatch.setattr(Base, "load", None)
    out = tmp_path / "cache" / "out"  # of what the application keeps
    status, _, errors = run(command, tiny_folder("gpt2"), "0:2, 4:6", out)
    assert status == 1 and "inside a model cache" in " ".join(errors.split())


def test_a_recipe_s_dtype_is_that_of_what_is_written(run, tiny_folder, tmp_path):
    recipe = tmp_path / "plan.yaml"
    slices = "".join(
        f"- sources: [{{model: x, layer_range: [{start}, {start + 2}]}}]\n" for start in (0, 4)
    )
    recipe.write_text(f"slices:\n{slices}dtype: float16\n")
    out = tmp_path / "out"
    ask = ["repair", tiny_folder("gpt2"), f"@{recipe}", out, "--method", "lstsq", "--anyway"]
    status, _, errors = run(*ask, *SHORT)
    assert status == 0, errors
    dtypes = {tensor.dtype for tensor in load_file(out / "model.safetensors").values()}
    assert dtypes == {torch.float16}


def test_healing_begins_from_a_repair(run, tiny_folder, tmp_path, monkeypatch):
    ask = ["heal", tiny_folder("gpt2"), "0:2, 4:6", tmp_path / "out", "--repair", "lstsq"]
    few = ["--steps", 2, "--batch", 1, "--window", 16, "--sampled-tokens", 64]
    held_out = tmp_path / "held-out.txt"
    held_out.write_text("A text that is told from those that repairs are measured on. " * 12)
    scored, one, many = [], evaluation.perplexity, evaluation.perplexities
    monkeypatch.setattr(
        evaluation,
        "perplexity",
        lambda model, sample, *args: scored.append(sample) or one(model, sample, *args),
    )
    monkeypatch.setattr(
        evaluation,
        "perplexities",
        lambda base, patients, sample, *args: (
            scored.extend([sample] * len(patients)) or many(base, patients, sample, *args)
        ),
    )
    status, text, errors = run(*ask, *few, "--repair-tokens", 3000, "--held-out", held_out)
    assert status == 0, errors
    # Base, cut and repaired patient, then before and after each of two steps, and what is saved.
    assert len(scored) == 7
    base = Base.open(str(tiny_folder("gpt2")))
    assert set(scored) == {Sample.of(base, held_out.read_text())}
    assert "repaired (lstsq)" in " ".join(text.split())
    facts = json.loads((tmp_path / "out" / "healing.json").read_text())
    assert 2700 < facts["repair"]["tokens"] <= 3000
    assert facts["repair"]["method"] == "lstsq" and facts["plan"] == "0, 1@lstsq, 4:6"
    assert not (tmp_path / "out.healing").exists()


def test_a_repair_takes_a_third_of_the_minutes(run, tiny_folder, tmp_path, monkeypatch):
    """Healing then reads what the base wrote for it, at a rate that keeps what it brought."""
    from surgery.repairing import calibration

    asked = []
    monkeypatch.setattr(
        calibration, "tokens_within", lambda base, seconds: asked.append(seconds) or 3000
    )
    ask = ["heal", tiny_folder("gpt2"), "0:2, 4:6", tmp_path / "out", "--repair", "lstsq"]
    status, _, errors = run(*ask, "--minutes", 0.1, "--batch", 1, "--window", 16)
    assert status == 0, errors
    assert asked == [pytest.approx(2)]
    facts = json.loads((tmp_path / "out" / "healing.json").read_text())
    assert 2700 < facts["repair"]["tokens"] <= 3000
    assert facts["settings"]["learning_rate"] == 1.5e-4


def test_an_adapter_cannot_hold_what_was_fitted(run, tiny_folder, tmp_path):
    ask = ["heal", tiny_folder("gpt2"), "0:2, 4:6", tmp_path / "out", "--repair", "refit"]
    status, _, errors = run(*ask, "--train", "lora", "--adapter")
    assert status == 1 and "doesn't hold what a repair fitted" in " ".join(errors.split())
    assert not (tmp_path / "out.healing").exists()
