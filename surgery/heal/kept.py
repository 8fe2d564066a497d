"""A run's folder: what it was told, what it reads, its states, each written whole or not at all.

    run.json                     base, plan, settings
    text/tokens.safetensors      the windows
    state-00000120/              after 120 steps; the last two are kept, and the best
        trained.safetensors      what trains
        moments.safetensors      the optimizer's tensors
        state.json               numbers: losses, evaluations, length, seconds

Knows files, no pickles among them, and whether a folder is of the same run. What the numbers mean
is the run's affair.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from ..appear import appearing
from ..errors import SurgeryError
from ..target import STATE
from .settings import Settings

FORMAT = 1
_STATE = re.compile(r"state-([0-9]{8})")
_OS_ERROR = re.compile(r"os error ([0-9]+)")


def begin(folder: Path, facts: Mapping, text: torch.Tensor) -> None:
    """Make the run's folder. `facts` are what `facts_of` gives back."""
    with appearing(folder, text.nbytes) as partial:
        (partial / "text").mkdir()
        _save({"tokens": text}, partial / "text" / "tokens.safetensors")
        _write_json(partial / "run.json", {"format": FORMAT, **facts})


def facts_of(folder: Path) -> dict | None:
    """What the run in this folder was told; None if there is none. Raises `SurgeryError` for a
    folder that holds something else."""
    if not folder.exists():
        return None
    facts = _read_json(folder / "run.json")
    if facts is None or facts.pop("format", None) != FORMAT:
        raise SurgeryError(
            f"{folder} holds no run of healing that can be read: choose another folder, or remove "
            "it."
        )
    return facts


def check_same(folder: Path, facts: Mapping) -> None:
    """Raise `SurgeryError` where the folder holds another run than one that was told this."""
    there = facts_of(folder)
    if there is None:
        return
    for key in ("base", "parameters", "plan"):
        if there[key] != facts[key]:
            raise SurgeryError(
                f"{folder} holds a run of another {key} ({str(there[key])[:80]}): choose another "
                "folder, or remove it."
            )
    theirs, mine = (Settings.from_dict(told["settings"]) for told in (there, facts))
    if not theirs.same_run(mine):
        new, old = mine.as_dict(), theirs.as_dict()
        other = next(key for key in new if new[key] != old[key])
        raise SurgeryError(
            f"{folder} holds a run with other settings ({other.replace('_', ' ')} was "
            f"{old[other]}): give the same to go on, or choose another folder."
        )


def text_of(folder: Path) -> torch.Tensor:
    """The run's windows, (count, window). Mapped from the file: nothing is read yet."""
    try:
        return load_file(folder / "text" / "tokens.safetensors")["tokens"]
    except (OSError, SafetensorError, KeyError) as error:
        raise SurgeryError(f"The text of the run in {folder} can't be read: {error}") from error


def write(
    folder: Path,
    step: int,
    trained: Mapping[str, torch.Tensor],
    moments: Mapping[str, torch.Tensor],
    numbers: Mapping,
    spared: int = 0,
) -> None:
    """A state that appears when it is on the disk; only then older ones go, but for the last two
    and the one after `spared` steps. Raises `SaveError`, and then those are still there."""
    out = folder / f"state-{step:08d}"
    size = sum(t.nbytes for t in (*trained.values(), *moments.values()))
    with appearing(out, size, overwrite=True, durable=True, kind=STATE) as partial:
        _save(trained, partial / "trained.safetensors")
        _save(moments, partial / "moments.safetensors")
        _write_json(partial / "state.json", {"step": step, **numbers})
    for old in states(folder)[:-2]:
        if old != spared:
            forget(folder, old)


def states(folder: Path) -> list[int]:
    """Steps after which states are kept, the last one last."""
    found = (_STATE.fullmatch(path.name) for path in folder.iterdir())
    return sorted(int(m[1]) for m in found if m)


def read(folder: Path, step: int) -> tuple[dict, dict, dict] | None:
    """(trained, moments, numbers) of a state; None if it can't be read."""
    place = folder / f"state-{step:08d}"
    numbers = _read_json(place / "state.json")
    if numbers is None or numbers.get("step") != step:
        return None
    try:
        return (
            load_file(place / "trained.safetensors"),
            load_file(place / "moments.safetensors"),
            numbers,
        )
    except (OSError, SafetensorError):
        return None


def forget(folder: Path, step: int) -> None:
    """Remove one state."""
    shutil.rmtree(folder / f"state-{step:08d}", ignore_errors=True)


def _save(tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    """safetensors' own writer says what the system said in words only."""
    ready = {name: t.detach().to("cpu").contiguous() for name, t in tensors.items()}
    try:
        save_file(ready, path)
    except SafetensorError as error:
        code = _OS_ERROR.search(str(error))
        raise OSError(int(code[1]) if code else 0, str(error)) from error


def _write_json(path: Path, value: Mapping) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


def _read_json(path: Path) -> dict | None:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
