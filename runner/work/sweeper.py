"""The sweep of a cron job: finds what is due and was not woken, wakes it, or runs it here when the scheduler refuses (rule 21)."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from asyncflow import limits
from asyncflow.errors import NotFound, Unavailable
from runner.forks import renew_after_fork
from runner.schedulers.base import Scheduler
from runner.stores.base import Key, Store
from runner.work.request_worker import RequestWorker

LOG: Final = logging.getLogger("asyncflow")

GRACE: Final = timedelta(seconds=limits.SWEEP_GRACE_SECONDS)
PAGE: Final = 256
"""How many due instances are asked for at once at first."""
PAGE_GROWS: Final = 4
"""How many times more the next time, while those that were woken already fill half of a page: some stores give them again."""
PAGE_MAX: Final = 131_072
"""Where that ends: an outage over a hundred thousand instances is seen whole."""
SWEEP_PART: Final = 0.8
"""How much of a request a sweep takes at most, where requests are short: what it runs at last has to end in it."""
AT_ONCE: Final = 16
"""How many wake-ups are made at once: each takes some 30 ms at a queue far away, so this is about what a queue takes in."""
AGAIN: Final = timedelta(minutes=5)
"""After how long an instance that is due still is woken again; doubled each time: its wake-up waits in a long queue, or is lost."""
AGAIN_MAX: Final = timedelta(hours=1)
"""The longest of these: a wake-up that was lost, and lost again when it was repeated, is rare."""
COUNT_MAX: Final = 1_000
"""How far what is left is counted: whoever reads it wants to know whether it is some, or many."""


@dataclass(slots=True)
class Swept:
    """What one sweep has done.

    Args:
        woken: How many instances were due, and somebody was woken for them.
        ran: How many were run here, since the scheduler refused.
        waiting: How many were due, and had been woken lately.
        left: How many are due and were not seen to; counted up to 1,000.
        deleted: How many had expired.
    """

    woken: int = 0
    ran: int = 0
    waiting: int = 0
    left: int = 0
    deleted: int = 0


@dataclass(slots=True)
class _Woken:
    at: datetime
    times: int


@dataclass(slots=True)
class _Bounds:
    """How far one pass may go.

    Args:
        until: After this nothing more is begun, by the monotonic clock.
        end: By this what runs here has to be over.
    """

    until: float
    end: float
    stopped: bool = False
    left: set[Key] = field(default_factory=set)

    @property
    def is_over(self) -> bool:
        return self.stopped or time.monotonic() >= self.until


class Sweeper:
    """Sweeps over all due instances of some workflows; any number may, at once and anywhere.

    Args:
        worker: Runs what the scheduler refuses.
        tidy: Deletes what has expired, and gives how many that were, at most a few hundred.
    """

    def __init__(
        self, store: Store, scheduler: Scheduler, worker: RequestWorker, names: Sequence[str], tidy: Callable[[datetime], int]
    ) -> None:
        self._store = store
        self._scheduler = scheduler
        self._worker = worker
        self._names = names
        self._tidy = tidy
        self.begin_anew()
        renew_after_fork(self)

    def begin_anew(self) -> None:
        """Forget the lock of another process, the parent."""
        self._lock = threading.Lock()
        self._woken: dict[Key, _Woken] = {}
        """Who was woken by this process and was due still when seen last: a store may hand out the same again and again."""

    def sweep(self, seconds: float = limits.SWEEP_SECONDS) -> Swept:
        """See to what is due, for at most about *seconds*; a step that was begun here may end later, within the request.

        Raises:
            Unavailable: the store is away, or this process is being stopped.
        """
        swept = Swept()
        began = time.monotonic()
        until = began + seconds
        while (deleted := self._tidy(self._store.now())) and time.monotonic() < until:
            swept.deleted += deleted
        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="asyncflow-sweep") as pool:
            self._pass(swept, pool, _Bounds(until, end=began + self._worker.request_seconds))
        level = logging.WARNING if swept.left else logging.INFO if swept.woken or swept.ran else logging.DEBUG
        LOG.log(level, "swept: %d woken, %d run here, %d left", swept.woken, swept.ran, swept.left)
        return swept

    def _pass(self, swept: Swept, pool: ThreadPoolExecutor, bounds: _Bounds) -> None:
        """Go through everything that is due."""
        began, seen = self._store.now(), set[Key]()
        limit = min(max(PAGE, 2 * len(self._woken)), PAGE_MAX)
        found = self._held_by_the_dead()
        while True:
            due = [Key(*one) for one in self._due(limit)]
            fresh = self._fresh([*found, *due])
            seen.update(due)
            for key, done in zip(fresh, pool.map(lambda one: self._see_to(one, bounds), fresh), strict=True):
                swept.woken += done == "woken"
                swept.ran += done == "ran"
                if done == "left":
                    bounds.left.add(key)
            if bounds.is_over:
                swept.left = self._count(bounds)
                return
            if len(due) < limit or (limit == PAGE_MAX and not fresh):
                break
            if len(fresh) < len(due) / 2:
                limit = min(limit * PAGE_GROWS, PAGE_MAX)
            found = []
        with self._lock:
            swept.waiting = sum(key in self._woken and self._woken[key].at < began for key in seen)
        self._forget(began, seen)

    def _see_to(self, key: Key, bounds: _Bounds) -> str:
        """Wake somebody for an instance, or run it here; `woken`, `ran` or `left`."""
        bounds.stopped = bounds.stopped or self._worker.draining
        if bounds.is_over:
            return "left"
        now = self._store.now()
        if self._scheduler.wake(key, now):
            with self._lock:
                known = self._woken.get(key)
                self._woken[key] = _Woken(now, 1 if known is None else known.times + 1)
            return "woken"
        try:
            worked = self._worker.run(key, seconds=bounds.end - time.monotonic())
        except NotFound:  # due work is asked for by name, so this was held by a process with other code
            return "ran"
        except Unavailable:
            bounds.stopped = True
            raise
        if worked.due:
            bounds.stopped = True  # there is no time left for a step as long as this one's
            return "left"
        return "ran"

    def _due(self, limit: int) -> Sequence[Key]:
        return self._store.due(self._names, now=self._store.now() - GRACE, limit=limit, process=self._worker.process or "")

    def _held_by_the_dead(self) -> list[Key]:
        """What processes of this host held that have ended: it need not wait for its leases to lapse (rule 15)."""
        if not self._store.knows_processes:
            return []
        dead = self._worker.dead(frozenset(self._store.processes()))
        return [Key(*key) for process in dead for key in self._store.held_by(process)]

    def _fresh(self, keys: Iterable[Key]) -> list[Key]:
        """Those that nobody was woken for lately, each once."""
        now = self._store.now()
        with self._lock:
            return [key for key in dict.fromkeys(keys) if self._is_fresh(key, now)]

    def _is_fresh(self, key: Key, now: datetime) -> bool:
        known = self._woken.get(key)
        return known is None or now - known.at >= min(AGAIN * 2 ** (known.times - 1), AGAIN_MAX)

    def _count(self, bounds: _Bounds) -> int:
        """How many are due that nobody was woken for."""
        return min(len(bounds.left.union(self._fresh(Key(*one) for one in self._due(COUNT_MAX)))), COUNT_MAX)

    def _forget(self, began: datetime, seen: set[Key]) -> None:
        """Forget those that are no longer due; of a store that hands out once, those that it has not handed out again."""
        handed_out = timedelta(seconds=limits.DUE_HANDOUT_SECONDS)
        with self._lock:
            gone = [key for key, one in self._woken.items() if key not in seen and one.at + handed_out < began]
            for key in gone:
                del self._woken[key]
