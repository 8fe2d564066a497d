"""Trained parameters and optimizer states as whole tensors, and back.

The parameters may be sharded over several processes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
from torch import nn
from torch.optim import Optimizer

_MOMENTS = ("exp_avg", "exp_avg_sq")


def snapshot(
    parameters: Mapping[str, nn.Parameter], optimizer: Optimizer
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """(trained, moments) on the CPU, by the names of the parameters. Those that lie there whole are
    not copied, and change with the next step: write them before."""
    trained, moments = {}, {}
    for name, parameter in parameters.items():
        trained[name] = whole(parameter)
        for key, value in optimizer.state.get(parameter, {}).items():
            moments[f"{name}/{key}"] = whole(value)
    return trained, moments


def fits(
    parameters: Mapping[str, nn.Parameter],
    trained: Mapping[str, torch.Tensor],
    moments: Mapping[str, torch.Tensor],
) -> bool:
    """Do these tensors match the parameters in name, shape and dtype? PyTorch would silently
    broadcast a tensor of another shape."""
    wanted = {name: (p.shape, p.dtype) for name, p in parameters.items()}
    if {name: (t.shape, t.dtype) for name, t in trained.items()} != wanted:
        return False
    # A parameter without any gradient so far has no moments; every other one has all of them.
    names = {key.rpartition("/")[0] for key in moments}
    if not names <= wanted.keys():
        return False
    expected = {f"{name}/{key}": wanted[name] for name in names for key in _MOMENTS}
    expected |= {f"{name}/step": (torch.Size(), torch.float32) for name in names}
    return {key: (t.shape, t.dtype) for key, t in moments.items()} == expected


def restore(
    parameters: Mapping[str, nn.Parameter],
    optimizer: Optimizer,
    trained: Mapping[str, torch.Tensor],
    moments: Mapping[str, torch.Tensor],
) -> None:
    """Load tensors from `snapshot` that passed `fits`."""
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(_like(trained[name], parameter))
            if f"{name}/step" not in moments:
                continue
            state = {key: _like(moments[f"{name}/{key}"], parameter) for key in _MOMENTS}
            optimizer.state[parameter] = {"step": moments[f"{name}/step"].clone(), **state}


def whole(tensor: torch.Tensor, copy: bool = False) -> torch.Tensor:
    """A tensor that may be sharded over processes, whole and on the CPU: a `copy`, or the same
    memory if it lies there."""
    tensor = tensor.detach()
    if hasattr(tensor, "full_tensor"):
        tensor = tensor.full_tensor()
    return tensor.to("cpu", copy=copy)


def _like(tensor: torch.Tensor, parameter: nn.Parameter) -> torch.Tensor:
    """A whole tensor on the device of a parameter, and sharded as it is."""
    tensor = tensor.to(parameter.device if not hasattr(parameter, "device_mesh") else "cpu")
    if hasattr(parameter, "device_mesh"):
        from torch.distributed.tensor import DTensor, distribute_tensor

        sharded = cast(DTensor, parameter)
        mesh = sharded.device_mesh
        return distribute_tensor(tensor.to(mesh.device_type), mesh, sharded.placements)
    return tensor
