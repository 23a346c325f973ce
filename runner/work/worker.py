"""The worker: answers the requests of activities on one event loop, and looks for due work.

Saves go to the committer, actions to `Execution`; everything else happens on the loop, so that no activity needs a lock.
"""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final

from asyncflow import limits
from asyncflow.definition import Definition
from asyncflow.errors import Unavailable
from asyncflow.instance import Message
from runner.stores.base import ENDED, Failed, Key, Outcome, Saved, Store
from runner.work.activity import Activity, Begin, Gather, Gathered, Load, Look, Plan, Request, Save, Sleep, Stop, Unfit, View, Wake
from runner.work.aside import set_aside
from runner.work.asking import STORE_AWAY_SECONDS, Asking
from runner.work.bell import Bell
from runner.work.committer import Committer
from runner.work.execution import DRAIN_SECONDS, GIVE_BACK_SECONDS, Execution, StallWatch
from runner.work.flights import Pending
from runner.work.telling import tell
from runner.work.worker_seat import Seat

LOG = logging.getLogger(__name__)

LOOK_SECONDS: Final = 0.2
"""How often a store on this host is asked whether another process has written: work made due there begins well within a second."""
LOOK_FAR_SECONDS: Final = 1.0
"""The same of a store over a network that does not tell by itself (`Store.listen`)."""
RECOVER_SECONDS: Final = float(limits.SWEEP_PERIOD_SECONDS)
"""How often dead processes are looked for, besides the start: the sweep period."""
HAND_OUT: Final = 256
"""How many due instances are asked for at once."""
REFILL_AT: Final = 0.75
"""At which part of its places a worker that was full asks for more: not for each one, since asking costs a query."""
SPARE: Final = 8
"""How many more instances are looked at than there are places, so that timers do not wait for long steps to end."""
SPARE_SECONDS: Final = 0.5
"""How often that many are looked at although that many wait for a place already."""


class Worker:
    """Runs the due instances of some workflows, as many attempts at once as `concurrency` says."""

    def __init__(
        self,
        store: Store,
        committer: Committer,
        bell: Bell,
        definitions: Mapping[str, Definition[Any]],
        plan: Plan,
        *,
        concurrency: int,
        process: str,
        watch_copies: bool = False,
        on_sweep: Callable[[datetime], object] | None = None,
        retention: Callable[[str], timedelta | None] = lambda _: None,
    ) -> None:
        self._store = store
        self._committer = committer
        self._bell = bell
        self._definitions = definitions
        self._plans = {name: replace(plan, retention=retention(name)) for name in definitions}
        self._concurrency = concurrency
        self._process = process
        self._watch_copies = watch_copies
        self._on_sweep = on_sweep
        self._names = list(definitions)
        self._seats: dict[Key, Seat] = {}
        self._owners: dict[str, Seat] = {}
        """Whose attempt it is, by token."""
        self._starved: dict[Key, None] = {}
        """Who found no room, in order."""
        self._refused: dict[Key, None] = {}
        """Who found no room while hung actions kept all threads."""
        self._spare_at = 0.0
        self._looks_at: datetime | None = None
        """When due work is looked for next, whoever nudges or not; None: that is being found out."""
        self._told = False
        """The store says by itself when another process has made something due."""
        self._expired = False  # an instance was found whose time is over: a sweep deletes it
        self._full = False
        """Due work is left in the store until there are places again: other processes may have some."""
        self._reserved = 0
        self._draining = False
        self._outcomes: list[tuple[Seat, Outcome]] = []
        self._outcomes_lock = threading.Lock()
        self._saves: list[Pending] = []
        """What is to be saved at the end of this turn of the loop."""
        self._ident = 0
        # Seeded once by the system: tokens tell attempts apart, they keep no secret, and a system call for each is dear.
        self._random = random.Random(secrets.randbits(256))  # noqa: S311
        self._thread: threading.Thread | None = None

    # -- life ----------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to work, on a thread of its own."""
        ready: Future[None] = Future()
        self._thread = threading.Thread(target=self._main, args=(ready,), name="asyncflow-worker", daemon=True)
        self._thread.start()
        ready.result()

    def _main(self, ready: Future[None]) -> None:
        async def main() -> None:
            self._loop = asyncio.get_running_loop()
            self._ident = threading.get_ident()
            self._nudge = asyncio.Event()
            self._stopped = asyncio.Event()
            self._execution = Execution(
                self._loop, places=self._concurrency, now=self._store.now, ended=self._attempt_ended,
                thread_back=self._feed_refused, watch_copies=self._watch_copies,
            )  # fmt: skip
            self._asking = Asking(self._store, self._loop, loaded=self._answer, failed=partial(self._leave, failed=True))
            self._committer.on_loop(self._loop)
            watch = StallWatch(self._loop)
            watch.start()
            try:
                await self._recover()
                await self._look_again()
                self._told = await self._asking.ask(self._store.listen, self._others_wrote)
                ready.set_result(None)
                await self._look_out()
            finally:
                watch.close()
                self._execution.close()
                self._committer.off_loop()
                self._asking.close()

        try:
            asyncio.run(main())
        except BaseException as error:
            if not ready.done():
                ready.set_exception(error)
            else:
                LOG.exception("the worker has stopped")
            raise

    def stop(self, patience: float = DRAIN_SECONDS) -> None:
        """Take nothing more, let what runs end within *patience* seconds, give back what was stopped (rule 15)."""
        if self._thread is None or not self._thread.is_alive():
            return
        drained = asyncio.run_coroutine_threadsafe(self._drain(patience), self._loop)
        drained.result()
        self._thread.join()

    async def _drain(self, patience: float) -> None:
        self._draining = True
        deadline = time.monotonic() + patience
        while self._seats and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
        if self._seats:
            left = self._execution.stop_all()
            if left:
                LOG.warning("%d sync actions did not end within %s s: their leases will lapse", len(left), patience)
            deadline = time.monotonic() + GIVE_BACK_SECONDS
            while self._seats_besides(left) and time.monotonic() < deadline:
                await asyncio.sleep(0.01)
        self._stopped.set()
        self._nudge.set()

    def _seats_besides(self, left: list[str]) -> bool:
        """Whether somebody is at work who does not wait for an action that goes on."""
        staying = {id(self._owners[token]) for token in left if token in self._owners}
        return len(self._seats) > len(staying)

    async def _come_to_rest(self, patience: float) -> bool:
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            await self._hand_out()
            await asyncio.sleep(0)
            if not self._seats and not self._starved and not self._outcomes:
                return True
            await asyncio.sleep(0.001)
        return False

    def wait_idle(self, patience: float) -> bool:
        """Wait until nothing is at work and nothing is due now; False when *patience* seconds were not enough."""
        return bool(asyncio.run_coroutine_threadsafe(self._come_to_rest(patience), self._loop).result())

    # -- from other threads --------------------------------------------------------------------------------------------

    def wake(self, key: Key, *, written: bool = True) -> None:
        """Look at an instance now; from any thread. A hint: doubled, late or invented ones do no harm (rule 21)."""
        if self._thread is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._wake, key, written)

    def wake_if_at_work(self, key: Key) -> None:
        """Tell whatever works on an instance that it was written; from any thread."""
        if key in self._seats:
            self.wake(key)

    def look_out(self, at: datetime | None = None) -> None:
        """Ask the store for due work *at* that instant, or now; from any thread."""
        looks_at = self._looks_at
        if at is not None and looks_at is not None and looks_at <= at:
            return  # then it is asked anyway
        if self._thread is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._nudge.set)

    @property
    def healthy(self) -> bool:
        """Whether it is at work, and sync steps can be begun."""
        return self._thread is not None and self._thread.is_alive() and self._execution.healthy

    @property
    def busy(self) -> int:
        """How many instances are at work."""
        return len(self._seats)

    # -- looking for work ----------------------------------------------------------------------------------------------

    async def _recover(self) -> None:
        """Wake what dead processes hold."""
        if self._store.knows_processes:
            gone = self._store.dead(self._store.processes() - {self._process})
            for process in gone:
                for key in self._store.held_by(process):
                    self._wake(Key(*key), True)

    async def _look_again(self) -> None:
        """Look, at the start, at what other code could not place or read: this one may."""
        for key in await self._asking.ask(self._store.unfit, self._names):
            self._wake(Key(*key), True, looking=True)

    async def _look_out(self) -> None:
        recovered = time.monotonic()
        changed: Any = None
        while not self._stopped.is_set():
            try:
                if changed is None and not self._told:
                    changed = await self._asking.ask(self._store.changed)
                if not self._draining:
                    if self._expired or time.monotonic() - recovered >= RECOVER_SECONDS:
                        recovered = time.monotonic()
                        self._expired = False
                        await self._recover()
                        if self._on_sweep is not None:
                            await self._asking.ask(self._on_sweep, self._store.now())
                    await self._hand_out()
                changed = await self._rest(changed)
            except Unavailable as error:
                LOG.warning("looking for due work failed, trying again: %s", error)
                await asyncio.sleep(STORE_AWAY_SECONDS)
            except Exception:
                LOG.exception("looking for due work failed; trying again")
                await asyncio.sleep(STORE_AWAY_SECONDS)

    async def _hand_out(self) -> None:
        # An instance at work mostly has an attempt in flight: more of them than places would be loaded only to wait.
        busy, starved = len(self._seats), len(self._starved)
        # Timers need no place: as long as few wait for one, some more are looked at than there are places.
        room = max(self._concurrency - busy, min(SPARE, self._concurrency + SPARE - busy)) - starved
        self._full = room <= 0
        if self._full:
            if time.monotonic() < self._spare_at:
                return
            self._spare_at = time.monotonic() + SPARE_SECONDS
            room = SPARE
        due = partial(self._store.due, self._names, now=self._store.now(), limit=min(HAND_OUT, room), process=self._process)
        for key in [Key(*found) for found in await self._asking.ask(due)]:
            seat = self._seats.get(key)
            known = key in self._starved or (seat is not None and not seat.gathering)
            # What stays due until it is saved, and is being decided about or waits for room, is not loaded once more in vain.
            if self._store.hands_out_once or not known:
                self._wake(key, True)

    async def _rest(self, changed: Any) -> Any:
        """Wait until something is due, another process has written, or somebody nudges."""
        try:
            return await self._rest_until_due(changed)
        finally:
            self._looks_at = None

    async def _rest_until_due(self, changed: Any) -> Any:
        due = None if self._draining else await self._asking.ask(self._store.next_due, self._names)
        until = time.monotonic() + RECOVER_SECONDS
        look = LOOK_FAR_SECONDS if self._store.remote else LOOK_SECONDS
        if due is not None:
            wait = max((due - self._store.now()).total_seconds(), 0.0)
            # Clocks under test stand still: then the poll below looks again, and an advance nudges.
            until = min(until, time.monotonic() + wait)
            if self._full:
                until = max(until, self._spare_at)
            if wait == 0 and not self._store.hands_out_once:
                until = max(until, time.monotonic() + look)  # handed out just now, and due until it is saved
        self._looks_at = self._store.now() + timedelta(seconds=until - time.monotonic())
        while True:
            rest = until - time.monotonic()
            if rest <= 0:
                await asyncio.sleep(0)
                return changed
            try:
                await asyncio.wait_for(self._nudge.wait(), rest if self._told else min(rest, look))
            except TimeoutError:
                if self._told:
                    continue
                now_changed = await self._asking.ask(self._store.changed)
                if now_changed != changed:
                    self._bell.ring_all()
                    return now_changed
            else:
                self._nudge.clear()
                return changed

    def _others_wrote(self) -> None:
        """Another process has made something due, says the store; from a thread of its own."""
        with suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._nudge.set)

    def _wake(self, key: Key, written: bool, looking: bool = False) -> None:
        seat = self._seats.get(key)
        if seat is not None:
            if written:
                seat.woken = True
                if seat.gathering:
                    self._stale(seat)
            return
        definition = self._definitions.get(key.workflow)
        if definition is None or self._draining:
            return
        seat = Seat(key, Activity(definition, key, self._plans[key.workflow]).run(), looking=looking)
        self._seats[key] = seat
        self._answer(seat, None)

    # -- answering requests --------------------------------------------------------------------------------------------

    def _answer(self, seat: Seat, value: Any) -> None:
        """Hand *value* to the activity, and answer what it asks next as far as that can be done at once."""
        try:
            while True:
                request = seat.loop.send(value)
                kind = type(request)
                if kind is Look:
                    value = self._view()
                elif kind is Load:
                    value = self._load(seat, request.key)  # type: ignore[union-attr]
                    if value is seat:
                        return
                elif kind is Begin:
                    value = None
                    self._reserved -= len(request.runs)  # type: ignore[union-attr]
                    seat.attempts += len(request.runs)  # type: ignore[union-attr]
                    for run in request.runs:  # type: ignore[union-attr]
                        self._owners[run.token] = seat
                        self._execution.begin(run)
                elif kind is Save:
                    value = self._save(seat, request)  # type: ignore[arg-type]
                    if value is None:
                        return
                elif kind is Gather:
                    if self._gather(seat, request):  # type: ignore[arg-type]
                        value, seat.gathered = seat.gathered, Gathered()
                        continue
                    return
                else:
                    value = self._rarely(seat, request)
                    if value is seat:
                        return
        except StopIteration:
            self._leave(seat)
        except Exception:
            LOG.exception("%s/%s: its activity failed; it is looked at again when it is due", *seat.key)
            self._leave(seat, failed=True)

    def _load(self, seat: Seat, key: Key) -> Any:
        """Give what is stored; the seat itself stands for "later": a store that is away must not cost it its results."""
        if self._store.remote:
            self._asking.load_later(seat, key)
            return seat
        try:
            return self._store.get(key.workflow, key.id)
        except Unavailable as error:
            self._asking.load_again(seat, key, error)
            return seat

    def _rarely(self, seat: Seat, request: Request) -> Any:
        """Answer the other requests; the seat itself stands for "later"."""
        if isinstance(request, Wake):
            if not request.starved:
                self._note_due(request.at)
            elif request.why == "deletion":
                self._expired = True  # it waits for no room, but for the sweep
                self._nudge.set()
            else:
                (self._starved if self._execution.healthy else self._refused)[request.key] = None
            return None
        if isinstance(request, Stop):
            for token in request.cancelled:
                self._execution.tell(token)
            for token in request.gone:
                self._execution.stop(token)
            return None
        if isinstance(request, Sleep):
            self._loop.call_later(request.seconds, self._answer, seat, None)
            return seat
        assert isinstance(request, Unfit)
        if seat.looking and (request.stored.tries or request.stored.reason):
            return None
        call = partial(set_aside, self._store, request, self._random.random())
        self._asking.do(seat, call, partial(self._answer, seat, None))
        return seat

    def _view(self) -> View:
        room = 0 if self._draining else max(self._concurrency - self._execution.running - self._reserved, 0)
        return View(
            now=self._store.now(),
            room=room,
            sync=self._execution.healthy,
            reserve=self._reserve,
            tokens=self._token,
            jitter=self._random.random(),
            process=self._process if self._store.knows_processes else None,
            dead=self._dead,
            cancelled=self._execution.cancelled,
        )

    def _token(self) -> str:
        return f"{self._random.getrandbits(128):032x}"

    def _reserve(self, places: int) -> None:
        self._reserved += places

    def _dead(self, holders: frozenset[str]) -> frozenset[str]:
        others = holders - {self._process} if self._store.knows_processes else frozenset[str]()
        return frozenset(self._store.dead(others)) if others else frozenset()

    def _save(self, seat: Seat, request: Save) -> Outcome | None:
        """Save with all others of this turn of the loop: one transaction, one flush. Alone: at once, and give the outcome."""
        write = request.write
        if len(self._seats) == 1:
            outcome = self._committer.save_at_once(write)
            if outcome is not None:
                self._tell(seat, request, outcome)
                return outcome

        def told(outcome: Outcome) -> None:
            self._tell(seat, request, outcome)
            with self._outcomes_lock:
                self._outcomes.append((seat, outcome))
                first = len(self._outcomes) == 1
            if first:
                if threading.get_ident() == self._ident:
                    self._loop.call_soon(self._hear_outcomes)
                else:
                    self._loop.call_soon_threadsafe(self._hear_outcomes)

        if not self._saves:
            self._loop.call_soon(self._flush)
        self._saves.append((write, told))
        return None

    def _tell(self, seat: Seat, request: Save, outcome: Outcome) -> None:
        """Tell those who wait for it how a save has ended."""
        if isinstance(outcome, Saved):
            tell(seat.key, request.notices)
            self._bell.tell(request.answers)
            self._bell.ring(seat.key, ended=request.write.record.status in ENDED)
        elif isinstance(outcome, Failed):
            LOG.warning("%s/%s could not be saved, trying again: %s", *seat.key, outcome.error)

    def _flush(self) -> None:
        saves, self._saves = self._saves, []
        self._committer.submit(saves)

    def _hear_outcomes(self) -> None:
        with self._outcomes_lock:
            outcomes, self._outcomes = self._outcomes, []
        for seat, outcome in outcomes:
            self._answer(seat, outcome)

    # -- attempts ------------------------------------------------------------------------------------------------------

    def _attempt_ended(self, token: str, message: Message | None) -> None:
        seat = self._owners.pop(token, None)
        if seat is None:
            self._feed_starved()
            return
        seat.attempts -= 1
        if message is None:
            seat.gathered.released.append(token)
        else:
            seat.gathered.messages.append(message)
        if seat.gathering:
            seat.gathering = False
            self._cancel_timer(seat)
            if seat.attempts:
                # Not at once: results that are ready in this turn of the loop go into one write (rule 14).
                self._loop.call_soon(self._gathered, seat)
            else:
                self._gathered(seat)
        self._feed_starved()

    def _gathered(self, seat: Seat) -> None:
        value, seat.gathered = seat.gathered, Gathered()
        self._answer(seat, value)

    def _gather(self, seat: Seat, request: Gather) -> bool:
        """True when something has happened already."""
        if seat.woken:
            seat.woken = False
            seat.gathered.stale = True
        if seat.gathered.messages or seat.gathered.released or seat.gathered.stale:
            return True
        seat.gathering = True
        if seat.fed:
            seat.fed = False
            self._feed_starved()
        if request.until is not None:
            seconds = max((request.until - self._store.now()).total_seconds(), 0.0)
            seat.timer = self._loop.call_later(seconds, self._due_while_running, seat)
        return False

    def _due_while_running(self, seat: Seat) -> None:
        seat.timer = None
        if seat.gathering:
            seat.gathering = False
            self._gathered(seat)

    def _stale(self, seat: Seat) -> None:
        seat.woken = False
        seat.gathered.stale = True
        seat.gathering = False
        self._cancel_timer(seat)
        self._loop.call_soon(self._gathered, seat)

    @staticmethod
    def _cancel_timer(seat: Seat) -> None:
        if seat.timer is not None:
            seat.timer.cancel()
            seat.timer = None

    # -- the end of an activity ----------------------------------------------------------------------------------------

    def _leave(self, seat: Seat, *, failed: bool = False) -> None:
        self._seats.pop(seat.key, None)
        if seat.attempts:
            for token in [token for token, owner in self._owners.items() if owner is seat]:
                del self._owners[token]
        if seat.woken and not failed and not self._draining:
            self._loop.call_soon(self._wake, seat.key, False)
        self._feed_starved()

    def _feed_starved(self) -> None:
        """Let the first that found no room look again: there may be some."""
        if self._draining:
            self._starved.clear()
        while self._starved and self._concurrency > self._execution.running + self._reserved:
            key = next(iter(self._starved))
            del self._starved[key]
            seat = self._seats.get(key)
            if seat is None:
                self._loop.call_soon(self._wake, key, False)
                break
            if seat.gathering:
                seat.fed = True
                seat.gathering = False
                self._cancel_timer(seat)
                self._loop.call_soon(self._gathered, seat)
                break
        if self._full and len(self._seats) + len(self._starved) <= self._concurrency * REFILL_AT:
            self._full = False
            self._nudge.set()

    def _feed_refused(self) -> None:
        """A thread that a hung action had kept is back."""
        if self._execution.healthy:
            self._starved.update(self._refused)
            self._refused.clear()
            self._feed_starved()

    def _note_due(self, at: datetime) -> None:
        if (at - self._store.now()).total_seconds() < RECOVER_SECONDS:
            self._nudge.set()
