"""The processes of a simulated run: workers that answer the requests of activities, clients that send."""

import contextvars
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Any, TypeAlias

from asyncflow.definition import Definition
from asyncflow.errors import Ended, NotApplicable, NotAwaited, Pending, Unavailable
from asyncflow.instance import Message
from asyncflow.leases import Run, failed, finished
from asyncflow.requests import request_hash
from runner.stores.base import Key, Outcome, Write
from runner.work.activity import Activity, Begin, Gather, Gathered, Load, Look, Plan, Save, Sleep, Stop, Unfit, View, Wake
from runner.work.bell import Bell
from runner.work.deliver import Delivery
from tests.simulation.world import Attempt, Crash, Violation, World

Do: TypeAlias = Callable[[], None]


@dataclass
class Seat:
    """One activity, and what it waits for."""

    key: Key
    loop: Generator[Any, Any, None]
    request: Any = None
    outcome: Outcome | None = None
    """Of a save that was made and is not told yet."""
    gathered: Gathered = field(default_factory=Gathered)
    until: datetime | None = None


class SimulatedWorker:
    """A process with activities. What it may do next is a list; whoever drives the run chooses."""

    def __init__(self, world: World, definition: Definition[Any], number: int, plan: Plan, places: int) -> None:
        self._world = world
        self._definition = definition
        self._plan = plan
        self._places = places
        self.number = number
        self._lives = 0
        self.rise()

    def rise(self) -> None:
        """Begin a new process, which looks after what dead ones hold (rule 15)."""
        self._lives += 1
        self.process = f"w{self.number}-{self._lives}"
        self.store = self._world.open_store()
        self.store.enter(self.process)
        self._world.living.add(self.process)
        self._seats: dict[Key, Seat] = {}
        self._running: dict[str, tuple[Attempt, Seat]] = {}
        self._told: set[str] = set()
        self._reserved = 0
        self._tokens = 0
        self._starved: set[Key] = set()
        self.stalled_until = self._world.now
        self._world.say(f"{self.process} begins")
        self.recover()

    def recover(self) -> None:
        """Look after what dead processes hold."""
        for process in sorted(self.store.dead(self.store.processes())):
            for key in self.store.held_by(process):
                self.wake(Key(*key))

    def crash(self) -> None:
        """End at once, as kill -9 does."""
        self._world.say(f"{self.process} is killed")
        self._world.living.discard(self.process)
        self.store.close()

    def stall(self, seconds: float) -> None:
        """Stand still."""
        self._world.say(f"{self.process} stands still for {seconds:.0f} s")
        self.stalled_until = self._world.now + timedelta(seconds=seconds)

    @property
    def quiet(self) -> bool:
        """Whether nothing is at work."""
        return not self._seats

    # -- what it may do next -------------------------------------------------------------------------------------------

    def choices(self) -> Iterator[Do]:
        """Give all that may happen next in this process."""
        world = self._world
        if world.now < self.stalled_until:
            return
        due = self.store.next_due([self._definition.name])
        if due is not None and due <= world.now:
            yield self._hand_out
        for key in sorted(self._starved - self._seats.keys()):
            if self._room:
                yield partial(self._feed, key)
        for seat in list(self._seats.values()):
            do = self._answer(seat)
            if do is not None:
                yield do
        for attempt, seat in list(self._running.values()):
            yield partial(self._end, attempt, seat)

    def next_instant(self) -> datetime | None:
        """When a choice will come by itself."""
        instants = [seat.until for seat in self._seats.values() if seat.until is not None]
        due = self.store.next_due([self._definition.name])
        instants += [] if due is None else [due]
        if self._world.now < self.stalled_until:
            return self.stalled_until
        return min((at for at in instants if at > self._world.now), default=None)

    def wake(self, key: Key) -> None:
        """Look at an instance: a hint, perhaps an invented one (rule 21)."""
        seat = self._seats.get(key)
        if seat is None:
            self._sit(key)
        else:
            seat.gathered.stale = True

    def _sit(self, key: Key) -> None:
        if key not in self._seats:
            seat = self._seats[key] = Seat(key, Activity(self._definition, key, self._plan).run())
            self._go_on(seat, None)

    def _feed(self, key: Key) -> None:
        self._starved.discard(key)
        self._sit(key)

    def _hand_out(self) -> None:
        for key in self.store.due([self._definition.name], now=self._world.now, limit=9, process=self.process):
            self.wake(Key(*key))

    # -- answering -----------------------------------------------------------------------------------------------------

    def _go_on(self, seat: Seat, value: Any) -> None:
        seat.until = None
        try:
            seat.request = seat.loop.send(value)
        except StopIteration:
            self._leave(seat)
            return
        request = seat.request
        if isinstance(request, Gather):
            seat.until = request.until
        elif isinstance(request, Sleep):
            seat.until = self._world.now + timedelta(seconds=request.seconds)

    def _answer(self, seat: Seat) -> Do | None:
        """How the request of *seat* can be answered now; None: it has to wait."""
        request, world = seat.request, self._world
        if isinstance(request, Gather):
            ready = seat.gathered.messages or seat.gathered.released or seat.gathered.stale
            if ready or (seat.until is not None and seat.until <= world.now) or (self._room and seat.key in self._starved):
                return lambda: self._gather(seat)
            return None
        if isinstance(request, Sleep):
            return (lambda: self._go_on(seat, None)) if seat.until is None or seat.until <= world.now else None
        if isinstance(request, Save):
            return (lambda: self._save(seat, request)) if seat.outcome is None else (lambda: self._tell(seat))
        return lambda: self._at_once(seat, request)

    def _gather(self, seat: Seat) -> None:
        self._starved.discard(seat.key)
        gathered, seat.gathered = seat.gathered, Gathered()
        self._go_on(seat, gathered)

    def _save(self, seat: Seat, request: Save) -> None:
        seat.outcome = self._world.commit(self.store, request.write, self.process)

    def _tell(self, seat: Seat) -> None:
        outcome, seat.outcome = seat.outcome, None
        self._go_on(seat, outcome)

    def _at_once(self, seat: Seat, request: Any) -> None:
        match request:
            case Load(key=key):
                self._go_on(seat, self.store.get(*key))
            case Look():
                self._go_on(seat, self._view())
            case Begin(runs=runs):
                self._reserved -= len(runs)
                for run in runs:
                    attempt = self._world.begin(run, seat.key, self.process)
                    self._running[run.token] = (attempt, seat)
                    self._world.say(f"{self.process} runs {seat.key.id} {run.path}, attempt {run.attempt}")
                self._go_on(seat, None)
            case Stop(cancelled=cancelled, gone=gone):
                self._told.update(cancelled, gone)
                self._go_on(seat, None)
            case Wake(key=key, starved=starved):
                if starved:
                    self._starved.add(key)
                self._go_on(seat, None)
            case Unfit(reason=reason):
                raise Violation(f"{seat.key.id} cannot be read: {reason}")
            case _:
                raise AssertionError(request)

    @property
    def _room(self) -> int:
        return max(self._places - len(self._running) - self._reserved, 0)

    def _view(self) -> View:
        return View(
            now=self._world.now,
            room=self._room,
            sync=True,
            reserve=self._reserve,
            tokens=self._token,
            jitter=self._world.dice.random(),
            process=self.process,
            dead=lambda holders: frozenset(self.store.dead(holders)),
            cancelled=lambda token: lambda: token in self._told,
        )

    def _reserve(self, places: int) -> None:
        self._reserved += places
        if self._reserved < 0:
            raise Violation(f"{self.process} has given back more places than it has reserved")

    def _token(self) -> str:
        self._tokens += 1
        return f"{self.process}-{self._tokens}"

    def _leave(self, seat: Seat) -> None:
        del self._seats[seat.key]
        if not self._seats and self._reserved:
            raise Violation(f"{self.process} keeps {self._reserved} places for nothing")
        self._world.check_left(self.process, self.store.get(*seat.key))

    # -- actions -------------------------------------------------------------------------------------------------------

    def _end(self, attempt: Attempt, seat: Seat) -> None:
        """Let an action end, in whatever way."""
        world, run = self._world, attempt.run
        if run.token in self._told and world.dice.random() < 0.5 and run.idempotent:
            self._running.pop(run.token, None)
            attempt.ended = True
            seat.gathered.released.append(run.token)
            return
        message = self._result(run)
        attempt.ended = True
        seat.gathered.messages.append(message)
        del self._running[run.token]

    def _result(self, run: Run) -> Message:
        world = self._world
        if world.happens(world.faults.timeout):
            world.say(f"{self.process}: {run.path} runs past its time")
            return failed(run, TimeoutError("too long"), at=world.now)
        if world.happens(world.faults.failure):
            world.say(f"{self.process}: {run.path} fails")
            return failed(run, ConnectionError("the line is bad"), at=world.now)
        try:
            value = contextvars.copy_context().run(run.call)
        except Exception as error:
            return failed(run, error, at=world.now)
        world.say(f"{self.process}: {run.path} is done")
        return finished(run, value, at=world.now)


class Interleaved:
    """A committer for one client: before and after its save other processes go on, and it may crash there."""

    def __init__(self, world: World, store: Any, who: str, others: Do) -> None:
        self._world = world
        self._store = store
        self._who = who
        self._others = others

    def save(self, write: Write) -> Outcome:
        """Save, at some time."""
        self._meanwhile()
        outcome = self._world.commit(self._store, write, self._who)
        self._meanwhile()
        return outcome

    def _meanwhile(self) -> None:
        while self._world.dice.random() < 0.5:
            self._others()
        if self._world.happens(self._world.faults.crash):
            self._world.say(f"{self._who} is killed")
            raise Crash


class Client:
    """Starts one instance and sends it its events, each under its key, until each is answered; sometimes pauses it."""

    def __init__(self, world: World, definition: Definition[Any], id: str, others: Do, plan: Plan) -> None:
        self._world = world
        self._definition = definition
        self.key = Key(definition.name, id)
        store = world.open_store()
        committer: Any = Interleaved(world, store, f"client of {id}", others)
        self._delivery = Delivery(
            store,
            committer,
            Bell(),
            retention=lambda _: plan.retention,
            history=plan.history,
            woken=lambda key, act, before: None,
            wake=lambda key, at: None,
        )
        self.started = False
        self.answers: dict[str, Any] = {}
        """What was acknowledged, by the event's name; an error, if it was refused."""
        self._pausing = 0

    def start(self, state: bytes) -> None:
        """Start the instance, or try to."""
        key = ("start", request_hash("start", self._definition.name, None, state))
        with suppress(Unavailable, Crash):
            self._delivery.start(self._definition, state, id=self.key.id, uid=f"uid of {self.key.id}", key=key)
            self.started = True
            self._world.say(f"client of {self.key.id}: started")

    def send(self, event: str) -> None:
        """Send an event under its key, for the first time or again."""
        try:
            value = self._deliver("event", event, name=event)
        except (Unavailable, Crash, Pending, NotAwaited):
            return
        except Ended as error:
            value = error
        if event in self.answers and not isinstance(value, Ended) and self.answers[event] != value:
            raise Violation(f"{self.key.id}: {event} was answered with {self.answers[event]}, now with {value}")
        self.answers.setdefault(event, value)
        self._world.say(f"client of {self.key.id}: {event} gave {value}")

    def operate(self, verb: str) -> None:
        """Say an operator's word; each time another one."""
        self._pausing += 1
        with suppress(Unavailable, Crash, Ended, NotApplicable):
            self._deliver(verb, f"{verb} {self._pausing}")
            self._world.say(f"client of {self.key.id}: {verb}")

    def _deliver(self, kind: str, key: str, *, name: str = "") -> Any:
        message = Message(key, kind, self._world.now, name=name, keyed=True, hash=request_hash(kind, name, None, None))
        answer = self._delivery.deliver(self._definition, self.key, message, patience=0)
        if answer.error is not None:
            raise answer.error
        return answer.value
