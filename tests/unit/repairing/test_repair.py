"""Repairs of tiny models from end to end: what is fitted, what is saved, what is refused."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch
from transformers import AutoModelForCausalLM

from surgery import Base, Init, Plan, Refused, RepairSettings, SurgeryError, repair
from surgery.cli.reports.repair import repair_lines
from surgery.healing.own_text import sampled
from surgery.memory.devices import HEADROOM
from surgery.progress import Cancelled, silent
from surgery.repairing import calibration as module
from surgery.repairing import memory
from surgery.repairing.calibration import calibration_text, held_out
from surgery.repairing.least_squares import RIDGES
from surgery.verification.saved import verify_saved

IDS = torch.arange(3, 40)[None]
SMALL = {"tokens": 4096, "text": "python"}


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """Arguments of a repair that is measured on a few words, for tests of anything else."""
    path = tmp_path_factory.mktemp("words") / "few.txt"
    path.write_text("It was a quiet day, and nobody had come to see the garden. ")
    return {**SMALL, "held_out": str(path)}


@pytest.fixture(scope="module")
def gpt2(tiny_folder):
    return Base.open(str(tiny_folder("gpt2")))


@pytest.fixture(scope="module")
def llama(tiny_folder):
    return Base.open(str(tiny_folder("llama")))


@pytest.fixture(scope="module")
def plan():
    return Plan.parse("0:2, 4:6", 6)


@pytest.fixture(scope="module")
def repaired(gpt2, plan):
    return repair(gpt2, plan, RepairSettings(**SMALL))


def logits(model):
    with torch.no_grad():
        return model(input_ids=IDS).logits


def test_the_first_fit_is_that_of_least_squares(llama, plan, quick):
    """ReplaceMe by hand: hidden states by transformers, the fit by numpy."""
    found = repair(llama, plan, RepairSettings("lstsq", **quick))
    assert str(found.plan) == "0, 1@lstsq, 4:6"
    ((name, weight),) = found.tensors.items()
    assert name == "model.layers.1.mlp.down_proj.weight"
    text, model = calibration_text(llama, **SMALL).windows, llama.model
    given = []
    module = model.model.layers[1].mlp.down_proj
    hook = module.register_forward_pre_hook(lambda _, args: given.append(args[0]))
    with torch.no_grad():
        states = model(input_ids=text, output_hidden_states=True, use_cache=False).hidden_states
    hook.remove()
    x, target = given[0].double(), states[4].double()  # what layer 4 is given in the base
    r = target - states[2].double()
    w = (1 / target.square().sum(-1, keepdim=True)).sqrt()
    kept = ~held_out(len(text))
    rows, missing = ((w * part)[kept].flatten(0, 1).numpy() for part in (x, r))
    ridge = found.facts["fits"][0]["ridge"]
    assert ridge in RIDGES
    scale = ridge * (rows**2).sum(0).mean()
    rows = np.vstack([rows, np.sqrt(scale) * np.eye(rows.shape[1])])
    missing = np.vstack([missing, np.zeros((rows.shape[1], missing.shape[1]))])
    change = np.linalg.lstsq(rows, missing, rcond=None)[0].T
    old = module.weight.detach().double().numpy()
    assert np.allclose(weight.double().numpy() - old, change, rtol=1e-2, atol=1e-3)


def test_hidden_states_come_nearer_to_the_bases(repaired):
    assert str(repaired.plan) == "0, 1@refit, 4:6@refit"
    fits = repaired.facts["fits"]
    assert [(fit["layer"], fit["projection"]) for fit in fits][:2] == [
        (1, "attn.c_proj"),
        (1, "mlp.c_proj"),
    ]
    assert all(fit["error_after"] <= fit["error_before"] for fit in fits)
    assert repaired.helps and repaired.recovered[1] > 0.5


@pytest.mark.parametrize(
    ("cut", "now", "helps"),
    [(math.inf, 20.0, True), (math.inf, math.inf, False), (20.0, math.inf, False)],
)
def test_of_losses_that_are_not_finite_no_share_is_said(repaired, cut, now, helps):
    scores = {"cut": cut, "repaired": now, "recovered_of_log_perplexity": None}
    scores = {**repaired.facts["perplexity"], **scores}
    found = replace(repaired, facts={**repaired.facts, "perplexity": scores})
    assert found.helps is helps
    broken = " and ".join(who for who in ("cut", "repaired") if math.isinf(scores[who]))
    assert f"recovered   unknown: losses of {broken} are not finite" in list(repair_lines(found))


def test_the_base_and_its_other_patients_stay_as_they_are(gpt2, plan, quick):
    before = {name: value.clone() for name, value in gpt2.model.state_dict().items()}
    other = gpt2.operate(plan)
    cut = logits(other.model)
    found = repair(gpt2, plan, RepairSettings(**quick))
    assert torch.equal(logits(other.model), cut)
    assert not torch.equal(logits(found.model), cut)
    assert all(torch.equal(before[name], value) for name, value in gpt2.model.state_dict().items())


def test_what_is_saved_is_what_was_live(repaired, tmp_path, tiny_folder):
    out = repaired.save(tmp_path / "out")
    loaded = AutoModelForCausalLM.from_pretrained(out)
    assert torch.equal(logits(loaded), logits(repaired.model))
    again = repaired.again()
    assert torch.equal(logits(again.model), logits(repaired.model))
    verify_saved(out, str(tiny_folder("gpt2")), silent, Base.open)
    facts = json.loads((out / "repair.json").read_text())
    assert facts["plan"] == "0, 1@refit, 4:6@refit" and facts["text"] == "Python's library"
    assert set(facts["tensors"]) == set(repaired.tensors)
    card = (out / "README.md").read_text()
    assert "**repaired** without training" in card and "- repaired" in card
    assert f"repaired {facts['perplexity']['repaired']:.2f}" in card


def test_marks_in_a_plan_say_what_is_fitted(gpt2, plan, repaired, quick):
    marked = Plan.parse("0, 1@refit, 4, 5", 6)
    found = repair(gpt2, marked, RepairSettings(**quick))
    assert found.plan == marked and marked.unfitted == plan
    first = "transformer.h.1.mlp.c_proj.weight"
    assert set(found.tensors) == {name for name in repaired.tensors if ".h.1." in name}
    assert torch.equal(found.tensors[first], repaired.tensors[first])


def test_a_plan_with_marks_is_nothing_without_its_repair(gpt2, tmp_path):
    marked = Plan.parse("0, 1@refit, 4, 5", 6)
    for attempt in (lambda: gpt2.operate(marked), lambda: gpt2.save(marked, tmp_path / "out")):
        with pytest.raises(Refused, match="repair this plan first"):
            attempt()
    assert not (tmp_path / "out").exists()
    assert gpt2.preview(marked) == gpt2.preview(marked.unfitted)


def test_scale_match_is_the_scaling_of_hidden_states(llama, plan, quick):
    found = repair(llama, plan, RepairSettings("alpha", **quick))
    factors = {layer.init.factor for layer in found.plan.layers[2:]}
    assert len(factors) == 1 and not found.tensors and str(found.plan).startswith("0:2, 4:6@scale=")
    with torch.no_grad():
        text = calibration_text(llama, **SMALL).windows
        states = llama.model(input_ids=text, output_hidden_states=True).hidden_states
        alpha = float((states[4].norm(dim=-1) / states[2].norm(dim=-1)).mean())
        assert min(factors) == pytest.approx(1 / alpha, rel=1e-3)
        cut = llama.operate(plan).model
        hook = cut.model.layers[1].register_forward_hook(lambda *args: args[2] * alpha)
        multiplied = logits(cut)
        hook.remove()
    assert torch.allclose(logits(found.model), multiplied, atol=2e-3)


def test_damping_scales_every_copy(llama, quick):
    found = repair(llama, Plan.parse("0:4, 2:6", 6), RepairSettings("damped", **quick))
    assert str(found.plan) == "0:2, 2:4*2@scale=0.5, 4:6" and found.facts["tokens"] == 0


@pytest.mark.parametrize(
    "family, text, method, words",
    [
        ("gemma2", "0:2, 4:6", "refit", "no output projection whose outputs are added as they are"),
        ("gemma2", "0:2, 4:6", "alpha", "normalises what each layer adds"),
        ("llama", "0:6", "refit", "nothing to fit"),
        ("llama", "0:6", "alpha", "needs a cut"),
        ("llama", "0:2, 4:6", "damped", "repeats none"),
    ],
)
def test_refusals(tiny_folder, family, text, method, words):
    base = Base.open(str(tiny_folder(family)))
    with pytest.raises(Refused, match=words):
        repair(base, Plan.parse(text, 6), RepairSettings(method, **SMALL))


def test_texts_that_are_too_short_or_missing(llama, plan, tmp_path):
    short = tmp_path / "short.txt"
    short.write_text("A few words. " * 20, encoding="utf-8")
    with pytest.raises(SurgeryError, match="calibration text is too short"):
        repair(llama, plan, RepairSettings(text=str(short)))
    with pytest.raises(SurgeryError, match="can't be read"):
        repair(llama, plan, RepairSettings(text=str(tmp_path / "none.txt")))
    with pytest.raises(SurgeryError, match="no repair “magic”"):
        RepairSettings("magic")
    with pytest.raises(SurgeryError, match="tokens of text"):
        RepairSettings(tokens=0)


def test_states_that_are_not_finite_stop_it_with_the_layer(tmp_path, plan, quick):
    model = tiny.model("llama")
    with torch.no_grad():
        model.model.layers[3].mlp.down_proj.weight[0, 0] = float("nan")
    model.save_pretrained(tmp_path / "broken")
    tiny.tokenizer().save_pretrained(tmp_path / "broken")
    base = Base.open(str(tmp_path / "broken"))
    with pytest.raises(SurgeryError, match="after layer 3 are not finite"):
        repair(base, plan, RepairSettings(**quick))


def test_it_can_be_stopped_between_layers(llama, plan, quick):
    def stop(what, done, total):
        if what == "Fitting layers" and done > 2:
            raise Cancelled

    with pytest.raises(Cancelled):
        repair(llama, plan, RepairSettings(**quick), progress=stop)


def test_what_the_base_writes_is_kept(llama, tmp_path, monkeypatch):
    monkeypatch.setenv("LAYER_SURGERY_CACHE", str(tmp_path))
    first = calibration_text(llama, "own", 2048).windows
    with monkeypatch.context() as patch:
        patch.setattr("surgery.repairing.calibration.sampled", None)  # fails if it is called
        assert torch.equal(calibration_text(llama, "own", 2048).windows, first)
    assert torch.equal(first, sampled(llama, len(first), first.shape[1], 0).long())


def test_what_it_writes_in_another_dtype_is_another_text(tmp_path, monkeypatch):
    monkeypatch.setenv("LAYER_SURGERY_CACHE", str(tmp_path / "cache"))
    tiny.model("llama", dtype=torch.bfloat16).save_pretrained(tmp_path / "half")
    tiny.tokenizer().save_pretrained(tmp_path / "half")
    base, written = Base.open(str(tmp_path / "half")), []
    monkeypatch.setattr(module, "sampled", lambda *asked: written.append(1) or sampled(*asked))
    for dtype in ("stored", "float32", "stored", "float32"):
        monkeypatch.setenv("LAYER_SURGERY_COMPUTE_DTYPE", dtype)
        calibration_text(base, "own", 640)
    assert len(written) == 2


def test_how_much_is_read_in_a_given_time(llama, monkeypatch):
    """At a speed of a million operations per second."""
    monkeypatch.setattr(module, "measured_peak", lambda base: 1e6)
    size = llama.preview(Plan.whole(llama.depth)).active_parameters
    assert module.tokens_within(llama, (4.6 * 5000 + 17_100) * size / 1e6) == 4096
    assert module.tokens_within(llama, 0) == 2048
    assert module.tokens_within(llama, 1e9) == 131_072
    monkeypatch.setattr(module, "room", lambda base: 4 * llama.counts.total + 10_000_000)
    assert 2048 <= module.tokens_within(llama, 1e9) < 131_072


def test_memory_is_looked_at_before_the_base_writes(llama, plan, quick, tmp_path, monkeypatch):
    per_token, fit = memory.bytes_per_token(llama), memory.largest_fit_bytes(llama)
    assert fit == 8 * (4 * 96 * 96 + 6 * 96 * 64)
    monkeypatch.setattr(module, "measured_peak", lambda base: 1e15)
    weights = 4 * llama.counts.total
    monkeypatch.setattr(module, "room", lambda base: weights + fit + 2 * 4096 * per_token)
    assert module.tokens_within(llama, 1e9) == 4096

    def repaired_with(free, text, method="refit"):
        monkeypatch.setattr(memory, "free_on", lambda device: int(free / HEADROOM) + 1)
        return repair(llama, plan, RepairSettings(method, text, 2560, quick["held_out"]))

    with monkeypatch.context() as patch:
        patch.setattr(module, "sampled", None)  # fails if it is called
        for text in ("mixed", "own", "python"):
            with pytest.raises(SurgeryError, match=r"Fitting would need about .* 2,560 tokens"):
                repaired_with(fit + 2500 * per_token, text)
    path = tmp_path / "text"
    path.write_text("A short text, but long enough. " * 40)
    assert repaired_with(fit + 2500 * per_token, str(path)).facts["tokens"] < 2500
    with pytest.raises(SurgeryError, match="Fitting would need about"):
        repaired_with(fit + 1000 * per_token, str(path))
    assert repaired_with(0, "python", "alpha").facts["tokens"] == 2560
    ample = fit + 5000 * per_token
    assert repaired_with(ample, "python").facts["tokens"] == 2560
    monkeypatch.setattr(memory, "copied_bytes", lambda model: 4000 * per_token)
    with pytest.raises(SurgeryError, match="Fitting would need about"):
        repaired_with(ample, "python")


def test_healing_reads_what_the_base_wrote_for_the_repair(llama, quick, tmp_path):
    from surgery.healing import HealingRun, Settings

    plan, held_out = Plan.parse("0:2, 4:6", 6), quick["held_out"]
    repaired = repair(llama, plan, RepairSettings("lstsq", "own", 2560, held_out))
    assert repaired.written.shape == (40, 64)
    given = Settings(
        minutes=0.05, layers=(0,), batch=1, window=64, default_text="own", held_out=held_out
    )
    run = HealingRun(llama, repaired.plan, given, tmp_path / "run", start=repaired)
    assert torch.equal(run.tokens[:40], repaired.written.int())
    assert run.settings.learning_rate == 1.5e-4
    fixed = HealingRun(
        llama, plan, given.replace(minutes=None, steps=2), tmp_path / "other", start=None
    )
    assert fixed.settings.learning_rate == 5e-4 and len(fixed.tokens) == 2


def test_healing_begins_from_the_repaired_patient(gpt2, repaired, tmp_path):
    from surgery.healing import HealingRun, Settings

    given = Settings(steps=2, layers=(0,), batch=1, window=32, sampled_tokens=64)
    run = HealingRun(gpt2, repaired.plan, given, tmp_path / "run", start=repaired)
    start = run.evaluations[0]
    assert start.now.value == pytest.approx(repaired.facts["perplexity"]["repaired"])
    assert start.cut.value == pytest.approx(repaired.facts["perplexity"]["cut"])
    next(iter(run))
    run.save()
    again = HealingRun(gpt2, repaired.plan, given, tmp_path / "run")  # its start lies in the folder
    assert again.step == 1
    list(again)
    healed = again.result()
    assert set(repaired.tensors) < set(healed.tensors)
    assert healed.facts["repair"]["method"] == "refit" and "repaired (refit)" in healed.description
    assert "before the repair" in healed.description
    loaded = AutoModelForCausalLM.from_pretrained(healed.save(tmp_path / "out"))
    assert torch.equal(logits(loaded), logits(healed.model))


def count_scored(monkeypatch, evaluation):
    """How many models each measurement of an evaluator takes."""
    counts, one, many = [], evaluation.perplexity, evaluation.perplexities
    monkeypatch.setattr(
        evaluation, "perplexity", lambda model, *args: counts.append(1) or one(model, *args)
    )
    monkeypatch.setattr(
        evaluation,
        "perplexities",
        lambda base, patients, *args: counts.append(len(patients)) or many(base, patients, *args),
    )
    return counts


def test_healing_scores_base_and_cut_only_on_another_text(gpt2, repaired, tmp_path, monkeypatch):
    from surgery.healing import HealingRun, Settings, evaluation

    passes = count_scored(monkeypatch, evaluation)
    given = Settings(steps=1, layers=(0,), batch=1, window=32, sampled_tokens=64)
    run = HealingRun(gpt2, repaired.plan, given, tmp_path / "run", start=repaired)
    assert sum(passes) == 1
    text = tmp_path / "text"
    text.write_text("Another text to judge on. " * 40)
    other = HealingRun(
        gpt2, repaired.plan, given.replace(held_out=str(text)), tmp_path / "other", start=repaired
    )
    assert sum(passes) == 1 + 3
    assert other.evaluations[0].tokens != run.evaluations[0].tokens
    patient = gpt2.operate(Plan.parse("0:2, 5:6", 6))
    found = repaired.evaluator.evaluate(0, patient, "The")
    assert found.cut == found.now != run.evaluations[0].cut


def test_a_marked_plan_without_its_repair_is_not_healed(gpt2, repaired, tmp_path):
    from surgery.healing import HealingRun, Settings

    with pytest.raises(Refused, match="repair this plan first"):
        HealingRun(gpt2, repaired.plan, Settings(steps=1), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_both_halves_of_mixed_text_choose_the_ridge(llama):
    halves = [calibration_text(llama, text, 1280).windows for text in ("own", "python")]
    mixed = calibration_text(llama, "mixed", 2560).windows
    rows = {tuple(row) for row in mixed[held_out(len(mixed))].tolist()}
    for half in halves:
        assert rows & {tuple(row) for row in half.tolist()}


def test_a_python_without_sources_is_said(llama, plan, quick, tmp_path, monkeypatch):
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path))
    with pytest.raises(SurgeryError, match="without the source of its library"):
        repair(llama, plan, RepairSettings(**quick))
    mixed = RepairSettings(tokens=2560, held_out=quick["held_out"])  # by default
    found = repair(llama, plan, mixed)
    assert found.facts["text"] == "text sampled from the base" and found.facts["tokens"] == 2560


def test_each_layer_is_fitted_as_it_is_marked(gpt2, quick):
    marked = Plan.parse("0, 1@lstsq, 4@refit, 5", 6)
    found = repair(gpt2, marked, RepairSettings("lstsq", **quick))
    assert found.plan == marked and found.facts["method"] == "refit"
    fitted = [(fit["layer"], fit["projection"]) for fit in found.facts["fits"]]
    assert fitted == [(1, "mlp.c_proj"), (2, "attn.c_proj"), (2, "mlp.c_proj")]


@pytest.mark.parametrize(("method", "text"), [("alpha", "0:2, 4:6"), ("damped", "0:4, 2:6")])
def test_methods_that_only_change_the_plan_leave_no_marks(llama, quick, method, text):
    plan = Plan.parse(text, 6)
    marked = plan.initialise(1, 2, Init("refit"))
    settings = RepairSettings(method, **quick)
    assert repair(llama, marked, settings).plan == repair(llama, plan, settings).plan
