"""The numbers as people read them."""

import json

import pytest

from components.widgets.tiles.tiles import view
from surgery import Base, Plan

LLAMA2 = dict(
    model_type="llama",
    hidden_size=4096,
    intermediate_size=11008,
    num_hidden_layers=32,
    num_attention_heads=32,
    vocab_size=32000,
    dtype="float16",
)
MIXTRAL = dict(
    LLAMA2,
    model_type="mixtral",
    intermediate_size=14336,
    num_key_value_heads=8,
    num_local_experts=8,
    num_experts_per_tok=2,
)


@pytest.fixture
def base(tmp_path):
    def opened(fields):
        (tmp_path / "config.json").write_text(json.dumps(fields))
        return Base.open(f"config:{tmp_path}")

    return opened


def tiles(shown: dict) -> dict:
    return {tile["name"]: tile for tile in shown["tiles"]}


def test_before_and_after_share_a_unit(base):
    shown = tiles(view(base(LLAMA2), Plan.parse("0:10, 20:32", 32)))
    parameters = shown["Parameters"]
    assert (parameters["before"], parameters["after"], parameters["unit"]) == ("6.74", "4.71", "B")
    assert parameters["detail"] == "4,714,582,016 · −30.0 %" and parameters["changed"]
    assert shown["Weights, float16"]["after"] == "9.43"
    assert shown["Weights, float16"]["unit"] == "GB"
    assert (shown["Layers"]["after"], shown["Layers"]["detail"]) == ("22", "10 dropped")
    # 2 · 32 heads · 128 · 2 bytes a layer
    cache = shown["KV cache per token"]
    assert (cache["before"], cache["after"], cache["unit"]) == ("524.3", "360.4", "kB")


def test_layers_with_weights_of_their_own_are_counted(base):
    model = base(LLAMA2)

    def detail(plan: str) -> str:
        return tiles(view(model, Plan.parse(plan, 32)))["Weights, float16"]["detail"]

    assert detail("0:10, 20:32") == "shares the base's memory"
    assert detail("0:10, 20@scale=0.5, 21:32") == "shared, except in 1 layer"
    assert detail("0:10@refit, 20:32") == "shared, except in 10 layers"
    healed = tiles(view(model, Plan.parse("0:10, 20:32", 32), is_healed=True))
    assert healed["Weights, float16"]["detail"] == "shared, except for healed weights"


def test_the_whole_plan_changes_nothing(base):
    shown = tiles(view(base(LLAMA2), Plan.whole(32)))
    assert not any(tile["changed"] for tile in shown.values())
    assert shown["Layers"]["detail"] == "unchanged"


def test_a_mixture_says_how_much_is_active(base):
    shown = tiles(view(base(MIXTRAL), Plan.whole(32)))
    assert shown["FLOPs per token"]["detail"] == "12.88 B parameters active"
    assert shown["Parameters"]["detail"] == "46,702,792,704"


def test_bars_are_shares_of_the_larger_model(base):
    parts = view(base(LLAMA2), Plan.parse("0:32, 16:32", 32))["parts"]
    assert sum(part["share"] for part in parts["patient"]) == pytest.approx(1)
    assert 0.6 < sum(part["share"] for part in parts["base"]) < 0.7
    assert parts["legend"][0]["text"] == "embedding"
