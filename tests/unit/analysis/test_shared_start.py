"""Perplexities of patients that begin with the same layers: as apart, in fewer passes."""

import pytest
import tiny
import torch
from torch.nn.modules.module import register_module_forward_hook

from surgery import Base, Plan
from surgery.analysis import Sample, perplexities, perplexity
from surgery.architecture.inspect.chain import Chain
from surgery.progress import Cancelled
from surgery.repairing.repaired import Repaired


def patients_of(base, *texts):
    return [base.operate(Plan.parse(text, base.depth)) for text in texts]


def changed(base, text, name):
    """A patient of which one tensor is another."""
    plan = Plan.parse(text, base.depth)
    tensor = base.operate(plan).model.get_parameter(name).detach()
    return Repaired.assemble(base, plan, {name: 1.5 * tensor.float()}, {})


def apart(patients, sample):
    return [perplexity(one.model, sample).nll for one in patients]


def layers_run(base, patients, sample):
    """How often any layer computes over the whole sample."""
    tokens = []

    def called(module, args, output):
        if type(module).__name__ == "LlamaDecoderLayer" and "forward" not in vars(module):
            tokens.append(output.shape[:2].numel())

    hook = register_module_forward_hook(called)
    try:
        perplexities(base, patients, sample)
    finally:
        hook.remove()
    return sum(tokens) / sum(map(len, sample.windows))


@pytest.mark.parametrize("family", ["gemma3", "gpt2", "mixtral"])
def test_scores_are_those_of_patients_apart(opened, family):
    base, sample = opened(family)
    patients = patients_of(base, "0:6", "0:2, 4:6", "0:4, 3:6", "3:6", "0:3, 3@average, 4:6")
    found = [one.nll for one in perplexities(base, patients, sample)]
    assert found == apart(patients, sample)


def test_only_the_layers_that_differ_are_run_again(opened):
    base, sample = opened("llama")
    patients = patients_of(base, "0:6", "0:2, 4:6", "0:4, 3:6")
    perplexities(base, patients, sample)  # shows that layers run one by one
    assert layers_run(base, patients, sample) == 6 + 2 + 3
    assert layers_run(base, patients[1:2], sample) == 4


def test_changed_tensors_are_not_taken_for_the_base_s(opened):
    base, sample = opened("llama")
    whole, cut = patients_of(base, "0:6", "0:2, 4:6")
    first = changed(base, "0:2, 4:6", "model.layers.0.mlp.down_proj.weight")
    second = changed(base, "0:2, 4:6", "model.layers.1.mlp.down_proj.weight")
    norm = changed(base, "0:2, 4:6", "model.norm.weight")
    patients = [whole, cut, first, second, norm]
    scores = apart(patients, sample)
    assert len(set(scores)) == len(scores)
    assert [one.nll for one in perplexities(base, patients, sample)] == scores
    assert layers_run(base, patients, sample) == 6 + 2 + 4 + 3 + 4


def test_layers_that_cannot_run_one_by_one_run_in_whole_passes(opened, monkeypatch):
    base, sample = opened("llama")
    patients = patients_of(base, "0:6", "0:2, 4:6")
    monkeypatch.setattr(Chain, "of", lambda *_: None)
    assert [one.nll for one in perplexities(base, patients, sample)] == apart(patients, sample)
    assert layers_run(base, patients, sample) == 6 + 4


def test_a_stop_leaves_the_models_as_they_were(opened):
    base, sample = opened("llama")
    patients = patients_of(base, "0:6", "0:2, 4:6")

    def stop(what, done, total):
        if done > 3:
            raise Cancelled

    before = apart(patients, sample)
    with pytest.raises(Cancelled):
        perplexities(base, patients, sample, stop)
    assert apart(patients, sample) == before


def test_progress_ends_at_its_total(opened):
    base, sample = opened("llama")
    seen = []
    perplexities(
        base, patients_of(base, "0:6", "0:2, 4:6"), sample, lambda *step: seen.append(step)
    )
    assert {what for what, *_ in seen} == {"Measuring perplexity"}
    assert seen[-1][1] == pytest.approx(seen[-1][2]) == pytest.approx(8)


def test_nothing_is_measured_of_no_patients(opened, monkeypatch):
    base, sample = opened("llama")
    monkeypatch.setattr(Chain, "of", None)
    assert perplexities(base, [], sample) == []


def test_weights_in_half_compute_as_all_measurements_do(tmp_path, monkeypatch):
    monkeypatch.setenv("LAYER_SURGERY_COMPUTE_DTYPE", "float32")
    tiny.model("llama", dtype=torch.bfloat16).save_pretrained(tmp_path)
    tiny.tokenizer().save_pretrained(tmp_path)
    base = Base.open(str(tmp_path))
    sample = Sample.of(base, "The ferry ran twice a day in summer. " * 3, window=40)
    patients = patients_of(base, "0:6", "0:2, 4:6")
    for one, nll in zip(perplexities(base, patients, sample), apart(patients, sample), strict=True):
        assert one.nll == pytest.approx(nll, abs=1e-5)
