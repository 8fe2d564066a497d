"""Speaking on a ZeroGPU Space, where a GPU is lent for seconds and only to a process of its own.

Knows the `spaces` package, which is there on Spaces and needed nowhere else. What is lent a GPU is
one generator of plain values: its arguments and results are pickled, and nothing that it changes
comes back. So it opens the base there by name, operates and speaks.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from importlib.util import find_spec
from typing import Any

from surgery import Plan, SurgeryError
from surgery.progress import silent

from . import bases
from .fair_queue import alternate

ON = os.environ.get("SPACES_ZERO_GPU", "").lower() in ("1", "t", "true")
_START, _PER_TOKEN, _LONGEST = 20.0, 0.1, 120.0  # seconds to load, for a token of each, in all


def seconds(spec: str, plans: Mapping[str, str], prompt: str, settings: Mapping) -> float:
    """For how long the GPU is asked for: visitors have a quota, and short requests go first."""
    return min(_LONGEST, _START + _PER_TOKEN * len(plans) * settings["max_new_tokens"])


def _speak(
    spec: str, plans: Mapping[str, str], prompt: str, settings: Mapping
) -> Iterator[tuple[str, str, dict]]:
    """(who, piece of text, figures so far) of each plan's patient, in turns; errors as values,
    since an error of the other process loses its words on the way."""
    try:
        base = bases.load(spec, silent)
        with bases.in_use(base):
            streams = {
                who: base.operate(Plan.parse(text, base.depth)).stream(prompt, **settings)
                for who, text in plans.items()
            }
            for who, piece in alternate(streams):
                yield who, piece, asdict(streams[who].stats)
            for who, stream in streams.items():
                yield who, "", asdict(stream.stats)
    except SurgeryError as error:
        yield "", str(error), {}


def lent(work: Callable) -> Callable:
    """The generator with a GPU lent to it; off ZeroGPU, and without `spaces`, as it is."""
    if find_spec("spaces") is None:
        return work
    import spaces

    return spaces.GPU(duration=seconds)(work)


speak = lent(_speak) if ON else _speak


class Remote:
    """One of several streams that arrive over one queue; as much of `Stream` as a panel needs."""

    def __init__(self, who: str, line: _Line) -> None:
        from surgery.generation import Stats

        self._who, self._line, self._made = who, line, Stats
        self.stats = Stats()

    def __iter__(self) -> Remote:
        return self

    def __next__(self) -> str:
        piece, stats = self._line.next_of(self._who)
        self.stats = self._made(**stats)
        if not piece and self.stats.finished:
            raise StopIteration
        return piece

    def close(self) -> None:
        self._line.close()


class _Line:
    """What comes from the generator, sorted by whom it is for."""

    def __init__(self, source: Iterator[tuple[str, str, dict]], names: list[str]) -> None:
        self._source = source
        self._waiting: dict[str, deque] = {name: deque() for name in names}

    def next_of(self, who: str) -> tuple[str, dict]:
        while not self._waiting[who]:
            try:
                name, piece, stats = next(self._source)
            except StopIteration:
                raise SurgeryError("The GPU was taken away before the end: try again.") from None
            if not name:
                raise SurgeryError(piece)
            self._waiting[name].append((piece, stats))
        return self._waiting[who].popleft()

    def close(self) -> None:
        if close := getattr(self._source, "close", None):
            close()


def streams(spec: str, plans: Mapping[str, str], prompt: str, settings: Mapping) -> dict[str, Any]:
    """A stream for each plan, computed where a GPU is lent."""
    line = _Line(speak(spec, dict(plans), prompt, dict(settings)), list(plans))
    return {who: Remote(who, line) for who in plans}
