"""Streams over made-up models: what goes wrong is said, and nothing is drawn from nonsense."""

import math
from types import SimpleNamespace

import pytest
import tiny
import torch
from torch import nn

from surgery import SurgeryError
from surgery.generation.stream import Stats, Stream


class Scripted(nn.Module):
    """A model that has no cache and answers as told: `answer(tokens so far)` gives logits."""

    def __init__(self, answer, end=None):
        super().__init__()
        self.embed, self.answer = nn.Embedding(tiny.VOCAB, 1), answer
        self.generation_config = SimpleNamespace(eos_token_id=end)

    def get_input_embeddings(self):
        return self.embed

    def forward(self, input_ids, use_cache):
        logits = self.answer(input_ids[0].tolist())
        return Output(logits=torch.as_tensor(logits, dtype=torch.float32).view(1, 1, -1))


class Output(dict):
    __getattr__ = dict.__getitem__


def one_hot(token):
    logits = torch.zeros(tiny.VOCAB)
    logits[token] = 100.0
    return logits


def stream(model, prompt=(40,), **settings):
    defaults = dict(max_new_tokens=8, seed=0, temperature=1.0, top_p=1.0, greedy=True)
    return Stream(model, tiny.tokenizer(), list(prompt), **{**defaults, **settings})


def test_a_model_without_a_cache_sees_everything_again():
    seen = []

    def count_up(tokens):
        seen.append(tokens)
        return one_hot(tokens[-1] + 1)

    text = stream(Scripted(count_up), max_new_tokens=3)
    assert "".join(text) == tiny.tokenizer().decode([41, 42, 43])
    assert seen == [[40], [40, 41], [40, 41, 42]]


def test_a_piece_has_all_tokens_that_it_took():
    """A padding token shows nothing: the next piece counts it."""
    text = stream(Scripted(lambda tokens: one_hot(0 if len(tokens) == 2 else 41)), max_new_tokens=4)
    list(text)
    one = tiny.tokenizer().decode([41])
    assert text.ids == [41, 0, 41, 41] and text.prompt_ids == (40,)
    assert text.pieces == [(one, 1), (one, 2), (one, 1)]


@pytest.mark.parametrize("end", [43, [7, 43], None])
def test_it_ends_where_the_model_ends(end):
    text = stream(Scripted(lambda tokens: one_hot(tokens[-1] + 1), end=end))
    list(text)
    if end is None:  # then the tokenizer's own end, which does not come
        assert (len(text.ids), text.stats.finished) == (8, "length")
    else:
        assert (text.ids, text.stats.finished) == ([41, 42], "end")


@pytest.mark.parametrize("greedy", [True, False])
@pytest.mark.parametrize("odd", [math.nan, math.inf])
def test_numbers_that_are_none_are_never_drawn_from(odd, greedy):
    """One NaN among good logits too: argmax would take it for the largest."""
    logits = one_hot(50)
    logits[3] = odd
    text = stream(Scripted(lambda tokens: logits), greedy=greedy)
    with pytest.raises(SurgeryError, match="not a number"):
        next(text)
    assert text.stats.finished == "stopped" and text.ids == [] and list(text) == []


def test_tokens_may_be_forbidden_by_minus_infinity():
    logits = torch.full((tiny.VOCAB,), -math.inf)
    with pytest.raises(SurgeryError, match="not a number"):
        next(stream(Scripted(lambda tokens: logits.clone())))
    logits[50] = 0.0
    text = stream(Scripted(lambda tokens: logits), greedy=False, max_new_tokens=4)
    list(text)
    assert text.ids == [50] * 4


@pytest.mark.parametrize("error", [RuntimeError("shapes\ndiffer"), IndexError("out of range")])
def test_a_model_that_fails_says_why_in_one_line(error):
    def fail(tokens):
        raise error

    with pytest.raises(SurgeryError) as caught:
        next(stream(Scripted(fail)))
    assert str(caught.value).endswith(" ".join(str(error).split()))


def test_a_small_top_p_is_greedy_and_temperature_spreads():
    logits = torch.linspace(0, 30, tiny.VOCAB)

    def drawn(**settings):
        text = stream(Scripted(lambda tokens: logits), greedy=False, max_new_tokens=40, **settings)
        list(text)
        return text.ids

    assert set(drawn(top_p=1e-9)) == {tiny.VOCAB - 1}
    assert set(drawn(temperature=0.01)) == {tiny.VOCAB - 1}
    assert len(set(drawn(temperature=100))) > len(set(drawn(temperature=0.5)))
    assert drawn(seed=3) == drawn(seed=3) != drawn(seed=4)


@pytest.mark.parametrize(
    ("stats", "speed"),
    [
        (Stats(), None),
        (Stats(tokens=1, seconds=1.0, first_token_seconds=1.0), None),
        (Stats(tokens=5, seconds=3.0, first_token_seconds=1.0), 2.0),
        (Stats(tokens=5, seconds=1.0, first_token_seconds=1.0), None),
    ],
)
def test_speed_leaves_the_prompt_out(stats, speed):
    assert stats.tokens_per_second == speed
