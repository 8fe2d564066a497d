"""Open a folder of safetensors with a config, as transformers writes it.

Opens no file that could run code.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from pathlib import Path

from transformers import CONFIG_MAPPING, AutoConfig, PreTrainedConfig

from surgery.errors import BaseError, one_line

from .safetensors_header import read_file
from .source import Source, Tensor

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
ADAPTER = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
HEALING = "healing.json"  # beside an adapter that healing wrote: the plan that it belongs to
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack")
# What transformers' save_pretrained(distributed_checkpoint=True) writes, and looks for first.
_DISTRIBUTED = re.compile(r"shard-[0-9]{5}-model-[0-9]{5}-of-[0-9]{5}\.safetensors")
_LARGEST_COUNT = 1_000_000  # of layers, heads, experts, labels
_LARGEST_JSON = 64 << 20  # bytes; the largest index on the Hub has a few


class OtherWeights(BaseError):
    """transformers would load other weights than those that are read here."""


def open_folder(folder: Path, name: str = "") -> Source:
    """Open the model in a folder, called `name` in messages. Raises `BaseError`."""
    if not folder.is_dir():
        raise BaseError(f"There is no folder {folder}.")
    path, name = _find_config(folder), name or folder.name
    own = _state(path)  # taken before a file is read, so that a change meanwhile is noticed
    config = config_from(read_json(path), path)
    check_weights(name, config, _names(folder))
    where = _weight_map(folder)
    weights = [SINGLE] if where is None else [INDEX, *sorted(set(where.values()))]
    stamp = _stamp([own, *(_state(folder / file) for file in weights)])
    tensors = _read_headers(folder, where)

    def check() -> None:
        try:
            states = [_state(folder / file) for file in ("config.json", *weights)]
            # A single file that came since would be read in place of the shards.
            same = _stamp(states) == stamp and (folder / SINGLE).exists() == (SINGLE in weights)
        except OSError as error:
            gone = Path(error.filename).name
            raise BaseError(
                f"{gone} is gone from {folder}: put it back, or open another."
            ) from error
        if not same:
            raise BaseError(f"The files in {folder} changed since they were opened: open it again.")
        check_weights(name, config, _names(folder))

    return Source(
        kind="folder",
        name=name or str(folder),
        config=config,
        identity=f"folder:{folder}:{stamp}",
        tensors=tensors,
        licence=read_licence(folder),
        home=folder,
        check=check,
        get_files=lambda progress: folder,
        get_tokenizer=lambda progress: folder,
    )


def read_config(folder: Path) -> PreTrainedConfig:
    """Read the folder's config. Raises `BaseError`."""
    path = _find_config(folder)
    return config_from(read_json(path), path)


def _find_config(folder: Path) -> Path:
    path = folder / "config.json"
    if not path.is_file():
        if (folder / ADAPTER).is_file():
            raise BaseError(
                f"{folder.name} is a LoRA adapter, not a model: write BASE+{folder.name}, with the "
                "base that it was trained on."
            )
        if (folder / "model_index.json").is_file():
            raise BaseError(
                f"{folder.name} is a diffusion model. Only language models can be operated on."
            )
        raise BaseError(f"{folder.name} has no config.json: it is not a model's folder.")
    return path


def check_weights(name: str, config: PreTrainedConfig, files: Iterable[str]) -> None:
    """Raise `OtherWeights` if transformers would load other weights from a model with this config
    and these files than `SINGLE`, or the shards of `INDEX`, alone."""
    files = set(files)
    if ADAPTER in files:
        raise with_adapter(name)
    read = SINGLE if SINGLE in files else INDEX
    chosen = getattr(config, "transformers_weights", None)
    if chosen not in (None, read):
        raise OtherWeights(
            f"{name} has its weights in “{str(chosen)[:80]}”, says transformers_weights in its "
            f"config.json, and only {SINGLE} and {INDEX} are read here. Give that file this name, "
            "and remove the setting."
        )
    if any(map(_DISTRIBUTED.fullmatch, files)):
        raise OtherWeights(
            f"{name} has a distributed checkpoint (shard-….safetensors), which transformers would "
            "load. Consolidate it (transformers has consolidate_distributed_checkpoint), and move "
            "those files to a separate folder."
        )


def check_adapter(name: str, files: Iterable[str]) -> None:
    """Raise `BaseError` unless these are the names of an adapter's files."""
    files = set(files)
    if ADAPTER not in files:
        what = "a model, not an adapter" if "config.json" in files else "not an adapter"
        raise BaseError(
            f"{name} is {what}: it has no {ADAPTER}. In BASE+ADAPTER a LoRA adapter stands last."
        )
    if ADAPTER_WEIGHTS not in files:
        if any(file.startswith("adapter_model.") and file.endswith(PICKLES) for file in files):
            raise BaseError(
                f"{name} has its weights as a pickle only, which can run code and is never read "
                "here. Look for a version with safetensors, or convert it where you trust it."
            )
        raise BaseError(f"{name} has no {ADAPTER_WEIGHTS}: there is nothing to merge.")


def with_adapter(name: str) -> OtherWeights:
    """The error for a model with an adapter beside it: transformers applies it to the model if peft
    is installed, and ignores it otherwise."""
    return OtherWeights(
        f"{name} has an adapter beside its model ({ADAPTER}), which transformers would apply. "
        "Move the adapter's files to a separate folder: FOLDER+ADAPTER opens the model with the "
        "adapter merged into it, FOLDER the model alone."
    )


def config_from(fields: dict, path: Path) -> PreTrainedConfig:
    """Return a config of a type that transformers knows, from the JSON in `path`. Raises
    `BaseError`."""
    check_counts(fields, f"{path.name} is broken: it has")
    kind = fields.get("model_type")
    if not isinstance(kind, str) or kind not in CONFIG_MAPPING:
        if fields.get("auto_map"):
            named = f"This model (“{str(kind)[:60]}”)" if kind else "This model"
            raise BaseError(
                f"{named} needs code of its own from its repository, which is never "
                "run here. Choose a model that transformers knows."
            )
        if fields.get("_class_name"):  # written by diffusers
            raise BaseError(
                f"{path.name} belongs to a component of a diffusion model "
                f"({str(fields['_class_name'])[:60]}). Only language models can be operated on."
            )
        if not kind:
            raise BaseError(
                f"{path.name} has no model_type, so transformers can't tell what model it is. Add "
                'one, such as "model_type": "llama".'
            )
        raise BaseError(
            f"The config names “{str(kind)[:60]}” as its model_type, which this version of "
            "transformers does not know. Check the config, or update transformers."
        )
    try:
        config = AutoConfig.from_pretrained(path, trust_remote_code=False, local_files_only=True)
        for part in (config, config.get_text_config(decoder=True)):
            # Switches of the run that wrote the file: they say nothing about the model.
            part.return_dict, part.output_hidden_states, part.output_attentions = True, False, False
        return config
    except Exception as error:  # a config's fields can be wrong in as many ways as there are fields
        message = one_line(error)
        raise BaseError(
            f"{path.name} is not a config that transformers can read: “{message}”. Check its "
            "settings."
        ) from error


def check_counts(fields: dict, said: str) -> None:
    """Raise `BaseError` for a count that no model has: transformers makes lists as long as the
    config's counts, which could use up all memory. The message begins with `said`."""
    rest: list[tuple[str, object]] = [*fields.items()]
    while rest:  # no recursion: JSON may be nested deeper than Python's stack
        key, value = rest.pop()
        if isinstance(value, dict):
            rest += value.items()
        elif isinstance(value, list):
            rest += (("", inner) for inner in value)
        elif (
            isinstance(value, (int, float))
            and value > _LARGEST_COUNT
            and (key.startswith("num_") or "layer" in key)
        ):
            raise BaseError(f"{said} {key} over {_LARGEST_COUNT:,}, which no model has.")


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """Read the headers of the folder's safetensors, single or sharded. Raises `BaseError`."""
    return _read_headers(folder, _weight_map(folder))


def _weight_map(folder: Path) -> dict[str, str] | None:
    """Which of the folder's shards holds which tensor; None for a single file."""
    if (folder / SINGLE).is_file():
        return None
    if not (folder / INDEX).is_file():
        raise no_safetensors(folder.name, _names(folder))
    where = read_index(folder / INDEX)
    missing = [file for file in sorted(set(where.values())) if not (folder / file).is_file()]
    if missing:
        raise BaseError(
            f"{folder.name} is not complete: {missing[0]} is missing ({len(missing)} in all). "
            "Download it again."
        )
    return where


def _read_headers(folder: Path, where: dict[str, str] | None) -> dict[str, Tensor]:
    if where is None:
        return read_file(folder / SINGLE)
    return gather(where, {file: read_file(folder / file) for file in sorted(set(where.values()))})


def read_index(path: Path) -> dict[str, str]:
    """Read which file holds which tensor. Raises `BaseError`, also for names outside the folder."""
    index = read_json(path)
    where = index.get("weight_map")
    if not isinstance(where, dict) or not where:
        raise BaseError(f"{path.name} is broken: it has no weight_map. Download it again.")
    if not isinstance(index.get("metadata", {}), dict):  # transformers reads it too
        raise BaseError(
            f"{path.name} is damaged: metadata is not a JSON object. Download it again."
        )
    for file in set(map(str, where.values())):
        if file != Path(file).name or "\\" in file or not file.endswith(".safetensors"):
            raise BaseError(
                f"{path.name} names “{file[:80]}”, which is not a safetensors file here."
            )
    return {str(tensor): str(file) for tensor, file in where.items()}


def gather(where: dict[str, str], files: dict[str, dict[str, Tensor]]) -> dict[str, Tensor]:
    """Merge the shards' tensors, and check them against the index. Raises `BaseError`."""
    result: dict[str, Tensor] = {}
    for file, tensors in files.items():
        if twice := result.keys() & tensors.keys():
            raise BaseError(f"{file} is broken: {min(twice)} is in another file too.")
        result |= tensors
    for tensor, file in where.items():
        if tensor not in result or result[tensor].file != file:
            raise BaseError(f"{file} is broken: the index says that it holds {tensor[:80]}.")
    return result


def no_safetensors(name: str, files: Iterable[str]) -> BaseError:
    """The error for a model without safetensors, with the reason if the files show one."""
    files = list(files)
    if any(file.endswith(PICKLES) for file in files):
        return BaseError(
            f"{name} has its weights as pickles only, which can run code and are never read here. "
            "Look for a version with safetensors, or convert it where you trust it."
        )
    if any(file.endswith(".gguf") for file in files):
        return BaseError(f"{name} has its weights as GGUF: name the .gguf file itself.")
    return BaseError(f"{name} has no model.safetensors: there are no weights to operate on.")


def read_json(path: Path) -> dict:
    """Read a JSON object. Raises `BaseError`."""
    if not path.exists():
        raise BaseError(f"There is no file {path}.")
    if not path.is_file():  # a device or a pipe may never end
        raise BaseError(f"{path} is not a file.")
    if path.stat().st_size > _LARGEST_JSON:
        raise BaseError(f"{path.name} is too large to be a config.")
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise BaseError(f"{path.name} is broken: it is not valid JSON.") from error
    if not isinstance(value, dict):
        raise BaseError(f"{path.name} is broken: it doesn't contain a JSON object.")
    return value


def read_licence(folder: Path) -> str | None:
    """Return the licence in the model card's front matter, if there is one."""
    from huggingface_hub.repocard import metadata_load

    try:
        licence = (metadata_load(folder / "README.md") or {}).get("license")
    except Exception:  # no card, or one that can't be read: then it isn't known
        return None
    return licence if isinstance(licence, str) else None


def _names(folder: Path) -> Iterable[str]:
    return (path.name for path in folder.iterdir())


def _state(path: Path) -> tuple[str, int, int]:
    stat = path.stat()
    return path.name, stat.st_size, stat.st_mtime_ns


def _stamp(states: list[tuple[str, int, int]]) -> str:
    """A short text that changes whenever one of the files does."""
    return hashlib.sha256(repr(states).encode()).hexdigest()[:16]
