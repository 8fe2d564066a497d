"""Patients of a base that is spread over several devices.

PyTorch's fake tensors compute nothing, but refuse to mix devices as a GPU does. This build of
PyTorch may know no GPU, so the second device is another CPU.
"""

import pytest
import tiny
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorDeviceMismatchError, FakeTensorMode
from transformers import AutoModelForCausalLM

from surgery import Base, BaseError, Plan, SurgeryError
from surgery.architecture import Anatomy
from surgery.architecture.apply import build, several_devices
from surgery.architecture.apply.build import build_patient
from surgery.healing import Settings
from surgery.healing.parallel import make_accelerator
from surgery.loading import _spread
from surgery.memory.devices import HEADROOM, Room, choose

ONE, TWO = torch.device("cpu"), torch.device("cpu", 1)


def spread(anatomy: Anatomy, mode: FakeTensorMode):
    """A model with embeddings and half of its layers on one device, and the rest on another."""
    model = AutoModelForCausalLM.from_config(anatomy.config).eval()
    first = {id(p) for p in model.get_input_embeddings().parameters()}
    put: dict[int, nn.Parameter] = {}  # tied ones stay one
    for name, module in list(model.named_modules()):
        layer = anatomy.layer_of(f"{name}.")
        device = ONE if layer and layer[1] < 3 else TWO
        for leaf, old in list(module._parameters.items()):
            if old is not None:
                at = ONE if id(old) in first else device
                with mode:
                    new = torch.empty(old.shape, dtype=old.dtype, device=at)
                module._parameters[leaf] = put.setdefault(id(old), nn.Parameter(new, False))
        for leaf, old in list(module._buffers.items()):
            with mode:
                module._buffers[leaf] = torch.empty(old.shape, dtype=old.dtype, device=device)
    return model


@pytest.mark.parametrize("family", ["llama-tied-biased", "gemma3_text", "gpt2"])
def test_a_patient_runs_across_devices(family, monkeypatch):
    anatomy, mode = Anatomy.of(tiny.config(family)), FakeTensorMode(allow_non_fake_inputs=True)
    base = spread(anatomy, mode)
    plan = Plan.parse("0:5, 2:6", 6)  # and back again
    patient = build_patient(anatomy, base, plan)
    assert several_devices.devices_of(patient) == {ONE, TWO}
    with mode:
        ids = torch.zeros(2, 8, dtype=torch.long)
        assert patient(input_ids=ids, use_cache=False).logits.shape[:2] == (2, 8)
    monkeypatch.setattr(build, "run_on_several", lambda *_: None)
    bare = build_patient(anatomy, base, plan)
    with mode, pytest.raises(FakeTensorDeviceMismatchError):
        bare(input_ids=ids, use_cache=False)


def test_a_patient_on_one_device_has_no_hooks(tiny_folder):
    patient = Base.open(str(tiny_folder("llama"))).operate(Plan.parse("0:4", 6))
    assert not any(module._forward_pre_hooks for module in patient.model.modules())


def test_healing_wants_one_device(tiny_folder, monkeypatch):
    base = Base.open(str(tiny_folder("llama")))
    settings = Settings(steps=1)
    assert not make_accelerator(base, settings).device_placement  # the weights stay where they are
    monkeypatch.setattr("surgery.healing.parallel.devices_of", lambda model: {ONE, TWO})
    with pytest.raises(SurgeryError, match="spread over 2 devices"):
        make_accelerator(base, settings)


def test_a_base_is_spread_by_whole_layers():
    anatomy = Anatomy.of(tiny.config("llama"))
    size = sum(tensor.nbytes for tensor in anatomy.tensors.values())
    rooms = [Room(f"cuda:{i}", int(0.7 * size / HEADROOM)) for i in range(2)]
    places = choose(size, rooms, Room("cpu", 0))
    devices = _spread(anatomy, places, rooms, torch.float32)
    assert set(devices.values()) == {0, 1}
    assert {f"model.layers.{i}" for i in range(6)} <= set(devices)
    cramped = [Room(room.device, int(0.4 * size)) for room in rooms]
    with pytest.raises(BaseError, match="whole layers"):
        _spread(anatomy, places, cramped, torch.float32)
