"""The scheduler of one host: wake-ups go to the worker of this process; others find what is due in the store."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import ClassVar, Protocol

from runner.schedulers.base import Scheduler
from runner.stores.base import Key


class Wakeable(Protocol):
    """A worker, as far as it can be woken."""

    def wake(self, key: Key) -> None:
        """Look at an instance now."""
        ...

    def look_out(self, at: datetime | None = None) -> None:
        """Ask the store what is due *at* that instant, or now."""
        ...


class LocalScheduler(Scheduler):
    """Wakes the worker of this process, while there is one; each worker looks into the store by itself besides.

    Args:
        now: The store's clock.
    """

    delivers: ClassVar[bool] = False

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._now = now
        self.worker: Wakeable | None = None

    def wake(self, key: Key, at: datetime) -> bool:
        """See `Scheduler.wake`."""
        worker = self.worker
        if worker is None:
            return False
        if at <= self._now():
            worker.wake(key)
        else:
            worker.look_out(at)
        return True

    def close(self) -> None:
        """See `Scheduler.close`."""
        self.worker = None
