"""Open `BASE+ADAPTER`: the base's layers and files, with the adapter merged into its weights.

Nothing is merged before weights are read. A save merges tensor by tensor while it writes; whatever
runs the model needs files, which are written once into the cache.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from transformers import PreTrainedConfig

from surgery.architecture import Anatomy, rewrite, skeleton
from surgery.architecture.inspect.names import check_stored, disk_names, old_buffers
from surgery.errors import BaseError, Refused, SurgeryError
from surgery.io.copy import opener_of
from surgery.plan import MAX_LAYERS, Plan
from surgery.progress import Progress
from surgery.sources.companions import companions
from surgery.sources.folder import (
    ADAPTER,
    ADAPTER_WEIGHTS,
    HEALING,
    SINGLE,
    read_json,
    read_tensors,
)
from surgery.sources.safetensors_header import read_file
from surgery.sources.source import Opener, Source, Tensor

from .merged_cache import folder_of, kept
from .merged_file import MergedFile
from .settings import Settings, read_settings
from .tensors import match


def open_merged(
    base: Source, adapter: Path, revision: tuple[str, str] | None, progress: Progress
) -> Source:
    """Merge the adapter in a folder into a base. `revision` is its (Hub id, commit), if it is from
    there. Raises `BaseError` or `Refused`, before anything is written."""
    name = revision[0] if revision else adapter.name
    part = _adapter(base, adapter, name, revision)  # first, so that a change meanwhile is noticed
    settings = read_settings(read_json(adapter / ADAPTER), name)
    tensors = read_file(adapter / ADAPTER_WEIGHTS)
    stored = base.tensors or read_tensors(base.files_folder(progress))  # a GGUF file is converted
    progress("Matching the adapter with the base", 0, 0)
    anatomy = Anatomy.of(base.config)
    if anatomy.quantized:
        raise BaseError(
            f"{base.name} is quantized ({anatomy.quantized}), and an adapter is merged into plain "
            "weights: name the unquantized model as the base."
        )
    check_stored(anatomy, stored)
    _check_healed(adapter, anatomy.stack.depth, name)
    config, anatomy, stored = _replicated(settings, anatomy, stored, name)
    read = _reader(adapter / ADAPTER_WEIGHTS, part.check)
    merged = MergedFile(name, stored, match(settings, tensors, anatomy, stored, name), read)
    identity = f"adapter:{base.identity}+{part.identity}"
    home = folder_of(f"{base.name}+{name}", f"{base.home}+{adapter}", identity)

    def check() -> None:
        base.check()
        part.check()

    def build(out: Path, progress: Progress) -> None:
        own = base.files_folder(progress)
        for one in companions(own):
            (out / one).parent.mkdir(exist_ok=True)
            shutil.copyfile(own / one, out / one)
        if settings.replication or hasattr(config, "transformers_weights"):
            config.save_pretrained(out)  # without that name, which may be another file's
        else:
            shutil.copyfile(own / "config.json", out / "config.json")
        merged.write(out / SINGLE, opener_of(own), progress)
        check()

    def fetch(progress: Progress) -> Path:
        return kept(home, merged.size, build, progress)

    def open_unwritten(progress: Progress) -> tuple[Path, Opener]:
        own = base.files_folder(progress)
        return own, merged.opener(opener_of(own))

    return Source(
        kind="adapter",
        name=f"{base.name}+{name}",
        config=config,
        identity=identity,
        tensors=merged.tensors,
        licence=base.licence,
        note=_note(base, settings, name),
        home=base.home,
        merged=(base, part),
        check=check,
        open_unwritten=open_unwritten,
        get_files=fetch,
        get_tokenizer=base.get_tokenizer,
    )


def _replicated(
    settings: Settings, anatomy: Anatomy, stored: Mapping[str, Tensor], name: str
) -> tuple[PreTrainedConfig, Anatomy, Mapping[str, Tensor]]:
    """Config, anatomy and tensors of the stack that the adapter was trained on: the base's, or that
    of its `layer_replication`. Raises `BaseError` or `Refused`."""
    if not settings.replication:
        return anatomy.whole, anatomy, _known(anatomy, stored)
    depth = anatomy.stack.depth
    for start, end in settings.replication:
        if not 0 <= start < end <= depth:
            raise BaseError(
                f"{name} repeats layers {start} to {end - 1} (layer_replication), and the base has "
                f"layers 0 to {depth - 1}. Name the base that it was trained on."
            )
    sources = [i for start, end in settings.replication for i in range(start, end)]
    if len(sources) > MAX_LAYERS:
        raise BaseError(f"{name} makes a stack of more than {MAX_LAYERS:,} layers.")
    if anatomy.tables or any(anatomy.kinds) or anatomy.sharing_layers:
        raise Refused(
            f"{name} repeats layers (layer_replication) of a base whose layers differ in kind or "
            "share weights. Which kind PEFT gave each copy in training can't be known here."
        )
    skeleton(anatomy, sources)
    config = rewrite(anatomy.whole, sources, depth)
    names = disk_names(anatomy, stored, sources)
    copies = {new: stored[old] for new, (old, _) in names.items()}
    anatomy = Anatomy.of(config)
    return config, anatomy, _known(anatomy, copies)


def _check_healed(folder: Path, depth: int, name: str) -> None:
    """Raise `BaseError` if the adapter heals a plan of another depth. Healing writes the plan
    beside it; the layers that it changes have numbers that the uncut base has too."""
    path = folder / HEALING
    if not path.is_file():
        return
    try:
        plan = Plan.parse(str(read_json(path)["plan"]), MAX_LAYERS)
    except (KeyError, SurgeryError):  # written by something else
        return
    if len(plan) != depth:
        raise BaseError(
            f"{name} heals the plan {plan} of its base: save that plan, and name the saved folder "
            f"as the base of {name}."
        )


def _known(anatomy: Anatomy, stored: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """The stored tensors without buffers of old checkpoints, which could pass for biases."""
    buffers = old_buffers(anatomy, stored)
    return {name: tensor for name, tensor in stored.items() if name not in buffers}


def _adapter(base: Source, folder: Path, name: str, revision: tuple[str, str] | None) -> Source:
    """The adapter's own files as a source, for what follows from them: identity, fingerprint."""
    files = (folder / ADAPTER, folder / ADAPTER_WEIGHTS)
    stamp = _stamp(files)

    def check() -> None:
        try:
            same = _stamp(files) == stamp
        except OSError as error:
            raise BaseError(f"{error.filename} is gone: put it back, or open another.") from error
        if not same:
            raise BaseError(f"The files in {folder} changed since they were opened: open it again.")

    return Source(
        kind="folder",
        name=name,
        config=base.config,
        identity=f"hub:{revision[0]}@{revision[1]}" if revision else f"folder:{folder}:{stamp}",
        hub_id=revision[0] if revision else None,
        revision=revision[1] if revision else None,
        files=files,
        check=check,
    )


def _stamp(files: tuple[Path, ...]) -> str:
    """A short text that changes whenever one of the files does."""
    stats = [path.stat() for path in files]
    text = repr([(stat.st_size, stat.st_mtime_ns) for stat in stats])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _reader(path: Path, check: Callable[[], None]) -> Callable[[str], torch.Tensor]:
    def read(name: str) -> torch.Tensor:
        check()
        try:
            with safe_open(path, framework="pt") as file:
                return file.get_tensor(name)
        except (OSError, SafetensorError) as error:
            raise BaseError(f"{path} can't be read: {error}.") from error

    return read


def _note(base: Source, settings: Settings, name: str) -> str:
    """What a reader should know about the weights; another base than named is mentioned."""
    note = f"merged with the LoRA adapter {name}"
    trained_on = settings.trained_on.replace("\\", "/").rstrip("/")
    last = trained_on.rpartition("/")[2]
    if trained_on.count("/") > 1 or trained_on.startswith((".", "~", "/")):
        trained_on = last  # a folder of the machine that trained it, by name alone
    same = {one.lower() for one in (base.hub_id, base.name) if one}
    if trained_on and not {trained_on.lower(), last.lower()} & same:
        note += f", which names {trained_on[:120]} as its base"
    if settings.replication:
        note += ", whose layer_replication repeats layers"
    return f"{base.note}; {note}" if base.note else note
