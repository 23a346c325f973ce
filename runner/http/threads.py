"""The threads that requests run on; their ends are handed to the event loop many at a time."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")
_Job = tuple[Callable[[], Any], "asyncio.Future[Any]"]


class Threads:
    """At most *most* threads, begun when they are needed; to be used from one event loop.

    A `ThreadPoolExecutor` makes two futures for each work and wakes the loop for each end, which a request feels.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._loop: asyncio.AbstractEventLoop | None = None
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._count = 0
        self._free = 0
        self._ends: list[tuple[asyncio.Future[Any], Any, BaseException | None]] = []

    async def run(self, work: Callable[[], T]) -> T:
        """Run *work* in one of them, and give or raise what it does."""
        loop = self._loop
        if loop is None:
            loop = self._loop = asyncio.get_running_loop()
        ended: asyncio.Future[T] = loop.create_future()
        with self._lock:
            begin = self._free <= 0 and self._count < self._most
            self._count += begin
            self._free -= 1
        self._jobs.put((work, ended))
        if begin:
            threading.Thread(target=self._work, name="asyncflow-http", daemon=True).start()
        return await ended

    def close(self) -> None:
        """Let them end when they are done."""
        with self._lock:
            count = self._count
        for _ in range(count):
            self._jobs.put(None)

    def _work(self) -> None:
        with self._lock:
            self._free += 1
        while (job := self._jobs.get()) is not None:
            work, ended = job
            value: Any = None
            error: BaseException | None = None
            try:
                value = work()
            except BaseException as raised:  # noqa: BLE001 - it is for whoever waits for it
                error = raised
            with self._lock:
                self._free += 1
                self._ends.append((ended, value, error))
                first = len(self._ends) == 1
            del job, work, ended, value, error
            if first:
                with suppress(RuntimeError):  # the loop has ended, and nobody waits any more
                    assert self._loop is not None
                    self._loop.call_soon_threadsafe(self._tell)

    def _tell(self) -> None:
        with self._lock:
            ends, self._ends = self._ends, []
        for ended, value, error in ends:
            if ended.done():
                continue  # whoever waited was cancelled
            if error is None:
                ended.set_result(value)
            else:
                ended.set_exception(error)
