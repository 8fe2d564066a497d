"""Results of tasks, kept on this machine, so that the page's Log shows them beside its plans."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from surgery.analysis.cache import lasting_name
from surgery.io.cache_folder import cache_folder
from surgery.io.json_cache import JsonCache
from surgery.progress import Progress, silent

from .evaluation import Result, Score

if TYPE_CHECKING:
    from surgery.base import Base
    from surgery.plan import Plan

_BASES = 64  # of which results are kept
_MOST = 500  # results of one base


@dataclass(frozen=True)
class KeptResult:
    """What a plan, in notation, scored on a task. `limit` is the number of items, None for all;
    `date` is the day in ISO format."""

    plan: str
    result: Result
    limit: int | None
    date: str

    @property
    def key(self) -> tuple:
        """Equal for two evaluations of the same thing."""
        return self.plan, self.result.task, self.result.metric, self.limit


def keep(
    base: Base,
    plan: Plan,
    results: Sequence[Result],
    limit: int | None = None,
    progress: Progress = silent,
) -> None:
    """Keep the results of a plan on this machine, in place of those of an earlier evaluation of the
    same plan and task. Nothing is kept of a base whose weights have no lasting name, such as random
    ones. `progress` counts the bytes that are read to identify the base. Raises `BaseError` if its
    files can't be read."""
    name = lasting_name(base, progress)
    if name is None:
        return
    today = datetime.date.today().isoformat()
    new = {one.key: one for one in (KeptResult(str(plan), r, limit, today) for r in results)}
    old = [one for one in kept(base) if one.key not in new]
    _cache().put(name, [asdict(one) for one in (*old, *new.values())][-_MOST:])


def kept(base: Base) -> list[KeptResult]:
    """What is kept of a base, oldest first. No weights are read: a base that was never measured on
    this machine has nothing. Raises `BaseError`."""
    name = lasting_name(base, None)
    found = _cache().get(name) if name else None
    try:
        return [_read(values) for values in found or ()]
    except (KeyError, TypeError, ValueError):  # written by another version, or by hand
        return []


def _read(values: dict[str, Any]) -> KeptResult:
    result = dict(values["result"])
    for who in ("base", "patient", "difference"):
        value, error = result[who]
        result[who] = Score(float(value), None if error is None else float(error))
    return KeptResult(str(values["plan"]), Result(**result), values["limit"], str(values["date"]))


def _cache() -> JsonCache:
    return JsonCache(Path(cache_folder()) / "tasks", _BASES)
