"""A model's surprise at generated text, held against plain passes of transformers."""

import pytest
import torch

from surgery import Plan
from surgery.analysis import surprises


def plain(model, prompt, ids):
    """−ln p of each token, by a pass of its own over all that comes before it."""
    losses = []
    for end in range(len(ids)):
        before = torch.tensor([[*prompt, *ids[:end]]])
        with torch.no_grad():
            logits = model(input_ids=before, use_cache=False).logits[0, -1].double()
        losses.append(-float(logits.log_softmax(-1)[ids[end]]))
    return losses


@pytest.mark.parametrize(
    ("family", "greedy"), [("gemma3_text", True), ("gemma3_text", False), ("gpt2", False)]
)
def test_it_is_what_plain_passes_give(opened, family, greedy):
    base, _ = opened(family)
    stream = base.operate(Plan.parse("0:2, 4:6", 6)).stream(
        "The ferry", max_new_tokens=12, greedy=greedy, top_p=0.5, seed=3
    )
    text = "".join(stream)
    result = surprises(base.model, stream)
    assert "".join(piece for piece, _ in result) == text
    expected = iter(plain(base.model, stream.prompt_ids, stream.ids))
    for (_, nats), (_, count) in zip(result, stream.pieces, strict=True):
        assert nats == pytest.approx(sum(next(expected) for _ in range(count)), abs=1e-4)


def test_nothing_was_written_yet(opened):
    base, _ = opened("llama")
    stream = base.operate(Plan.whole(6)).stream("The ferry")
    assert surprises(base.model, stream) == []
    next(stream)
    assert len(surprises(base.model, stream)) == 1
