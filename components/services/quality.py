"""Measure what plans cost in the background: one at a time, for all sessions of a page.

Texts go first: while all processors generate some, measuring waits. What was measured is
remembered for everybody.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from threading import Lock
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from surgery import Plan, SurgeryError, texts
from surgery.numbers import duration
from surgery.operation import Operation
from surgery.progress import Progress

from . import heavy_imports
from .deployment import Deployment
from .fair_queue import FairQueue

if TYPE_CHECKING:
    from surgery import Base
    from surgery.analysis import Estimate, LossIncrease, Sample

ALL = "all four texts"
_MOST = 1000  # measured plans kept for each base
_FEW = 3  # visitors of a public page for whom plans are measured without being asked for
_RECENT = 300.0  # seconds for which a visitor counts after the last request
_LONGEST = 10.0  # seconds to the first number, from which on it has to be asked for
_SPEED = 30e9  # FLOP/s of a slow processor
_LOOK = 0.05  # seconds between looks whether texts are done


@dataclass(frozen=True)
class PlanQuality:
    """What a plan costs: the increase of the mean loss over the base's in nats per token, and both
    perplexities, base first. `low` and `high` are of the patient's perplexity. `random` is the
    increase of a random plan with as many layers, None while it isn't measured and where there is
    none. `is_final` on the whole text; `is_complete` if nothing at all is left to be measured."""

    increase: LossIncrease
    perplexities: tuple[float, float]
    low: float
    high: float
    tokens: int
    is_final: bool
    random: LossIncrease | None = None
    is_complete: bool = False

    @classmethod
    def of(cls, estimate: Estimate) -> PlanQuality:
        """The numbers of an estimate."""
        base, patient = estimate.base, estimate.patient
        return cls(
            estimate.increase,
            (base.perplexity, patient.perplexity),
            patient.low,
            patient.high,
            patient.tokens,
            estimate.is_final,
        )


class Quality:
    """What plans cost, for all sessions of a page, and turns at measuring it."""

    def __init__(self, deployment: Deployment, streams: FairQueue, turns: FairQueue) -> None:
        """`streams` are the turns of texts, `turns` those of measuring."""
        self.turns = turns
        self._deployment, self._streams = deployment, streams
        self._lock = Lock()
        self._known: WeakKeyDictionary[Base, OrderedDict[tuple, PlanQuality]] = WeakKeyDictionary()
        self._samples: WeakKeyDictionary[Base, dict[str, Sample]] = WeakKeyDictionary()
        self._controls: WeakKeyDictionary[Base, dict[int, Plan | None]] = WeakKeyDictionary()
        self._visitors: OrderedDict[str, float] = OrderedDict()  # and when each was here last

    @classmethod
    def of(cls, deployment: Deployment) -> tuple[FairQueue, Quality]:
        """The turns of texts and the service, which share the processors."""
        turns = FairQueue(1, people=deployment.people)

        def share(taken: int) -> None:
            heavy_imports.share_processors(taken + turns.taken)

        streams = FairQueue(share=share, people=deployment.people)
        return streams, cls(deployment, streams, turns)

    # ------------------------------------------------------------------ when

    def arrive(self, session: str) -> None:
        """Note that a visitor's request was admitted."""
        with self._lock:
            self._visitors[session] = time.monotonic()
            self._visitors.move_to_end(session)
            while len(self._visitors) > _MOST:
                self._visitors.popitem(last=False)

    def leave(self, session: str) -> None:
        """Note that a page was closed."""
        with self._lock:
            self._visitors.pop(session, None)

    def why_not(self, base: Base, operation: Operation) -> str:
        """Why a plan isn't measured without being asked for; empty if it is."""
        if not self._deployment.measures_unasked:
            return "Measured only when you ask."
        if self._deployment.public and self._recent() > _FEW:
            return "Not measured automatically while several visitors share this page."
        if base.kind == "config":
            return "Not measured automatically: the weights are random."
        if base.kind in ("hub", "adapter") and not base.is_loaded:
            return "Not measured automatically: the weights aren't loaded yet."
        if base.reads_from_disk:
            return "Not measured automatically: the weights are read from disk."
        from surgery.analysis.sample import WINDOW

        passes = [base.preview(plan) for plan in (Plan.whole(base.depth), operation.plan)]
        seconds = WINDOW * sum(one.flops_per_token or 0 for one in passes) / _SPEED
        if base.device == "cpu" and seconds > _LONGEST:
            return f"Not measured automatically: it takes about {duration(seconds)}."
        return ""

    def _recent(self) -> int:
        """How many visitors there were lately."""
        with self._lock:
            return sum(time.monotonic() - at < _RECENT for at in self._visitors.values())

    # ------------------------------------------------------------------ what

    def sample(self, base: Base, name: str) -> Sample:
        """The short text to judge on of one kind, or those of all, tokenized for a base: importance
        is measured on another. Raises `SurgeryError`."""
        from surgery.analysis import Sample

        kept = self._samples.setdefault(base, {})
        if name not in kept:
            kinds = texts.TEXTS if name == ALL else (name,)
            kept[name] = Sample.of(base, [texts.get(kind, "judge") for kind in kinds])
        return kept[name]

    def known(self, base: Base, operation: Operation, sample: Sample) -> PlanQuality | None:
        """What a plan costs, if it was measured before, here or elsewhere. Nothing is loaded."""
        with self._lock:
            kept = self._known.setdefault(base, OrderedDict()).get(_key(operation, sample))
        if kept or operation.healed:
            return kept
        from surgery.analysis import known_estimate

        estimate = known_estimate(base, operation.plan, sample)
        if estimate is None:
            return None
        other = self._control(base, operation.plan)
        random = known_estimate(base, other, sample) if other else None
        return replace(
            PlanQuality.of(estimate),
            random=random.increase if random else None,
            is_complete=other is None or random is not None,
        )

    def measure(
        self,
        base: Base,
        operation: Operation,
        sample: Sample,
        on_update: Callable[[PlanQuality], None],
        progress: Progress,
    ) -> PlanQuality:
        """Measure a plan, then the random one to compare it with. `on_update` gets every result
        but the last. `progress` may raise to stop. Raises `SurgeryError`."""
        from surgery.analysis import estimate

        def updated(estimate: Estimate) -> None:
            on_update(PlanQuality.of(estimate))

        def reported(what: str, done: float, total: float) -> None:
            # A text may have begun or ended.
            heavy_imports.share_processors(1 + self._streams.taken)
            progress(what, done, total)
            while self._streams.taken and not self._streams.free:
                time.sleep(_LOOK)
                progress("Waiting for text generation to finish", 0, 0)

        of = operation.healed or operation.plan
        result = PlanQuality.of(estimate(base, of, sample, updated, reported))
        if other := self._control(base, operation.plan):
            on_update(result)
            with suppress(SurgeryError):  # this plan is measured, whatever becomes of the other
                random = estimate(base, other, sample, progress=reported)
                result = replace(result, random=random.increase)
        result = replace(result, is_complete=True)
        with self._lock:
            kept = self._known.setdefault(base, OrderedDict())
            kept[_key(operation, sample)] = result
            while len(kept) > _MOST:
                kept.popitem(last=False)
        return result

    def _control(self, base: Base, plan: Plan) -> Plan | None:
        """The random plan to compare with, drawn once for each number of layers."""
        from surgery.analysis import control

        drawn = self._controls.setdefault(base, {})
        if len(plan) not in drawn:
            drawn[len(plan)] = control(base, plan)
        return drawn[len(plan)]


def _key(operation: Operation, sample: Sample) -> tuple:
    return *operation.key, sample.key
