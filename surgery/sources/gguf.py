"""Open a GGUF file, dequantized once into bfloat16 safetensors in the cache.

transformers' reader would leave out tensors that it doesn't know, and the model would run and be
wrong. Such files are refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import gguf
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GgufConfig

from surgery.errors import BaseError, Refused, SurgeryError, one_line
from surgery.io.cache_folder import cache_folder, short_hash
from surgery.loading import check_whole, loading
from surgery.memory.devices import choose, main_memory
from surgery.progress import Cancelled, Progress

from .cache import once
from .folder import ADAPTER, read_config, read_tensors
from .source import Source

_PIECE = re.compile(r"-[0-9]{5}-of-([0-9]{5})\.gguf$", re.IGNORECASE)


def open_gguf(path: Path) -> Source:
    """Open the model in a GGUF file: its config from the header alone. Raises `BaseError`."""
    if not path.exists():
        raise BaseError(f"There is no file {path}.")
    if not path.is_file():  # a pipe may never say anything
        raise BaseError(f"{path} is not a file.")
    with open(path, "rb") as file:
        magic = file.read(4)
    stat = path.stat()
    if magic != b"GGUF":
        raise BaseError(f"{path.name} is not a GGUF file. Download it again.")
    if (m := _PIECE.search(path.name)) and int(m[1]) > 1:
        raise BaseError(
            f"{path.name} is one of the {int(m[1])} pieces of a split model, and transformers "
            "reads single files. From one GGUF file to another it can be saved as it is; otherwise "
            "join the pieces first, with llama.cpp's gguf-split --merge."
        )
    if (path.parent / ADAPTER).exists():
        raise BaseError(
            f"There is an adapter beside {path.name} ({ADAPTER}), which transformers would apply. "
            "Move the GGUF file to a separate folder."
        )
    identity = f"gguf:{path}:{stat.st_size}:{stat.st_mtime_ns}"
    stem = re.sub(r"[^\w.-]", "_", path.stem)[:80]
    folder = cache_folder() / f"{stem}-{short_hash(identity, 12)}"
    converted = folder.is_dir()

    def check() -> None:
        now = path.stat() if path.is_file() else None
        if now is None or (now.st_size, now.st_mtime_ns) != (stat.st_size, stat.st_mtime_ns):
            raise BaseError(f"{path} changed since it was opened: open it again.")

    def check_unless_gone() -> None:
        # The converted copy works without the file, but not in place of another file's.
        if path.exists() or not folder.is_dir():
            check()

    def fetch(progress: Progress) -> Path:
        def build(out: Path, progress: Progress) -> None:
            convert(path, out, progress)
            check()  # the copy is kept under the name of the file that was opened

        # Two bytes a weight; the quantized file has half a byte or more of each.
        return once(folder, 4 * stat.st_size, build, progress)

    return Source(
        kind="gguf",
        name=path.stem,
        config=read_config(folder) if converted else _config(path),
        identity=identity,
        tensors=read_tensors(folder) if converted else {},
        note=f"dequantized from the GGUF file {path.name}",
        home=path.parent,
        files=(path,),
        check=check_unless_gone,
        get_files=fetch,
        get_tokenizer=fetch,
    )


def convert(path: Path, out: Path, progress: Progress, dtype: torch.dtype = torch.bfloat16) -> None:
    """Write the model in a GGUF file into the folder `out` as safetensors of one dtype, with
    config, generation config and tokenizer. Raises `SurgeryError`."""
    progress("Reading the GGUF file", 0, 0)
    try:
        with loading(progress), _parsed_once():
            weights = sum(int(tensor.n_elements) for tensor in gguf.GGUFReader(str(path)).tensors)
            choose(dtype.itemsize * weights, [], main_memory())  # raises if they don't fit
            progress("Reading the GGUF file", 1, 2)
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                path.parent,
                gguf_file=path.name,
                quantization_config=GgufConfig(dequantize=True),
                dtype=dtype,
                output_loading_info=True,
                local_files_only=True,
            )
            progress("Reading the tokenizer", 0, 0)
            tokenizer = AutoTokenizer.from_pretrained(
                path.parent, gguf_file=path.name, local_files_only=True
            )
    except (Cancelled, SurgeryError):
        raise
    except Exception as error:  # the reader fails in many ways on a broken file
        raise _unread(path, error) from error
    model, info = loaded
    check_whole(info)
    taken = sum(parameter.numel() for parameter in model.parameters())
    if taken != weights:
        raise Refused(
            f"{path.name} holds {weights:,} values and transformers reads {taken:,} of them, so "
            "the model would not be the one in the file. Use its safetensors version."
        )
    progress("Writing it as safetensors", 0, 0)
    # What the file says about itself is no name to give to its copy.
    model.config.name_or_path = ""
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)


def _config(path: Path):
    try:
        config = AutoConfig.from_pretrained(
            path.parent, gguf_file=path.name, local_files_only=True, trust_remote_code=False
        )
    except Exception as error:  # as above
        raise _unread(path, error) from error
    config.dtype = torch.bfloat16
    return config


@contextmanager
def _parsed_once() -> Iterator[None]:
    """During the block, parse a GGUF file's header and build its table of names only once:
    transformers asks for the first three times and for the second once per module, and both take
    seconds."""
    with (
        mock.patch.object(gguf, "GGUFReader", cache(gguf.GGUFReader)),
        mock.patch.object(gguf, "get_tensor_name_map", cache(gguf.get_tensor_name_map)),
    ):
        yield


def _unread(path: Path, error: Exception) -> BaseError:
    message = one_line(error, 200)
    return BaseError(f"{path.name} can't be read as GGUF by transformers: {message}")
