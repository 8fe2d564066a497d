"""Read the header of a safetensors file: which tensor lies where.

Nothing in it is trusted (github.com/huggingface/safetensors#format): all offsets are checked
against the size of the file before they are used.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

from surgery.errors import BaseError

from .source import Tensor

# Bytes. The format's own library takes 100 MB, which would be half a minute of Python and gigabytes
# of memory; the longest header on the Hub has a few MB.
LONGEST = 25_000_000
# Bits of a value, by safetensors' names of dtypes.
BITS = {
    "BOOL": 8,
    **dict.fromkeys(("U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 8),
    **dict.fromkeys(("F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 16),
    **dict.fromkeys(("U32", "I32", "F32"), 32),
    **dict.fromkeys(("U64", "I64", "F64", "C64"), 64),
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
}


def read_header(read: Callable[[int, int], bytes], size: int, name: str) -> dict[str, Tensor]:
    """Return the tensors of a file of `size` bytes, with offsets from its start. `read(start, end)`
    returns its bytes, from a disk or by range requests. Raises `BaseError`."""
    if size < 8:
        raise _broken(name, "it is too short to be a safetensors file")
    length = int.from_bytes(read(0, 8), "little")
    if not 2 <= length <= min(LONGEST, size - 8):
        raise _broken(name, "its header is cut off or is not one")
    try:
        header = json.loads(read(8, 8 + length).decode())
        if not isinstance(header, dict):
            raise ValueError
        metadata = header.pop("__metadata__", {})
        if not all(isinstance(value, str) for value in metadata.values()):
            raise ValueError
        "".join(header).encode()  # raises for names that are no text
        begin = 8 + length
        tensors = {key: _tensor(entry, begin, name) for key, entry in header.items()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise _broken(name, "its header can't be read") from error
    if not tensors:
        raise _broken(name, "it holds no tensors")
    end = begin
    for tensor in sorted(tensors.values(), key=lambda t: (t.start, t.end)):
        if tensor.start != end:
            raise _broken(name, "its tensors overlap or leave gaps")
        end = tensor.end
    if end != size:
        raise _broken(name, f"it should have {end:,} bytes and has {size:,}")
    return tensors


def read_file(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a local file. Raises `BaseError`."""
    try:
        with open(path, "rb") as file:

            def read(start: int, end: int) -> bytes:
                file.seek(start)
                return file.read(end - start)

            return read_header(read, path.stat().st_size, path.name)
    except OSError as error:
        raise BaseError(f"{path.name} can't be read: {error.strerror or error}.") from error


def _tensor(entry: dict, begin: int, file: str) -> Tensor:
    shape, (start, end) = entry["shape"], entry["data_offsets"]
    numbers = [*shape, start, end]
    if len(shape) > 64 or not all(type(n) is int and 0 <= n < 2**63 for n in numbers):
        raise ValueError
    dtype = entry["dtype"]
    if dtype not in BITS:
        raise _broken(file, f"it holds values of the unknown type “{str(dtype)[:20]}”")
    if (end - start) * 8 != math.prod(shape) * BITS[dtype]:
        raise ValueError
    return Tensor(dtype, tuple(shape), file, begin + start, begin + end)


def _broken(name: str, what: str) -> BaseError:
    return BaseError(f"{name} is broken: {what}. Download it again.")
