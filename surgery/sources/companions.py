"""Choose which files beside a model's weights are copied into a checkpoint.

All small files are, at the top level and one folder deep, except those in the lists below. So files
of future libraries are not lost.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from fnmatch import fnmatchcase
from itertools import islice
from pathlib import Path

from surgery.architecture.config.quantization import SIDE_FILES
from surgery.errors import BaseError

# Needed to process text, so never left out for their size or number.
NEEDED = (
    "tokenizer*",
    "tekken.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab*",
    "*vocab.json",
    "merges.txt",
    "dict.txt",
    "*.codes",
    "*.model",
    "*.spm",
    "*.tiktoken",
    "chat_template*",
    "additional_chat_templates/*.jinja",
    "generation_config.json",
    "*processor_config.json",
)
_NOT = (
    # Rewritten for the new model.
    *SIDE_FILES,
    "config.json",
    "README*",
    "recipe.yaml",
    "healing.json",
    "repair.json",
    "resized_embeddings.json",
    # Refers to the old layers by number, in a format that is not rewritten.
    "params.json",
    "*.index.json",
    "mergekit_config.y*ml",
    # An adapter was trained for the old layers, and transformers would apply it.
    "adapter_*",
    # Training and evaluation records of the base.
    "training_args*",
    "train*_state.json",
    "trainer_log*",
    "*_results.json",
    "optimizer*",
    "scheduler*",
    "rng_state*",
    "latest",
    "events.out.*",
)
_NOT_FOLDERS = (
    # The weights in other formats.
    "original",
    "consolidated*",
    "onnx*",
    "openvino*",
    "coreml*",
    "gguf*",
    "metal",
    "mlx*",
    # Other checkpoints, logs, pictures.
    "checkpoint*",
    "global_step*",
    "epoch*",
    "runs",
    "logs",
    "wandb",
    "assets",
    "images",
    "figures",
    "__pycache__",
)
# Pickles can run code when they are loaded. Code is not copied either, so that a saved checkpoint
# never needs `trust_remote_code`; models that need it are refused when they are opened.
_NOT_ENDINGS = {
    "weights": "safetensors bin pt pth ckpt h5 msgpack gguf ggml onnx onnx_data ot tflite npz npy "
    "mlmodel engine nemo params dat",
    "pickles": "pkl pickle joblib dill",
    "code": "py pyc pyd so dll dylib exe sh bat ps1 ipynb js",
    "archives": "zip tar gz tgz bz2 xz zst 7z rar whl",
    "data": "csv tsv jsonl parquet arrow db sqlite log lock tmp",
    "pictures": "png jpg jpeg gif webp svg bmp ico mp4 webm mp3 wav flac pdf",
}
_ENDINGS = frozenset(word for words in _NOT_ENDINGS.values() for word in words.split())
# Modules that sentence-transformers adds after a model, such as 2_Dense; their weights don't depend
# on its depth.
_MODULES = re.compile(r"\d{1,2}_[A-Za-z]{1,40}/[\w.-]{1,100}")
LARGEST = 200_000_000  # bytes of a file; the largest tokenizers have about 40 MB
_MOST = 100  # files
_TOTAL = 500_000_000  # bytes


def is_companion(name: str) -> bool:
    """Is a file with this name (relative to the model's folder, with slashes) to be copied?"""
    folder, _, file = name.rpartition("/")
    if not name.isprintable() or re.search(r'[\\:*?"<>|]', name) or len(name.encode()) > 240:
        return False  # not a valid file name on every system
    if any(part in ("", "..") or part.startswith(".") for part in name.split("/")):
        return False
    if "/" in folder or any(fnmatchcase(folder.lower(), pattern) for pattern in _NOT_FOLDERS):
        return False
    if _MODULES.fullmatch(name) and file.endswith(".safetensors"):
        return True
    if any(fnmatchcase(file, pattern) for pattern in _NOT) and not _MODULES.fullmatch(name):
        return False
    return file.rpartition(".")[2].lower() not in _ENDINGS


def is_needed(name: str) -> bool:
    """Is it a companion that affects how text is processed?"""
    return is_companion(name) and any(
        fnmatchcase(name, pattern) for pattern in NEEDED if ("/" in pattern) == ("/" in name)
    )


def choose(files: Iterable[tuple[str, int]], where: str) -> list[str]:
    """Choose from (name, size) pairs the files to copy: all needed ones, and others up to the
    limits. Raises `BaseError` if the needed ones exceed the limits."""
    chosen: list[str] = []
    total = 0

    def rank(entry: tuple[str, int]) -> tuple:
        name, _ = entry
        return not is_needed(name), not _MODULES.fullmatch(name), name.count("/"), name

    for name, size in sorted((entry for entry in files if is_companion(entry[0])), key=rank):
        fits = size <= LARGEST and total + size <= _TOTAL and len(chosen) < _MOST
        if not fits and is_needed(name):
            if size > LARGEST:
                raise too_large(where, name, size)
            raise BaseError(
                f"{where} has too many tokenizer files for a model, so it was not opened."
            )
        if fits:
            chosen.append(name)
            total += size
    return chosen


def too_large(where: str, name: str, size: int) -> BaseError:
    """The error for a file that is too large for its name."""
    return BaseError(
        f"{name[:80]} in {where} is {size / 1e6:,.0f} MB, too large for such a file. The model was "
        "not opened."
    )


def companions(folder: Path, needed_only: bool = False) -> list[str]:
    """The names of a local folder's companions. Raises `BaseError`, see `choose`.

    Links are followed within the folder, and into folders that the config or the weights also link
    to, as in the Hub's cache. Other links are not: they could publish any file of this machine. If
    text can't be read without such a file, that is an error.
    """
    top = sorted(folder.iterdir())
    homes = {folder.resolve()}
    homes |= {
        path.resolve().parent
        for path in top
        if path.is_symlink() and (path.name == "config.json" or path.suffix == ".safetensors")
    }
    inner = (
        file
        for path in top
        if is_companion(f"{path.name}/x") and path.is_dir() and os.access(path, os.R_OK | os.X_OK)
        for file in sorted(islice(path.iterdir(), 10 * _MOST))
    )
    wanted = is_needed if needed_only else is_companion
    files = []
    for path in (*top, *islice(inner, 100 * _MOST)):
        name = path.relative_to(folder).as_posix()
        if not wanted(name) or not path.is_file():
            continue
        if any(path.resolve().is_relative_to(home) for home in homes):
            files.append((name, path.stat().st_size))
        elif is_needed(name):
            raise BaseError(
                f"{name[:80]} in {folder.name} is a link to a file outside the model's folder, "
                "which is not followed. Put a copy of the file in its place."
            )
    return choose(files, folder.name)
