"""What Talk remembers of one page: its latest run, and the last text of the base."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Generator, Hashable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from .answers import Answer, Answers

if TYPE_CHECKING:
    from surgery import Base

Update = TypeVar("Update")
_LOOK = 0.05  # seconds between checks whether the run before has ended
_PATIENCE = 5.0  # seconds that a run waits for it: it looks several times a second itself


@dataclass(eq=False)
class _Run:
    stop: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)


class TalkStore:
    """Kept in a `gr.State`: one for each open page, never shared.

    `pressed` is when a run was begun or stopped, by the page's clock: requests of two presses may
    overtake one another on the way here, and the last press decides. Without it, that is the one
    that arrives last.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._run: _Run | None = None
        self._pressed = 0.0
        self._text: tuple[Hashable, weakref.ref[Base], dict] | None = None
        #: The tokens of the text of the base that is kept.
        self.base_answer: Answer | None = None
        #: Both texts of the last run, once it has ended.
        self.answers: Answers | None = None
        #: What the panel shows.
        self.shown: dict = {}

    def __deepcopy__(self, memo: dict) -> TalkStore:
        return TalkStore()  # Gradio copies a state's first value for every page that is opened

    def latest(
        self, pressed: float | None, updates: Generator[Update, None, None], waiting: Update
    ) -> Iterator[Update]:
        """Yield the updates of a new run, which ends the one before and begins once that has given
        back its turn; `waiting` until then. It ends early at `stop`, or when a newer one begins."""
        run = _Run()
        with closing(updates):
            with self._lock:
                if self.replaced(pressed):
                    return
                before, self._run = self._run, run
                self._pressed = pressed or self._pressed
            try:
                if before:
                    before.stop.set()
                    until = time.monotonic() + _PATIENCE
                    while not before.ended.wait(_LOOK) and time.monotonic() < until:
                        yield waiting
                for update in updates:
                    if run.stop.is_set():
                        return
                    yield update
            finally:
                run.ended.set()

    def stop(self, pressed: float | None) -> None:
        """End the latest run at its next update, if it was begun before."""
        with self._lock:
            if not self.replaced(pressed):
                self._pressed = pressed or self._pressed
                if self._run:
                    self._run.stop.set()

    def replaced(self, pressed: float | None) -> bool:
        """Whether a later press has been seen."""
        return pressed is not None and pressed < self._pressed

    def keep_text(
        self, key: Hashable, base: Base, side: dict, answer: Answer | None = None
    ) -> None:
        """Keep what the base has generated, for settings that `key` holds; drop an older text.
        `answer` has its tokens."""
        self._text = key, weakref.ref(base), side
        self.base_answer = answer

    def text(self, key: Hashable, base: Base | None = None) -> dict | None:
        """What was kept for these settings, and None if there is nothing, or only of another
        `base`."""
        if self._text is None or self._text[0] != key:
            return None
        if base is not None and self._text[1]() is not base:
            return None
        return self._text[2]
