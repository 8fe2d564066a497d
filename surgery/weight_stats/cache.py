"""Surveys that were made before, by what the base's files are: a second look is instant.

In memory the last few, shared by everyone in the process; on disk, in the cache folder, the last
dozen. A file that can't be read, written or trusted is as good as none: the weights are counted.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

import numpy as np
import torch

from surgery.io.cache_file import whole_file
from surgery.progress import Progress, Turn, silent
from surgery.sources.cache import cache_folder

from .survey import Part, Survey, take
from .value_counts import Tally

if TYPE_CHECKING:
    from surgery.base import Base

_IN_MEMORY, _ON_DISK = 4, 12
_FORMAT = 1  # another one makes older files be counted anew
_kept: OrderedDict[str, Survey] = OrderedDict()
_lock = threading.Lock()
_counting: WeakValueDictionary[str, Turn] = WeakValueDictionary()


def known_survey(base: Base) -> Survey | None:
    """The survey of a base if it was made before: exact, or else a sample."""
    with _lock:
        if (survey := _kept.get(base.source.identity)) is not None:
            _kept.move_to_end(base.source.identity)
        return survey


def survey_base(base: Base, progress: Progress = silent, *, sample: bool = False) -> Survey:
    """Every weight of a base counted, or read from where it was kept. With `sample` a sample of
    each tensor will do if nothing better is known. Raises `SurgeryError`."""
    identity = base.source.identity
    with _lock:
        turn = _counting.setdefault(identity, Turn("Counting the weights"))
    with turn.taken(progress) as report:  # wait if another thread is counting this base
        found = known_survey(base)
        if found is not None and (sample or found.share == 1.0):
            return found
        place = _place(base)
        new = read(place) if place is not None else None
        if new is None:
            new = take(base, report, sample=sample)
            if place is not None and new.share == 1.0:
                write(place, new)
        with _lock:
            _kept[identity] = new
            _kept.move_to_end(identity)
            while len(_kept) > _IN_MEMORY:
                _kept.popitem(last=False)
        return new


def forget(base: Base) -> None:
    """Count anew when next asked, in memory and on disk."""
    with _lock:
        _kept.pop(base.source.identity, None)
    if place := _place(base):
        place.unlink(missing_ok=True)


def _place(base: Base) -> Path | None:
    if base.kind in ("config", "stack"):  # random weights, made anew in every process, or some
        return None
    name = hashlib.sha256(f"{_FORMAT}:{base.source.identity}".encode()).hexdigest()[:32]
    return cache_folder() / "tallies" / f"{name}.npz"


def write(path: Path, survey: Survey) -> None:
    """Keep a survey, whole or not at all."""
    parts = list(survey.parts)
    tallies = [survey.parts[part] for part in parts]
    most = max((int(t.counts.max()) for t in tallies if t.finite), default=0)
    facts = {
        "depth": survey.depth,
        "dtype": str(survey.dtype).removeprefix("torch."),
        "skipped": survey.skipped,
        "parts": [
            [p.layer, p.kind, p.output, len(t.values), t.nan, t.above, t.below, t.rounded]
            for p, t in zip(parts, tallies, strict=True)
        ],
    }
    try:
        with whole_file(path) as file:
            np.savez(
                file,
                facts=np.frombuffer(json.dumps(facts).encode(), np.uint8),
                values=np.concatenate([t.values for t in tallies]),
                counts=np.concatenate([t.counts for t in tallies]).astype(np.min_scalar_type(most)),
            )
        old = sorted(path.parent.glob("*.npz"), key=lambda p: -p.stat().st_mtime)[_ON_DISK:]
        for forgotten in old:
            forgotten.unlink(missing_ok=True)
    except OSError:  # no room, no permission: the next process counts again
        return


def read(path: Path) -> Survey | None:
    """A survey that was kept; None if there is none that can be used."""
    try:
        with np.load(path, allow_pickle=False) as file:
            facts = json.loads(file["facts"].tobytes())
            values, counts = file["values"], file["counts"].astype(np.int64)
        at, parts = 0, {}
        for layer, kind, output, size, nan, above, below, rounded in facts["parts"]:
            here = slice(at, at := at + size)
            parts[Part(layer, kind, output)] = Tally(
                values[here], counts[here], nan, above, below, rounded
            )
        if at != len(values) or at != len(counts):
            return None
        dtype = getattr(torch, facts["dtype"])
        return Survey(facts["depth"], dtype, parts, 1.0, tuple(facts["skipped"]))
    except Exception:  # absent, cut off, another version's: many errors, one meaning
        return None
