"""A run's folder: settings, training text and states, each written whole or not at all.

    run.json                     base, plan, repair, settings
    text/tokens.safetensors      the training sequences
    start/                       if it begins from a repaired patient
        tensors.safetensors      the fitted tensors
        facts.json               how they were fitted
    state-00000120/              after 120 steps; the last two are kept, and the best
        trained.safetensors      trained parameters
        moments.safetensors      optimizer states
        state.json               numbers: losses, evaluations, length, seconds

No file is a pickle. A damaged state is treated as unreadable.
"""

from __future__ import annotations

import contextlib
import json
import re
import secrets
import shutil
import zlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from surgery.errors import SurgeryError
from surgery.io.atomic import atomic_folder, restored, sweep
from surgery.io.output_target import STATE, explained

from .records import FORMAT, RunRecord, StateRecord
from .records import read as read_record
from .settings import Settings, described

_TEXT = Path("text") / "tokens.safetensors"
_START = Path("start") / "tensors.safetensors"
_START_FACTS = Path("start") / "facts.json"
_FILES = ("trained.safetensors", "moments.safetensors")
_CHUNK = 8 << 20
_STATE = re.compile(r"state-([0-9]{8})")
_UNREADABLE = re.compile(r"unreadable-[0-9]{8}-[0-9a-f]{8}")
_PARTIAL = re.compile(r"\.state-[0-9]{8}\.[0-9a-f]{8}\.partial")  # of a process that was killed
_OURS = (_STATE, _UNREADABLE, _PARTIAL)


Start = tuple[Mapping[str, torch.Tensor], Mapping]  # fitted tensors, and the facts of their repair


def begin(folder: Path, facts: Mapping, text: torch.Tensor, start: Start | None = None) -> None:
    """Create the run's folder. `facts` are the fields of its `RunRecord`, except the checksum."""
    size = text.nbytes + sum(tensor.nbytes for tensor in (start[0] if start else {}).values())
    with atomic_folder(folder, size) as partial:
        if start:
            (partial / _START).parent.mkdir()
            _save(start[0], partial / _START)
            _write_json(partial / _START_FACTS, start[1])
        place = partial / _TEXT
        place.parent.mkdir()
        _save({"tokens": text}, place)
        record = {"format": FORMAT, **facts, "text": _checksum(place)}
        _write_json(partial / "run.json", record)


def facts_of(folder: Path) -> RunRecord | None:
    """The record of the run in this folder; None if there is no folder. Raises `SurgeryError` if it
    holds something else."""
    if not restored(folder):
        return None
    with contextlib.suppress(OSError):
        sweep(folder)
    facts = read_record(RunRecord, folder / "run.json")
    if facts is None:
        raise SurgeryError(
            f"{folder} holds no readable healing run: choose another folder, or remove it."
        )
    return facts


def check_same(folder: Path, facts: Mapping) -> None:
    """Raise `SurgeryError` if the folder holds a run with other facts or settings."""
    there = facts_of(folder)
    if there is None:
        return
    for key in ("base", "parameters", "plan"):
        if (old := getattr(there, key)) != facts[key]:
            raise SurgeryError(
                f"{folder} holds a run with a different {key} ({str(old)[:80]}): choose another "
                "folder, or remove this one."
            )
    if there.weights and facts["weights"] and there.weights != facts["weights"]:
        raise SurgeryError(
            f"The weights of {there.base} have changed since the run in {folder} began: choose "
            "another folder, or remove this one."
        )
    mine = Settings(**facts["settings"])
    if not there.settings.same_run(mine):
        new, old = mine.as_dict(), there.settings.as_dict()
        other = next(key for key in new if new[key] != old[key])
        raise SurgeryError(
            f"{folder} holds a run with other settings ({str(described(other).title).lower()} was "
            f"{old[other]}): use the same settings to resume it, or choose another folder."
        )


def text_of(folder: Path, window: int) -> torch.Tensor:
    """The run's sequences, (count, window). Raises `SurgeryError`."""
    facts, place = facts_of(folder), folder / _TEXT
    try:
        if facts is not None and _checksum(place) == facts.text:
            tokens = load_file(place)["tokens"]
            valid = tokens.dtype == torch.int32 and tokens.ndim == 2
            if valid and len(tokens) and tokens.shape[1] == window:
                return tokens
        why = "its checksum doesn't match"
    except (OSError, SafetensorError, KeyError) as error:
        why = getattr(error, "strerror", None) or "it is not a safetensors file with tokens"
    raise SurgeryError(
        f"The text of the run in {folder} can't be read ({why}). Remove the folder to start over."
    )


def kept_start(folder: Path) -> Start | None:
    """What the run in this folder begins from; None if that is the cut patient, or there is no run.
    Raises `SurgeryError` if it can't be read."""
    facts = start_facts(folder)
    if facts is None:
        return None
    try:
        return load_file(folder / _START), facts
    except (OSError, SafetensorError) as error:
        raise _no_start(folder) from error


def start_facts(folder: Path) -> dict | None:
    """The facts of the repair that fitted the tensors which the run in this folder begins from;
    None if there are no such tensors, or there is no run. Raises `SurgeryError` if they can't be
    read."""
    if not (folder / _START).is_file():
        return None
    try:
        return dict(json.loads((folder / _START_FACTS).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise _no_start(folder) from error


def _no_start(folder: Path) -> SurgeryError:
    return SurgeryError(
        f"The repaired weights in {folder} can't be read. Remove the folder to start over."
    )


def write(
    folder: Path,
    step: int,
    trained: Mapping[str, torch.Tensor],
    moments: Mapping[str, torch.Tensor],
    numbers: Mapping,
    spared: int = 0,
) -> None:
    """Write a state, and once it is on disk remove older ones, except the last two and the one
    after `spared` steps. Raises `SaveError`; then nothing was removed."""
    out = folder / f"state-{step:08d}"
    size = sum(t.nbytes for t in (*trained.values(), *moments.values()))
    with atomic_folder(out, size, overwrite=True, durable=True, kind=STATE) as partial:
        files = {}
        for name, tensors in zip(_FILES, (trained, moments), strict=True):
            _save(tensors, partial / name)
            files[name] = _checksum(partial / name)
        _write_json(partial / "state.json", {"step": step, **numbers, "files": files})
    for old in states(folder)[:-2]:
        if old != spared:
            forget(folder, old)


def states(folder: Path) -> list[int]:
    """Steps of the saved states, in ascending order."""
    matches = (_STATE.fullmatch(path.name) for path in folder.iterdir())
    return sorted(int(m[1]) for m in matches if m)


def read(folder: Path, step: int) -> tuple[dict, dict, StateRecord] | None:
    """(trained, moments, record) of a state; None if it is damaged or incomplete."""
    place = folder / f"state-{step:08d}"
    numbers = read_record(StateRecord, place / "state.json")
    if numbers is None or numbers.step != step:
        return None
    try:
        if numbers.files != {name: _checksum(place / name) for name in _FILES}:
            return None
        trained, moments = (load_file(place / name) for name in _FILES)
    except (OSError, SafetensorError):
        return None
    return trained, moments, numbers


def remove(folder: Path) -> None:
    """Remove a finished run. If its folder holds other files, they and the folder are kept."""
    sweep(folder)
    for path in (folder / "run.json", *(folder / part for part in (_TEXT, _START, _START_FACTS))):
        path.unlink(missing_ok=True)
    for path in folder.iterdir():
        if any(pattern.fullmatch(path.name) for pattern in _OURS):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    for path in (folder / _TEXT.parent, folder / _START.parent, folder):
        with contextlib.suppress(OSError):  # not empty
            path.rmdir()


def put_aside(folder: Path, step: int) -> None:
    """Rename an unreadable state, so that it doesn't block a later one. Raises `SaveError`."""
    with explained(folder):
        place = folder / f"state-{step:08d}"
        place.rename(folder / f"unreadable-{step:08d}-{secrets.token_hex(4)}")


def forget(folder: Path, step: int) -> None:
    """Remove one state."""
    shutil.rmtree(folder / f"state-{step:08d}", ignore_errors=True)


def _save(tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    save_file({name: t.detach().to("cpu").contiguous() for name, t in tensors.items()}, path)


def _write_json(path: Path, value: Mapping) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


def _checksum(path: Path) -> int:
    """The CRC-32 of a file: enough to detect damage, and twice as fast as a cryptographic hash."""
    checksum = 0
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            checksum = zlib.crc32(chunk, checksum)
    return checksum
