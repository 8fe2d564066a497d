"""Weights into memory: whole and checked, or not at all."""

import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest
import tiny
import torch
from transformers import AutoModelForCausalLM, LlamaModel

from surgery import Base, BaseError, Cancelled, Plan
from surgery.healing.cost import room
from surgery.memory.devices import Room


@pytest.fixture
def folder(tiny_folder, tmp_path):
    return shutil.copytree(tiny_folder("llama"), tmp_path / "model")


def test_progress_is_heard_and_can_stop_it(folder):
    base = Base.open(str(folder))

    def stop(what, done, total):
        raise Cancelled

    with pytest.raises(Cancelled):
        base.load(stop)
    assert not base.is_loaded
    reports = []
    base.load(lambda *report: reports.append(report))
    what, done, total = reports[-1]
    assert what == "Loading weights" and done == total > 0
    count = len(reports)
    assert base.load(lambda *report: reports.append(report)) is base.model
    assert len(reports) == count  # nothing was loaded again


def test_weights_that_do_not_fit_are_not_begun(folder, monkeypatch):
    base = Base.open(str(folder))
    monkeypatch.setattr("surgery.loading.main_memory", lambda: Room("cpu", 1000))
    with pytest.raises(BaseError, match="smaller model"):
        base.load()
    assert base.preview(Plan.whole(6)).layers == 6  # what needs no weights still works
    config = Base.open(f"config:{folder}/config.json")
    with pytest.raises(BaseError, match="smaller model"):
        config.load()


def test_the_device_is_known_before_the_weights_are_loaded(folder, monkeypatch):
    """What is asked of it before has to hold after: the dtype of computation, and what fits."""
    base = Base.open(str(folder))
    config = Base.open(f"config:{folder}/config.json")
    size = base.memory_bytes

    def devices(*free):
        gpus = [Room(f"cuda:{n}", int(share * size)) for n, share in enumerate(free)]
        monkeypatch.setattr("surgery.model.accelerators", lambda: gpus)
        return base.device, config.device

    assert devices(2.0) == ("cuda:0", "cuda:0")
    assert devices(0.8, 0.8) == ("cuda:0", "cpu")  # spread over both, which random weights aren't
    assert devices(0.5, 0.4) == ("cpu", "cpu")
    monkeypatch.setattr("surgery.healing.cost.free_on", lambda device: len(device.type))
    assert room(base) == len("cpu")
    assert devices() == ("cpu", "cpu")
    base.load()
    devices(2.0)
    assert base.device == "cpu"  # where they are


def test_a_tensor_without_a_place_is_not_passed_over(folder):
    """transformers would leave it out and go on."""
    from safetensors.torch import load_file, save_file

    path = folder / "model.safetensors"
    save_file({**load_file(path), "model.extra.weight": torch.ones(2)}, path, {"format": "pt"})
    with pytest.raises(BaseError, match=r"no place for model\.extra\.weight"):
        Base.open(str(folder)).load()


@pytest.mark.parametrize("meddle", ["replaced", "gone"])
def test_files_that_change_between_opening_and_loading(folder, meddle):
    base = Base.open(str(folder))
    if meddle == "replaced":
        tiny.model("llama", num_hidden_layers=4).save_pretrained(folder)
    else:
        (folder / "model.safetensors").unlink()
    with pytest.raises(BaseError):
        base.load()
    with pytest.raises(BaseError, match=r"changed since|is gone from"):
        base.save(Plan.whole(6), folder.parent / "out")
    assert not base.is_loaded and os.listdir(folder.parent) == ["model"]
    tiny.model("llama").save_pretrained(folder)
    again = Base.open(str(folder))
    assert again is not base and again.load().config.num_hidden_layers == 6


def test_random_weights_are_the_same_every_time_and_in_the_config_s_dtype(tmp_path):
    tiny.config("llama", dtype="bfloat16").save_pretrained(tmp_path / "c")
    spec = f"config:{tmp_path}/c"
    state = torch.random.get_rng_state()
    first = Base.open(spec).load().state_dict()
    assert torch.equal(torch.random.get_rng_state(), state)
    again = Base.open(spec).load().state_dict()
    assert {t.dtype for t in first.values()} == {torch.bfloat16}
    assert all(torch.equal(again[name], tensor) for name, tensor in first.items())


@pytest.mark.parametrize("dtype", ["int8", "float8_e4m3fn", 3, None])
def test_a_dtype_that_nothing_computes_in(folder, dtype):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "dtype": dtype}))
    assert Base.open(f"config:{path}").load().dtype is torch.float32
    assert Base.open(str(folder)).load().dtype is torch.float32


@pytest.mark.parametrize("spec", ["{}", "config:{}"])
def test_a_load_leaves_the_process_s_dtype_to_other_threads(tmp_path, monkeypatch, spec):
    """They compute in it, and what they lay out meanwhile would put back the wrong one."""
    tiny.model("llama", dtype=torch.bfloat16).save_pretrained(tmp_path / "m")
    seen, build = [], LlamaModel.__init__

    def watched(self, *args, **kwargs):
        seen.append(other.submit(lambda: torch.ones(1).dtype).result())
        build(self, *args, **kwargs)

    monkeypatch.setattr(LlamaModel, "__init__", watched)
    with ThreadPoolExecutor(1) as other:
        base = Base.open(spec.format(tmp_path / "m"))
        assert {p.dtype for p in base.load().parameters()} == {torch.bfloat16}
        base.save(Plan.parse("0:3", 6), tmp_path / "out")  # which has transformers load it
    assert len(seen) > 2 and set(seen) == {torch.float32}


@pytest.mark.parametrize("model_type", ["llama", "xglm", "mamba", "glm4_moe"])
def test_every_dtype_is_the_one_that_transformers_gives(tmp_path, model_type):
    """Of buffers that no checkpoint has too."""
    from zoo import build

    build.model(model_type).to(torch.bfloat16).save_pretrained(tmp_path)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16)
    model = Base.open(str(tmp_path)).load()
    for result, expected in zip(
        [*model.named_parameters(), *model.named_buffers()],
        [*plain.named_parameters(), *plain.named_buffers()],
        strict=True,
    ):
        assert (result[0], result[1].dtype) == (expected[0], expected[1].dtype)
        assert torch.equal(result[1], expected[1])
