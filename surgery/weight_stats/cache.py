"""Surveys of bases that were counted before, in memory and on disk.

An entry belongs to the base's files as they are: when they change, the weights are counted again.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

import numpy as np
import torch

from surgery.initialisers import Block
from surgery.io.array_cache import ArrayCache
from surgery.io.cache_folder import cache_folder
from surgery.progress import Progress, Turn, silent

from .survey import Part, Survey, take
from .value_counts import ValueCounts

if TYPE_CHECKING:
    from surgery.base import Base

_IN_MEMORY, _ON_DISK = 4, 12
_VERSION = 2  # of the format; files of another one are ignored
_ENTRY = "survey"
_surveys: OrderedDict[str, Survey] = OrderedDict()
_lock = threading.Lock()
_counting: WeakValueDictionary[str, Turn] = WeakValueDictionary()


def known_survey(base: Base) -> Survey | None:
    """The survey of a base if this process has made or read one: exact, or of a sample."""
    with _lock:
        if (survey := _surveys.get(base.source.identity)) is not None:
            _surveys.move_to_end(base.source.identity)
        return survey


def survey_base(base: Base, progress: Progress = silent, *, sample: bool = False) -> Survey:
    """Count every weight of a base, or read the counts from the cache.

    With `sample`, a sample of each tensor is enough if nothing better is cached. Raises
    `SurgeryError`.
    """
    identity = base.source.identity
    with _lock:
        turn = _counting.setdefault(identity, Turn("Counting the weights"))
    with turn.taken(progress) as report:  # wait if another thread is counting this base
        known = known_survey(base)
        if known is not None and (sample or known.share == 1.0):
            return known
        survey = _read(base)
        if survey is None:
            survey = take(base, report, sample=sample)
            if survey.share == 1.0:
                _write(base, survey)
        with _lock:
            _surveys[identity] = survey
            _surveys.move_to_end(identity)
            while len(_surveys) > _IN_MEMORY:
                _surveys.popitem(last=False)
        return survey


def forget(base: Base) -> None:
    """Remove a base's survey from memory and disk."""
    with _lock:
        _surveys.pop(base.source.identity, None)
    if _is_lasting(base):
        _disk().delete(base.source.identity)


def _is_lasting(base: Base) -> bool:
    """Whether another process would find the same weights. A config's are random in every process,
    and a stack or resized embeddings exist in memory only."""
    return base.kind not in ("config", "stack", "resized")


def _disk() -> ArrayCache:
    return ArrayCache(cache_folder() / "weight_stats", _ON_DISK, _VERSION)


def _write(base: Base, survey: Survey) -> None:
    if not _is_lasting(base):
        return
    parts, counts = list(survey.parts), list(survey.parts.values())
    most = max((int(c.counts.max()) for c in counts if c.finite), default=0)
    facts = {
        "depth": survey.depth,
        "dtype": str(survey.dtype).removeprefix("torch."),
        "skipped": survey.skipped,
        "parts": [
            [
                p.layer,
                p.kind,
                p.output and p.output.value,
                len(c.values),
                c.nan,
                c.above,
                c.below,
                c.rounded,
            ]
            for p, c in zip(parts, counts, strict=True)
        ],
    }
    _disk().put(
        base.source.identity,
        _ENTRY,
        {
            "facts": np.frombuffer(json.dumps(facts).encode(), np.uint8),
            "values": np.concatenate([c.values for c in counts]),
            "counts": np.concatenate([c.counts for c in counts]).astype(np.min_scalar_type(most)),
        },
    )


def _read(base: Base) -> Survey | None:
    entry = _disk().get(base.source.identity, _ENTRY) if _is_lasting(base) else None
    if entry is None:
        return None
    try:
        facts = json.loads(entry["facts"].tobytes())
        values, counts = entry["values"], entry["counts"].astype(np.int64)
        at, parts = 0, {}
        for layer, kind, output, size, nan, above, below, rounded in facts["parts"]:
            here = slice(at, at := at + size)
            parts[Part(layer, kind, output and Block(output))] = ValueCounts(
                values[here], counts[here], nan, above, below, rounded
            )
        if at != len(values) or at != len(counts):
            return None
        dtype = getattr(torch, facts["dtype"])
        return Survey(facts["depth"], dtype, parts, 1.0, tuple(facts["skipped"]))
    except (KeyError, ValueError, TypeError, AttributeError):  # not written by this code
        return None
