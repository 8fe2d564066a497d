"""Load weights onto the best device, complete and checked, or not at all."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from unittest import mock

import torch
from transformers import GenerationConfig, PreTrainedConfig, PreTrainedModel
from transformers import modeling_gguf_pytorch_utils as gguf_reader
from transformers.utils import logging as transformers_logging

from surgery.architecture.inspect.layer_list import layer_list

from .architecture import Anatomy
from .architecture.apply.inplace_rescaling import disable_inplace_rescaling
from .architecture.inspect.dtypes import default_of_its_own
from .architecture.inspect.loader import auto_class
from .errors import BaseError, SurgeryError, one_line
from .memory.devices import HEADROOM, accelerators, choose, main_memory, release_unused
from .memory.out_of_memory import memory_explained, memory_message
from .progress import Cancelled, Progress, Turn, silent
from .seeded_random import Seeded

# transformers keeps its progress hook per process: one load at a time.
_loading = Turn("Waiting for the weights of another model to load")
_SMALLER = "Close other programs, or choose a smaller model."


def load(
    anatomy: Anatomy,
    folder: Path,
    dtype: torch.dtype,
    size: int,
    copied: int,
    progress: Progress,
    passed_over: Collection[str] = (),
    advice: str = "",
) -> PreTrainedModel:
    """Load the model in `folder` with `size` bytes of weights, in `dtype`. On the CPU, `copied` of
    them have to fit in memory; `advice` follows the message if they don't. Stored tensors in
    `passed_over` need no counterpart in the model.

    Raises `BaseError` if the weights don't fit, or if tensors are missing or left over: a model
    with random weights in some place must never pass for the real one.
    """
    release_unused()
    gpus = accelerators()
    devices = choose(size, gpus, main_memory(), copied, advice)
    device_map = {"": devices[0]} if len(devices) == 1 else _spread(anatomy, devices, gpus, dtype)
    try:
        with loading(progress):
            model, info = auto_class(anatomy.whole).from_pretrained(
                folder,
                dtype=dtype,
                device_map=device_map,
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=True,
                output_loading_info=True,
            )
    except (Cancelled, SurgeryError):
        raise
    except Exception as error:  # damaged files beside the weights cause many kinds of errors
        if full := memory_message(error, _SMALLER):
            raise BaseError(full) from error
        message = one_line(error)
        if _generation_is_broken(folder):
            raise BaseError(
                f"transformers can't read generation_config.json: “{message}”. Correct or "
                "remove it."
            ) from error
        raise BaseError(
            f"The weights could not be loaded: “{message}”. Download the model again, or check the "
            "files beside its weights."
        ) from error
    check_whole(info, passed_over)
    return disable_inplace_rescaling(model.eval())


def _generation_is_broken(folder: Path) -> bool:
    """Whether generation_config.json is the file that transformers can't read."""
    try:
        GenerationConfig.from_pretrained(folder, local_files_only=True)
    except Exception:  # many kinds of errors, as above
        return (folder / "generation_config.json").is_file()
    return False


def check_whole(info: dict, passed_over: Collection[str] = ()) -> None:
    """Raise `BaseError` unless transformers put every stored tensor into its place.

    `info` is what it reports with `output_loading_info`: a model with random weights in some place
    must never pass for the real one.
    """
    for what, names in (
        ("has no tensor", info["missing_keys"]),
        ("has a tensor of another shape", {key[0] for key in info["mismatched_keys"]}),
        ("has a tensor that the model has no place", set(info["unexpected_keys"]) - {*passed_over}),
    ):
        if names:
            raise BaseError(
                f"The checkpoint does not fit its config: it {what} for {min(names)} "
                f"({len(names)} in all). Download it again, or check its config.json."
            )


def initialise(
    config: PreTrainedConfig,
    dtype: torch.dtype,
    size: int,
    seed: int,
    progress: Progress = silent,
) -> PreTrainedModel:
    """Make a model with random weights, as transformers initialises this config; same seed, same
    weights.

    Made on the CPU, so that the numbers are the same on every machine, then moved.
    """
    (device,) = choose(size, accelerators()[:1], main_memory())
    values = size // dtype.itemsize
    done = 0

    def drawn(count: int) -> None:
        nonlocal done
        done += count
        report("Drawing random weights", min(done, values), values)

    with _loading.taken(progress) as report, Seeded(seed, drawn), default_of_its_own():
        report("Drawing random weights", 0, values)
        model = auto_class(config).from_config(config, dtype=dtype)
    with memory_explained(_SMALLER):
        return disable_inplace_rescaling(model.to(device).eval())


def _spread(anatomy: Anatomy, devices: tuple[str, ...], gpus: list, dtype: torch.dtype) -> dict:
    """Assign a device to each module, with whole layers on one device and nothing on CPU or
    disk."""
    from accelerate import infer_auto_device_map

    free = {room.device: room.free for room in gpus}
    limits = {int(d.rpartition(":")[2]): int(free[d] * HEADROOM) for d in devices}
    layers = layer_list(anatomy.model, anatomy.stack.paths[0])
    result = infer_auto_device_map(
        anatomy.model,
        max_memory=limits,
        no_split_module_classes=sorted({type(layer).__name__ for layer in layers}),
        dtype=dtype,
    )
    if not all(isinstance(device, int) for device in result.values()):
        raise BaseError(
            "The weights don't fit on the GPUs together once whole layers are kept on one. "
            "Choose a smaller model or free memory on them."
        )
    return result


@contextmanager
def loading(progress: Progress) -> Iterator[None]:
    """Hold the lock for loading weights, and forward transformers' progress bars to `progress`."""

    def hook(_, args, kwargs):
        return _Report(report, *args, **kwargs)

    # The reader of GGUF files has a bar of its own, past that hook.
    with (
        _loading.taken(progress) as report,
        mock.patch.object(gguf_reader, "tqdm", partial(_Report, report)),
        default_of_its_own(),
    ):
        before = transformers_logging.set_tqdm_hook(hook)
        try:
            yield
        finally:
            transformers_logging.set_tqdm_hook(before)


class _Report:
    """As much of tqdm as transformers' loader uses."""

    def __init__(self, progress: Progress, iterable=None, total=None, desc="", **_) -> None:
        self.progress, self.iterable, self.done = progress, iterable, 0
        self.what = "Dequantizing" if "quant" in str(desc) else "Loading weights"
        self.total = total or (len(iterable) if hasattr(iterable, "__len__") else 0)

    def __iter__(self):
        for item in self.iterable:
            yield item
            self.update()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    def update(self, n: int = 1) -> None:
        self.done += n
        if self.done % 16 == 0 or self.done >= self.total:
            self.progress(self.what, self.done, self.total)

    def close(self) -> None: ...

    def __getattr__(self, name: str):
        return lambda *args, **kwargs: None
