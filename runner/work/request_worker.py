"""Running instances within requests: each in the thread of the request that woke it, its actions on one loop of the process.

The loop of load, decide, save, run, wake is `runner.work.activity`, as for a worker; here a request answers it, and it ends
with the request: no step is taken whose timeout would end later (rule 15). What is left then is woken again, and goes on
elsewhere.
"""

from __future__ import annotations

import logging
import os
import random
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final

from asyncflow.definition import Definition
from asyncflow.errors import NotFound, Unavailable
from asyncflow.instance import Instance, Message
from asyncflow.leases import STEP_TIMEOUT
from runner.forks import renew_after_fork
from runner.stores.base import Key, Store
from runner.work.actions import Actions
from runner.work.activity import Plan
from runner.work.bell import Bell
from runner.work.committer import Committer
from runner.work.execution import DRAIN_SECONDS, GIVE_BACK_SECONDS
from runner.work.request_seat import SAVE_SECONDS, Seat, Worked

LOG: Final = logging.getLogger("asyncflow")

BEGIN_SECONDS: Final = 5.0
"""What a request may take until its first step begins: a document is loaded and saved."""


def too_long(definitions: Iterable[Definition[Any]], request: timedelta) -> Iterator[str]:
    """Give a line for each step that a request of that length can never run (rule 15)."""
    most = request - timedelta(seconds=BEGIN_SECONDS + SAVE_SECONDS)
    for definition in definitions:
        for place in definition.in_order():
            timeout = place.timeout or STEP_TIMEOUT
            if place.kind == "step" and timeout > most:
                yield (
                    f"{definition.name}: {place.path}: expected a timeout of at most {most.total_seconds():g} s, since a request "
                    f"takes {request.total_seconds():g} s at most, found {timeout.total_seconds():g} s ({place.source})"
                )


class RequestWorker:
    """Runs due instances in the threads of those who ask, as many attempts at once as `concurrency` says.

    Args:
        wake: Has an instance looked at later; False: it was refused.
        request: How long a request may take in all.
        retention: Of ended instances, by workflow.
    """

    def __init__(
        self,
        store: Store,
        committer: Committer,
        bell: Bell,
        definitions: Mapping[str, Definition[Any]],
        plan: Plan,
        *,
        wake: Callable[[Key, datetime], bool],
        request: timedelta,
        concurrency: int,
        retention: Callable[[str], timedelta | None],
        watch_copies: bool = False,
    ) -> None:
        self.store = store
        self.committer = committer
        self.bell = bell
        self.wake = wake
        self.request_seconds = request.total_seconds()
        self.step_seconds = self.request_seconds - BEGIN_SECONDS - SAVE_SECONDS
        """The longest timeout of a step that can be run."""
        self.concurrency = concurrency
        self._definitions = definitions
        self._plans = {name: replace(plan, retention=retention(name)) for name in definitions}
        self.actions = Actions(places=concurrency, now=store.now, ended=self.ended, settled=self.settled, watch_copies=watch_copies)
        self.begin_anew()
        renew_after_fork(self)

    def begin_anew(self) -> None:
        """Forget what another process, the parent, has in flight."""
        self.deciding = threading.Lock()
        """Held from counting the free places to taking them; deciding is work of the interpreter, one at a time anyway."""
        self._changed = threading.Condition()
        self._seats: set[Seat] = set()
        self._owners: dict[str, Seat | None] = {}
        """Whose attempt it is, by token; None: nobody waits for it any longer."""
        self._starving: dict[Seat, None] = {}
        """Who waits for a place, in order."""
        self._taken = 0
        """How many places are kept: by attempts in flight, and by those about to begin."""
        self._process: str | None = None
        self.draining = False
        # Seeded once by the system: tokens tell attempts apart, they keep no secret, and a system call for each is dear.
        self._random = random.Random(secrets.randbits(256))  # noqa: S311

    # -- one instance --------------------------------------------------------------------------------------------------

    def run(self, key: Key, *, seconds: float | None = None) -> Worked:
        """Load an instance, do what is due, save, until nothing is due or the time is over. Safe to repeat at any moment.

        Args:
            key: Which one; that it is not there, or not due, is no fault.
            seconds: How long this may take; default: a whole request.

        Raises:
            NotFound: this code has no such workflow.
            Unavailable: the store is away, this process is being stopped, or hung actions keep all its threads.
        """
        definition = self._definitions.get(key.workflow)
        if definition is None:
            raise NotFound(f"this code has no workflow {key.workflow!r}")
        until = time.monotonic() + (self.request_seconds if seconds is None else seconds) - SAVE_SECONDS
        seat = Seat(self, definition, key, self._plans[key.workflow], until=until)
        with self._at_work(seat):
            return seat.run()

    def written(self, key: Key, instance: Instance) -> None:
        """Tell the attempts of this process that an instance was saved by somebody else here: a cancel, a kill (rule 29)."""
        if not self._owners:
            return
        with self._changed:
            tokens = [token for token, seat in self._owners.items() if seat is not None and seat.key == key]
        if tokens:
            leases = {thread.lease.token: thread.lease for thread in instance.threads.values() if thread.lease is not None}
            gone = [token for token in tokens if token not in leases]
            self.actions.stop(cancelled=[one for one in tokens if one in leases and leases[one].cancel], gone=gone)

    @property
    def healthy(self) -> bool:
        """Whether steps can be begun: not all threads are kept by actions that timed out."""
        return self.actions.healthy

    @contextmanager
    def _at_work(self, seat: Seat) -> Iterator[None]:
        with self._changed:
            if self.draining:
                raise Unavailable("draining: this process takes nothing new, ask again in a moment")
            self._seats.add(seat)
        try:
            yield
        finally:
            with self._changed:
                self._seats.discard(seat)
                self._starving.pop(seat, None)
                self._taken -= seat.reserved
                for token in [token for token, owner in self._owners.items() if owner is seat]:
                    self._owners[token] = None
                self._changed.notify_all()
            self.feed()

    # -- the end of the process ----------------------------------------------------------------------------------------

    def drain(self, patience: float | None = None) -> None:
        """Take nothing more, let what runs end within *patience* seconds (25), give back what was stopped (rule 15)."""
        with self._changed:
            self.draining = True
            seats = list(self._seats)
        for seat in seats:
            seat.mail.feed()
        if self._idle(DRAIN_SECONDS if patience is None else patience):
            return
        left = self.actions.stop_all()
        if left:
            LOG.warning("%d sync actions did not end in time: their leases will lapse", left)
        self._idle(GIVE_BACK_SECONDS)
        with self._changed:
            seats = list(self._seats)
        for seat in seats:
            seat.mail.abandon()
        self._idle(GIVE_BACK_SECONDS)

    def close(self) -> None:
        """End the loop of the actions."""
        self.actions.close()

    def _idle(self, seconds: float) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: not self._seats, seconds)

    # -- places and attempts, for seats --------------------------------------------------------------------------------

    @property
    def room(self) -> int:
        """How many attempts can be begun."""
        return 0 if self.draining else max(self.concurrency - self._taken, 0)

    def reserve(self, seat: Seat, places: int) -> None:
        """Keep places for attempts of a seat that are about to begin; a negative number gives them back."""
        with self._changed:
            seat.reserved += places
            self._taken += places
        if places < 0:
            self.feed()

    def own(self, seat: Seat, tokens: Iterable[str]) -> None:
        """Hand the ends of these attempts to a seat; their places are no longer only reserved."""
        with self._changed:
            for token in tokens:
                self._owners[token] = seat
                seat.reserved -= 1

    def starve(self, seat: Seat) -> None:
        """Tell a seat when there is a place again."""
        with self._changed:
            self._starving[seat] = None
        self.feed()

    def ended(self, token: str, message: Message | None) -> None:
        """Lay down how an attempt has ended; None: it was stopped before its end."""
        with self._changed:
            self._taken -= token in self._owners
            seat = self._owners.pop(token, None)
        if seat is not None:
            seat.mail.put(token, message)

    def settled(self) -> None:
        """Let the seats take what was laid down: what ended together goes into one write (rule 14)."""
        with self._changed:
            seats = list(self._seats)
        for seat in seats:
            seat.mail.deliver()
        self.feed()

    def feed(self) -> None:
        """Let as many look again as there are places."""
        if not self._starving:
            return
        with self._changed:
            fed = list(self._starving)[: self.room]
            for seat in fed:
                del self._starving[seat]
        for seat in fed:
            seat.mail.feed()

    # -- what a decision needs -----------------------------------------------------------------------------------------

    def token(self) -> str:
        """Give a fresh random token."""
        return f"{self._random.getrandbits(128):032x}"

    def jitter(self) -> float:
        """Give a number between 0 and 1."""
        return self._random.random()

    @property
    def process(self) -> str | None:
        """The name of this process in leases, where the store keeps such names; entered at the first use."""
        if self._process is None and self.store.knows_processes:
            with self._changed:
                if self._process is None:
                    name = f"{os.getpid()}-{secrets.token_hex(6)}"
                    self.store.enter(name)
                    self._process = name
        return self._process

    def dead(self, holders: frozenset[str]) -> frozenset[str]:
        """Give those of the processes that no longer live."""
        others = holders - {self._process}
        return frozenset(self.store.dead(others)) if others else frozenset()
