"""Right or refused, over many kinds of model; all of them: `python -m tests.zoo`."""

import oracle
import pytest
import torch
import traps

from surgery import Plan, Refused
from surgery.architecture import Anatomy, skeleton
from surgery.architecture.apply.build import build_patient
from zoo import build, quantized, special
from zoo.examine import PLANS, TOLERANCE, _far, examine

# What people operate on most, and one of every way to build a decoder.
COMMON = [
    "bart",  # the decoder of an encoder-decoder
    "bloom",
    "deepseek_v3",  # latent attention behind a dense prefix
    "deepseek_v4",  # hyper-connections
    "emu3",  # a class that takes a part of its config
    "falcon_h1",  # attention and state space in one layer
    "gemma4_text",  # packed tables, and sizes that differ by layer
    "gpt_neo",
    "gpt_oss",
    "granite_swa",  # a rotary embedding for each layer
    "jamba",  # a period instead of a list
    "lfm2",
    "llama4_text",
    "longcat_flash",  # two cache slots a layer
    "mamba2",  # no attention at all
    "minicpm3",  # residuals scaled by the depth
    "mllama",  # layers that text alone passes over
    "opt",
    "phi3",
    "qwen2_moe",  # a list of dense layers among experts
    "qwen3_5",  # linear attention
    "reformer",  # two residual streams
    "rwkv",  # rescales its own weights
    "xlm",  # four lists in step
    "zamba",  # one block shared by many layers
]
# Tokens that the cache is used for: with either, a text outgrows the window of sliding attention.
# `python -m tests.zoo` takes more.
STEPS, FEW = 5, 4
# Formats left out, since another family of the same method has all that they have, and more.
SIMPLER = {"compressed-tensors, llama", "bitsandbytes, 4 bits, llama"}
# Their layers' behaviour depends on where they stand, or can't be shown not to.
REFUSED = ["beam", "diffllama", "gpt-sw3", "hrm_text", "inkling2_text", "zamba2"]


@pytest.mark.parametrize("model_type", COMMON)
def test_a_patient_is_exact_or_refused(model_type):
    plans = {name: PLANS[name] for name in ("drop", "repeat", "swap")}
    result = examine(model_type, plans, STEPS)
    assert not result.broken and not result.wrong, result
    assert result.exact("drop", "repeat"), result


@pytest.mark.parametrize("model_type", REFUSED)
def test_what_depends_on_its_position_is_refused_before_anything_is_written(model_type):
    result = examine(model_type, {"drop": PLANS["drop"]})
    assert (
        not result.broken and result.plans["drop"].state == "refused" and result.plans["drop"].why
    )


def test_a_shared_block_survives_the_layer_that_stores_it_and_begins_as_it_is_or_not_at_all():
    """A layer of its own in memory would be the shared one again after a reload."""
    kept = {"without the first": "0, 2:6", "twice": "0:2, 1:6"}
    others = {"scale": "0:4, 3@scale=0.5, 4:6", "random": "0:4, 3@random, 4:6"}
    own = {"of a layer that shares nothing": "0:5, 4@random, 5"}
    result = examine("zamba", kept | others | own, FEW)
    assert result.exact(*kept), result
    assert all(result.plans[name].state == "refused" for name in others), result
    assert all("one tensor with another part" in result.plans[name].why for name in others), result
    assert result.exact(*own), result


def test_producers_of_shared_keys_and_values_may_be_repeated():
    """Layers 4 and 5 reuse the keys and values of the last layers of their types, 2 and 3."""
    exact = ["0:4, 3, 4:6", "0:3, 2:6", "0:4*2, 4:6", "2:6", "3, 5", "0:4, 5"]
    refused = ["0:2, 4:6", "0:4, 1, 4:6"]
    result = examine("gemma3n_text", {text: text for text in (*exact, *refused)}, FEW)
    assert result.exact(*exact), result
    assert all("reuse the keys and values" in result.plans[text].why for text in refused), result


@torch.no_grad()
def test_producers_in_gemma_4(monkeypatch):
    """It truncates hidden states before the layers that reuse keys and values, which hides them
    from the oracle unless they are requested."""
    shared = {**special.SPECIAL["gemma4_text"], "num_kv_shared_layers": 2}
    monkeypatch.setitem(special.SPECIAL, "gemma4_text", shared)
    model, ids = build.model("gemma4_text"), build.tokens()
    model.config.output_hidden_states = True
    anatomy = Anatomy.of(model.config)
    truth = oracle.Oracle(model, "model.layers", ids)
    for text in ("0:4, 3, 4:6", "0:3, 2:6", "0:4*2, 4:6", "2:6", "2, 5", "0:4, 5*2"):
        plan = Plan.parse(text, 6)
        logits = build_patient(anatomy, model, plan)(input_ids=ids, use_cache=False).logits
        assert _far(logits, truth.logits(plan.sources)) < TOLERANCE, text
    for text in ("0:2, 4:6", "0:4, 0, 4:6"):
        with pytest.raises(Refused, match="reuse the keys and values"):
            skeleton(anatomy, Plan.parse(text, 6).sources)


def test_layers_of_one_kind_alone():
    result = examine("gemma4_text", {text: text for text in ("2, 5", "5", "2, 5, 2, 5")}, FEW)
    assert result.exact(*result.plans), result


def test_a_first_layer_that_keeps_nothing_is_refused():
    """Mllama's cross-attention to images keeps nothing of a text."""
    result = examine("mllama", {"drop first": PLANS["drop first"]})
    assert result.plans["drop first"].state == "refused", result


def test_a_cache_without_its_kind_of_layer_is_refused():
    """Every attention layer of this Jamba is at an odd place, and its cache counts by those."""
    result = examine("jamba", {"every other": PLANS["every other"]})
    assert result.plans["every other"].state == "refused", result


@pytest.mark.parametrize("what", traps.SEEN_THROUGH)
def test_a_model_that_nobody_knows_is_seen_through(what):
    anatomy = Anatomy.of(traps.config(what))
    skeleton(anatomy, range(6))  # nobody moves
    with pytest.raises(Refused):
        skeleton(anatomy, Plan.parse("0, 2, 3, 4, 5", 6).sources)


def test_an_oracle_that_cannot_know_says_so():
    """Blocks of Inkling 2 attend to what earlier blocks returned."""
    model = build.model("inkling2_text")
    with pytest.raises(oracle.NoOracle, match="follows from earlier layers"):
        oracle.Oracle(model, "model.layers", build.tokens())


def test_the_oracle_tells_layers_apart():
    model = build.model("llama")
    truth = oracle.Oracle(model, "model.layers", build.tokens())
    logits = [truth.logits(Plan.parse(text, 6).sources) for text in PLANS.values()]
    for i, one in enumerate(logits):
        assert all((one - other).abs().max() > 1e-2 for other in logits[:i])


@pytest.mark.parametrize("title", [title for title in quantized.FORMATS if title not in SIMPLER])
def test_quantized_saves_are_exact(title):
    """The same bytes and a matching config, from one base for every plan."""
    result = quantized.examine(title)
    assert {outcome.state for outcome in result.plans.values()} == {"exact"}, result


@pytest.mark.parametrize(
    ("model_type", "sources", "message"),
    [
        ("gemma4_text", [0, 1, 2, 3], "has to end with a full attention layer"),
        ("lfm2", [1, 3, 5], "keep layer 0 first and keep a layer of type “full”"),
        ("jamba", [0, 2, 4], "keep a layer of type “full · attention”"),
        ("jamba", [0, 0, 1, 2, 3, 4, 5], "regular distances only"),
    ],
)
def test_refusals_say_what_the_plan_needs(model_type, sources, message):
    with pytest.raises(Refused, match=message) as caught:
        skeleton(Anatomy.of(build.config(model_type)), sources)
    assert sources[0] != 0 or "keep layer 0 first" not in str(caught.value)
