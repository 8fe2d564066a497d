"""The student: the patient with parameters of its own where it trains.

Frozen parameters are the base's own memory, shared with the teacher and every other patient in the
process; trained ones are float32 copies, or adapters beside them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

import torch
from torch import nn
from transformers import PreTrainedModel

from surgery.architecture import Anatomy
from surgery.architecture.inspect.layer_list import layer_list
from surgery.architecture.inspect.names import memory_names
from surgery.errors import Refused, SurgeryError
from surgery.memory.shared_weights import unshare
from surgery.optional import require
from surgery.patient import Patient
from surgery.plan import COPY, Plan
from surgery.seeded_random import Seeded

from .settings import Settings


def trained_layers(plan: Plan, settings: Settings) -> tuple[int, ...]:
    """Positions of the trained layers. Raises `SurgeryError` if there are none.

    Layers that a repair fitted count as the copies that they were.
    """
    plan = plan.unfitted
    if settings.layers:
        if max(settings.layers) >= len(plan):
            raise SurgeryError(
                f"There is no layer {max(settings.layers)} to train: the plan has positions 0 to "
                f"{len(plan) - 1}."
            )
        return tuple(sorted(set(settings.layers)))
    everything = tuple(range(len(plan)))
    if settings.train in ("lora", "all"):
        return everything
    if settings.train == "new":
        positions = _new(plan)
        if not positions:
            raise SurgeryError(
                "This plan adds no layers, so there is nothing new to train: choose seams, all or "
                "lora."
            )
        return positions
    near = set()
    for seam in plan.seams:
        near |= set(range(seam - settings.radius, seam + settings.radius))
    near |= {p for p, layer in enumerate(plan.layers) if layer.init != COPY}
    positions = tuple(sorted(near & set(everything)))
    if not positions:
        raise SurgeryError("The plan leaves the base unchanged: there is no seam to heal.")
    return positions


def _new(plan: Plan) -> tuple[int, ...]:
    """Layers that are not initialised as copies, and second and later copies of their source.

    Of `7, 7@identity` the second is new; of `7@identity, 7` the first.
    """
    seen: set[int] = set()
    positions = []
    for position, layer in enumerate(plan.layers):
        if layer.init != COPY or layer.source in seen:
            positions.append(position)
        else:
            seen.add(layer.source)
    return tuple(positions)


def make_student(patient: Patient, settings: Settings) -> nn.Module:
    """A model with trainable parameters of its own; all others are the base's memory, frozen.

    A PEFT model for LoRA, else the patient's model. Raises `Refused` if a trained parameter is
    shared with a layer that isn't trained.
    """
    model = unshare(patient.model)
    positions = trained_layers(patient.plan, settings)
    if settings.train == "lora":
        return _with_adapters(model, patient, positions, settings)
    names = _parameters_of(patient, positions)
    for name in names:
        owner, _, leaf = name.rpartition(".")
        module = model.get_submodule(owner)
        value = module.get_parameter(leaf).detach()
        module._parameters[leaf] = nn.Parameter(value.to(torch.float32, copy=True))
    return model


def _parameters_of(patient: Patient, positions: Iterable[int]) -> list[str]:
    """The names of the floating-point parameters of the layers at these positions."""
    wanted, names = set(positions), []
    anatomy = patient.base.anatomy
    paths = anatomy.stack.paths
    owners: dict[int, set[tuple[str, int]]] = {}
    for name, tensor in anatomy.tensors.items():
        if where := anatomy.layer_of(name):
            owners.setdefault(id(tensor), set()).add((where[0], where[1]))
    shared = {
        (w[0], w[1], w[2])
        for name, tensor in anatomy.tensors.items()
        if (w := anatomy.layer_of(name)) and len(owners[id(tensor)]) > 1
    }
    for path in paths:
        layers = layer_list(patient.model, path)
        for p in sorted(wanted):
            for rest, parameter in layers[p].named_parameters():
                if not parameter.is_floating_point():
                    continue
                if (path, patient.plan.sources[p], rest) in shared:
                    raise Refused(
                        f"{path}.{p}.{rest} is shared by several layers of this model, so it can't "
                        "be trained in one alone: heal it with LoRA."
                    )
                names.append(f"{path}.{p}.{rest}")
    return names


def _with_adapters(
    model: PreTrainedModel, patient: Patient, positions: Iterable[int], settings: Settings
) -> nn.Module:
    peft = require("peft", "Training with LoRA")
    from transformers.pytorch_utils import Conv1D

    targets = [
        f"{path}.{p}.{rest}"
        for path in patient.base.anatomy.stack.paths
        for p in positions
        for rest, module in layer_list(model, path)[p].named_modules()
        if isinstance(module, (nn.Linear, Conv1D))
    ]
    if not targets:
        raise Refused("These layers have no linear maps for adapters.")
    transposed = any(isinstance(model.get_submodule(name), Conv1D) for name in targets)
    config = peft.LoraConfig(
        task_type=peft.TaskType.CAUSAL_LM,
        r=settings.rank,
        lora_alpha=settings.alpha or settings.rank,
        lora_dropout=settings.dropout,
        target_modules=targets,
        fan_in_fan_out=transposed,
    )
    with Seeded(settings.seed):
        return peft.get_peft_model(model, config)


def linear_shapes(anatomy: Anatomy, layer: int) -> list[tuple[int, int]]:
    """Weight shapes of the linear maps in one of the base's layers: those that get adapters."""
    from transformers.pytorch_utils import Conv1D

    return [
        tuple(module.weight.shape)
        for path in anatomy.stack.paths
        for module in layer_list(anatomy.model, path)[layer].modules()
        if isinstance(module, (nn.Linear, Conv1D))
    ]


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """{name: parameter} of all trainable parameters, in the model's order."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def trained_tensors(model: nn.Module, values: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """{name in the patient: new tensor, float32 on the CPU} of all that training changed.

    `values` are the trained parameters by their names in `model`. Adapters are merged into their
    weights: W + (alpha / r)·B·A.
    """
    if not hasattr(model, "peft_config"):
        return {name: value.detach().float().cpu() for name, value in values.items()}
    merged = {}
    inner = cast(Any, model).get_base_model()
    for name, module in inner.named_modules():
        if not hasattr(module, "lora_A"):
            continue
        low = f"base_model.model.{name}.lora_%s.default.weight"
        a, b = (values[low % which].detach().float().cpu() for which in "AB")
        weight = module.get_base_layer().weight.detach().float().cpu()
        delta = (b @ a) * module.scaling["default"]
        merged[f"{name}.weight"] = weight + (delta.T if module.fan_in_fan_out else delta)
    return merged


def check_savable(patient: Patient, names: Iterable[str]) -> None:
    """Raise `Refused` if a trained tensor doesn't correspond to one stored tensor."""
    from surgery.checkpoint.tensors import memory_of

    base = patient.base
    _, stored, _ = base.open_stored()
    there = set(memory_of(base, patient.plan, stored).values())
    there |= {
        name
        for name in memory_names(base.anatomy, patient.plan.sources)
        if (w := base.anatomy.layer_of(name)) and patient.plan.layers[w[1]].init.initialiser.drawn
    }
    if missing := sorted(set(names) - there):
        raise Refused(
            f"{missing[0]} is stored in a different form than it is trained in, so a healed "
            "checkpoint can't be written: heal with LoRA on other layers, or save the cut model "
            "first and heal that."
        )


def names_in_patient(model: nn.Module) -> list[str]:
    """Names in the patient of all tensors that training changes, adapters merged."""
    if not hasattr(model, "peft_config"):
        return list(trainable(model))
    inner = cast(Any, model).get_base_model()
    return [f"{name}.weight" for name, m in inner.named_modules() if hasattr(m, "lora_A")]


def adapter_of(
    model: nn.Module, values: dict[str, torch.Tensor]
) -> tuple[dict[str, torch.Tensor], dict]:
    """(tensors, config) of a PEFT adapter, as its files have them. `values` as in
    `trained_tensors`."""
    config = cast(Any, model).peft_config["default"].to_dict()
    config = {k: sorted(v) if isinstance(v, set) else v for k, v in config.items()}
    config |= {"inference_mode": True, "base_model_name_or_path": None}
    tensors = {name.replace(".default.", "."): v.contiguous() for name, v in values.items()}
    return tensors, config
