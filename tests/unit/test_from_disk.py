"""A base that is read from disk needs no memory for weights that are used as they lie in files."""

import pytest
import tiny
import torch

from surgery import Base, BaseError, Plan, devices, loading
from surgery.analysis import Sample, scan


@pytest.fixture
def small_memory(monkeypatch):
    """A machine whose memory is full."""
    monkeypatch.setattr(loading, "main_memory", lambda: devices.Room("cpu", 0))
    monkeypatch.setattr(loading, "accelerators", list)


def test_weights_larger_than_memory_are_refused_unless_read_from_disk(tmp_path, small_memory):
    tiny.model("llama").save_pretrained(tmp_path)  # a model that no other test has loaded
    folder = str(tmp_path)
    with pytest.raises(BaseError, match="The weights need"):
        Base.open(folder).load()
    base = Base.open(folder, from_disk=True)
    assert base.load() is base.model
    assert base is not Base.open(folder)


def test_weights_stored_in_another_dtype_have_to_fit(tmp_path, small_memory):
    model = tiny.model("llama", dtype=torch.bfloat16)
    model.model.layers.to(torch.float16)  # fewer bytes than the rest
    model.model.embed_tokens.to(torch.float32)
    model.save_pretrained(tmp_path)
    with pytest.raises(BaseError, match="The weights need"):
        Base.open(str(tmp_path), from_disk=True).load()


def test_scans_are_the_same(tiny_folder, tmp_path, monkeypatch):
    folder, texts = str(tiny_folder("llama")), "a b c d e f g h i j k " * 8
    scans = []
    for from_disk in (False, True):
        monkeypatch.setenv("LAYER_SURGERY_CACHE", str(tmp_path / str(from_disk)))
        base = Base.open(folder, from_disk=from_disk)
        scans.append(scan(base, Sample.of(base, texts), scores=["drop_one", "repeat_one"]))
    one, other = scans
    assert one.perplexity.perplexity == other.perplexity.perplexity
    for a, b in zip(one.drop_one + one.repeat_one, other.drop_one + other.repeat_one, strict=True):
        assert (a.plan, a.perplexity) == (b.plan, b.perplexity)


def test_text_is_the_same(tiny_folder):
    folder = str(tiny_folder("llama"))
    texts = [
        "".join(
            Base.open(folder, from_disk=from_disk)
            .operate(Plan.parse("0:4, 2:6", 6))
            .stream("a b c", max_new_tokens=8, greedy=True)
        )
        for from_disk in (False, True)
    ]
    assert texts[0] == texts[1]
