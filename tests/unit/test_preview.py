"""Arithmetic against published figures, against real modules, and against torch's FLOP counter."""

import math
from collections import Counter

import pytest
import tiny
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaConfig, MistralConfig, MixtralConfig, Qwen2Config

from surgery import Plan
from surgery.architecture import Anatomy, skeleton
from surgery.architecture.inspect.counts import count, layouts
from surgery.counts import LayerPart, StoredBytes
from surgery.preview import preview

LESSON = dict(
    hidden_size=1024,
    intermediate_size=4096,
    num_hidden_layers=12,
    num_attention_heads=32,
    num_key_value_heads=8,
    vocab_size=32000,
    tie_word_embeddings=False,
)
SMOLLM2 = dict(
    hidden_size=576,
    intermediate_size=1536,
    num_hidden_layers=30,
    num_attention_heads=9,
    num_key_value_heads=3,
    vocab_size=49152,
    tie_word_embeddings=True,
)
LLAMA_2_7B = dict(
    hidden_size=4096,
    intermediate_size=11008,
    num_hidden_layers=32,
    num_attention_heads=32,
    num_key_value_heads=32,
    vocab_size=32000,
    tie_word_embeddings=False,
)
LLAMA_2_70B = dict(
    hidden_size=8192,
    intermediate_size=28672,
    num_hidden_layers=80,
    num_attention_heads=64,
    num_key_value_heads=8,
    vocab_size=32000,
    tie_word_embeddings=False,
)
QWEN2_72B = dict(
    hidden_size=8192,
    intermediate_size=29568,
    num_hidden_layers=80,
    num_attention_heads=64,
    num_key_value_heads=8,
    vocab_size=152064,
    tie_word_embeddings=False,
)
GOLIATH = "0:16, 8:24, 17:32, 25:40, 33:48, 41:56, 49:64, 57:72, 65:80"

PUBLISHED = [
    (
        LlamaConfig(**LESSON),
        {"0:12": 248_013_824, "0:5, 7:12": 217_601_024, "0:8, 4:12": 308_839_424},
    ),
    (MistralConfig(), {"0:32": 7_241_732_096, "0:24, 8:32": 10_731_524_096}),
    (LlamaConfig(**SMOLLM2), {"0:30": 134_515_008, "0:22, 8:30": 184_076_352}),
    (LlamaConfig(**LLAMA_2_7B), {"0:32": 6_738_415_616, "0:21, 30:32": 4_916_965_376}),
    (LlamaConfig(**LLAMA_2_70B), {"0:80": 68_976_648_192, GOLIATH: 117_748_948_992}),
    (Qwen2Config(**QWEN2_72B), {"0:52, 45:80": 78_849_996_800}),
]


def previewed(config, text, width=2):
    anatomy = Anatomy.of(config)
    plan = Plan.parse(text, anatomy.stack.depth)
    return preview(count(anatomy), plan, width, None)


@pytest.mark.parametrize(("config", "figures"), PUBLISHED)
def test_published_counts(config, figures):
    anatomy = Anatomy.of(config)
    counts = count(anatomy)
    for text, parameters in figures.items():
        got = preview(counts, Plan.parse(text, anatomy.stack.depth), 2, None)
        assert got.parameters == parameters == sum(got.by_component.values()), text
        assert got.bytes == 2 * parameters


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_parameters_are_those_of_the_model(family):
    anatomy = Anatomy.of(tiny.config(family))
    counts = count(anatomy)
    for text in ("0:6", "0:2, 4:6", "0:4, 2:6", "3*5"):
        plan = Plan.parse(text, tiny.DEPTH)
        got, model = preview(counts, plan, 4, None), skeleton(anatomy, plan.sources)
        assert got.parameters == sum(p.numel() for p in model.parameters()), text
        assert got.layers == len(plan)


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_the_cache_grows_by_what_is_said(family):
    model = tiny.model(family)
    got = preview(count(Anatomy.of(model.config)), Plan.whole(tiny.DEPTH), 4, None)

    def cached(length):
        cache = model(input_ids=tiny.tokens(length), use_cache=True).past_key_values
        return sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)

    assert got.kv_bytes_per_token == cached(5) - cached(4)


def test_the_cache_of_a_model_of_one_layer_is_that_layer_s():
    got = previewed(LlamaConfig(num_hidden_layers=1), "0")
    assert got.kv_bytes_per_token == previewed(LlamaConfig(), "0").kv_bytes_per_token > 0


@pytest.mark.parametrize("family", ["llama", "llama-tied-biased", "qwen3", "gemma2", "gpt2"])
def test_flops_are_those_that_torch_counts(family):
    model = tiny.model(family, attn_implementation="eager")
    with FlopCounterMode(display=False) as counter:
        model(input_ids=tiny.tokens(1), use_cache=False)
    config = model.config
    heads = config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    attention = tiny.DEPTH * 4 * heads * size  # one query on one key and value
    got = preview(count(Anatomy.of(config)), Plan.whole(tiny.DEPTH), 4, None)
    assert got.flops_per_token == counter.get_total_flops() - attention


def test_mixtures_say_how_much_is_active():
    got = previewed(MixtralConfig(), "0:32")
    assert got.parameters == 46_702_792_704
    assert got.active_parameters == 12_879_925_248  # two of eight experts
    assert got.by_component["experts"] == 32 * 8 * 3 * 4096 * 14336
    dense = previewed(MistralConfig(), "0:32")
    assert dense.active_parameters == dense.parameters


def test_components_of_a_tied_and_of_an_untied_model():
    untied = previewed(LlamaConfig(**LESSON), "0:12").by_component
    assert untied["embedding"] == untied["head"] == 32000 * 1024
    assert untied["norms"] == 25 * 1024
    assert untied["attention"] == 12 * (2 * 1024 * 1024 + 2 * 1024 * 256)
    assert untied["mlp"] == 12 * 3 * 1024 * 4096
    assert "head" not in previewed(LlamaConfig(**SMOLLM2), "0:30").by_component


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3_text", "mixtral"])
def test_the_parts_of_a_layer_add_up_to_its_parameters(family):
    anatomy = Anatomy.of(tiny.config(family))
    found = layouts(anatomy)
    for layer, counted in enumerate(count(anatomy).layers):
        sizes: Counter = Counter()
        for part in found.distinct[found.of[layer]]:
            sizes[part.component] += part.times * math.prod(part.shape)
        assert sizes == counted.parameters


def test_experts_of_one_shape_are_one_part():
    """Where each expert is a module of its own."""
    anatomy = Anatomy.of(LlamaConfig(**LESSON | dict(num_hidden_layers=2)))
    layer = anatomy.model.model.layers[0]
    layer.mlp = torch.nn.ModuleDict(
        {"experts": torch.nn.ModuleList(torch.nn.Linear(4, 8, bias=False) for _ in range(3))}
    )
    found = layouts(anatomy)
    assert LayerPart("mlp.experts.*.weight", "experts", (8, 4), 3) in found.distinct[found.of[0]]
    assert found.of == (0, 1)
    assert LayerPart("mlp.up_proj.weight", "mlp", (4096, 1024)) in found.distinct[1]


def test_stored_bytes_are_used_where_they_are_known():
    counts = count(Anatomy.of(tiny.config("llama")))
    stored = StoredBytes(outside=1000, layers=(1, 2, 4, 8, 16, 32))
    assert preview(counts, Plan.parse("0:2, 5*2", 6), 2, stored).bytes == 1000 + 1 + 2 + 64


def test_nothing_is_allocated_for_a_config():
    eight = LlamaConfig(**LLAMA_2_70B | dict(num_hidden_layers=8))  # of 856 million each
    with torch.profiler.profile(profile_memory=True) as profile:
        previewed(eight, "0:6, 2:8")
    assert sum(max(0, e.self_cpu_memory_usage) for e in profile.events()) < 10e6
