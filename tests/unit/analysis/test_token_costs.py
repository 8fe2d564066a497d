"""What each layer is worth to each token, held against plans that leave it out, run whole."""

from types import SimpleNamespace

import pytest
import torch

from surgery import Plan, SurgeryError
from surgery.analysis import continuation, token_importance
from surgery.analysis import token_costs as module
from surgery.architecture.inspect.chain import Chain
from surgery.progress import Cancelled

PROMPT, TEXT = "The ferry ran", " twice a day in summer"


def plain(model, prompt, ids):
    """−ln p of each token, by plain transformers."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([[*prompt, *ids]]), use_cache=False).logits[0]
    rows = logits[len(prompt) - 1 : -1].double().log_softmax(-1)
    return [-float(row[i]) for row, i in zip(rows, ids, strict=True)]


def without(result, p):
    """−ln p of each token without the layer at position p."""
    return [cost + nll for cost, nll in zip(result.costs[p], result.nll, strict=True)]


@pytest.mark.parametrize(
    ("family", "text", "one_by_one"),
    [
        ("gemma3_text", "0:6", True),
        ("gpt2", "0:6", True),
        ("llama", "0:4, 2:4@scale=0.5, 5", True),
        ("llama", "0:4, 2:4@scale=0.5, 5", False),
    ],
)
def test_it_is_what_a_plan_without_the_layer_gives(opened, family, text, one_by_one, monkeypatch):
    base, _ = opened(family)
    plan = Plan.parse(text, 6)
    prompt, ids = continuation(base, PROMPT, TEXT[:12])
    if not one_by_one:
        monkeypatch.setattr(Chain, "of", lambda *_: None)
    result = token_importance(base, plan, prompt, ids)
    assert result.plan == plan and "".join(result.tokens) == TEXT[:12]
    assert result.nll == pytest.approx(plain(base.operate(plan).model, prompt, ids), abs=1e-4)
    for p in range(len(plan)):
        dropped = base.operate(plan.drop(p, p + 1)).model
        assert without(result, p) == pytest.approx(plain(dropped, prompt, ids), abs=1e-4)


@pytest.mark.parametrize("rows", [1, 40, 10_000])
def test_running_layers_together_changes_nothing(opened, rows, monkeypatch):
    base, _ = opened("gemma3_text")
    prompt, ids = continuation(base, PROMPT, TEXT[:7])
    expected = token_importance(base, Plan.whole(6), prompt, ids)
    monkeypatch.setattr(module, "_ROWS", rows)
    counted = []
    result = token_importance(
        base, Plan.whole(6), prompt, ids, lambda _, done, total: counted.append((done, total))
    )
    for p in range(6):
        assert result.costs[p] == pytest.approx(expected.costs[p], abs=1e-5)
    assert counted[-1][0] == pytest.approx(counted[-1][1])


def test_other_layers_keep_weights_that_depend_on_their_place(opened):
    """Dropping the layer after an average leaves the average as it is."""
    base, _ = opened("llama")
    plan = Plan.parse("0:2, 2@average, 3:6", 6)
    prompt, ids = continuation(base, PROMPT, TEXT[:6])
    model = base.operate(plan).model
    del model.model.layers[3]
    result = token_importance(base, plan, prompt, ids)
    assert without(result, 3) == pytest.approx(plain(model, prompt, ids), abs=1e-4)


def test_a_single_layer_can_be_dropped(opened):
    base, _ = opened("llama")
    result = token_importance(base, Plan.parse("3", 6), *continuation(base, PROMPT, TEXT))
    assert len(result.costs) == 1 and len(result.costs[0]) == len(TEXT)


def test_the_most_needed_layers():
    nan = float("nan")
    costs = ((1.0, 0.0), (3.0, nan), None, (2.0, float("inf")), (0.5, -1.0))
    result = module.TokenImportance(Plan.whole(5), ("a", "b"), (0.1, 0.2), costs)
    assert result.most_needed(0) == [(1, 3.0), (3, 2.0), (0, 1.0)]
    assert result.most_needed(1, 2) == [(3, float("inf")), (0, 0.0)]


def test_a_token_over_the_seam_is_the_texts():
    known = {"The most import": [7, 8, 9], "The most important one": [7, 8, 12, 13]}
    base = SimpleNamespace(tokenizer=lambda text, **_: {"input_ids": known[text]})
    assert continuation(base, "The most import", "ant one") == ([7, 8], [12, 13])
    with pytest.raises(SurgeryError, match="UTF-8"):
        continuation(base, "The most", "\udce9")


def test_what_can_not_be_measured_is_said(opened, monkeypatch):
    base, _ = opened("llama")
    whole = Plan.whole(6)
    with pytest.raises(SurgeryError, match="no tokens"):
        token_importance(base, whole, [5], [])
    with pytest.raises(SurgeryError, match="prompt is empty"):
        token_importance(base, whole, [], [5])
    with pytest.raises(SurgeryError, match="257 tokens together; at most 256"):
        token_importance(base, whole, [5], [6] * 256)
    with pytest.raises(SurgeryError, match="embeddings"):
        token_importance(base, whole, [5], [6_000])
    monkeypatch.setattr("surgery.analysis.forward_cache.free_on", lambda device: 100)
    with pytest.raises(SurgeryError, match="are free: choose a shorter text"):
        token_importance(base, whole, [5], [6, 7])


def test_it_stops_when_it_is_told_to(opened):
    base, _ = opened("llama")
    calls = []

    def progress(what, done, total):
        calls.append((done, total))
        if done >= 5:
            raise Cancelled

    with pytest.raises(Cancelled):
        token_importance(base, Plan.whole(6), [5], [6, 7], progress)
    assert calls[-1][0] == 5 < calls[-1][1]
