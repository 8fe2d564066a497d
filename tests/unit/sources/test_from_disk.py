"""A base that is read from disk needs no memory for weights that are used as they lie in files."""

import pytest
import tiny
import torch

from surgery import Base, BaseError, Plan, RepairSettings, loading, model, repair
from surgery.analysis import Sample, compare, disk_passes, perplexity, scan
from surgery.cli.main import main
from surgery.memory import devices


@pytest.fixture
def small_memory(monkeypatch):
    """A machine whose memory is full."""
    for module in (loading, model):
        monkeypatch.setattr(module, "main_memory", lambda: devices.Room("cpu", 0))
    monkeypatch.setattr(loading, "accelerators", list)


def test_weights_larger_than_memory_are_refused_unless_read_from_disk(tmp_path, small_memory):
    tiny.model("llama").save_pretrained(tmp_path)  # a model that no other test has loaded
    folder = str(tmp_path)
    with pytest.raises(BaseError, match=r"The weights need.*--from-disk"):
        Base.open(folder).load()
    base = Base.open(folder, from_disk=True)
    assert base.load() is base.model
    assert base.reads_from_disk and base.memory_bytes < 1000
    assert base is not Base.open(folder)


def test_weights_stored_in_another_dtype_have_to_fit(tmp_path, small_memory):
    model = tiny.model("llama", dtype=torch.bfloat16)
    model.model.layers.to(torch.float16)  # fewer bytes than the rest
    model.model.embed_tokens.to(torch.float32)
    model.save_pretrained(tmp_path)
    with pytest.raises(BaseError, match=r"The weights need"):
        Base.open(str(tmp_path), from_disk=True).load()


def test_weights_that_fit_are_used_from_memory(tmp_path):
    tiny.model("llama").save_pretrained(tmp_path)
    base = Base.open(str(tmp_path), from_disk=True)
    base.load()
    assert not base.reads_from_disk
    assert base.memory_bytes == base.counts.total * base.torch_dtype.itemsize


def test_scans_are_the_same(tiny_folder, tmp_path, monkeypatch, request):
    folder, texts = str(tiny_folder("llama")), "a b c d e f g h i j k " * 8
    scans = []
    for from_disk in (False, True):
        monkeypatch.setenv("LAYER_SURGERY_CACHE", str(tmp_path / str(from_disk)))
        base = Base.open(folder, from_disk=from_disk)
        if from_disk:
            request.getfixturevalue("small_memory")
        sample = Sample.of(base, texts)
        scores = ["drop_one", "repeat_one"]
        expected = disk_passes(base, sample, scores=scores)
        scans.append(scan(base, sample, scores=scores))
        assert base.reads_from_disk == from_disk
        assert disk_passes(base, sample, scores=scores) == 0  # all of it is known
    assert expected == 3 + 1 + 1  # shows how layers run, records, and runs all plans side by side
    one, other = scans
    assert one.perplexity.perplexity == other.perplexity.perplexity
    for a, b in zip(one.drop_one + one.repeat_one, other.drop_one + other.repeat_one, strict=True):
        assert (a.plan, a.perplexity) == (b.plan, b.perplexity)


def test_halves_are_computed_in_the_same_dtype(tmp_path, monkeypatch, request):
    """In float32, as they are in memory: where both differ, results that are kept would mix."""
    monkeypatch.setenv("LAYER_SURGERY_COMPUTE_DTYPE", "float32")
    folder, plan = tmp_path / "base", Plan.parse("0:3, 4:6", 6)
    tiny.model("llama", dtype=torch.bfloat16).save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    measured = []
    for from_disk in (False, True):
        monkeypatch.setenv("LAYER_SURGERY_CACHE", str(tmp_path / str(from_disk)))
        base = Base.open(str(folder), from_disk=from_disk)
        if from_disk:
            request.getfixturevalue("small_memory")
        sample = Sample.of(base, "a b c d e f g h i j k " * 8, window=40)
        assert len(sample.windows) > 1
        found, model = compare(base, plan, sample), base.operate(plan).model
        measured.append((found.kl, found.tokens, perplexity(model, sample, of=(base, plan)).nll))
        assert base.reads_from_disk == from_disk
    assert measured[0] == measured[1]


def test_text_is_the_same(tiny_folder, small_memory, monkeypatch):
    folder = str(tiny_folder("llama"))
    whole = Base.open(folder)
    with monkeypatch.context() as roomy:
        roomy.setattr(loading, "main_memory", devices.main_memory)
        whole.load()
    texts = [
        "".join(
            Base.open(folder, from_disk=from_disk)
            .operate(Plan.parse("0:4, 2:6", 6))
            .stream("a b c", max_new_tokens=8, greedy=True)
        )
        for from_disk in (False, True)
    ]
    assert texts[0] == texts[1]


def test_commands_say_what_reading_takes(tmp_path, small_memory, capsys, monkeypatch):
    monkeypatch.setenv("LAYER_SURGERY_CACHE", str(tmp_path / "cache"))
    tiny.model("llama").save_pretrained(tmp_path / "base")
    tiny.tokenizer().save_pretrained(tmp_path / "base")
    base = str(tmp_path / "base")
    (tmp_path / "text").write_text("a b c d e f g h i j k " * 8)
    text = ["--text", str(tmp_path / "text")]
    for command, words in (
        (["generate", base, "0:4", "--prompt", "a b", "--max-new-tokens", "2"], "tokens/s."),
        (["compare", base, "0:4", *text], "passes"),
        (["scan", base, *text, "--score", "block_influence"], "passes"),
        (["suggest", base, "--layers", "4", "--method", "random", *text], ""),
    ):
        assert main(command) == 1
        assert "--from-disk" in capsys.readouterr().err
        assert main([*command, "--from-disk"]) == 0
        message = capsys.readouterr().err
        assert words in message and ("Weights are read from disk" in message) == bool(words)


def test_files_that_change_stop_a_pass(tmp_path, small_memory):
    tiny.model("llama").save_pretrained(tmp_path)
    base = Base.open(str(tmp_path), from_disk=True)
    patient = base.operate(Plan.parse("0:4", 6))
    patient.model(torch.tensor([[1, 2]]))
    with open(tmp_path / "model.safetensors", "r+b") as file:
        file.seek(-1, 2)
        file.write(b"x")
    with pytest.raises(BaseError, match="changed since they were opened"):
        patient.model(torch.tensor([[1, 2]]))


def test_repairs_are_the_same(tiny_folder, request):
    folder, fitted = str(tiny_folder("gpt2")), []
    for from_disk in (False, True):
        base = Base.open(folder, from_disk=from_disk)
        if from_disk:
            request.getfixturevalue("small_memory")
        settings = RepairSettings(text="python", tokens=2048)
        fitted.append(repair(base, Plan.parse("0:2, 4:6", 6), settings).tensors)
        assert base.reads_from_disk == from_disk
    assert fitted[0].keys() == fitted[1].keys()
    assert all(torch.equal(fitted[0][name], fitted[1][name]) for name in fitted[0])
