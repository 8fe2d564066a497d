"""What a run has learnt so far, as whole tensors: out of the parameters that train and their
optimizer, and back into them.

Knows tensors that may lie in pieces on several processes; where whole ones are written is `kept`'s
affair.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn
from torch.optim import Optimizer

_MOMENTS = ("exp_avg", "exp_avg_sq")


def taken(
    parameters: Mapping[str, nn.Parameter], optimizer: Optimizer
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """(trained, moments): copies on the CPU, by the parameters' names."""
    trained, moments = {}, {}
    for name, parameter in parameters.items():
        trained[name] = whole(parameter)
        for key, value in optimizer.state.get(parameter, {}).items():
            if key != "step":
                moments[f"{name}/{key}"] = whole(value)
    return trained, moments


def put_back(
    parameters: Mapping[str, nn.Parameter],
    optimizer: Optimizer,
    trained: Mapping[str, torch.Tensor],
    moments: Mapping[str, torch.Tensor],
    step: int,
) -> None:
    """What `taken` gave after so many steps."""
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(_like(trained[name], parameter))
            state: dict[str, torch.Tensor] = {}
            for key in _MOMENTS:
                if (found := moments.get(f"{name}/{key}")) is not None:
                    state[key] = _like(found, parameter)
            if state:
                state["step"] = torch.tensor(float(step))
                optimizer.state[parameter] = state


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """A copy on the CPU of a tensor that may lie in pieces on several processes."""
    tensor = tensor.detach()
    if hasattr(tensor, "full_tensor"):
        tensor = tensor.full_tensor()
    return tensor.to("cpu", copy=True)


def _like(found: torch.Tensor, parameter: nn.Parameter) -> torch.Tensor:
    """A whole tensor laid out as a parameter is."""
    found = found.to(parameter.device if not hasattr(parameter, "device_mesh") else "cpu")
    if hasattr(parameter, "device_mesh"):
        from torch.distributed.tensor import distribute_tensor

        mesh = parameter.device_mesh
        return distribute_tensor(found.to(mesh.device_type), mesh, parameter.placements)
    return found
