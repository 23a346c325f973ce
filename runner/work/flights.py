"""Commits on an event loop, for a store over a network: they are sent at once and answered later, and no thread waits for them.

A thread that waits for a server needs the interpreter again when the answer comes, and a busy loop gives that up late: the same
commits took three times as long in one. What is saved while all flights are under way goes into the next one together.
"""

from __future__ import annotations

import asyncio
import logging
import select
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from runner.stores.base import CommitAgain, Flight, Outcome, Store, Write

LOG = logging.getLogger(__name__)

FLIGHTS: Final = 2
"""How many commits are under way at once: while one waits for the disk, the next is on its way. More of them are only smaller."""
FLIGHT_WRITES_MAX: Final = 200
"""How many writes go into one."""

Told = Callable[[Outcome], None]
Pending: TypeAlias = tuple[Write, Told]


LOOK_SECONDS: Final = 1.0
"""How often it is looked whether an answer has been waited for too long: a timer for each commit costs more than sending it."""

CLOSE_SECONDS: Final = 3.0
"""How long a worker that ends waits for what is under way: who stops it does not wait for a server that has stopped too."""


@dataclass(eq=False, slots=True)
class _UnderWay:
    flight: Flight
    batch: Sequence[Pending]
    until: float
    writing: bool = False


class Flights:
    """Commits what it is given; everything here is called on *loop*.

    Args:
        store: Where to.
        loop: Which waits for the answers.
        leave: Takes what cannot be committed without waiting.
    """

    def __init__(self, store: Store, loop: asyncio.AbstractEventLoop, leave: Callable[[Sequence[Pending]], None]) -> None:
        self._store = store
        self._loop = loop
        self._leave = leave
        self._waiting: list[Pending] = []
        self._under_way: set[_UnderWay] = set()
        self._looking = False

    def take(self, pending: Sequence[Pending]) -> None:
        """Save these soon; each is told its outcome, later or in another thread."""
        self._waiting += pending
        self._depart()

    def close(self) -> None:
        """Wait for what is under way, and leave the rest."""
        waiting, self._waiting = self._waiting, []
        if waiting:
            self._leave(waiting)
        until = time.monotonic() + CLOSE_SECONDS
        while self._under_way:
            one = next(iter(self._under_way))
            poll = select.poll()
            poll.register(one.flight.descriptor, select.POLLIN | (select.POLLOUT if one.flight.wants_write else 0))
            if poll.poll(max(min(one.until, until) - time.monotonic(), 0.0) * 1_000):
                self._advance(one)
            else:
                self._lose(one)

    def _depart(self) -> None:
        while self._waiting and len(self._under_way) < FLIGHTS:
            batch, self._waiting = self._waiting[:FLIGHT_WRITES_MAX], self._waiting[FLIGHT_WRITES_MAX:]
            flight = self._store.begin_commit([write for write, _ in batch])
            if flight is None:
                self._leave(batch)
                continue
            one = _UnderWay(flight, batch, time.monotonic() + flight.patience)
            self._under_way.add(one)
            self._look_after(one)
            if not self._looking:
                self._looking = True
                self._loop.call_later(LOOK_SECONDS, self._look)

    def _look(self) -> None:
        """Give up what has waited for too long."""
        now = time.monotonic()
        for one in list(self._under_way):
            if one.until < now:
                self._lose(one)
        self._looking = bool(self._under_way)
        if self._looking:
            self._loop.call_later(LOOK_SECONDS, self._look)

    def _look_after(self, one: _UnderWay) -> None:
        self._loop.add_reader(one.flight.descriptor, self._advance, one)
        if one.flight.wants_write:
            one.writing = True
            self._loop.add_writer(one.flight.descriptor, self._advance, one)

    def _let_go(self, one: _UnderWay) -> None:
        self._loop.remove_reader(one.flight.descriptor)
        if one.writing:
            one.writing = False
            self._loop.remove_writer(one.flight.descriptor)

    def _advance(self, one: _UnderWay) -> None:
        # Before it goes on: at its end the connection is another's.
        self._let_go(one)
        try:
            outcomes = one.flight.advance()
        except CommitAgain:
            self._under_way.discard(one)
            self._leave(one.batch)
        except Exception:
            LOG.exception("the store raised, though it promises not to")
            self._lose(one)
            return
        else:
            if outcomes is None:
                self._look_after(one)
                return
            self._under_way.discard(one)
            self._tell(one.batch, outcomes)
        self._depart()

    def _lose(self, one: _UnderWay) -> None:
        self._let_go(one)
        self._under_way.discard(one)
        self._tell(one.batch, one.flight.lose())
        self._depart()

    @staticmethod
    def _tell(batch: Sequence[Pending], outcomes: Sequence[Outcome]) -> None:
        for (_, told), outcome in zip(batch, outcomes, strict=True):
            try:
                told(outcome)
            except Exception:
                LOG.exception("whoever waited for a save failed to hear its outcome")
