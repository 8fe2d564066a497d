"""Skill probes for all sessions of a page: one patient at a time, each item graded once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from threading import Lock
from typing import TYPE_CHECKING, Any

from surgery.operation import Operation
from surgery.progress import Progress
from surgery.skills.registry import ITEMS

from .fair_queue import FairQueue

if TYPE_CHECKING:
    from surgery import Base
    from surgery.skills import MarginCache, SkillResults

_MOST = 16  # healed patients whose margins are kept


class Skills:
    """Probes of base and patient. Those of plans are shared with the command line, by its cache."""

    def __init__(self, turns: FairQueue, items: int = ITEMS) -> None:
        """`items` are how many of each skill a patient is probed with."""
        self.turns, self.items = turns, items
        self._lock = Lock()
        self._healed: OrderedDict[tuple, MarginCache] = OrderedDict()

    def known(self, base: Base, operation: Operation) -> SkillResults | None:
        """The results, if nothing of them is left to be computed. Nothing is loaded."""
        from surgery.skills import known_results

        of = operation.healed or operation.plan
        return known_results(base, of, items=self.items, cache=self._cache(operation))

    def probe(
        self,
        base: Base,
        operation: Operation,
        on_update: Callable[[SkillResults], None],
        progress: Progress,
    ) -> SkillResults:
        """Probe base and patient; `on_update` gets the results so far. `progress` may raise to
        stop. Raises `SurgeryError`."""
        from surgery.skills import probe_in_stages

        of = operation.healed or operation.plan
        options: dict[str, Any] = {"items": self.items, "cache": self._cache(operation)}
        return probe_in_stages(base, of, on_update, progress, **options)

    def _cache(self, operation: Operation) -> MarginCache | None:
        """Where the margins of a healed patient are kept; None for a plan, which has its own."""
        from surgery.skills import MarginCache

        if operation.healed is None:
            return None
        with self._lock:
            cache = self._healed.setdefault(operation.key, MarginCache())
            self._healed.move_to_end(operation.key)
            while len(self._healed) > _MOST:
                self._healed.popitem(last=False)
        return cache
