"""How a caller waits: told at once by a save of this process, else by looking at growing intervals (rule 28)."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from typing import Generic, TypeVar

from asyncflow import limits

T = TypeVar("T")


class Waiting(Generic[T]):
    """One caller's wait for something of an instance, in a thread of his own (`here`) or without one (`on_loop`).

    Args:
        look: Gives what is waited for, None while it is not there. It reads the store, so it may block, and raise.
        leave: Called once, when the wait is over.
    """

    def __init__(self, look: Callable[[], T | None], leave: Callable[[], None]) -> None:
        self._look = look
        self._leave = leave
        self._told = threading.Event()
        self._wake: Callable[[], None] = self._told.set
        self._given_up = False

    def tell(self) -> None:
        """Look now; from any thread."""
        self._wake()

    def give_up(self) -> None:
        """Look once more, then end the wait; from any thread."""
        self._given_up = True
        self._wake()

    def here(self, patience: float | None) -> T | None:
        """Wait in this thread, up to *patience* seconds (None: for ever); None when it did not come."""
        try:
            found = self._look()
            for seconds in self._rests(patience):
                if found is not None:
                    break
                self._told.wait(seconds)
                self._told.clear()
                found = self._look()
            return found
        finally:
            self._leave()

    async def on_loop(self, patience: float, run: Callable[[Callable[[], T | None]], Awaitable[T | None]]) -> T | None:
        """Wait on the running event loop, which holds no thread; *run* runs each look in one."""
        loop, told = asyncio.get_running_loop(), asyncio.Event()

        def wake() -> None:
            with suppress(RuntimeError):  # the loop has ended, and with it the wait
                loop.call_soon_threadsafe(told.set)

        self._wake = wake
        try:
            found = await run(self._look)
            for seconds in self._rests(patience):
                if found is not None:
                    break
                timer = loop.call_later(seconds, told.set)
                await told.wait()
                timer.cancel()
                told.clear()
                found = await run(self._look)
            return found
        finally:
            self._leave()

    def _rests(self, patience: float | None) -> Iterator[float]:
        """How long to rest before each further look."""
        until = math.inf if patience is None else time.monotonic() + patience
        polls, rest = iter(limits.POLL_SECONDS), limits.POLL_SECONDS[-1]
        while not self._given_up and (left := until - time.monotonic()) > 0:
            rest = next(polls, rest)
            yield min(left, rest)
