"""The law of `due_at` (rule 20): before it a wake-up changes nothing, at it a wake-up changes something.

Documents are reached by random calls of the engine's own functions: events, results, failures, lapses, operators' words, clocks
that move by little and by much, workers with little room, and code that does not know a position.
"""

import json
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from asyncflow import (
    After,
    At,
    Cancelled,
    For,
    ForEach,
    Go,
    Join,
    On,
    Parallel,
    Raise,
    Retry,
    Return,
    S,
    Section,
    Select,
    Step,
    TerminalError,
    Try,
    WaitEvent,
    WaitFor,
    WaitUntil,
    When,
    Workflow,
    engine,
    event,
    limits,
)
from asyncflow.activation import Activation
from asyncflow.codec import decode
from asyncflow.definition import Body, Definition
from asyncflow.instance import Message
from asyncflow.leases import Run, failed, finished, lapsed, release, renew, take
from asyncflow.write import decide, seal

START: Final = datetime(2024, 5, 1, tzinfo=UTC)
QUICK: Final = Retry(max_attempts=3, delay=timedelta(minutes=1), exhausted="raise")
SCARCE: Final = Retry(max_attempts=2, delay=timedelta(minutes=1))


class Item(BaseModel):
    n: int = 0


class Base(Workflow):
    """What the workflows here have in common: small events, steps of each kind."""

    n: int = 0
    items: dict[str, Item] = {"a": Item(), "b": Item(), "c": Item()}
    rows: list[int] = [1, 2]

    @event
    def add(self) -> int:
        self.n += 1
        return self.n

    @event
    def drop(self) -> None:
        if self.items:
            del self.items[min(self.items)]

    @event(queue=True)
    def grow(self) -> None:
        self.rows.append(len(self.rows))

    @event
    def reset(self) -> None:
        self.n = 0

    def work(self) -> None:
        self.n += 1

    def ask(self) -> int:
        return self.n + 1

    def put(self, n: int) -> None:
        self.n = n

    def back(self) -> None:
        self.n -= 1

    def soon(self) -> timedelta | None:
        return timedelta(minutes=self.n) if self.n % 3 else None


class Timers(Base):
    def definition(self) -> Section[Any]:
        return S(
            Go(
                "watch",
                For("for ever", True, Select("watch", On(self.grow), After(self.soon), After(timedelta(days=1)))),
            ),
            For(
                "again",
                lambda: self.n < 6,
                Select(
                    "wait",
                    On(self.add),
                    On(self.reset),
                    After(timedelta(minutes=5), self.work),
                    At(START + timedelta(hours=1), Step(self.work)),
                    When("four", lambda: self.n == 4, Step(self.ask, into="n")),
                ),
            ),
            WaitUntil("some", lambda: len(self.rows) > 3),
            WaitFor("a while", timedelta(hours=2)),
        )


class Steps(Base):
    def definition(self) -> Section[Any]:
        return S(
            Go("events", For("for ever", True, WaitEvent(self.add))),
            Try(
                Step(self.work, retry=QUICK, undo=self.back, timeout=timedelta(minutes=1)),
                Step("once", self.ask, then=self.put, idempotent=False, undo=self.back),
                Step("long", self.work, timeout=timedelta(hours=2)),
                Parallel(
                    "both",
                    Step("left", self.ask, into="n", retry=SCARCE, undo=self.back),
                    Step("right", self.ask, then=self.put, retry=QUICK),
                    S(WaitFor("later", timedelta(minutes=3)), Step("third", self.work, retry=QUICK)),
                ),
            )
            .Except(TerminalError, WaitEvent(self.reset))
            .Finally(Step("finally", self.work, retry=SCARCE), WaitFor("pause", timedelta(minutes=2))),
            Step("last", self.work, retry=SCARCE, undo=self.back),
            Raise(ValueError("the end")),
        )


class Threads(Base):
    def definition(self) -> Section[Any]:
        return S(
            Go("one", self.each(), id=lambda: "x"),
            Go(
                "two",
                WaitFor("before", timedelta(minutes=7)),
                Step("two", self.work, undo=self.back),
                Raise(ValueError()),
            ),
            ForEach("rows", lambda: self.rows, lambda row: S(Step("row", self.ask, into="n"), WaitEvent(self.grow))),
            Parallel(
                "fork",
                S(Join("one")),
                Try(WaitEvent(self.drop)).Finally(Parallel("deep", WaitEvent(self.add), Step(self.work))),
            ),
            Join(),
            Return("done"),
        )

    def each(self) -> Section[Any]:
        def body(item: Item) -> Section[Any]:
            wait = Select("item", On(self.drop), On(self.add), After(timedelta(minutes=4)))
            return S(
                Try(Step("asked", self.ask, then=self.put, undo=self.back), wait).Except(
                    Cancelled, WaitEvent(self.reset)
                )
            )

        return S(ForEach("each", lambda: self.items, body, parallel=2), ForEach("in order", lambda: self.items, body))


class Crowd(Base):
    def definition(self) -> Section[Any]:
        def worker(name: str) -> Section[Any]:
            return Section(
                name, Try(Step("asked", self.ask, into="n")).Finally(Step("tidied", self.work, retry=SCARCE))
            )

        return S(Parallel("crowd", *(worker(f"worker {n}") for n in range(3)), Step("alone", self.work, retry=QUICK)))


class FewerTimers(Timers, name="Timers"):
    """`Timers` after a change of the code: two of its timers are gone, another has come."""

    def definition(self) -> Section[Any]:
        wait = Select("wait", On(self.add), After(timedelta(minutes=30), self.work), When("four", lambda: self.n == 4))
        return S(
            Go("watch", For("for ever", True, Select("watch", On(self.grow), At(START + timedelta(days=2))))),
            For("again", lambda: self.n < 6, wait),
            WaitUntil("some", lambda: len(self.rows) > 3),
        )


class Renamed(Steps, name="Steps"):
    """`Steps` after a change of the code: some positions are not known."""

    def definition(self) -> Section[Any]:
        return S(
            Go("events", For("for ever", True, WaitEvent(self.reset))),
            Step("other", self.work),
            Try(
                Parallel(
                    "both",
                    Step("left", self.ask, into="n"),
                    Select("branch 3", On(self.add), After(timedelta(minutes=9))),
                )
            ),
        )


VERBS: Final = ("cancel", "pause", "resume", "retry", "skip")
EVENTS: Final = ("add", "drop", "grow", "reset")
CALLS: Final = st.lists(
    st.one_of(
        st.tuples(st.just("wake"), st.integers(0, 3)),
        st.tuples(st.just("send"), st.integers(0, len(EVENTS) - 1)),
        st.tuples(
            st.sampled_from(["finish", "finish", "fail", "terminal", "time out", "lapse", "renew", "release"]),
            st.integers(0, 3),
        ),
        st.tuples(st.just("clock"), st.integers(0, 5)),
        st.tuples(st.just("say"), st.integers(0, len(VERBS) - 1)),
    ),
    max_size=14,
)


class Drive:
    """One instance, driven as a runner does, with what a store holds of it."""

    def __init__(self, workflow: Base) -> None:
        self.definition: Definition[Any] = Definition.of(type(workflow))
        self.now = START
        self.stored = (b"", self.definition.codec.dump(workflow))
        self.flights: list[Run] = []
        self.numbers = count()
        self.write(room=0, load=self.fresh)

    def fresh(self) -> Activation:
        instance = engine.start(self.definition, self.stored[1], id="i", uid="u", now=self.now)
        return Activation(self.definition, self.body(), instance, self.now)

    def body(self) -> Body[Any]:
        return self.definition.body(self.stored[1])

    def load(self, now: datetime | None = None) -> Activation:
        instance = decode(*self.stored)
        return Activation(self.definition, self.body(), instance, now or self.now, size=sum(map(len, self.stored)))

    def take(self, act: Activation, room: int) -> list[Run]:
        return take(act, lambda: f"token-{next(self.numbers)}", room=room)

    def write(self, *messages: Message, room: int, load: Any = None) -> None:
        act, runs = decide(load or self.load, messages, lambda act: self.take(act, room))
        if act.changed:
            self.stored = (act.document, act.instance.state)
            self.flights += runs
            self.check()

    # -- the law -------------------------------------------------------------------------------------------------------

    def wake(self, at: datetime) -> Activation:
        """Wake the stored document at an instant, with room for all its steps; nothing is kept."""
        act, _ = decide(lambda: self.load(at), (), lambda act: self.take(act, 1_000))
        return act

    def check(self) -> None:
        instance = decode(*self.stored)
        if instance.ended:
            assert instance.due_at is None
            return
        due = instance.due_at
        before = [self.now, self.now + timedelta(seconds=30), self.now + timedelta(days=400)]
        if due is not None:
            middle = self.now + (due - self.now) / 2
            before = [at for at in (*before, middle, due - timedelta(microseconds=1)) if self.now <= at < due]
        for at in before:
            act = self.wake(at)
            assert not act.changed, f"due at {due}, and a wake-up at {at} changed {act.records or act.document!r}"
        if due is not None:
            act = self.wake(max(due, self.now))
            assert what(act.document or self.stored[0]) != what(self.stored[0]), (
                f"due at {due}, and a wake-up changed nothing"
            )

    # -- calls ---------------------------------------------------------------------------------------------------------

    def call(self, verb: str, number: int) -> None:
        note(f"{verb} {number}")
        if verb == "wake":
            self.write(room=number)
        elif verb == "send":
            self.post("event", name=EVENTS[number])
        elif verb == "say":
            self.post(VERBS[number])
        elif verb == "clock":
            due = decode(*self.stored).due_at
            moves = [1, 60, 3_600, 200_000]
            at = self.now + timedelta(seconds=moves[number % 4])
            self.now = max(self.now, due) if number > 3 and due is not None else at
        elif self.flights:
            self.end(verb, self.flights.pop(number % len(self.flights)))

    def post(self, kind: str, name: str = "") -> None:
        self.write(Message(f"m-{next(self.numbers)}", kind, self.now, name=name), room=0)

    def end(self, verb: str, run: Run) -> None:
        errors = {"fail": ValueError("no"), "terminal": TerminalError("no"), "time out": TimeoutError()}
        if verb == "finish":
            self.write(finished(run, run.call(), at=self.now), room=1)
        elif verb in errors:
            if run.alone:
                run.body.revert()
            self.write(failed(run, errors[verb], at=self.now), room=1)
        elif verb == "lapse":
            self.write(lapsed(run, at=self.now), room=0)
        else:
            act = self.load()
            if verb == "renew" and renew(act, run.token, run.timeout):
                self.flights.append(run)
            elif verb == "release":
                release(act, run.token)
            engine.advance(act)
            if seal(act):
                self.stored = (act.document, act.instance.state)
                self.check()


def what(text: bytes) -> dict[str, Any]:
    """A document without what each save changes."""
    return {name: value for name, value in json.loads(text).items() if name not in ("rev", "updated_at", "due_at")}


LAW: Final = settings(max_examples=120, suppress_health_check=[HealthCheck.too_slow])


@LAW
@given(st.sampled_from([Timers, Steps, Threads, Crowd]), CALLS)
def test_nothing_happens_before_due_at_and_something_at_it(workflow: type[Base], calls: list[tuple[str, int]]) -> None:
    note(workflow.__name__)
    drive = Drive(workflow())
    for call in calls:
        drive.call(*call)


@LAW
@given(st.sampled_from([(Steps, Renamed), (Timers, FewerTimers)]), CALLS, CALLS)
def test_the_law_holds_when_the_code_changes_and_changes_back(
    codes: tuple[type[Base], type[Base]], calls: list[tuple[str, int]], more: list[tuple[str, int]]
) -> None:
    drive = Drive(codes[0]())
    for call in calls:
        drive.call(*call)
    note("other code")
    drive.definition = Definition.of(codes[1])
    drive.flights = []
    drive.write(room=0)
    for call in more:
        drive.call(*call)
    drive.definition = Definition.of(codes[0])
    drive.flights = []
    note("the code is back")
    drive.write(room=0)
    for call in calls:
        drive.call(*call)


def test_a_thread_that_was_stopped_for_walking_too_far_leaves_nothing_due() -> None:
    class Runaway(Base):
        def definition(self) -> Section[Any]:
            return S(
                WaitFor("first", timedelta(hours=1)),
                For("loop", True, Try(For("empty", lambda: self.n > 0, Step(self.work)))),
            )

    drive = Drive(Runaway())
    drive.now += timedelta(hours=1)
    act = drive.wake(drive.now)
    assert act.statements > limits.STATEMENTS_PER_WRITE
    drive.stored = (act.document, act.instance.state)
    for _ in range(2):
        drive.now += timedelta(minutes=1)
        act = drive.wake(drive.now)
        drive.stored = (act.document, act.instance.state) if act.changed else drive.stored
    assert decode(*drive.stored).due_at is None
    with pytest.raises(AssertionError, match="changed nothing"):
        # The law itself can fail: a document that says it is due for no reason.
        drive.stored = (drive.stored[0].replace(b'"pc":', b'"due_at":"2024-05-01T00:00:00Z","pc":', 1), drive.stored[1])
        drive.definition = Definition.of(Timers)
        drive.check()
