"""Commits of one write each, for a store that gains nothing by several in one: nobody waits for a neighbour that is slow."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from asyncflow.errors import Unavailable
from runner.forks import renew_after_fork
from runner.stores.base import Failed, Outcome, Store, Write
from runner.work.flights import Pending, Told

LOG = logging.getLogger(__name__)

COMMITS_AT_ONCE: Final = 32
"""How many writes of workers are on their way at once: their threads only wait, and the answers of a far server take long."""


class Apart:
    """Commits to *store* what it is given; each method may be called from any thread."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._closed = False
        self.begin_anew()
        renew_after_fork(self)

    def begin_anew(self) -> None:
        """Leave the threads to the parent."""
        self._pool = ThreadPoolExecutor(COMMITS_AT_ONCE, thread_name_prefix="asyncflow-committer")

    def save(self, write: Write) -> Outcome:
        """Save *write* here and now."""
        if self._closed:
            return Failed(Unavailable("the runner is closed: nothing was saved"))
        try:
            return self._store.commit([write])[0]
        except Exception as error:
            LOG.exception("the store raised, though it promises not to")
            return Failed(Unavailable(f"the store failed: {error}"), in_doubt=True)

    def submit(self, pending: Sequence[Pending]) -> None:
        """Save these soon; each is told its outcome in another thread."""
        for write, told in pending:
            try:
                self._pool.submit(self._save_and_tell, write, told)
            except RuntimeError:  # closed
                self._save_and_tell(write, told)

    def close(self) -> None:
        """Finish what is pending, then stop."""
        self._pool.shutdown()
        self._closed = True

    def _save_and_tell(self, write: Write, told: Told) -> None:
        outcome = self.save(write)
        try:
            told(outcome)
        except Exception:
            LOG.exception("whoever waited for a save failed to hear its outcome")
