"""A cache with room for all tokens holds what transformers' own does."""

import pytest
import tiny
import torch
from transformers.cache_utils import DynamicCache, DynamicLayer, EncoderDecoderCache

from surgery.generation.preallocated_cache import preallocate


@pytest.fixture(scope="module")
def model():
    return tiny.model("llama")


def stepwise(model, ids, room=None):
    """Logits of each token, with room for so many tokens after the first."""
    cache, logits = DynamicCache(config=model.config), []
    for place in range(ids.shape[1]):
        with torch.inference_mode():
            fed = ids[:, place : place + 1]
            logits.append(model(input_ids=fed, past_key_values=cache, use_cache=True).logits)
        if room and not place:
            preallocate(cache, room)
    return torch.cat(logits, 1), cache


@pytest.mark.parametrize("room", [12, 5])
def test_logits_and_states_are_the_same(model, room):
    ids = torch.randint(tiny.VOCAB, (3, 12), generator=torch.Generator().manual_seed(0))
    plain, cache = stepwise(model, ids)
    ours, roomy = stepwise(model, ids, room)
    assert torch.equal(plain, ours)
    for one, other in zip(cache.layers, roomy.layers, strict=True):
        assert type(other) is not DynamicLayer
        assert torch.equal(one.keys, other.keys) and torch.equal(one.values, other.values)


def test_nothing_is_copied_while_there_is_room(model):
    ids = torch.zeros(2, 6, dtype=torch.long)
    _, cache = stepwise(model, ids, 6)
    before = [layer.keys.data_ptr() for layer in cache.layers]
    preallocate(cache, 8)  # not of a plain layer any more
    assert [layer.keys.data_ptr() for layer in cache.layers] == before
    _, larger = stepwise(model, ids[:, :3], 6)
    before = [layer.keys.data_ptr() for layer in larger.layers]
    with torch.inference_mode():
        model(input_ids=ids[:, :1], past_key_values=larger, use_cache=True)
    assert [layer.keys.data_ptr() for layer in larger.layers] == before
    assert larger.get_seq_length() == 4


def test_other_caches_stay_as_they_are():
    class Sliding(DynamicLayer):
        pass

    layer = Sliding()
    layer.lazy_initialization(torch.zeros(1, 1, 1, 2), torch.zeros(1, 1, 1, 2))
    cache = DynamicCache()
    cache.layers = [layer, DynamicLayer()]
    preallocate(cache, 8)
    assert cache.layers[0] is layer and type(cache.layers[1]) is DynamicLayer
    preallocate(EncoderDecoderCache(DynamicCache(), DynamicCache()), 8)
    preallocate((), 8)
