"""What the figures of a scan say, also of numbers that they have no place for."""

import json
import math
from dataclasses import replace

from components.panels.xray import figures, heatmaps
from surgery import Plan
from surgery.analysis import LossIncrease, Scan, Score, Variant, overlooked


def scanned(costs: list[float], influence: list[float]) -> Scan:
    score = Score.of([1.0] * 20)
    rows = {
        (i, i + 1): Variant(i, Plan.whole(9), 10 * math.exp(c), 1.0, 2.0, LossIncrease(c, c, c))
        for i, c in enumerate(costs)
    }
    values = {"block_influence": tuple(influence)}
    return Scan(9, 20, 1, score, values, variants={"drop_one": rows})


def test_layers_that_only_look_harmless_are_called_out():
    influence = [0.9, 0.3, *[0.04] * 5, 0.2, 0.5]
    costs = [5.0, 3.0, 0.1, 0.1, 2.0, 0.1, 0.1, 1.5, 2.0]
    result = scanned(costs, influence)
    assert overlooked(result) == [4]  # 7 costs as much, and Block Influence says so
    assert "layer 4 as harmless" in figures.layers(result)["hint"]
    assert overlooked(scanned([0.1] * 9, influence)) == []


def test_layers_without_a_finite_perplexity_are_named():
    hint = figures.layers(scanned([0.1] * 9, [0.1] * 9))["hint"]
    assert "Not drawn" not in hint
    hint = figures.layers(scanned([0.1, math.inf, *[0.1] * 5, math.inf, 0.1], [0.1] * 9))["hint"]
    assert hint.endswith("the perplexity is not finite: layers 1, 7.")


def test_half_a_layer_without_a_finite_perplexity_is_no_blank():
    result = scanned([0.1, math.inf, *[0.1] * 7], [0.1] * 9)
    halves = {"drop_mlp": result.variants["drop_one"]}
    figure = heatmaps.half_layers(replace(result, variants=halves))
    (row,), (words,) = figure["data"][0]["z"], figure["data"][0]["text"]
    assert row[1] == figure["data"][0]["zmax"] and row[0] == 0.1
    assert words[1] == "the perplexity is not finite"


def test_repeats_without_a_finite_perplexity_are_said_to_be_blank():
    for cost in (0.1, math.inf):
        result = scanned([cost] * 9, [0.1] * 9)
        blocks = {"repeat_map": result.variants["drop_one"]}
        figure = heatmaps.repeats(replace(result, variants=blocks))
        assert ("Blank" in figure["hint"]) == math.isinf(cost)
        json.dumps(figure, allow_nan=False)
