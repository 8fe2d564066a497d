"""Check where an output may be written: never over a base or over unrelated files."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from safetensors import SafetensorError

from surgery.errors import SaveError

from .cache_folder import cache_folder


@dataclass(frozen=True)
class Kind:
    """A kind of output: its name, the JSON file and key that identify such a folder, and patterns
    of its files. Only folders with no other files are replaced."""

    name: str
    mark: str
    key: str
    files: tuple[str, ...]


_WEIGHTS = (".safetensors", ".gguf", ".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack")
_LEFT_BY_SYSTEMS = (".gitattributes", ".DS_Store", "Thumbs.db", "desktop.ini")
MODEL = Kind(
    "model",
    "config.json",
    "model_type",
    (
        "config.json",
        "model.safetensors",
        "model-?????-of-?????.safetensors",
        "model.safetensors.index.json",
        "README.md",
        "recipe.yaml",
        "healing.json",
        "repair.json",
        "resized_embeddings.json",
        "generation_config.json",
        "tokenizer*",
        "special_tokens_map.json",
        "added_tokens.json",
        "vocab*",
        "merges.txt",
        "dict.txt",
        "*.codes",
        "*.spm",
        "spiece.model",
        "spm.model",
        "sentencepiece*.model",
        "*.tiktoken",
        "tekken.json",
        "chat_template*",
        "additional_chat_templates/*.jinja",
        "*processor_config.json",
        "modules.json",
        "[0-9]_Pooling/config.json",
        "LICEN[CS]E*",
        "NOTICE*",
        "USE_POLICY*",
        *_LEFT_BY_SYSTEMS,
    ),
)
ADAPTER = Kind(
    "adapter",
    "adapter_config.json",
    "peft_type",
    (
        "adapter_config.json",
        "adapter_model.safetensors",
        "README.md",
        "healing.json",
        "repair.json",
        *_LEFT_BY_SYSTEMS,
    ),
)
STATE = Kind(
    "state of a run",
    "state.json",
    "step",
    ("state.json", "trained.safetensors", "moments.safetensors"),
)


def resolve(out: str | Path) -> Path:
    """Resolve links and `~` in an output path. Raises `SaveError`."""
    try:
        return Path(out).expanduser().resolve()
    except (OSError, RuntimeError, ValueError) as error:  # a loop of links, an unknown home
        raise SaveError(f"“{str(out)[:200]}” can't be used as an output path: {error}") from error


def check_target(
    out: Path, overwrite: bool = False, kind: Kind = MODEL, base_files: Iterable[Path] = ()
) -> None:
    """Raise `SaveError` unless an output of this kind may be written to `out`, which is resolved.

    Only a folder that holds an output of the same kind and nothing else may be replaced, and never
    one through which any of the `base_files` is reached: the files of the models that the output
    is made from.
    """
    with explained(out):
        if not out.exists():
            return
        if not out.is_dir():
            raise SaveError(f"{out} is a file, not a folder: choose another name.")
        if not any(out.iterdir()):
            return
        if not overwrite:
            raise SaveError(f"{out} exists already. Choose another name, or ask to overwrite it.")
        files = list(base_files)
        if inside := _first_within(files, out):
            raise SaveError(
                f"The base itself is stored in {out} ({inside.name} is read from there). Choose "
                "another name."
            )
        if kind is not STATE:
            check_no_cache(out)
        if not _is_marked(out / kind.mark, kind.key):
            raise SaveError(
                f"{out} holds no saved {kind.name}, so it is not replaced. Choose another name."
            )
        # An earlier save of the same base has copied the files beside its weights.
        carried = {file.name for file in files if file.suffix not in _WEIGHTS}
        carried |= {f"{file.parent.name}/{file.name}" for file in files}
        for file in _names(out):
            if file not in carried and not any(_matches(file, one) for one in kind.files):
                raise SaveError(
                    f"{out} holds {file[:80]}, which is not part of a saved {kind.name}, so the "
                    "folder is not replaced. Move that file away, or choose another name."
                )


def check_file_target(
    out: Path, begins: bytes, overwrite: bool = False, base_files: Iterable[Path] = ()
) -> None:
    """Raise `SaveError` unless a file may be written to `out`, which is resolved.

    Only a file of the same kind may be replaced, which `begins` with the same bytes, and never one
    of the `base_files`.
    """
    with explained(out):
        check_no_cache(out)
        if not out.exists():
            return
        if out.is_dir():
            raise SaveError(f"{out} is a folder, not a file: choose another name.")
        if not overwrite:
            raise SaveError(f"{out} exists already. Choose another name, or ask to overwrite it.")
        if any(file.exists() and file.samefile(out) for file in base_files):
            raise SaveError(f"{out} is the base itself. Choose another name.")
        if not out.is_file() or not _begins(out, begins):
            raise SaveError(f"{out} is no saved model, so it is not replaced. Choose another name.")


def _begins(path: Path, begins: bytes) -> bool:
    with open(path, "rb") as file:
        return file.read(len(begins)) == begins


def _first_within(files: Iterable[Path], out: Path) -> Path | None:
    """The first of `files` that is reached through the folder `out`, by whatever links.

    Folders are compared by device and inode, not by name: a file system may ignore case, and a
    folder may be mounted in two places.
    """
    there, seen = out.stat(), {}
    for file in files:
        for step in _steps(file):
            for folder in step.parents:
                if folder not in seen:
                    try:
                        seen[folder] = os.path.samestat(folder.stat(), there)
                    except OSError:
                        seen[folder] = False
                if seen[folder]:
                    return file
    return None


def _steps(file: Path) -> Iterator[Path]:
    """A file and each target of its links, also with resolved parent folders."""
    for _ in range(40):  # as many links as Linux follows
        yield file
        with contextlib.suppress(OSError, RuntimeError):
            yield file.parent.resolve() / file.name
        try:
            file = file.parent / os.readlink(file)
        except OSError:  # no link
            return


def check_no_cache(out: Path) -> None:
    """Raise `SaveError` inside a model cache, where an output would pass for the cached model."""
    from huggingface_hub.constants import HF_HUB_CACHE

    for cache in (Path(HF_HUB_CACHE), cache_folder()):
        if out.is_relative_to(cache.expanduser().resolve()):
            raise SaveError(f"{out} is inside a model cache. Choose another folder.")


def _is_marked(path: Path, key: str) -> bool:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(content, dict) and key in content


def _names(folder: Path, above: str = "") -> Iterator[str]:
    """Relative names of all files below `folder`; links to folders are not followed."""
    for path in sorted(folder.iterdir()):
        name = above + path.name
        if path.is_dir() and not path.is_symlink():
            yield from _names(path, f"{name}/")
        else:
            yield name


def _matches(name: str, pattern: str) -> bool:
    return name.count("/") == pattern.count("/") and fnmatchcase(name, pattern)


@contextlib.contextmanager
def explained(out: Path) -> Iterator[None]:
    """Turn file system errors while `out` is written into `SaveError`."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        place, code = out.parent, _code_of(error)
        if code is None:  # an invalid safetensors file, not a file system error
            raise
        if code in (errno.ENOSPC, errno.EDQUOT):
            message = f"The disk of {place} is full. Free some space, or choose another folder."
        elif code in (errno.EACCES, errno.EPERM, errno.EROFS):
            message = f"{place} can't be written to. Choose a folder with write permission."
        else:
            message = f"{out} could not be written: {getattr(error, 'strerror', None) or error}"
        raise SaveError(message) from error


def _code_of(error: Exception) -> int | None:
    """The errno of an error; safetensors gives it only in its message."""
    if isinstance(error, OSError):
        return error.errno or 0
    m = re.search(r"os error ([0-9]+)", str(error))
    return int(m[1]) if m else None
