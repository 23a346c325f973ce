"""Attempts of a process that has no worker: an event loop on a thread of its own, begun when the first is to be run."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future
from typing import Any

from asyncflow.instance import Message
from asyncflow.leases import Run
from runner.forks import renew_after_fork
from runner.work.execution import Execution, StallWatch

Ended = Callable[[str, Message | None], None]
"""Called on the loop with the token of an attempt and its result; None: it was stopped before its end. Must not block."""


class Actions:
    """Runs attempts whose leases are saved; its methods may be called from any thread.

    Args:
        places: How many attempts there are at once at most; whoever begins them sees to that.
        now: The store's clock.
        ended: Told of the end of each.
        settled: Called on the loop after the ends of one turn of it have been told: they may go into one write (rule 14).
        watch_copies: See `Runner`.
    """

    def __init__(
        self, *, places: int, now: Callable[[], Any], ended: Ended, settled: Callable[[], None], watch_copies: bool
    ) -> None:
        self._places = places
        self._now = now
        self._told = ended
        self._settled = settled
        self._watch_copies = watch_copies
        self.begin_anew()
        renew_after_fork(self)

    def begin_anew(self) -> None:
        """Forget the loop of another process, the parent."""
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._execution: Execution | None = None
        self._settling = False

    @property
    def healthy(self) -> bool:
        """Whether sync steps can be begun: not all threads are kept by actions that timed out."""
        execution = self._execution
        return execution is None or execution.healthy

    def cancelled(self, token: str) -> Callable[[], bool]:
        """What tells the action of *token* that it should stop."""
        return self._begun()[1].cancelled(token)

    def begin(self, runs: Sequence[Run]) -> None:
        """Run these."""
        loop, execution = self._begun()

        def begin() -> None:
            for run in runs:
                execution.begin(run)

        loop.call_soon_threadsafe(begin)

    def stop(self, *, cancelled: Collection[str] = (), gone: Collection[str] = ()) -> None:
        """Tell these attempts: a cancel has come for them, or their lease is gone."""
        if not cancelled and not gone:
            return
        loop, execution = self._begun()

        def stop() -> None:
            for token in cancelled:
                execution.tell(token)
            for token in gone:
                execution.stop(token)

        loop.call_soon_threadsafe(stop)

    def stop_all(self) -> int:
        """Cancel every async attempt; give how many sync ones are left to end or lapse."""
        loop, execution = self._begun()
        left: Future[int] = Future()
        loop.call_soon_threadsafe(lambda: left.set_result(len(execution.stop_all())))
        return left.result()

    def close(self) -> None:
        """End the loop; what still runs is left alone."""
        with self._lock:
            loop, thread = self._loop, self._thread
            self._loop = self._thread = None
        if loop is not None and thread is not None:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()

    def _begun(self) -> tuple[asyncio.AbstractEventLoop, Execution]:
        with self._lock:
            if self._loop is None or self._execution is None:
                ready: Future[tuple[asyncio.AbstractEventLoop, Execution]] = Future()
                self._thread = threading.Thread(target=self._main, args=(ready,), name="asyncflow-actions", daemon=True)
                self._thread.start()
                self._loop, self._execution = ready.result()
            return self._loop, self._execution

    def _main(self, ready: Future[tuple[asyncio.AbstractEventLoop, Execution]]) -> None:
        async def begin() -> tuple[Execution, StallWatch]:
            execution = Execution(
                loop, places=self._places, now=self._now, ended=self._ended, thread_back=self._settled,
                watch_copies=self._watch_copies,
            )  # fmt: skip
            watch = StallWatch(loop)
            watch.start()
            return execution, watch

        with asyncio.Runner() as runner:
            try:
                loop = runner.get_loop()
                execution, watch = runner.run(begin())
            except BaseException as error:
                ready.set_exception(error)
                raise
            ready.set_result((loop, execution))
            try:
                loop.run_forever()
            finally:
                watch.close()
                execution.close()

    def _ended(self, token: str, message: Message | None) -> None:
        self._told(token, message)
        if not self._settling:
            self._settling = True
            asyncio.get_running_loop().call_soon(self._settle)

    def _settle(self) -> None:
        self._settling = False
        self._settled()
