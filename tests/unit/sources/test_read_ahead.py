"""Weights in files are read a layer ahead of their use."""

import copy

import pytest
import tiny
import torch

from surgery import Base, BaseError, Plan, model
from surgery.analysis import Sample, compare, measured_score
from surgery.disk_reads import disk_reads, read_speed, text_speed
from surgery.memory import devices
from surgery.sources import Tensor
from surgery.sources.read_ahead import HEAD, ReadAhead

IDS = torch.tensor([[1, 2, 3]])


@pytest.fixture
def base(tmp_path, monkeypatch):
    """A base that is read from disk, with a head of its own."""
    monkeypatch.setattr(model, "main_memory", lambda: devices.Room("cpu", 0))
    tiny.model("llama", tie_word_embeddings=False).save_pretrained(tmp_path)
    tiny.tokenizer().save_pretrained(tmp_path)
    return Base.open(str(tmp_path), from_disk=True)


@pytest.fixture
def read(monkeypatch):
    """The layers that are read, in order."""
    layers = []
    really = ReadAhead._read

    def recorded(self, layer):
        layers.append(layer)
        really(self, layer)

    monkeypatch.setattr(ReadAhead, "_read", recorded)
    return layers


def test_each_layer_is_read_once_and_in_order(base, read):
    base.load()
    patient = base.operate(Plan.parse("0:2, 1:3", 6))
    patient.model(IDS)
    assert read[:4] == [0, 1, 2, HEAD]  # and then the first, for the next token


def test_the_ranges_are_those_of_the_layers(base):
    base.load()
    sizes = {layer: sum(t.end - t.start for t in ts) for layer, ts in base.mapped.by_layer.items()}
    whole, itemsize = base.model, base.torch_dtype.itemsize
    for layer, module in enumerate(whole.model.layers):
        assert sizes[layer] == sum(p.numel() for p in module.parameters()) * itemsize
    assert sizes[HEAD] == whole.lm_head.weight.numel() * itemsize


def test_copies_read_nothing(base, read):
    base.load()
    patient = base.operate(Plan.parse("0:4", 6))
    twin = patient.copy()
    assert torch.equal(twin(IDS).logits, copy.deepcopy(twin)(IDS).logits)
    assert not read
    assert torch.equal(twin(IDS).logits, patient.model(IDS).logits)
    assert read


def test_a_file_that_is_gone_stops_the_pass(base):
    base.load()
    patient = base.operate(Plan.parse("0:4", 6))
    (base.source.home / "model.safetensors").unlink()
    with pytest.raises(BaseError, match=r"model\.safetensors is gone from"):
        patient.model(IDS)


def test_a_layer_that_could_not_be_read_is_tried_again(tmp_path):
    tensor = Tensor("F32", (2,), "weights", 0, 8)
    reader = ReadAhead(tmp_path, {0: [tensor]})
    for _ in range(2):
        with pytest.raises(BaseError, match="weights can't be read: No such file"):
            reader.need(0, 1)
    (tmp_path / "weights").write_bytes(b"12345678")
    reader.need(0, 1)


def test_passes_over_many_batches_are_the_same(base, read, monkeypatch):
    monkeypatch.setattr("surgery.analysis.passes._LOGITS", 300)  # a window at a time
    other = Base.open(str(base.source.home))
    with monkeypatch.context() as roomy:
        roomy.setattr(model, "main_memory", devices.main_memory)
        other.load()
    assert disk_reads(other, Plan.whole(6)) is None and text_speed(other, Plan.whole(6)) == ""
    sample, plan = Sample.of(other, "a b c d e f g h i j k " * 30, 20), Plan.parse("0:2, 3:6", 6)
    one, two = (compare(b, plan, sample) for b in (other, base))
    assert len(sample) > 4
    assert one.kl == pytest.approx(two.kl, rel=1e-5)
    assert one.patient.nll == pytest.approx(two.patient.nll, rel=1e-5)
    assert one.norms.patient == pytest.approx(two.norms.patient, rel=1e-5)
    assert read.count(3) < len(sample)  # not once for each batch
    score = measured_score(base, Plan.parse("0:3, 4:6", 6), sample)
    assert score.nll == pytest.approx(
        measured_score(other, Plan.parse("0:3, 4:6", 6), sample).nll, rel=1e-5
    )


def test_what_is_read_is_told_beforehand(base):
    reads = disk_reads(base, Plan.parse("0:3, 2:4", 6))
    by_layer = {i: sum(t.end - t.start for t in ts) for i, ts in base.mapped.by_layer.items()}
    assert reads.size == sum(by_layer[i] for i in (0, 1, 2, 3, HEAD))  # 2 follows itself
    assert reads.seconds == pytest.approx(reads.size / reads.speed)
    assert "for every pass over the layers" in str(reads)
    assert "tokens/s" in text_speed(base, Plan.whole(6))
    assert read_speed([base.source.home / "model.safetensors"]) > 0
    with pytest.raises(BaseError, match="can't be read"):
        read_speed([base.source.home])
