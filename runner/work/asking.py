"""How a worker asks its store: at once where it is on this host, in threads beside the event loop where it is far away."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any, Final, Generic, TypeVar

from asyncflow.errors import Unavailable
from runner.stores.base import Key, Store, Stored

LOG = logging.getLogger(__name__)

T = TypeVar("T")
W = TypeVar("W")

THREADS: Final = 4
"""How many calls are on their way at once, fewer than a store has connections: commits and senders need some too."""
LOAD_AT_ONCE: Final = 32
"""How many instances one call loads: a round trip costs as much as reading about so many, and a megabyte each is still little."""
STORE_AWAY_SECONDS: Final = 1.0
"""How long to rest when the store does not answer."""


class Asking(Generic[W]):
    """Asks *store* for a worker on *loop*; every method but `close` is called there.

    Args:
        loaded: Called with who wanted an instance, and what is stored of it.
        failed: Called with who wanted something, when asking for it has failed for another reason than a store that is away.
    """

    def __init__(
        self,
        store: Store,
        loop: asyncio.AbstractEventLoop,
        *,
        loaded: Callable[[W, Stored | None], None],
        failed: Callable[[W], None],
    ) -> None:
        self._store = store
        self._loop = loop
        self._loaded = loaded
        self._failed = failed
        self._wanted: list[tuple[W, Key]] = []
        self.pool = ThreadPoolExecutor(THREADS, thread_name_prefix="asyncflow-asking") if store.remote else None

    def close(self) -> None:
        """Let the threads end when their calls do."""
        if self.pool is not None:
            self.pool.shutdown(wait=False, cancel_futures=True)

    async def ask(self, call: Callable[..., T], *arguments: Any) -> T:
        """Give what the call gives; the loop goes on meanwhile where the store is far away."""
        if self.pool is None:
            return call(*arguments)
        return await self._loop.run_in_executor(self.pool, partial(call, *arguments))

    def load_later(self, wanting: W, key: Key) -> None:
        """Load an instance, with all others that are wanted in this turn of the loop."""
        if not self._wanted:
            self._loop.call_soon(self._load_all)
        self._wanted.append((wanting, key))

    def load_again(self, wanting: W, key: Key, error: Unavailable) -> None:
        """Load it when the store may be back: whoever wants it may have results that must not be lost."""
        LOG.warning("%s/%s cannot be loaded, trying again: %s", *key, error)
        self._loop.call_later(STORE_AWAY_SECONDS, self.load_later, wanting, key)

    def do(self, wanting: W, call: Callable[[], object], then: Callable[[], None]) -> None:
        """Make a call of somebody's, and then go on with him."""
        self._submit(call, partial(self._done, wanting, then))

    # -- in threads ----------------------------------------------------------------------------------------------------

    def _load_all(self) -> None:
        wanted, self._wanted = self._wanted, []
        for begin in range(0, len(wanted), LOAD_AT_ONCE):
            some = wanted[begin : begin + LOAD_AT_ONCE]
            keys = [key for _, key in some]
            self._submit(partial(self._store.get_many, keys), partial(self._came, some))

    def _submit(self, call: Callable[[], T], told: Callable[[Future[T]], None]) -> None:
        future: Future[T]
        if self.pool is None:
            future = Future()
            try:
                future.set_result(call())
            except Exception as error:  # noqa: BLE001 - told as a thread would
                future.set_exception(error)
            told(future)
            return
        future = self.pool.submit(call)
        future.add_done_callback(partial(self._hand_back, told))

    def _hand_back(self, told: Callable[[Future[T]], None], future: Future[T]) -> None:
        if not future.cancelled():
            with suppress(RuntimeError):  # the loop has ended, and with it whoever wanted this
                self._loop.call_soon_threadsafe(told, future)

    def _came(self, some: Sequence[tuple[W, Key]], future: Future[Sequence[Stored | None]]) -> None:
        error = future.exception()
        if error is None:
            for (wanting, _), stored in zip(some, future.result(), strict=True):
                self._loaded(wanting, stored)
        elif isinstance(error, Unavailable):
            for wanting, key in some:
                self.load_again(wanting, key, error)
        else:
            LOG.error("loading has failed", exc_info=error)
            for wanting, _ in some:
                self._failed(wanting)

    def _done(self, wanting: W, then: Callable[[], None], future: Future[object]) -> None:
        error = future.exception()
        if error is None:
            then()
            return
        LOG.warning("the store could not be told, it is looked at again when it is due: %s", error)
        self._failed(wanting)
