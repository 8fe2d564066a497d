"""What is right of memory: it is shared, given back, and can run out without harm to the base."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from unittest import mock

import torch
from safetensors.torch import load_file

from surgery import Base, Plan, SurgeryError
from surgery.analysis import Sample, perplexity
from surgery.architecture.inspect.layer_list import layer_list

from .patients import FLOAT, HALF, WORDS, logits_of, mixed
from .rows import Result
from .workplace import Workplace, on_device

_BUFFERS = 1 << 16  # bytes that a patient may take: its rotary frequencies


def copies_nothing(place: Workplace) -> Result:
    """Ten patients at once take no memory for weights."""
    base = place.base("small")
    weights = sum(p.nbytes for p in base.model.parameters())
    place.patient(base, mixed(base.depth))
    before = place.allocated()
    patients = [
        place.patient(base, Plan.whole(base.depth).drop(i % 5, i % 5 + 1)) for i in range(10)
    ]
    grown = place.allocated() - before
    detail = f"{grown / 1e3:.0f} kB for {len(patients)}, beside {weights / 1e6:.1f} MB of weights"
    return Result(grown <= _BUFFERS * len(patients) // 4, detail=detail)


def gives_back(place: Workplace) -> Result:
    """A base that is no longer used leaves no memory behind."""
    logits_of(place.base("small").model, place.ids(8))  # the first products take a workspace
    place.release()
    before = place.allocated()
    folder = str(place.checkpoint("small"))
    base = on_device(Base(Base.open(folder).source), place.device)  # another one of these files
    weights = sum(p.nbytes for p in base.model.parameters())
    loaded = place.allocated() - before
    "".join(base.operate(mixed(base.depth)).stream(WORDS, max_new_tokens=4))
    del base
    left = place.allocated() - before
    detail = f"{loaded / 1e6:.1f} MB while loaded, {left / 1e3:.0f} kB afterwards"
    return Result(loaded >= weights and left <= weights // 100 + _BUFFERS, detail=detail)


def runs_out(place: Workplace) -> Result:
    """Memory that runs out gives a message, and leaves the base as it was."""
    base, ids = place.base("small"), place.ids(16)
    plan = mixed(base.depth)
    before = logits_of(base.model, ids)
    patient = base.operate(plan)
    long = WORDS * (4 if place.tiny else 40)
    sample = Sample.of(base, [long * 2])
    messages = []
    with _full(place, base):
        for work in (
            lambda: list(patient.stream(long, max_new_tokens=8)),
            lambda: perplexity(patient.model, sample),
        ):
            try:
                work()
                messages.append("no error")
            except SurgeryError as error:
                messages.append(str(error))
    place.release()
    passed = all("ran out of memory" in message for message in messages)
    passed = passed and torch.equal(logits_of(base.model, ids), before)
    list(patient.stream("and now", max_new_tokens=2))
    return Result(passed, detail="; ".join(messages))


@contextmanager
def _full(place: Workplace, base: Base) -> Iterator[None]:
    """While this lasts the device is full, but for a little that single tokens take. Without CUDA,
    and with tiny models, which need no more, its error is raised by every MLP."""
    if place.device.type != "cuda" or place.tiny:
        mlp = type(layer_list(base.model, base.anatomy.stack.paths[0])[0].mlp)
        error = torch.OutOfMemoryError("out of memory, as it is raised on CUDA")
        with mock.patch.object(mlp, "forward", side_effect=error):
            yield
        return
    place.release()
    total = torch.cuda.get_device_properties(place.device).total_memory
    # The allocator takes 2 MiB at a time for tensors of up to 1 MiB, and 20 MiB for larger ones.
    reserved = torch.cuda.memory_reserved(place.device) + (4 << 20)
    torch.cuda.set_per_process_memory_fraction(reserved / total, place.device)
    filled = []
    try:
        with suppress(torch.OutOfMemoryError):
            while True:
                size = (1 << 20) + 1
                filled.append(torch.empty(size, dtype=torch.uint8, device=place.device))
        yield
    finally:
        filled.clear()
        torch.cuda.set_per_process_memory_fraction(1.0, place.device)


def unchanged(place: Workplace) -> Result:
    """The bases that all of this was done with are those in their files, to the bit."""
    wrong, count = [], 0
    for dtype in (FLOAT, HALF):
        stored = load_file(place.checkpoint("small", dtype) / "model.safetensors")
        now = place.base("small", dtype).model.state_dict()
        count += len(stored)
        wrong += [n for n, tensor in stored.items() if not torch.equal(now[n].cpu(), tensor)]
    return Result(not wrong, detail=f"{wrong[0]} differs" if wrong else f"{count} tensors")
