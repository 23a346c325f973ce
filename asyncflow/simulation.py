"""`Simulation`: one instance under a virtual clock, without a store and without sleeping.

It drives the engine exactly as a runner does (load, decide, save, run) and calls the user's actions itself, one at a time, in the
order in which they were taken. It can lose answers, crash at any save, and hold a step in flight.
"""

from __future__ import annotations

import contextvars
import inspect
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Generic, Literal, TypeVar, cast, overload

from pydantic import BaseModel, JsonValue
from pydantic_core import to_json

from asyncflow import engine
from asyncflow.activation import Activation, Answer
from asyncflow.codec import decode, document
from asyncflow.definition import Definition
from asyncflow.errors import AsyncflowError, Failure, NotApplicable, NotFound, Pending
from asyncflow.handlers import read_json
from asyncflow.instance import Instance, Message, Status, ThreadStatus
from asyncflow.leases import LEASE, Run, failed, finished, lapsed, take
from asyncflow.nodes import Defines
from asyncflow.requests import NO_INPUT, encode_input, event_of, outcome_of, query_of, request_hash, typed_answer
from asyncflow.stepkeys import StepKey, check_keys, is_step, key_name
from asyncflow.views import place_paths
from asyncflow.workflow import CURRENT
from asyncflow.write import decide

I = TypeVar("I")  # noqa: E741
R = TypeVar("R")
W_co = TypeVar("W_co", covariant=True)

START: Final = datetime(2024, 1, 1, tzinfo=UTC)
"""Where the virtual clock starts unless told: a fixed day, so that a failing test fails again."""

NAMES_PER_SAVE: Final = 2_000
"""More names than one write can give to leases and messages."""

_UNSET: Final[Any] = object()
Way = Literal["before", "after", "lost"]
WAYS: Final[tuple[Way, ...]] = ("before", "after", "lost")
"""Where the process ends at a save: before it is stored, after it; or it lives, and the answer is lost."""


class _Crashed(Exception):
    """The simulated process has ended."""


@dataclass(slots=True)
class Faults:
    """Which save meets which end of the process; shared by the simulations of one `every_crash` run."""

    way: Way | None = None
    at: int = 0
    saves: int = 0

    def meet(self) -> Way | None:
        """Count a save, and say which fault it meets."""
        self.saves += 1
        return self.way if self.way is not None and self.saves == self.at else None


@dataclass(slots=True)
class _InFlight:
    run: Run
    held: bool
    done: bool = False
    messages: list[Message] = field(default_factory=list)


class Held:
    """One attempt that `hold=` keeps in flight. After `lapse` it goes on existing, as a zombie whose end changes nothing."""

    def __init__(self, simulation: Simulation[Any], flight: _InFlight) -> None:
        self._simulation = simulation
        self._flight = flight
        self.attempt: int = flight.run.attempt

    def finish(self, value: object = _UNSET, /) -> None:
        """The action ends: with *value*, or, without it, with what the action (or its stub) gives when it is run now."""
        self._simulation._end_held(self._flight, value)  # noqa: SLF001

    def fail(self, error: BaseException, /) -> None:
        """The action raises *error*."""
        self._simulation._fail_held(self._flight, error)  # noqa: SLF001

    def lapse(self) -> None:
        """The lease is over: the attempt has failed with `Lost`, and another may begin."""
        self._simulation._lapse_held(self._flight)  # noqa: SLF001


class Simulation(Generic[W_co]):
    """One instance under a virtual clock. The verbs are those of `runner.Handle`."""

    def __init__(
        self,
        definition: Definition[Any],
        *,
        stubs: Mapping[StepKey, Callable[..., Any]],
        hold: Collection[StepKey],
        skip_backoff: bool,
        evict: bool,
        faults: Faults,
        now: datetime,
    ) -> None:
        self._definition = definition
        check_keys(definition, "stubs=", stubs)
        check_keys(definition, "hold=", hold)
        self._stubs = stubs
        self._hold = hold
        self._skip_backoff = skip_backoff
        self._evict = evict
        self._faults = faults
        self._now = now
        self._stored: tuple[bytes, bytes] | None = None
        self._answers: dict[str, Answer] = {}
        self._steps: list[str] = []
        self._flights: list[_InFlight] = []
        self._results: list[Message] = []
        self._counter = 0
        self._process = 1

    # -- the store, and one write --------------------------------------------------------------------------------------

    def _load(self) -> Activation:
        assert self._stored is not None
        instance = decode(*self._stored)
        return self._activate(instance)

    def _activate(self, instance: Instance) -> Activation:
        if self._evict:
            self._definition._pool.clear()  # noqa: SLF001 - a new object with a new tree each time
        body = self._definition.body(instance.state)
        # Whoever held a lease before this process began is gone.
        dead = instance.holders - {f"process-{self._process}"}
        size = sum(len(text) for text in self._stored or ())
        act = Activation(self._definition, body, instance, self._now, dead=dead, size=size)
        for flight in self._flights:
            self._renew(act, flight)
        return act

    def _renew(self, act: Activation, flight: _InFlight) -> None:
        for thread in act.instance.threads.values():
            lease = thread.lease
            if lease is not None and lease.token == flight.run.token and lease.till is not None:
                lease.till = act.now + LEASE

    def _write(self, load: Callable[[], Activation], messages: list[Message], room: int) -> list[Run]:
        """Decide and save; whatever the answer of the store but "saved" means: decide again from what is stored (rule 6)."""
        act, runs = decide(load, messages, lambda act: take(act, self._token, room=room, by=f"process-{self._process}"))
        self._answers.update(act.answers)
        if not act.changed:
            return []
        way = self._faults.meet()
        if way == "before":
            raise _Crashed
        self._stored = (act.document, act.instance.state)
        if way == "after":
            raise _Crashed
        if way == "lost":
            for identity in act.answers:
                self._answers.pop(identity, None)
            if messages:
                again, _ = decide(self._load, messages, lambda _: None)
                self._answers.update(again.answers)
            stored = decode(*self._stored)
            tokens = {thread.lease.token for thread in stored.threads.values() if thread.lease is not None}
            runs = [run for run in runs if run.token in tokens]
        if act.body not in [run.body for run in runs] and not self._evict:
            self._definition.release(act.body)
        return runs

    def _token(self) -> str:
        self._counter += 1
        return f"token-{self._counter}"

    def _crash(self) -> None:
        """The process ends: its runs are gone, its leases lapse at once."""
        self._process += 1
        self._results = []
        self._flights = []

    def _begin(self, state: bytes) -> None:
        """Create the instance, as a start does: decide and save, run no step."""
        uid = "simulation"

        def create() -> Activation:
            return self._activate(engine.start(self._definition, state, id=uid, uid=uid, now=self._now))

        while self._stored is None:
            try:
                self._write(create, [], room=0)
            except _Crashed:
                self._crash()
        self._settle()

    def _take_over(self, text: bytes, state: bytes) -> None:
        """Go on with a document that was left by a process that is gone."""
        self._stored = (text, state)
        rev = decode(text, state).rev
        # Names that the document may know already are never given again: tokens, messages, the process.
        self._process = rev + 1
        self._counter = self._requests = rev * NAMES_PER_SAVE
        self._settle()

    # -- the worker ----------------------------------------------------------------------------------------------------

    def _settle(self) -> None:
        """Run until every thread is blocked."""
        while True:
            try:
                if not self._work() and not self._skip_a_backoff():
                    return
            except _Crashed:
                self._crash()

    def _work(self) -> bool:
        """One activation: finish what was run, take what comes next, and run it."""
        messages, self._results = self._results, []
        before = self._stored
        runs = self._write(self._load, messages, room=1_000_000)
        for run in runs:
            self._steps.append(run.name)
            held = self._holds(run)
            flight = _InFlight(run, held)
            self._flights.append(flight)
        for flight in list(self._flights):
            if not flight.held:
                self._results.append(self._execute(flight))
        return bool(self._results) or self._stored != before

    def _execute(self, flight: _InFlight, value: Any = _UNSET) -> Message:
        if flight in self._flights:
            self._flights.remove(flight)
        run = flight.run
        kept = [(arg, arg.model_dump_json()) for arg in run.args if isinstance(arg, BaseModel)] if "undo " in run.name else []
        try:
            if value is _UNSET:
                value = self._call(run)
        except AssertionError:
            raise
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # noqa: BLE001 - whatever the action raises is the attempt's failure
            if run.alone:
                run.body.revert()
            return failed(run, error, at=self._now)
        if any(arg.model_dump_json() != text for arg, text in kept):
            changed = AsyncflowError(f"the undo of {run.place.path!r} changed the item it was given, which is dropped")
            return failed(run, changed, at=self._now)
        return finished(run, value, at=self._now, watch_copy=True)

    def _call(self, run: Run) -> Any:
        stub = self._stub(run)
        context = contextvars.copy_context()
        if stub is not None:

            def call() -> Any:
                CURRENT.set(run.context)
                return stub(*run.args)
        else:
            call = run.call
        given = context.run(call)
        return context.run(_await, given) if inspect.isawaitable(given) else given

    def _stub(self, run: Run) -> Callable[..., Any] | None:
        for key, stub in self._stubs.items():
            if is_step(key, run):
                return stub
        return None

    def _holds(self, run: Run) -> bool:
        return any(is_step(key, run) for key in self._hold)

    def _skip_a_backoff(self) -> bool:
        """Move the clock to the next attempt, timers on the way first."""
        if not self._skip_backoff or self._stored is None:
            return False
        instance = decode(*self._stored)
        waits = [
            thread
            for thread in instance.threads.values()
            if thread.status is ThreadStatus.Executing and thread.lease is None and thread.retry_at and thread.stray is None
        ]
        if not waits or instance.due_at is None or instance.control.pause is not None or self._held_alone(instance):
            return False
        if instance.due_at <= self._now:
            return False
        self._now = instance.due_at
        return True

    @staticmethod
    def _held_alone(instance: Instance) -> bool:
        return any(thread.lease is not None and thread.lease.alone for thread in instance.threads.values())

    # -- messages ------------------------------------------------------------------------------------------------------

    def _deliver(self, message: Message) -> Answer:
        self._answers.pop(message.id, None)  # of one that was refused and left no trace
        while True:
            try:
                self._write(self._load, [message], room=0)
                break
            except _Crashed:
                self._crash()
        self._settle()
        answer = self._answers.get(message.id)
        if answer is None:
            what = f"the event {message.name!r}" if message.kind == "event" else message.kind
            text = f"{what} lies in the inbox of {self._definition.name}/{self.document['id']}; its key is {message.id!r}"
            raise Pending(text, idempotency_key=message.id)
        return answer

    def _message(self, kind: str, key: str | None = None, **fields: Any) -> Message:
        keyed = key is not None or self._faults.way is not None
        # By the revision it meets: no two that are stored have one id, also when another simulation goes on with the document.
        return Message(key or f"message-{self._instance().rev}", kind, self._now, keyed=keyed, **fields)

    @overload
    def send(
        self,
        event: Callable[[Any], R],
        /,
        *,
        thread: str | None = None,
        caller: str | None = None,
        idempotency_key: str | None = None,
    ) -> R: ...
    @overload
    def send(
        self,
        event: Callable[[Any, I], R],
        input: I,
        /,
        *,
        thread: str | None = None,
        caller: str | None = None,
        idempotency_key: str | None = None,
    ) -> R: ...
    @overload
    def send(
        self,
        event: str,
        input: object = None,
        /,
        *,
        thread: str | None = None,
        caller: str | None = None,
        idempotency_key: str | None = None,
    ) -> Any: ...
    def send(
        self,
        event: Any,
        input: Any = NO_INPUT,
        /,
        *,
        thread: str | None = None,
        caller: str | None = None,
        idempotency_key: str | None = None,
    ) -> Any:
        """Deliver an event, run until all is blocked, and give the handler's value.

        Raises:
            Pending: the event is stored and will be handled later; sending again with its key gets the answer.
            Rejected, NotAwaited, InvalidInput, NotFound, Ended, …: it was refused, nothing has changed.
        """
        name = event_of(self._definition, event)
        value = encode_input(input)
        message = self._message("event", idempotency_key, name=name, value=value, thread=thread, caller=caller)
        message.hash = request_hash("event", name, thread, value)
        return typed_answer(self._definition, name, self._deliver(message))

    @overload
    def query(self, query: Callable[[Any], R], /) -> R: ...
    @overload
    def query(self, query: str, /) -> Any: ...
    def query(self, query: Any, /) -> Any:
        """Give what a query says of the last saved state."""
        spec = query_of(self._definition, query)
        value = getattr(self.state, spec.method)()
        return read_json(spec.output, spec.output.dump_json(value, by_alias=True))

    def advance(self, by: timedelta, /) -> None:
        """Move the virtual clock; timers and backoffs on the way happen in their order.

        Raises:
            ValueError: *by* is negative: no clock of a store goes back.
        """
        if by < timedelta(0):
            raise ValueError(f"expected a time of zero or more, found {by}: the clock only goes forward")
        target = self._now + by
        while self._stored is not None:
            instance = decode(*self._stored)
            if instance.ended or instance.due_at is None or instance.due_at > target or self._held_alone(instance):
                break
            moved = max(self._now, instance.due_at)
            if moved == self._now:
                before = self._stored
                self._settle()
                if self._stored == before:
                    break
            else:
                self._now = moved
                self._settle()
        self._now = max(self._now, target)
        self._settle()

    def _operate(self, verb: str, thread: str | None = None, value: object = None) -> None:
        message = self._message(verb, thread=thread, value=None if value is None else encode_input(value))
        message.hash = request_hash(verb, "", thread, message.value)
        outcome_of(self._deliver(message))

    def cancel(self) -> None:
        """Raise `Cancelled` in every thread."""
        self._operate_or_pend("cancel")

    def kill(self) -> None:
        """End the instance at once, without cleanup."""
        self._operate_or_pend("kill")

    def pause(self) -> None:
        """Stop what would begin; what runs may finish into the inbox."""
        self._operate_or_pend("pause")

    def resume(self) -> None:
        """Lift a pause."""
        self._operate_or_pend("resume")

    def retry(self, thread: str = "main") -> None:
        """Try a parked thread again, or one in backoff now."""
        self._operate_or_pend("retry", thread)

    def skip(self, thread: str = "main", value: object = None) -> None:
        """Go on behind the statement at which a thread is parked or in backoff, with *value* as its result."""
        self._operate_or_pend("skip", thread, value)

    def goto(self, path: str, thread: str = "main") -> None:
        """Move a thread: comes with a later release."""
        raise NotApplicable("goto comes with a later release")

    def edit(self, changes: Mapping[str, Any], /) -> None:
        """Change the state by hand: comes with a later release."""
        raise NotApplicable("edit comes with a later release")

    def _operate_or_pend(self, verb: str, thread: str | None = None, value: object = None) -> None:
        try:
            self._operate(verb, thread, value)
        except Pending:
            return  # a verb returns when it is saved, applied or laid down (rule 31)

    # -- held steps ----------------------------------------------------------------------------------------------------

    def held(self, step: StepKey, thread: str | None = None) -> Held:
        """Give the attempt of a step that `hold=` keeps in flight.

        Raises:
            NotFound: there is none now; `running` names those in flight.
        """
        for flight in reversed(self._flights):
            if flight.held and is_step(step, flight.run) and thread in (None, flight.run.thread):
                return Held(self, flight)
        raise NotFound(f"no attempt of {key_name(step)!r} is in flight; running: {', '.join(sorted(self.running)) or 'nothing'}")

    def _end_held(self, flight: _InFlight, value: Any) -> None:
        self._results.append(self._execute(flight, value))
        self._settle()

    def _fail_held(self, flight: _InFlight, error: BaseException) -> None:
        if flight in self._flights:
            self._flights.remove(flight)
        self._results.append(failed(flight.run, error, at=self._now))
        self._settle()

    def _lapse_held(self, flight: _InFlight) -> None:
        if flight in self._flights:
            self._flights.remove(flight)
        self._results.append(lapsed(flight.run, at=self._now))
        self._settle()

    @property
    def running(self) -> set[str]:
        """The names of the steps in flight."""
        return {flight.run.name for flight in self._flights}

    # -- what it is now ------------------------------------------------------------------------------------------------

    def _instance(self) -> Instance:
        assert self._stored is not None
        return decode(*self._stored)

    @property
    def state(self) -> W_co:
        """The typed workflow, a copy."""
        assert self._stored is not None
        return cast("W_co", self._definition.codec.parse(self._stored[1])[0])

    @property
    def output(self: Simulation[Defines[R]]) -> R | None:
        """What main returned, None while it has not."""
        instance = self._instance()
        if instance.status is not Status.Finished or instance.output is None:
            return None
        return cast("R", read_json(self._definition.output, to_json(instance.output)))

    @property
    def status(self) -> Status:
        """What the instance is doing."""
        return self._instance().status

    @property
    def error(self) -> Failure | None:
        """The error of an instance that failed, or of the first parked thread."""
        instance = self._instance()
        if instance.error is not None:
            return instance.error
        parked = (thread.error for thread in instance.threads.values() if thread.status is ThreadStatus.Paused)
        return next(parked, None)

    @property
    def waiting(self) -> set[str]:
        """The names of the events awaited now, also of those that would first be laid into the inbox."""
        if self._instance().ended:
            return set()
        return {one.event for one in engine.awaits(self._load())}

    @property
    def steps(self) -> list[str]:
        """The names of the steps executed, in order: an entry for each attempt begun; `undo NAME` for an undo."""
        return list(self._steps)

    @property
    def threads(self) -> dict[str, str]:
        """Where each thread is, by its path."""
        return place_paths(self._load())

    @property
    def now(self) -> datetime:
        """The virtual clock."""
        return self._now

    @property
    def document(self) -> dict[str, JsonValue]:
        """The JSON that a store would hold."""
        return document(self._instance())


def _await(given: Awaitable[Any]) -> Any:
    """Run an awaitable to its end, on an event loop of its own."""
    import asyncio  # noqa: PLC0415 (only a test kit needs it; `import asyncflow` stays light)

    async def wait() -> Any:
        return await given

    # A test may itself run on a loop: for the time of the action this thread has another one.
    around = asyncio._get_running_loop()  # noqa: SLF001
    asyncio._set_running_loop(None)  # noqa: SLF001
    try:
        return asyncio.run(wait())
    finally:
        asyncio._set_running_loop(around)  # noqa: SLF001
