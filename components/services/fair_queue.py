"""A fair queue for computing: a fixed number of turns at a time, and a place in the queue for each.

First come, first served would let one person's ten requests go before another's first. Here a
request waits behind everybody who has fewer before it. Clients can make up sessions, so requests
with equal counts also alternate between network addresses.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from surgery import SurgeryError

from .client_address import Visitor, party
from .jobs import steps

Item = TypeVar("Item")
_LOOK = 0.3  # seconds between checks of the place
_MOST = 64  # that wait at a time
# One for each processor: two answers on a processor each come sooner than one after the other on
# both, which for small models spend their time waiting for one another.
AT_ONCE = max(1, min(4, os.cpu_count() or 1))


@dataclass(eq=False)
class _Ticket:
    who: tuple[str, str]  # address and session
    rank: tuple[int, int]  # how many of the same session came before, arrival
    called: threading.Event = field(default_factory=threading.Event)


class FairQueue:
    """Turns at computing, for all sessions of a page."""

    def __init__(
        self,
        at_once: int = AT_ONCE,
        most: int = _MOST,
        share: Callable[[int], None] | None = None,
        people: int = 40,
    ) -> None:
        """`share(n)` is called before each step of the work with the number of turns that are
        taken. Of the `most` that may wait, `people` may come from one network address."""
        self._people = people
        self._free, self._most, self._share = at_once, most, share
        self._at_once = at_once
        self._lock = threading.Lock()
        self._waiting: list[_Ticket] = []
        self._working: list[_Ticket] = []
        self._served: dict[str, int] = {}  # when an address had its last turn
        self._holding: Counter[tuple] = Counter()  # tickets of each session, waiting or at work
        self._arrivals = itertools.count()

    def queued(
        self, who: Visitor | str | None, work: Iterator[Item], waiting: Callable[[int], Item]
    ) -> Iterator[Item]:
        """Yield `waiting(place)`, from 1, until it is `who`'s turn, then the items of `work`, and
        `waiting(0)` when a step takes long: it yields at least twice a second.

        Closing it early passes the turn on as soon as the current step ends. Raises `SurgeryError`
        if too many are waiting already.
        """
        ticket = self._join(who or f"nobody {next(self._arrivals)}")
        try:
            wait = 0.0
            while not ticket.called.wait(wait):
                wait = _LOOK
                if place := self._place(ticket):
                    yield waiting(place)
        except BaseException:
            self._close(work, ticket)
            raise
        for item in steps(self._shared(work), ended=lambda: self._close(work, ticket)):
            yield waiting(0) if item is None else item

    def _shared(self, work: Iterator[Item]) -> Iterator[Item]:
        while True:
            if self._share:
                self._share(self.taken)
            try:
                item = next(work)
            except StopIteration:
                return
            yield item

    def _close(self, work: Iterator[Item], ticket: _Ticket) -> None:
        try:
            if close := getattr(work, "close", None):
                close()
        finally:
            self._leave(ticket)

    def __len__(self) -> int:
        """How many wait."""
        return len(self._waiting)

    @property
    def sessions(self) -> int:
        """How many sessions wait or have a turn."""
        return len(self._holding)

    @property
    def taken(self) -> int:
        """How many turns are taken."""
        return self._at_once - self._free

    @property
    def free(self) -> int:
        """How many turns are not taken."""
        return self._free

    def _join(self, visitor: Visitor | str) -> _Ticket:
        with self._lock:
            arrival = next(self._arrivals)
            if not isinstance(visitor, Visitor):
                visitor = Visitor(visitor)
            session = visitor.session or f"nobody {arrival}"
            # Without an address (a local app) each session counts separately.
            address = party(visitor.address) if visitor.address else f"of {session}"
            who = (address, session)
            from_there = sum(other.who[0] == address for other in self._waiting)
            if len(self._waiting) >= self._most or from_there >= self._people:
                raise SurgeryError("Too many visitors are waiting. Try again in a minute.")
            ticket = _Ticket(who, (self._holding[who], arrival))
            self._holding[who] += 1
            self._waiting.append(ticket)
            self._call()
            return ticket

    def _place(self, ticket: _Ticket) -> int:
        with self._lock:
            if ticket not in self._waiting:
                return 0
            return 1 + self._order().index(ticket)

    def _order(self) -> list[_Ticket]:
        """The waiting tickets, next one first: by how many of the same session come before, then
        alternating between addresses, longest wait first."""
        before = Counter(ticket.who[0] for ticket in self._working)
        ranked = []
        for ticket in sorted(self._waiting, key=lambda ticket: ticket.rank):
            address, (own, arrival) = ticket.who[0], ticket.rank
            ranked.append((own, before[address], self._served.get(address, -1), arrival, ticket))
            before[address] += 1
        return [ticket for *_, ticket in sorted(ranked, key=lambda item: item[:4])]

    def _leave(self, ticket: _Ticket) -> None:
        with self._lock:
            if ticket in self._waiting:
                self._waiting.remove(ticket)
            else:
                self._working.remove(ticket)
                self._free += 1
            self._holding[ticket.who] -= 1
            if not self._holding[ticket.who]:
                del self._holding[ticket.who]
            here = {other.who[0] for other in (*self._waiting, *self._working)}
            self._served = {place: when for place, when in self._served.items() if place in here}
            self._call()

    def _call(self) -> None:
        while self._free and self._waiting:
            first = self._order()[0]
            self._waiting.remove(first)
            self._working.append(first)
            self._served[first.who[0]] = next(self._arrivals)
            self._free -= 1
            first.called.set()


def alternate(streams: Mapping[str, Iterator[str]]) -> Iterator[tuple[str, str]]:
    """Yield a piece from each stream in turn. All streams are closed at the end, or when this
    generator is closed early."""
    waiting = dict(streams)
    try:
        while waiting:
            for who, stream in list(waiting.items()):
                try:
                    yield who, next(stream)
                except StopIteration:
                    del waiting[who]
    finally:
        for stream in streams.values():
            if close := getattr(stream, "close", None):
                close()
