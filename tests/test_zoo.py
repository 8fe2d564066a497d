"""Right or refused, over many kinds of model; all of them: `python -m tests.zoo`."""

import oracle
import pytest
import traps
from zoo import build
from zoo.examine import PLANS, examine

from surgery import Plan, Refused
from surgery.architecture import Anatomy, skeleton

# What people operate on most, and one of every way to build a decoder: expert lists and packed
# experts, dense prefixes, latent attention, linear attention and state spaces, hybrids, two residual
# streams, per-layer inputs, shared keys and values, cross-attention, four lists in step, nested
# configs, two cache slots a layer, hyper-connections.
COMMON = [
    "llama4_text",
    "gemma4_text",
    "gemma3n_text",
    "qwen2_moe",
    "qwen3_moe",
    "qwen3_next",
    "qwen3_5",
    "deepseek_v2",
    "deepseek_v3",
    "deepseek_v4",
    "gpt_oss",
    "phi3",
    "olmo2",
    "cohere2",
    "glm4_moe",
    "granitemoehybrid",
    "smollm3",
    "mamba2",
    "falcon_h1",
    "lfm2",
    "jamba",
    "nemotron_h",
    "recurrent_gemma",
    "rwkv",
    "zaya",
    "reformer",
    "minicpm3",
    "gpt_neox",
    "gpt_neo",
    "bloom",
    "opt",
    "bart",
    "xlm",
    "mllama",
    "emu3",
    "longcat_flash",
    "zamba",
    "minimax",
    "laguna",
    "bamba",
]
# Their layers' behaviour depends on where they stand, or can't be shown not to.
REFUSED = ["beam", "diffllama", "gpt-sw3", "hrm_text", "inkling2_text", "zamba2"]


@pytest.mark.parametrize("model_type", COMMON)
def test_a_patient_is_exact_or_refused(model_type):
    plans = {name: PLANS[name] for name in ("drop", "repeat", "swap")}
    found = examine(model_type, plans)
    assert not found.broken and not found.wrong, found
    # What can't be had of the few that refuse some of these is said in docs/zoo.md.
    assert any(outcome.state == "exact" for outcome in found.plans.values()) or model_type in (
        "gemma3n_text",
    ), found


@pytest.mark.parametrize("model_type", REFUSED)
def test_what_depends_on_its_position_is_refused_before_anything_is_written(model_type):
    found = examine(model_type, {"drop": PLANS["drop"]})
    assert not found.broken and found.plans["drop"].state == "refused" and found.plans["drop"].why


@pytest.mark.parametrize("what", traps.TRAPS)
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
