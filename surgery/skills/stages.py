"""Base and patient, skill by skill: few items of each skill first, then more.

So the first results are there in seconds, and their intervals narrow while more items are graded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from surgery.plan import Plan
from surgery.progress import Progress, silent

from .cache import MarginCache, name_of
from .changes import SkillChange, compare_skills
from .grading import tokens_to_read
from .item import Item
from .profiles import profile
from .registry import ITEMS, SKILLS, items_of
from .repetition import Repetition, is_known, measured_repetition

if TYPE_CHECKING:
    from surgery.base import Base
    from surgery.patient import Patient

FIRST = 16  # items of each skill in the first stage


@dataclass(frozen=True)
class SkillResults:
    """What is known so far of base and patient. `items` is how many of each skill all skills have;
    0 while there are skills without a result. `texts` are of base and patient: None until the
    end, and where weights are read from disk. `is_final` once nothing is left to do."""

    changes: tuple[SkillChange, ...]
    items: int
    texts: tuple[Repetition, Repetition] | None = None
    is_final: bool = False


def probe_in_stages(
    base: Base,
    of: Plan | Patient,
    on_update: Callable[[SkillResults], None] = lambda results: None,
    progress: Progress = silent,
    *,
    items: int = ITEMS,
    seed: int = 0,
    cache: MarginCache | None = None,
) -> SkillResults:
    """Probe all skills of base and patient with `FIRST` items, then with `items`, and at last
    generate text. `on_update` gets the results after each skill; nothing that is in a cache is
    computed.

    `of` is a plan, or a patient, whose `cache` may be given. `progress` counts what each stage has
    to do, and may raise. Raises `SurgeryError`.
    """
    work = _Work(base, of, seed, progress, cache)
    stages = [min(FIRST, items), items] if items > FIRST else [items]
    if base.reads_from_disk:  # each pass reads all weights: one for everything
        stages, groups = [items], [tuple(SKILLS)]
    else:
        groups = [(key,) for key in SKILLS]
    changes: dict[str, SkillChange] = {}
    results = SkillResults((), 0)
    for count in stages:
        for change in work.stage(groups, count):
            changes[change.skill.key] = change
            counts = [len(one.base.margins) for one in changes.values()]
            fewest = min(counts) if len(changes) == len(SKILLS) else 0
            results = SkillResults(tuple(changes.values()), fewest)
            on_update(results)
    texts = None if base.reads_from_disk else work.texts()
    return SkillResults(results.changes, results.items, texts, is_final=True)


def known_results(
    base: Base, of: Plan | Patient, *, items: int = ITEMS, cache: MarginCache | None = None
) -> SkillResults | None:
    """What `probe_in_stages` returns, if nothing is left to be computed. Nothing is loaded."""
    work = _Work(base, of, 0, None, cache)
    return probe_in_stages(base, of, items=items, cache=cache) if work.is_done(items) else None


class _Work:
    """Probing two models with caches of their own, and its progress."""

    def __init__(
        self,
        base: Base,
        of: Plan | Patient,
        seed: int,
        progress: Progress | None,
        cache: MarginCache | None,
    ) -> None:
        self.base, self.seed, self.progress = base, seed, progress or silent
        whole = Plan.whole(base.depth)
        caches = [MarginCache.of(base, whole, progress)]
        self.models: list[Plan | Patient] = [whole]
        if of != whole:
            self.models.append(of)
            if cache is None and isinstance(of, Plan):
                cache = MarginCache.of(base, of, progress)
            caches.append(cache or MarginCache())
        self.caches = caches

    def stage(self, groups: list[tuple[str, ...]], count: int) -> Iterator[SkillChange]:
        """The changes of all skills on `count` items of each."""
        sizes = [[self._size(i, keys, count) for i in range(len(self.models))] for keys in groups]
        total, done = sum(map(sum, sizes)), 0
        if total:
            self.base.load(self.progress)
        for keys, size in zip(groups, sizes, strict=True):
            profiles = []
            for i, of in enumerate(self.models):
                within = self._within(f"Probing skills, {count} items of each", done, total)
                profiles.append(
                    profile(
                        self.base,
                        of,
                        skills=keys,
                        items=count,
                        seed=self.seed,
                        progress=within,
                        cache=self.caches[i],
                    )
                )
                done += size[i]
            yield from compare_skills(profiles[0], profiles[-1])

    def is_done(self, count: int) -> bool:
        """Whether everything is known, with `count` items of each skill."""
        texts = self.base.reads_from_disk or all(map(is_known, self.caches))
        return texts and not any(
            self._left(i, key, count) for i in range(len(self.models)) for key in SKILLS
        )

    def texts(self) -> tuple[Repetition, Repetition]:
        """How much the texts of both repeat themselves."""
        found = [
            measured_repetition(self.base, of, self.progress, cache)
            for of, cache in zip(self.models, self.caches, strict=True)
        ]
        return found[0], found[-1]

    def _size(self, i: int, keys: tuple[str, ...], count: int) -> int:
        """Tokens times layers that a model has still to compute."""
        left = [item for key in keys for item in self._left(i, key, count)]
        of = self.models[i]
        layers = len(of if isinstance(of, Plan) else of.plan)
        return layers * tokens_to_read(self.base, left)

    def _left(self, i: int, key: str, count: int) -> tuple[Item, ...]:
        """The items that a model has still to be probed with."""
        known = self.caches[i].get(name_of(key, self.seed))
        return items_of(key, count, self.seed)[len(known) :]

    def _within(self, what: str, before: int, total: int) -> Progress:
        """Progress of one profile as a part of its stage."""

        def report(_: str, done: float, __: float) -> None:
            self.progress(what, before + done, total)

        return report
