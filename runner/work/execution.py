"""Running actions: async ones on the event loop, sync ones in a pool of threads; each with its timeout."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import logging
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Final

from asyncflow.instance import Message
from asyncflow.leases import Run, failed, finished
from asyncflow.workflow import CURRENT

LOG = logging.getLogger(__name__)

ZOMBIE_FACTOR: Final = 4
"""Threads of timed-out actions may grow the pool to this many times its size; then the worker is unhealthy (issue: hung code)."""
DRAIN_SECONDS: Final = 25.0
"""How long a stop waits for running actions: within the 30 s that orchestrators give after SIGTERM."""
GIVE_BACK_SECONDS: Final = 2.0
"""How long after that cancelled actions may take to end and be given back, in one more write each."""
STALL_SECONDS: Final = 1.0
"""An async action that keeps the event loop this long is named in a warning: everything else waits for it."""

Ended = Callable[[str, Message | None], None]
"""Called on the loop with the token and the result; None: the action was stopped before its end."""


class Execution:
    """The attempts in flight of one process."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        places: int,
        now: Callable[[], Any],
        ended: Ended,
        thread_back: Callable[[], None],
        watch_copies: bool,
    ) -> None:
        self._loop = loop
        self._places = places
        self._now = now
        self._ended = ended
        self._watch_copies = watch_copies
        self._blank = contextvars.copy_context()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._expired: set[str] = set()
        """Async attempts that were cancelled because their time is over."""
        self._thread_back = thread_back
        self._threads = _Threads(loop, self._zombie_ended)
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._cancelled: set[str] = set()
        self._waiting: dict[str, Run] = {}
        """Sync runs in flight, by token."""

    # -- places --------------------------------------------------------------------------------------------------------

    @property
    def zombies(self) -> int:
        """How many threads still run an action that has timed out."""
        return self._threads.zombies

    @property
    def healthy(self) -> bool:
        """Whether sync steps can be begun: not all spare threads are kept by actions that timed out."""
        return self.zombies < self._places * (ZOMBIE_FACTOR - 1)

    @property
    def running(self) -> int:
        """How many attempts are in flight."""
        return len(self._tasks) + len(self._waiting)

    def cancelled(self, token: str) -> Callable[[], bool]:
        """What tells the action of *token* that it should stop."""
        flags = self._cancelled
        return lambda: token in flags

    # -- begin and stop ------------------------------------------------------------------------------------------------

    def begin(self, run: Run) -> None:
        """Run an attempt whose lease is saved."""
        if inspect.iscoroutinefunction(run.action):
            self._begin_task(run, run.call)
            return
        self._waiting[run.token] = run
        self._timers[run.token] = self._loop.call_later(run.timeout.total_seconds(), self._time_out, run)
        self._threads.submit(run, self._thread_ended)

    def tell(self, token: str) -> None:
        """Let `context.cancelled` of that attempt be true."""
        self._cancelled.add(token)

    def stop(self, token: str) -> None:
        """The attempt's lease is gone: an async action is cancelled, a sync one is told and its result dropped."""
        self._cancelled.add(token)
        task = self._tasks.get(token)
        if task is not None:
            task.cancel()

    def stop_all(self) -> list[str]:
        """Cancel every async action that may be given back; give the tokens of those that are left to end or lapse."""
        left = list(self._waiting)
        for token, task in list(self._tasks.items()):
            self._cancelled.add(token)
            task.cancel()
        return left

    def close(self) -> None:
        """Let the threads of the pool end when they are done."""
        self._threads.close()

    # -- async ---------------------------------------------------------------------------------------------------------

    def _begin_task(self, run: Run, call: Callable[[], Any]) -> None:
        name = f"{run.context.workflow}/{run.context.id} {run.path}"
        # A context of its own: what an action sets there must not reach the next step, nor another instance.
        task = self._loop.create_task(self._drive(run, call), name=name, context=self._blank.copy())
        self._tasks[run.token] = task
        task.add_done_callback(functools.partial(self._never_began, run))

    def _expire(self, token: str) -> None:
        task = self._tasks.get(token)
        if task is not None:
            self._expired.add(token)
            task.cancel()

    def _never_began(self, run: Run, _: asyncio.Task[None]) -> None:
        """Answer for a task that was cancelled before its first turn, so that nothing in it could."""
        if self._tasks.pop(run.token, None) is not None:
            self._cancelled.discard(run.token)
            stopped = failed(run, TimeoutError("the worker was stopped"), at=self._now())
            self._ended(run.token, None if run.idempotent else stopped)

    async def _drive(self, run: Run, call: Callable[[], Any]) -> None:
        CURRENT.set(run.context)
        began = time.monotonic()
        seconds = run.timeout.total_seconds()
        timer = self._loop.call_later(seconds, self._expire, run.token)
        message: Message | None
        try:
            value = await call()
            message = finished(run, value, at=self._now(), took_ms=_since(began), watch_copy=self._watch_copies)
        except asyncio.CancelledError:
            if run.token in self._expired:
                message = failed(run, TimeoutError(f"ran past its timeout of {seconds:g} s"), at=self._now(), took_ms=_since(began))
            elif run.idempotent:
                message = None
            else:
                message = failed(run, TimeoutError("the worker was stopped"), at=self._now(), took_ms=_since(began))
        except BaseException as error:  # noqa: BLE001 - whatever an action raises is the attempt's failure
            message = failed(run, error, at=self._now(), took_ms=_since(began))
        timer.cancel()
        self._expired.discard(run.token)
        self._tasks.pop(run.token, None)
        self._cancelled.discard(run.token)
        self._ended(run.token, message)

    # -- sync ----------------------------------------------------------------------------------------------------------

    def _thread_ended(self, run: Run, value: Any, error: BaseException | None, took_ms: float) -> None:
        timer = self._timers.pop(run.token, None)
        if timer is None:
            self._threads.take_back(run)  # it ran past its timeout just as it ended; its result is dropped
            return
        timer.cancel()
        del self._waiting[run.token]
        if error is None and inspect.isawaitable(value):
            awaitable = value

            async def wait() -> Any:
                return await awaitable

            self._begin_task(run, wait)
            return
        self._cancelled.discard(run.token)
        if error is not None:
            message = failed(run, error, at=self._now(), took_ms=took_ms)
        else:
            message = finished(run, value, at=self._now(), took_ms=took_ms, watch_copy=self._watch_copies)
        self._ended(run.token, message)

    def _zombie_ended(self, token: str) -> None:
        self._cancelled.discard(token)
        self._thread_back()

    def _time_out(self, run: Run) -> None:
        """A sync action cannot be stopped: its attempt has failed, its thread no longer holds a place (rule 16)."""
        self._timers.pop(run.token, None)
        self._waiting.pop(run.token, None)
        self._cancelled.add(run.token)
        self._threads.abandon(run)
        seconds = run.timeout.total_seconds()
        name = f"{run.context.workflow}/{run.context.id}"
        text = "%s: %s ran past its timeout of %s s; its thread goes on, its result is dropped"
        LOG.warning(text, name, run.path, seconds, extra={"instance": name, "thread_id": run.thread, "path": run.path})
        self._ended(run.token, failed(run, TimeoutError(f"ran past its timeout of {seconds:g} s"), at=self._now()))


def _since(began: float) -> float:
    return round((time.monotonic() - began) * 1000, 3)


class _Threads:
    """Threads for sync actions; ends are handed to the loop many at a time, which is what makes small steps fast."""

    def __init__(self, loop: asyncio.AbstractEventLoop, back: Callable[[str], None]) -> None:
        self._loop = loop
        self._back = back
        self._jobs: SimpleQueue[tuple[Run, Callable[..., None]] | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._idle = 0
        self._count = 0
        self._ends: list[tuple[Callable[..., None], Run, Any, BaseException | None, float]] = []
        self._abandoned: set[str] = set()
        self.zombies = 0

    def submit(self, run: Run, ended: Callable[..., None]) -> None:
        with self._lock:
            grow = self._idle == 0
            if grow:
                self._count += 1
            else:
                self._idle -= 1
        if grow:
            threading.Thread(target=self._work, name="asyncflow-action", daemon=True).start()
        self._jobs.put((run, ended))

    def abandon(self, run: Run) -> None:
        with self._lock:
            self._abandoned.add(run.token)
            self.zombies += 1

    def take_back(self, run: Run) -> None:
        with self._lock:
            abandoned = run.token in self._abandoned
            if abandoned:
                self._abandoned.discard(run.token)
                self.zombies -= 1
        if abandoned:
            self._back(run.token)

    def close(self) -> None:
        with self._lock:
            count = self._count
        for _ in range(count):
            self._jobs.put(None)

    def _work(self) -> None:
        while True:
            job = self._jobs.get()
            if job is None:
                return
            run, ended = job
            began = time.monotonic()
            value: Any = None
            error: BaseException | None = None
            try:
                value = contextvars.copy_context().run(run.call)
            except BaseException as raised:  # noqa: BLE001 - whatever an action raises is the attempt's failure
                error = raised
            self._hand_over(ended, run, value, error, _since(began))

    def _hand_over(self, ended: Callable[..., None], run: Run, value: Any, error: BaseException | None, took_ms: float) -> None:
        with self._lock:
            self._idle += 1
            if run.token in self._abandoned:
                self._abandoned.discard(run.token)
                self.zombies -= 1
                tell: Callable[[], None] = functools.partial(self._back, run.token)
            else:
                self._ends.append((ended, run, value, error, took_ms))
                if len(self._ends) > 1:
                    return
                tell = self._drain
        try:
            self._loop.call_soon_threadsafe(tell)
        except RuntimeError:
            return  # the loop is closed: nobody waits for it any more

    def _drain(self) -> None:
        with self._lock:
            ends, self._ends = self._ends, []
        for ended, run, value, error, took_ms in ends:
            ended(run, value, error, took_ms)


class StallWatch:
    """Names the async action that keeps the event loop busy."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._beat = time.monotonic()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="asyncflow-stall-watch", daemon=True)

    def start(self) -> None:
        """Begin to watch; call on the loop."""
        self._pulse()
        self._thread.start()

    def close(self) -> None:
        """Stop watching."""
        self._closed.set()

    def _pulse(self) -> None:
        self._beat = time.monotonic()
        if not self._closed.is_set():
            self._loop.call_later(STALL_SECONDS / 2, self._pulse)

    def _watch(self) -> None:
        said: Any = None
        while not self._closed.wait(STALL_SECONDS / 2):
            late = time.monotonic() - self._beat
            if late < STALL_SECONDS * 1.5:
                continue
            task = asyncio.current_task(self._loop)
            if task is not None and task is not said:
                said = task
                LOG.warning(
                    "%s blocks the event loop for %.1f s: make it a plain function, or await what takes time", task.get_name(), late
                )
