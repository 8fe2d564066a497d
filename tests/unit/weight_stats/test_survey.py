"""A base counted from its files, and patients' pictures held against their own weights."""

import json
import threading

import numpy as np
import pytest
import tiny
import torch
from safetensors.torch import save_file

from surgery import Base, BaseError, Plan, stack
from surgery.progress import Cancelled
from surgery.sources.safetensors_header import read_file
from surgery.weight_stats import (
    ValueCounts,
    cache,
    count_tensor,
    counting,
    known_survey,
    survey_base,
)
from surgery.weight_stats.counting import count_stored
from surgery.weight_stats.matrix import corner, find, matrices, spectrum
from surgery.weight_stats.survey import take


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LAYER_SURGERY_CACHE", str(tmp_path / "cache"))


def same(a, b) -> bool:
    return (
        np.array_equal(a.values, b.values)
        and np.array_equal(a.counts, b.counts)
        and (a.nan, a.above, a.below) == (b.nan, b.above, b.below)
    )


def open_tiny(family, tmp_path, dtype=torch.bfloat16, **changes):
    tiny.model(family, dtype=dtype, **changes).save_pretrained(tmp_path / "base")
    return Base.open(str(tmp_path / "base"))


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """A function: a base whose files stay as they are, the same for all tests."""
    made = {}

    def opened(family, dtype=torch.bfloat16):
        if (family, dtype) not in made:
            made[family, dtype] = open_tiny(family, tmp_path_factory.mktemp("tiny"), dtype)
        return made[family, dtype]

    return opened


@pytest.mark.parametrize("family", ["llama", "llama-tied-biased", "mixtral", "gpt2", "gemma3"])
def test_every_layer_of_every_family(opened, family):
    base = opened(family, torch.float16)
    picture = survey_base(base).base()
    assert "other" not in picture.kinds()
    state = base.model.state_dict()
    for i in range(base.depth):
        mine = [t for n, t in state.items() if (w := base.anatomy.layer_of(n)) and w[1] == i]
        together = torch.cat([t.flatten() for t in mine])
        assert same(picture.layer(i), count_tensor(together))


def test_kinds_are_told_apart(opened):
    base = opened("llama")
    survey = survey_base(base)
    picture = survey.base()
    assert picture.kinds() == ("q", "k", "v", "o", "gate", "up", "down", "norms")
    assert set(picture.outside) == {"embedding", "norms", "head"}
    layer = base.model.model.layers[2]
    assert same(picture.layers[2]["up"], count_tensor(layer.mlp.up_proj.weight))
    assert same(picture.layers[2]["o"], count_tensor(layer.self_attn.o_proj.weight))
    assert same(picture.outside["head"], count_tensor(base.model.lm_head.weight))
    assert survey.values == sum(p.numel() for p in base.model.parameters())
    assert survey.share == 1.0 and survey.skipped == ()


@pytest.mark.parametrize(
    ("family", "dtype"),
    [
        *(("llama", dtype) for dtype in (torch.bfloat16, torch.float16, torch.float32)),
        ("mixtral", torch.float16),
    ],
)
def test_a_patient_is_the_base_rearranged(opened, family, dtype):
    base = opened(family, dtype)
    plan = Plan.parse("0:2, 1@identity, 4, 3@scale=0.3, 3:5", 6)
    picture = survey_base(base).picture(plan)
    patient = base.operate(plan)
    state = patient.model.state_dict()
    for p in range(len(plan)):
        mine = [t for n, t in state.items() if (w := base.anatomy.layer_of(n)) and w[1] == p]
        counted = count_tensor(torch.cat([t.flatten() for t in mine]))
        if dtype != torch.float32 or plan.layers[p].init.kind != "scale":
            assert same(picture.layer(p), counted)
        else:  # a value is rounded before it is scaled, not after
            assert picture.layer(p).norm == pytest.approx(counted.norm, rel=1e-3)
            assert picture.layer(p).size == counted.size


def test_a_fresh_llama_is_plainly_normal(tmp_path):
    """The lesson says values beyond two sigma are cut to zero. They are not."""
    config = tiny.config("llama", hidden_size=256, intermediate_size=512, head_dim=64)
    (tmp_path / "config.json").write_text(json.dumps(config.to_diff_dict()))
    base = Base.open(f"config:{tmp_path}")
    picture = survey_base(base).base()
    for i in range(base.depth):
        for kind in ("q", "k", "v", "o", "gate", "up", "down"):
            counts = picture.layers[i][kind]
            assert counts.mean == pytest.approx(0, abs=5e-4)
            assert counts.deviation == pytest.approx(0.02, rel=0.02)
            assert 0.04 < counts.beyond(2) < 0.051
            # Chance alone makes no zero among so few draws of 2**24 and more.
            assert counts.zeros <= 1
    weights = [picture.layers[i][k] for i in range(base.depth) for k in ("q", "o", "up", "down")]
    together = type(weights[0]).merged(weights)
    assert 0.044 < together.beyond(2) < 0.046
    assert abs(together.kurtosis) < 0.03 and together.maximum > 4 * 0.02


def test_a_second_look_reads_nothing(tmp_path):
    base = open_tiny("llama", tmp_path)
    first = survey_base(base)
    assert survey_base(base) is first is known_survey(base)
    cache._surveys.clear()  # as another process would find it
    (tmp_path / "base" / "model.safetensors").rename(tmp_path / "away")
    again = survey_base(base)
    assert again is not first and again.parts.keys() == first.parts.keys()
    assert all(same(again.parts[part], first.parts[part]) for part in first.parts)
    cache.forget(base)
    with pytest.raises(BaseError):
        survey_base(base)


def test_a_cache_that_is_broken_is_none(tmp_path):
    base = open_tiny("llama", tmp_path)
    first = survey_base(base)
    (file,) = (tmp_path / "cache" / "weight_stats").rglob("*.npz")
    file.write_bytes(file.read_bytes()[:1000])
    cache._surveys.clear()
    again = survey_base(base)
    assert again is not first and again.values == first.values


def test_other_files_are_counted_anew(tmp_path):
    first = survey_base(open_tiny("llama", tmp_path))
    tiny.model("qwen2", dtype=torch.bfloat16).save_pretrained(tmp_path / "base")
    second = survey_base(Base.open(str(tmp_path / "base")))
    assert "biases" in second.base().kinds() and "biases" not in first.base().kinds()


def test_a_sample_says_how_much_it_saw(tmp_path):
    base = open_tiny("llama", tmp_path, hidden_size=512, intermediate_size=2048)
    sample = take(base, sample=True)
    assert 0.05 < sample.share < 1
    exact = survey_base(base)
    for part, counts in exact.parts.items():
        if part.kind == "up":
            assert sample.parts[part].size < counts.size
            assert sample.parts[part].deviation == pytest.approx(counts.deviation, rel=0.05)


def test_tensors_are_counted_across_the_buffers_ends(tmp_path, monkeypatch):
    """Of several dtypes and files, smaller and larger than the buffer, with one that is empty."""
    monkeypatch.setattr(counting, "CHUNK", 100)
    monkeypatch.setattr(counting, "_local", threading.local())
    bfloat16, float32, float8 = torch.bfloat16, torch.float32, torch.float8_e4m3fn
    sizes = [(7, bfloat16), (150, bfloat16), (0, bfloat16), (33, float32), (90, float32)]
    sizes += [(1, float8), (450, float8), (100, bfloat16), (5, bfloat16)]
    tensors, stored, read = [], [], []
    for i, (size, dtype) in enumerate(sizes):
        tensors.append((torch.randn(size) * 0.02).to(dtype))
        file = tmp_path / f"{i // 4}.safetensors"
        names = [f"{j}" for j in range(i // 4 * 4, i + 1)]
        save_file({name: tensors[int(name)] for name in names}, file)
    for i in range(len(sizes)):
        stored.append(read_file(tmp_path / f"{i // 4}.safetensors")[f"{i}"])
    counts = count_stored(tmp_path, stored, on_read=read.append)
    assert same(counts, ValueCounts.merged(map(count_tensor, tensors)))
    assert counts.rounded and counts.size == sum(size for size, _ in sizes)
    assert sum(read) == sum(t.nbytes for t in tensors) and max(read) <= 200


def test_it_stops_when_asked(tmp_path):
    base = open_tiny("llama", tmp_path)

    def stop(what, done, total):
        raise Cancelled

    with pytest.raises(Cancelled):
        survey_base(base, stop)
    assert known_survey(base) is None
    assert survey_base(base).values > 0


def test_files_that_change_are_noticed(tmp_path):
    base = open_tiny("llama", tmp_path)
    file = tmp_path / "base" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:5000])
    with pytest.raises(BaseError):
        survey_base(base)


def test_a_corner_and_a_spectrum(opened):
    base = opened("llama", torch.float32)
    weight = base.model.model.layers[4].self_attn.o_proj.weight.detach()
    matrix = find(base, 4, "o")
    assert matrix.shape == (64, 64) and matrix.output
    assert np.array_equal(corner(base, matrix, 5), weight[:5, :5].numpy())
    (layer,) = Plan.parse("4@identity", 6).layers
    assert not corner(base, matrix, 5, layer.init).any()
    result = spectrum(base, matrix)
    expected = np.linalg.svd(weight.double().numpy(), compute_uv=False)
    assert result.values == pytest.approx(expected, rel=1e-4)
    assert result.stable_rank == pytest.approx((expected**2).sum() / expected[0] ** 2, rel=1e-4)
    assert len(matrices(base)) == 6 * 7 + 2
    with pytest.raises(ValueError, match="no stored matrix of kind “router” in layer 0"):
        find(base, 0, "router")


def test_a_survey_is_of_its_own_stack(tmp_path):
    """Not of another, of whatever bases, nor of the same bases with the other one's head."""
    bases = []
    for seed in range(3):
        model = tiny.model("llama")
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.fill_(seed + 1)
        model.save_pretrained(tmp_path / str(seed))
        bases.append(Base.open(str(tmp_path / str(seed))))

    def values(other, text):
        made, plan = stack(bases[0], {"b": other}, Plan.parse(text, 6, {"b": 6}))
        picture = survey_base(made).picture(plan, made)
        return [float(picture.layer(p).values[0]) for p in range(len(plan))]

    assert values(bases[1], "0:3, b/3:6") == [1, 1, 1, 2, 2, 2]
    assert values(bases[2], "0:3, b/3:6") == [1, 1, 1, 3, 3, 3]

    def head(text):
        made, plan = stack(bases[0], {"b": bases[1]}, Plan.parse(text, 6, {"b": 6}))
        return set(survey_base(made).picture(plan, made).outside["head"].values.tolist())

    assert head("0, b/1") == {2.0}
    assert head("0, b/1, 5") == {1.0}


def test_fitted_layers_are_counted_as_the_copies_that_they_were(opened):
    base = opened("llama")
    survey = survey_base(base)
    marked = survey.picture(Plan.parse("0, 1@refit, 4:6@lstsq", 6))
    plain = survey.picture(Plan.parse("0:2, 4:6", 6))
    assert all(same(marked.layer(p), plain.layer(p)) for p in range(4))
