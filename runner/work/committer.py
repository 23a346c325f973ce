"""Group commit for any store: what comes while a commit is under way goes into the next one together.

Whoever finds no commit under way makes one himself, for all that is pending: a lone caller waits for the disk and for no other
thread. What came meanwhile is left to the committer's own thread, so that nobody works for others longer than for himself.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from functools import partial
from typing import Final

from asyncflow.errors import Unavailable
from runner.forks import renew_after_fork
from runner.stores.base import Failed, Outcome, Store, Write
from runner.work.apart import Apart
from runner.work.flights import Flights, Pending

LOG = logging.getLogger(__name__)

BATCH_WRITES_MAX: Final = 200
"""More in one transaction would only make the first of them wait; measured gains end well below."""
QUICK_SECONDS: Final = 0.002
"""Commits that take less on average may be made on an event loop: it is held up no longer than by a few callbacks."""
_SMOOTHING: Final = 0.2
"""How much the last commit counts in that average."""


class Committer:
    """The only way to the store's `commit` in a process."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._closed = False
        self._seconds = QUICK_SECONDS
        self._apart = Apart(store) if store.commits_apart else None
        self.begin_anew()
        renew_after_fork(self)

    def begin_anew(self) -> None:
        """Forget what another process, the parent, has under way."""
        self._lock = threading.Lock()
        self._more = threading.Condition(self._lock)
        self._pending: list[Pending] = []
        self._committing = False
        """Somebody commits now; he hands on to the thread what has come meanwhile."""
        self._thread: threading.Thread | None = None
        self._flights: Flights | None = None

    def on_loop(self, loop: asyncio.AbstractEventLoop) -> None:
        """Let *loop*, on which this is called and `submit` will be, wait for what is submitted, if the store is far away."""
        if self._store.remote and self._apart is None:
            self._flights = Flights(self._store, loop, partial(self._enter, lead=False))

    def off_loop(self) -> None:
        """Wait for what is under way on the loop, which ends; call it there."""
        flights, self._flights = self._flights, None
        if flights is not None:
            flights.close()

    @property
    def quick(self) -> bool:
        """Whether commits are so quick that an event loop may wait for them."""
        return self._seconds < QUICK_SECONDS and not self._store.remote

    def save(self, write: Write) -> Outcome:
        """Save *write* and wait for its outcome."""
        if self._apart is not None:
            return self._apart.save(write)
        future: Future[Outcome] = Future()
        self._enter([(write, future.set_result)], lead=True)
        return future.result()

    def save_at_once(self, write: Write) -> Outcome | None:
        """Save *write* and give its outcome, if an event loop may wait for it; None: nothing was done, submit it."""
        if not self.quick:
            return None
        with self._lock:
            if self._committing or self._pending or self._closed:
                return None
            self._committing = True
        outcomes: list[Outcome] = []
        self._commit([(write, outcomes.append)])
        self._hand_over()
        return outcomes[0]

    def submit(self, pending: Sequence[Pending]) -> None:
        """Save these soon; each `told` gets its outcome, now or in another thread, and must not block."""
        if self._apart is not None:
            self._apart.submit(pending)
            return
        if self._flights is not None:
            self._flights.take(pending)
            return
        self._enter(pending, lead=self.quick)

    def close(self) -> None:
        """Finish what is pending, then stop."""
        if self._apart is not None:
            self._apart.close()
        with self._lock:
            self._closed = True
            self._more.notify_all()
            thread = self._thread
        if thread is not None:
            thread.join()

    # -- taking turns --------------------------------------------------------------------------------------------------

    def _enter(self, pending: Sequence[Pending], *, lead: bool) -> None:
        with self._lock:
            closed = self._closed
            if not closed:
                self._pending += pending
                if self._committing or not lead:
                    self._hand_on()
                    return
                self._committing = True
        if closed:
            error = Unavailable("the runner is closed: nothing was saved")
            for _, told in pending:
                told(Failed(error))
            return
        self._commit_pending()
        self._hand_over()

    def _hand_over(self) -> None:
        """Let others commit."""
        with self._lock:
            self._committing = False
            if self._pending:
                self._hand_on()

    def _hand_on(self) -> None:
        """Leave what is pending to the thread; call with the lock held."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="asyncflow-committer", daemon=True)
            self._thread.start()
        self._more.notify()

    def _run(self) -> None:
        while True:
            with self._lock:
                while self._committing or not self._pending:
                    if self._closed and not self._pending:
                        return
                    self._more.wait()
                self._committing = True
            self._commit_pending()
            with self._lock:
                self._committing = False
                self._more.notify_all()

    # -- committing ----------------------------------------------------------------------------------------------------

    def _commit_pending(self) -> None:
        with self._lock:
            batch, self._pending = self._pending[:BATCH_WRITES_MAX], self._pending[BATCH_WRITES_MAX:]
        self._commit(batch)

    def _commit(self, batch: Sequence[Pending]) -> None:
        began = time.monotonic()
        try:
            outcomes = self._store.commit([write for write, _ in batch])
        except Exception as error:
            LOG.exception("the store raised, though it promises not to")
            unknown = Unavailable(f"the store failed: {error}")
            outcomes = [Failed(unknown, in_doubt=True)] * len(batch)
        self._seconds += (time.monotonic() - began - self._seconds) * _SMOOTHING
        for (_, told), outcome in zip(batch, outcomes, strict=True):
            try:
                told(outcome)
            except Exception:
                LOG.exception("whoever waited for a save failed to hear its outcome")
