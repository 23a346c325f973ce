"""The one thread of a process that writes: what comes while a commit is under way goes into the next one together."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Final

from asyncflow.errors import Unavailable
from runner.stores.base import Failed, Outcome, Store, Write

LOG = logging.getLogger(__name__)

BATCH_WRITES_MAX: Final = 200
"""More in one transaction would only make the first of them wait; measured gains end well below."""

Told = Callable[[Outcome], None]


class Committer:
    """Group commit for any store: one transaction and one fsync for all that is pending."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._pending: SimpleQueue[tuple[Write, Told] | None] = SimpleQueue()
        self._closed = False
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def submit(self, write: Write, told: Told) -> None:
        """Save *write* soon; *told* gets its outcome in the committer's thread and must not block."""
        with self._lock:
            if self._closed:
                closed = Unavailable("the runner is closed: nothing was saved")
                threading.Thread(target=told, args=(Failed(closed),)).start()
                return
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="asyncflow-committer", daemon=True)
                self._thread.start()
        self._pending.put((write, told))

    def save(self, write: Write) -> Outcome:
        """Save *write* and wait for its outcome."""
        future: Future[Outcome] = Future()
        self.submit(write, future.set_result)
        return future.result()

    def close(self) -> None:
        """Finish what is pending, then stop."""
        with self._lock:
            self._closed = True
            thread = self._thread
        if thread is not None:
            self._pending.put(None)
            thread.join()

    def _run(self) -> None:
        closing = False
        while not closing:
            first = self._pending.get()
            if first is None:
                return
            batch = [first]
            while len(batch) < BATCH_WRITES_MAX and not self._pending.empty():
                more = self._pending.get()
                if more is None:
                    closing = True
                    break
                batch.append(more)
            self._commit(batch)

    def _commit(self, batch: list[tuple[Write, Told]]) -> None:
        try:
            outcomes = self._store.commit([write for write, _ in batch])
        except Exception as error:
            LOG.exception("the store raised, though it promises not to")
            unknown = Unavailable(f"the store failed: {error}")
            outcomes = [Failed(unknown, in_doubt=True)] * len(batch)
        for (_, told), outcome in zip(batch, outcomes, strict=True):
            try:
                told(outcome)
            except Exception:
                LOG.exception("whoever waited for a save failed to hear its outcome")
