"""Every score against the long way round, on tiny models of several families; what it costs; and
what becomes of a scan that is stopped."""

import copy
import math
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from naive import Naive
from transformers.models.llama.modeling_llama import LlamaMLP

from surgery import Base, Cancelled, Init, Plan, Refused, SurgeryError, texts
from surgery.analysis import (
    METHODS,
    SCORES,
    ImportanceScore,
    LossIncrease,
    MeasurementCache,
    Sample,
    Scan,
    Variant,
    best_blocks,
    known_scan,
    measure_all,
    overlooked,
    perplexity,
    scan,
)
from surgery.analysis.cache import _memory
from surgery.analysis.json_values import scan_json
from surgery.cli.reports.scan import scan_tables
from surgery.memory.devices import HEADROOM

# Of the base's own passes, and of patients.
OWN = ("block_influence", "angular", "taylor")
OTHERS = ("drop_one", "repeat_one", "repeat_map")


@contextmanager
def unchanged(model):
    """Afterwards, the model is as it was."""
    before = {n: p.clone() for n, p in model.named_parameters()}
    asked = [(p.requires_grad, p.grad) for p in model.parameters()]
    hooks = [len(m._forward_hooks) for m in model.modules()]
    yield
    assert all(torch.equal(p, before[n]) for n, p in model.named_parameters())
    assert asked == [(p.requires_grad, p.grad) for p in model.parameters()]
    assert not any("forward" in vars(m) for m in model.modules())
    assert hooks == [len(m._forward_hooks) for m in model.modules()]


def check_own(result, naive, sample):
    """What the base's own passes give is what plain transformers give."""
    depth, whole = result.depth, list(range(result.depth))
    assert result.finished and result.tokens == sample.tokens
    assert result.perplexity.perplexity == pytest.approx(naive.perplexity(whole), 1e-5)
    assert result.perplexity.nll == pytest.approx(naive.losses(whole), abs=1e-4)
    influence = [naive.block_influence(i) for i in whole]
    assert result.block_influence == pytest.approx(influence, abs=1e-5)
    assert result.taylor == pytest.approx(naive.taylor(), rel=1e-5)
    for start in range(depth):
        for n in range(1, depth + 1):
            d = result.angular[start][n]
            if start + n > depth:
                assert d is None
            else:
                assert d == pytest.approx(naive.angular(start, n), abs=1e-5)


@pytest.mark.parametrize("family", ["gemma3_text", "gpt2"])
def test_every_score_is_what_the_long_way_gives(opened, family):
    base, sample = opened(family, 63)  # two windows
    whole, naive = list(range(base.depth)), Naive(base, sample)
    with unchanged(base.model):
        result = scan(base, sample, scores=[*OWN, *OTHERS], within=(1, 3))
    check_own(result, naive, sample)
    for i in whole:
        without, twice = whole[:i] + whole[i + 1 :], whole[: i + 1] + whole[i:]
        for row, sources in ((result.drop_one[i], without), (result.repeat_one[i], twice)):
            assert row.layer == i and row.plan.sources == tuple(sources)
            assert row.perplexity == pytest.approx(naive.perplexity(sources), 1e-5)
            assert row.low < row.perplexity < row.high
            assert row.cost.low <= row.cost.mean <= row.cost.high
    assert set(result.repeat_map) == {(i, j) for i in range(1, 3) for j in range(i + 1, 4)}
    for (i, j), row in result.repeat_map.items():
        expected = naive.perplexity(whole[:j] + whole[i:])
        assert row.perplexity == pytest.approx(expected, 1e-5)


def test_scores_of_a_mixture_of_experts(opened):
    """Its weights are in other tensors, which only Taylor reads."""
    base, sample = opened("mixtral", 63)
    with unchanged(base.model):
        result = scan(base, sample, scores=OWN)
    check_own(result, Naive(base, sample), sample)


def test_influence_is_not_read_behind_the_final_norm(opened):
    base, sample = opened("llama")
    with torch.no_grad():
        out = [
            base.model(input_ids=torch.tensor([w]), output_hidden_states=True).hidden_states
            for w in sample.windows
        ]
    pairs = [torch.cosine_similarity(h[-2], h[-1], dim=-1).flatten() for h in out]
    wrong = float(1 - torch.cat(pairs).mean())
    last = scan(base, sample, scores=["block_influence"]).block_influence[-1]
    assert last == pytest.approx(Naive(base, sample).block_influence(5), abs=1e-5)
    assert abs(last - wrong) > 1e-3


def test_the_best_block_never_holds_the_last_layer(opened):
    base, sample = opened("llama")
    result = scan(base, sample, scores=["angular"])
    blocks, naive = best_blocks(result), Naive(base, sample)
    assert [block.n for block in blocks] == [1, 2, 3, 4, 5]
    for block in blocks:
        others = [naive.angular(s, block.n) for s in range(6 - block.n)]
        assert block.end <= 5 and block.distance == pytest.approx(min(others), abs=1e-5)
    assert all(block.start >= 2 for block in best_blocks(result, first=2))


def test_attention_and_mlp_of_each_layer(opened):
    base, sample = opened("llama")
    result = scan(base, sample, scores=["drop_one", "drop_attention", "drop_mlp"])
    for key, kind in (("drop_attention", "no-attention"), ("drop_mlp", "no-mlp")):
        variants = result.variants[key]
        assert list(variants) == [(i, i + 1) for i in range(base.depth)]
        for (i, end), variant in variants.items():
            assert variant.plan == Plan.whole(base.depth).initialise(i, end, Init(kind))
            losses = perplexity(base.operate(variant.plan).model, sample)
            assert variant.perplexity == pytest.approx(losses.perplexity, rel=1e-5)
    both = {v.perplexity for rows in result.variants.values() for v in rows.values()}
    assert len(both) == 3 * base.depth


def test_layer_forwards_are_counted_and_few(tmp_path, monkeypatch):
    tiny.model("llama", num_hidden_layers=8).save_pretrained(tmp_path)
    tiny.tokenizer().save_pretrained(tmp_path)
    base = Base.open(str(tmp_path))
    sample = Sample.of(base, texts.get("prose"), window=64, limit=256)
    calls, forward = [], LlamaMLP.forward

    def counting(self, x):
        if not x.is_meta:
            calls.append(x.shape[0] * x.shape[1])
        return forward(self, x)

    with monkeypatch.context() as patch:
        patch.setattr(LlamaMLP, "forward", counting)
        result = scan(base, sample, scores=["drop_one"])
    assert result.naive_layer_forwards == 8 + 8 * 7
    assert result.layer_forwards <= 0.6 * result.naive_layer_forwards
    # What it says it ran is what ran; on top of the passes comes the check that it can skip.
    ran, passes = sum(calls) / 256, 8 + sum(7 - i for i in range(8))
    assert passes <= ran <= result.layer_forwards <= passes + 2
    pairs = scan(base, sample, scores=["repeat_map"], within=(3, 6))
    spans = [(i, j) for i in range(3, 6) for j in range(i + 1, 7)]
    assert pairs.naive_layer_forwards == 8 + sum(8 + j - i for i, j in spans)
    assert pairs.layer_forwards <= 8 + sum(8 - i for i, _ in spans) + 2
    again = scan(base, sample, scores=["drop_one", "repeat_map"], within=(3, 6))
    assert again.layer_forwards == again.naive_layer_forwards == 0
    assert again.drop_one == result.drop_one


def test_progress_reaches_its_end_and_the_base_is_as_it_was(opened):
    base, sample = opened("llama")
    reports = []
    with unchanged(base.model):
        scan(base, sample, scores=SCORES, within=(1, 4), progress=lambda *x: reports.append(x))
    done = [d for what, d, _ in reports if what == "Measuring layers"]
    assert done == sorted(done) and done[-1] == pytest.approx(reports[-1][2])


def test_a_scan_that_is_stopped_goes_on(opened):
    base, sample = opened("llama")
    stopped = []

    def stop(what, done, total):
        if what == "Measuring layers" and done > 0.6 * total:
            raise Cancelled

    partial = []
    with pytest.raises(Cancelled):
        scan(base, sample, on_update=partial.append, progress=stop)
    before = known_scan(base, sample)
    assert not before.finished and 0 < len(before.drop_one) + len(before.repeat_one) < 12
    assert partial[-1].drop_one == before.drop_one and before.block_influence
    assert [len(p.drop_one) for p in partial] == sorted(len(p.drop_one) for p in partial)

    _memory.clear()  # as another process would find it
    assert known_scan(base, sample).drop_one == before.drop_one
    rest = scan(base, sample, on_update=stopped.append)
    fresh = len(rest.drop_one) + len(rest.repeat_one) - len(before.drop_one)
    assert rest.finished and rest.naive_layer_forwards < 6 + 6 * 5 + 6 * 7
    assert fresh <= 12 and known_scan(base, sample).finished
    MeasurementCache(base, sample).forget()
    assert known_scan(base, sample).perplexity is None
    whole = scan(base, sample)
    assert whole.drop_one == rest.drop_one and whole.repeat_one == rest.repeat_one
    assert whole.naive_layer_forwards == 6 + 6 * 5 + 6 * 7


def test_files_that_are_broken_are_measured_anew(opened, tmp_path):
    base, sample = opened("llama")
    first = scan(base, sample, scores=["drop_one"])
    for file in (tmp_path / "cache" / "analysis").rglob("*.npz"):
        file.write_bytes(file.read_bytes()[:90])
    _memory.clear()
    assert known_scan(base, sample, scores=["drop_one"]).perplexity is None
    assert scan(base, sample, scores=["drop_one"]).drop_one == first.drop_one


def test_bases_without_lasting_weights_stay_off_the_disk(tmp_path):
    tiny.tokenizer().save_pretrained(tmp_path)
    tiny.config("llama").save_pretrained(tmp_path)
    base = Base.open(f"config:{tmp_path}")
    sample = Sample((tuple(range(3, 60)),))
    assert scan(base, sample, scores=["drop_one"]).finished
    assert not (tmp_path / "cache").exists() and known_scan(base, sample).perplexity


def test_a_plan_that_is_refused_has_no_number(opened, monkeypatch):
    base, sample = opened("llama")
    operate = Base.operate

    def picky(self, plan):
        if plan.dropped == (2,):
            raise Refused("Layer 2 has to stay.")
        return operate(self, plan)

    monkeypatch.setattr(Base, "operate", picky)
    result = scan(base, sample)
    row = result.drop_one[2]
    assert (row.perplexity, row.low, row.high, row.cost) == (None,) * 4
    assert row.refused == "Layer 2 has to stay." and result.finished
    assert result.drop_one[3].perplexity and result.repeat_one[3].perplexity


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scores": ["charm"]}, "“charm” is not a score"),
        ({"within": (4, 4)}, "4:4 is not a span"),
        ({"within": (0, 7)}, "within 0:6"),
    ],
)
def test_what_is_no_scan(opened, options, message):
    base, sample = opened("llama")
    with pytest.raises(SurgeryError, match=message):
        scan(base, sample, **options)


def test_perplexity_of_any_model(opened):
    base, sample = opened("gemma2")
    score = perplexity(copy.deepcopy(base.model), sample)
    expected = Naive(base, sample).losses(range(base.depth))
    assert score.nll == pytest.approx(expected, abs=1e-4)
    assert score.perplexity == pytest.approx(math.exp(np.mean(expected)), 1e-5)


def test_a_model_that_says_nothing_is_infinitely_surprised(tmp_path):
    model = tiny.model("llama")
    with torch.no_grad():
        model.model.layers[3].mlp.down_proj.weight[0] = math.nan
    model.save_pretrained(tmp_path)
    tiny.tokenizer().save_pretrained(tmp_path)
    base = Base.open(str(tmp_path))
    sample = Sample.of(base, texts.get("facts"), window=40, limit=80)
    result = scan(base, sample, scores=["drop_one", "block_influence", "angular"])
    assert result.perplexity.perplexity == math.inf
    assert result.drop_one[2].perplexity == math.inf
    assert math.isfinite(result.drop_one[3].perplexity)


def test_the_two_layers_that_the_cosine_misses(bundled):
    """SmolLM2: layers 8 and 11 look harmless to Block Influence, and are the ones that kill."""
    sample = Sample.of(bundled, texts.get("facts"), window=100, limit=100)
    scores = scan(bundled, sample, scores=["block_influence"]).block_influence
    near = (7, 8, 9, 10, 11, 13)  # the costs of all: `bundled_costs.json`
    plans = {i: Plan.whole(30).drop(i, i + 1) for i in near}
    result = measure_all(bundled, list(plans.values()), sample)
    by_damage = sorted(near, key=lambda i: -result[plans[i]].perplexity)
    assert set(by_damage[:2]) == {8, 11}
    others = [result[plans[i]].perplexity for i in near if i not in (8, 11)]
    assert result[plans[11]].perplexity > 2 * np.median(others)
    assert result[plans[8]].perplexity > 1.5 * np.median(others)
    middle = np.median([scores[i] for i in range(2, 28)])
    assert scores[8] < 1.5 * middle and scores[11] < 1.5 * middle


def test_overlooked_layers():
    """Low influence and a high cost, compared with the layers between the ends."""

    def scanned(costs, influence):
        rows = {
            (i, i + 1): Variant(i, Plan.whole(11), 1.0, 1.0, 1.0, LossIncrease(c, c, c))
            for i, c in costs.items()
        }
        values = {"block_influence": influence}
        return Scan(11, 20, 1, None, values, variants={"drop_one": rows})

    influence = (0.9, 0.01, 0.04, 0.04, 0.04, 0.04, 0.2, 0.04, 0.04, 0.04, 0.01)
    costs = dict(enumerate([5.0, 3.0, 0.1, 0.1, 0.7, 2.0, 1.5, 0.1, 0.1, 0.1, 2.0]))
    # The ends and 6, whose influence is high, aren't overlooked; 0.1 is the median of the others.
    assert overlooked(scanned(costs, influence)) == [5, 4]
    assert overlooked(scanned(costs | {4: 0.3}, influence)) == [5]
    assert overlooked(scanned(dict.fromkeys(costs, 0.0), influence)) == []  # no cost at all
    few = {i: costs[i] for i in (3, 4, 5)}
    assert overlooked(scanned(few, influence)) == []
    assert overlooked(Scan(11, 20, 1, None)) == []


def test_the_registry_is_sound():
    for key, score in SCORES.items():
        assert key == score.key and score.label and score.description.endswith(".")
        assert sum(f is not None for f in (score.plans, score.probe, score.measure)) == 1
    assert {method.score for method in METHODS.values()} - {""} <= SCORES.keys()
    for key, method in METHODS.items():
        assert key == method.key and (method.shrinks or method.grows)


def test_the_docs_list_the_registries():
    docs = Path(__file__).parents[3] / "docs"
    scores = (docs / "explanation" / "scores.md").read_text(encoding="utf-8").replace("\\|", "|")
    for key, score in SCORES.items():
        row = (score.label, f"`{key}`", score.description, score.unit, score.passes, score.source)
        assert f"| {' | '.join(row)} |" in scores
    methods = (docs / "how-to" / "choose-layers.md").read_text(encoding="utf-8")
    for key, method in METHODS.items():
        assert f"| `{key}` | {method.description} |" in methods


def test_a_new_score_needs_one_entry(opened, monkeypatch):
    """Everything that is made of scores has it: the scan, its JSON, its table, the cache."""
    entry = ImportanceScore(
        key="halves",
        label="half",
        heading="half",
        description="The layer's number, halved.",
        change="drop",
        unit="",
        number=".1f",
        passes="none",
        measure=lambda runner: np.arange(runner.base.depth) / 2,
    )
    monkeypatch.setitem(SCORES, "halves", entry)
    base, sample = opened("llama")
    result = scan(base, sample, scores=["halves"])
    assert result.values == {"halves": (0.0, 0.5, 1.0, 1.5, 2.0, 2.5)}
    assert known_scan(base, sample, scores=["halves"]).values == result.values
    assert scan_json(base, "a text", result)["halves"] == list(result.values["halves"])
    (table,) = [part for part in scan_tables(base, result) if not isinstance(part, str)]
    assert [column.header for column in table.columns] == ["layer", "half"]
    assert list(table.columns[1].cells) == ["0.0", "0.5", "1.0", "1.5", "2.0", "2.5"]


def test_small_gradients_of_halves_count(tmp_path, monkeypatch):
    """Taylor of a float16 model with a head so small that gradients of the mean would underflow is
    that of its float32 copy. What it takes is known before."""
    monkeypatch.setenv("LAYER_SURGERY_COMPUTE_DTYPE", "float32")
    small, result = tiny.model("llama", dtype=torch.float16), {}
    with torch.no_grad():
        small.lm_head.weight.mul_(1e-4)
    for name, kind in (("half", torch.float16), ("float", torch.float32)):
        small.to(kind).save_pretrained(tmp_path / name)
        tiny.tokenizer().save_pretrained(tmp_path / name)
        base = Base.open(str(tmp_path / name))
        sample = Sample.of(base, "The ferry ran twice a day in summer. " * 6, window=43)
        layers = sum(p.numel() for layer in base.model.model.layers for p in layer.parameters())
        # Gradients, their sums and, of halves, copies.
        needed = layers * (2 + 4 + 4 if name == "half" else 4 + 4) / HEADROOM
        with monkeypatch.context() as patch:
            patch.setattr("surgery.analysis.taylor.free_on", lambda _, free=needed: free - 10)
            with pytest.raises(SurgeryError, match="Taylor needs the gradients of all layers"):
                scan(base, sample, scores=["taylor"])
            patch.setattr("surgery.analysis.taylor.free_on", lambda _, free=needed: free + 10)
            result[name] = scan(base, sample, scores=["taylor"]).taylor
    assert result["half"] == pytest.approx(result["float"], rel=1e-3)
