"""What a plan did, held against plain arithmetic on two models' logits."""

import math

import pytest
import tiny
import torch

from surgery import Base, Cancelled, Plan, SurgeryError
from surgery.analysis import compare, logit_lens, perplexity, similarity, token_texts

PLAN = "0:2, 3:6, 4:6"


def logits(model, window):
    with torch.no_grad():
        return model(input_ids=torch.tensor([window]), use_cache=False).logits[0].double()


def states(model, layers, window):
    result = []
    hooks = [
        x.register_forward_hook(
            lambda _, __, out: result.append(out[0] if isinstance(out, tuple) else out)
        )
        for x in layers
    ]
    logits(model, window)
    for hook in hooks:
        hook.remove()
    return [x.reshape(-1, x.shape[-1]).double() for x in result]


@pytest.mark.parametrize("family", ["gemma3_text", "gpt2"])
def test_a_comparison(opened, family):
    base, sample = opened(family)
    plan = Plan.parse(PLAN, 6)
    model = base.operate(plan).model
    result = compare(base, plan, sample)
    assert result.base.nll == pytest.approx(perplexity(base.model, sample).nll, abs=1e-5)
    assert result.patient.nll == pytest.approx(perplexity(model, sample).nll, abs=1e-5)
    assert result.cost.mean == pytest.approx(result.patient.mean - result.base.mean, abs=1e-6)
    divergence, tokens = [], iter(result.tokens)
    for number, window in enumerate(sample.windows):
        p, q = (logits(m, window).log_softmax(-1) for m in (base.model, model))
        divergence += (p.exp() * (p - q)).sum(-1)[:-1].tolist()
        for at, token in enumerate(window[1:]):
            one = next(tokens)
            assert (one.text, one.window) == (token_texts(base, [token])[0], number)
            assert one.nll_base == pytest.approx(-float(p[at, token]), abs=1e-4)
            assert one.nll_patient == pytest.approx(-float(q[at, token]), abs=1e-4)
            assert one.damage == one.nll_patient - one.nll_base
            for says, row in ((one.base_guesses, p[at]), (one.patient_guesses, q[at])):
                likely = row.exp().topk(3).values.tolist()
                assert [g.probability for g in says] == pytest.approx(likely, abs=1e-5)
    assert next(tokens, None) is None
    mean = sum(divergence) / len(divergence)
    assert result.kl == pytest.approx(mean, abs=1e-5) and result.kl_low < mean < result.kl_high
    layers = model.get_submodule(base.anatomy.stack.paths[0])
    per_window = [states(model, layers, window) for window in sample.windows]
    for p, norm in enumerate(result.norms.patient):
        expected = torch.cat([x[p] for x in per_window]).norm(dim=-1).mean()
        assert norm == pytest.approx(float(expected), rel=1e-5)
    assert len(result.norms.base) == 6


def test_the_plan_that_changes_nothing_costs_nothing(opened):
    base, sample = opened("llama")
    result = compare(base, Plan.whole(6), sample)
    assert result.kl == pytest.approx(0, abs=1e-7)
    assert (result.cost.mean, result.cost.low, result.cost.high) == (0, 0, 0)
    assert result.norms.base == result.norms.patient


def test_similarity(opened):
    base, sample = opened("llama")
    plan = Plan.parse(PLAN, 6)
    model = base.operate(plan).model
    result = similarity(base, plan, sample)
    ours = [states(base.model, base.model.model.layers, w) for w in sample.windows]
    theirs = [states(model, model.model.layers, w) for w in sample.windows]
    for i in range(6):
        for p in range(len(plan)):
            a, b = (torch.cat([x[k] for x in xs]) for xs, k in ((ours, i), (theirs, p)))
            expected = float(torch.cosine_similarity(a, b, dim=-1).mean())
            assert result[i][p] == pytest.approx(expected, abs=1e-5)
    assert result[0][0] == pytest.approx(1) and result[1][1] == pytest.approx(1)


@pytest.mark.parametrize("family", ["gemma3_text", "gpt2"])
def test_the_logit_lens(opened, family):
    base, sample = opened(family)
    ids = sample.windows[0][:12]
    plan = Plan.parse(PLAN, 6)
    patient = base.operate(plan)
    for of, model, depth in ((base, base.model, 6), (patient, patient.model, len(plan))):
        rows = logit_lens(of, ids, top=2)
        assert len(rows) == depth and all(len(row) == len(ids) for row in rows)
        inner = model.get_submodule(base.anatomy.stack.paths[0].rpartition(".")[0])
        norm = inner.norm if hasattr(inner, "norm") else inner.ln_f
        layers = model.get_submodule(base.anatomy.stack.paths[0])
        for p, x in enumerate(states(model, layers, ids)):
            with torch.no_grad():
                shares = model.lm_head(norm(x.float())).softmax(-1)
            likely, tokens = shares.topk(2)
            for at in range(len(ids)):
                message = [g.probability for g in rows[p][at]]
                assert message == pytest.approx(likely[at].tolist(), rel=1e-4)
                assert rows[p][at][0].text == token_texts(base, [int(tokens[at, 0])])[0]
    message = logits(base.model, ids).softmax(-1).max(-1).values.tolist()
    last = [g[0].probability for g in logit_lens(base, ids)[-1]]
    assert last == pytest.approx(message, rel=1e-4)
    assert not any("forward" in vars(m) for m in patient.model.modules())


def test_the_logit_lens_takes_a_short_text(opened):
    base, _ = opened("llama")
    with pytest.raises(SurgeryError, match="1 to 512 tokens"):
        logit_lens(base, [])
    with pytest.raises(SurgeryError, match="1 to 512 tokens, not 600"):
        logit_lens(base, [5] * 600)


def test_a_broken_layer(tmp_path, opened):
    _, sample = opened("llama")
    model = tiny.model("llama")
    with torch.no_grad():
        model.model.layers[3].mlp.down_proj.weight[0] = math.nan
    model.save_pretrained(tmp_path / "base")
    base = Base.open(str(tmp_path / "base"))
    result = compare(base, Plan.parse("0:3, 4:6", 6), sample)
    assert result.base.perplexity == result.kl == math.inf and result.cost.mean == -math.inf
    assert math.isfinite(result.patient.perplexity)
    assert result.tokens[0].base_guesses == () and result.tokens[0].patient_guesses
    assert result.tokens[0].text == f"⟨{sample.windows[0][1]}⟩"  # there is no tokenizer here


def test_it_stops_when_asked(opened):
    base, sample = opened("llama")

    def stop(what, done, total):
        if done > 4:
            raise Cancelled

    with pytest.raises(Cancelled):
        compare(base, Plan.parse(PLAN, 6), sample, stop)
    with pytest.raises(Cancelled):
        similarity(base, Plan.parse(PLAN, 6), sample, stop)
