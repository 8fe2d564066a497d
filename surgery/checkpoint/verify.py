"""Verify a checkpoint: each tensor's name, shape, dtype and bytes, and that transformers loads it.

Headers are read anew from the finished folder; only the list of tensors is shared with the writer.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from surgery.architecture import Anatomy, rewrite
from surgery.architecture.inspect.loader import auto_class
from surgery.architecture.inspect.names import check_stored, old_buffers
from surgery.architecture.inspect.quantized import check_declared, mismatch, module_names
from surgery.errors import BaseError, Refused, SaveError, SurgeryError, one_line
from surgery.loading import loading
from surgery.progress import Cancelled, Meter, Progress
from surgery.sources import Tensor
from surgery.sources.folder import read_config, read_tensors

from .tensor_spec import TensorSpec
from .writer import BLOCK, Opener, differing

if TYPE_CHECKING:
    from surgery.model import Model
    from surgery.plan import Plan


def verify(
    base: Model,
    folder: Path,
    expected: list[TensorSpec],
    opener: Opener | None,
    progress: Progress,
    trained: Mapping[str, str] | None = None,
) -> None:
    """Compare `folder` with the specs that base and plan ask for. Raises `SaveError` that names
    what is wrong.

    Without an `opener` of the base's files the bytes are not compared, the rest is. Tensors that
    a repair or training changed (`trained`) are compared with their SHA-256 instead.

    Bytes are compared as the system hands them back, so this finds what a copy did wrong, not what
    a disk may forget later.
    """
    written = read_tensors(folder)
    _same_tensors(written, expected)
    trained = trained or {}
    if opener:
        kept = [spec for spec in expected if spec.name not in trained]
        _same_bytes(folder, written, kept, opener, progress)
    _same_sums(folder, written, trained)
    check_loads(folder, base, progress)


def _same_bytes(
    folder: Path,
    written: Mapping[str, Tensor],
    expected: list[TensorSpec],
    opener: Opener,
    progress: Progress,
) -> None:
    places: dict[Path, list[tuple[TensorSpec, int]]] = {}
    for spec in sorted(expected, key=lambda p: written[p.name].start):
        tensor = written[spec.name]
        places.setdefault(folder / tensor.file, []).append((spec, tensor.start))
    meter = Meter(progress, "Verifying", sum(spec.size for spec in expected))
    if wrong := differing(places, opener, meter):
        raise SaveError(
            f"{folder} is not what its plan says: the bytes of {min(wrong)} differ from the "
            f"base's ({len(wrong)} in all). Save it again; if that doesn't help, check the disk."
        )


def _same_sums(folder: Path, written: Mapping[str, Tensor], trained: Mapping[str, str]) -> None:
    for name, expected in trained.items():
        if name not in written:
            raise SaveError(
                f"The record of changed weights names {name[:80]}, which is not in {folder}."
            )
        tensor, digest = written[name], hashlib.sha256()
        with open(folder / tensor.file, "rb") as file:
            file.seek(tensor.start)
            for done in range(tensor.start, tensor.end, BLOCK):
                digest.update(file.read(min(BLOCK, tensor.end - done)))
        if digest.hexdigest() != expected:
            raise SaveError(
                f"{folder} is not what was saved: {name} has other bytes than its record says."
            )


def _same_tensors(written: Mapping[str, Tensor], expected: list[TensorSpec]) -> None:
    wanted = {spec.name: spec for spec in expected}
    for what, names in (
        ("is missing", wanted.keys() - written.keys()),
        ("does not belong there", written.keys() - wanted.keys()),
    ):
        if names:
            raise SaveError(
                f"The checkpoint is not what its plan says: {min(names)} {what} "
                f"({len(names)} in all). Save it again."
            )
    for name, spec in wanted.items():
        tensor = written[name]
        if (tensor.dtype, tensor.shape) != (spec.dtype, tuple(spec.shape)):
            raise SaveError(
                f"The checkpoint is not what its plan says: {name} is {tensor.dtype} "
                f"{list(tensor.shape)}, not {spec.dtype} {list(spec.shape)}. Save it again."
            )


def check_loads(folder: Path, base: Model, progress: Progress) -> None:
    """Check that transformers builds the model from the folder's config, on the meta device, with a
    tensor for every parameter and a parameter for every tensor. Raises `SaveError`."""
    progress("Checking that it loads", 0, 0)
    if base.anatomy.quantized:  # its loader needs the hardware of the format
        _check_packed(folder)
        return
    if not _is_text(folder):
        return  # safetensors opens nothing under such a name, here or later
    try:
        with loading(progress):
            model, info = auto_class(base.anatomy.whole).from_pretrained(
                folder,
                device_map="meta",
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # they are told below, by name
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
            )
    except (Cancelled, SurgeryError):
        raise
    except Exception as error:  # the loader fails in as many ways as there are models
        message = one_line(error)
        raise SaveError(
            f"transformers can't load the checkpoint: “{message}”. Check the base's config and "
            "generation_config.json."
        ) from error
    # What the base carries along outside its layers without having a place for it may stay.
    carried = {name for name in base.source.tensors if base.anatomy.layer_of(name) is None}
    carried |= old_buffers(base.anatomy, read_tensors(folder))
    wrong = {
        "is missing": set(info["missing_keys"]),
        "has another shape than its config says": {m[0] for m in info["mismatched_keys"]},
        "has no place in the model": set(info["unexpected_keys"]) - carried,
    }
    for what, names in wrong.items():
        if names:
            raise SaveError(f"The checkpoint would not load: {min(names)} {what}.")
    if model.num_parameters() < 1:
        raise SaveError("The checkpoint would load as a model without parameters.")


def check_quantized(
    base: Model, plan: Plan, stored: Mapping[str, Tensor], expected: list[TensorSpec]
) -> None:
    """Check, before anything is written, that the config declares the right modules as quantized,
    for the base and for the checkpoint to be saved. Raises `BaseError` or `Refused`."""
    if base.anatomy.quantized == "torchao":
        raise Refused(
            "torchao stores tensor types in the headers of its weight files, which are not carried "
            "over. Use the unquantized model."
        )
    if wrong := mismatch(base.anatomy, stored):
        raise BaseError(
            f"The checkpoint does not fit its config: {wrong} Correct quantization_config in "
            "config.json, or download the model again."
        )
    modules = module_names(base.anatomy, stored)
    config = rewrite(base.anatomy.whole, plan.sources, base.depth, modules)
    if wrong := mismatch(Anatomy.of(config), {spec.name: spec for spec in expected}):
        raise Refused(f"The quantization config can't express this plan: {wrong}")


def _check_packed(folder: Path) -> None:
    """Check that the tensors in a folder match its config, including its quantization."""
    try:
        anatomy, stored = Anatomy.of(read_config(folder)), read_tensors(folder)
        check_declared(anatomy, stored)
        check_stored(anatomy, stored)
    except SurgeryError as error:
        raise SaveError(f"The checkpoint would not load: {error}") from error
    if wrong := mismatch(anatomy, stored):
        raise SaveError(f"The checkpoint would not load: {wrong}")


def _is_text(path: Path) -> bool:
    try:
        return bool(str(path).encode())
    except UnicodeEncodeError:
        return False
