"""Text generation on a ZeroGPU Space, where a GPU is lent for seconds to a process of its own.

The `spaces` package is installed on Spaces and needed nowhere else. It lends the GPU to a generator
whose arguments and results are pickled, and nothing that it changes comes back. So the generator
takes the name of a base and plans as text, and opens, operates and generates in that process.

In the Space's own process `spaces` lets PyTorch say that there is a GPU, on which nothing can be
computed. So accelerators are hidden there, and all but this text is computed on the CPU.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict
from importlib.util import find_spec
from typing import Any

from surgery import Plan, SurgeryError
from surgery.memory.devices import accelerators, accelerators_shown, hide_accelerators
from surgery.progress import silent

from .bases import Bases
from .fair_queue import alternate

ON = os.environ.get("SPACES_ZERO_GPU", "").lower() in ("1", "t", "true")
_START, _PER_TOKEN, _LONGEST = 20.0, 0.1, 120.0  # seconds to load, for a token of each, in all


class ZeroGpu:
    """Generates where a GPU is lent. Made before the app is launched: a Space counts its GPU
    functions then."""

    def __init__(self, bases: Bases) -> None:
        def work(spec: str, plans: dict, prompt: str, settings: dict) -> Iterator:
            yield from generate(bases, spec, plans, prompt, settings)

        self._generate = lent(work)
        if ON:
            hide_accelerators()

    def streams(
        self, spec: str, plans: Mapping[str, str], prompt: str, settings: Mapping
    ) -> dict[str, Stream]:
        """Return a stream for each plan."""
        line = Line(self._generate(spec, dict(plans), prompt, dict(settings)), list(plans))
        return {who: Stream(who, line) for who in plans}


def lent(work: Callable) -> Callable:
    """Return the generator with a GPU lent to it, or unchanged without the `spaces` package."""
    if find_spec("spaces") is None:
        return work
    import spaces

    return spaces.GPU(duration=seconds)(work)


def seconds(spec: str, plans: Mapping[str, str], prompt: str, settings: Mapping) -> float:
    """The time for which the GPU is requested: visitors have a quota, and short requests go
    first."""
    return min(_LONGEST, _START + _PER_TOKEN * len(plans) * settings["max_new_tokens"])


def generate(
    bases: Bases, spec: str, plans: Mapping[str, str], prompt: str, settings: Mapping
) -> Iterator[tuple[str, str, dict]]:
    """Yield (name, piece of text, statistics so far) of each plan's patient, in turn; with its last
    statistics also its tokens and the base's `surprises`. Errors are yielded too, without a name:
    their messages would be lost between the processes."""
    try:
        with ExitStack() as used:
            used.enter_context(accelerators_shown())
            base = bases.get(spec, silent)
            if base.is_loaded and base.device == "cpu" and accelerators():
                base.unload()  # they came along from the Space's own process
            base = bases.load(spec, silent)
            used.enter_context(bases.in_use(base))
            streams = {
                who: base.operate(Plan.parse(text, base.depth)).stream(prompt, **settings)
                for who, text in plans.items()
            }
            for who, piece in alternate(streams):
                yield who, piece, asdict(streams[who].stats)
            whole = base.operate(Plan.whole(base.depth)).model
            for who, stream in streams.items():
                yield who, "", {**asdict(stream.stats), **_at_the_end(whole, stream)}
    except SurgeryError as error:
        yield "", str(error), {}


def _at_the_end(whole: Any, stream: Any) -> dict:
    """What is known of a stream once it has ended."""
    from surgery.analysis import surprises

    tokens = {name: getattr(stream, name) for name in ("prompt_ids", "ids", "pieces")}
    return {"surprises": surprises(whole, stream), **tokens}


class Stream:
    """One of several streams that arrive on one line; as much of `surgery`'s as a panel needs."""

    def __init__(self, who: str, line: Line) -> None:
        from surgery.generation.stream import Stats

        self._who, self._line, self._stats = who, line, Stats
        self.stats = Stats()
        # Known at the end.
        self.surprises: list[tuple[str, float]] = []
        self.prompt_ids: tuple[int, ...] = ()
        self.ids: list[int] = []
        self.pieces: list[tuple[str, int]] = []

    def __iter__(self) -> Stream:
        return self

    def __next__(self) -> str:
        piece, stats = self._line.next_of(self._who)
        for name in ("surprises", "prompt_ids", "ids", "pieces"):
            setattr(self, name, stats.pop(name, []))
        self.stats = self._stats(**stats)
        if not piece and self.stats.finished:
            raise StopIteration
        return piece

    def close(self) -> None:
        """Stop all streams of the line."""
        self._line.close()


class Line:
    """What the generator yields, sorted by plan."""

    def __init__(self, source: Iterator[tuple[str, str, dict]], names: list[str]) -> None:
        self._source = source
        self._waiting: dict[str, deque] = {name: deque() for name in names}

    def next_of(self, who: str) -> tuple[str, dict]:
        """Return the next piece and statistics of a plan. Raises `SurgeryError`."""
        while not self._waiting[who]:
            try:
                name, piece, stats = next(self._source)
            except StopIteration:
                raise SurgeryError("The GPU was reclaimed before the end: try again.") from None
            if not name:
                raise SurgeryError(piece)
            self._waiting[name].append((piece, stats))
        return self._waiting[who].popleft()

    def close(self) -> None:
        """Close the generator."""
        if close := getattr(self._source, "close", None):
            close()
