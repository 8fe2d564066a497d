"""Random numbers that depend on a seed alone, whatever else the process draws meanwhile.

Initialisers take no generator: they draw from the process's own, which all threads share. Within a
block, each draw on the CPU uses a generator of the block's own instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class Seeded(TorchDispatchMode):
    """`with Seeded(7):` gives the numbers of `torch.manual_seed(7)`, in this thread only.

    The process's own generator is neither used nor moved on.
    """

    def __init__(self, seed: int, drawn: Callable[[int], None] | None = None) -> None:
        """`drawn(count)` is called for every tensor that was filled, and may raise to stop."""
        super().__init__()
        self._drawn = drawn or (lambda count: None)
        self.generator = torch.Generator().manual_seed(seed)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        draws = _with_generator(func)
        if draws is not None and kwargs.get("generator") is None and _on_cpu(args, kwargs):
            values = draws(*args, **kwargs, generator=self.generator)
            self._drawn(values.numel() if isinstance(values, torch.Tensor) else 0)
            return values
        return func(*args, **kwargs)


def seeded_on(device: torch.device, seed: int) -> AbstractContextManager:
    """The context in which random numbers on a device follow from `seed`, and nothing that is drawn
    outside of it changes.

    On an accelerator they come from the device's own generator, because some functions there
    (dropout) take no other: only one thread at a time may draw.
    """
    return Seeded(seed) if device.type == "cpu" else _of_device(device, seed)


@contextmanager
def _of_device(device: torch.device, seed: int) -> Iterator[None]:
    module = torch.get_device_module(device)
    place = (device,) if device.type == "cuda" else ()  # Apple's GPU is but one
    with torch.cuda.device(device) if place else nullcontext():
        before = module.get_rng_state(*place)
        module.manual_seed(seed)
        try:
            yield
        finally:
            module.set_rng_state(before, *place)


def _with_generator(func: Any) -> Any:
    """The form of `func` that takes a generator, None if it draws nothing."""
    for name in (func._overloadname, "generator"):  # `rand` draws in a form of its own
        form = getattr(func._overloadpacket, name, None)
        if form is not None and any(a.name == "generator" for a in form._schema.arguments):
            return form
    return None


def _on_cpu(args: tuple, kwargs: dict) -> bool:
    """Does this call fill a tensor on the CPU, or make one there?"""
    for value in args:
        if isinstance(value, torch.Tensor):
            return value.device.type == "cpu"
    return torch.device(kwargs.get("device") or "cpu").type == "cpu"
