"""The law of `due_at` (rule 20): before it a wake-up changes nothing, at it a wake-up changes something.

Documents are reached by random calls of the engine's own functions: events, results, failures, lapses, operators'
words, clocks that move by little and by much, workers with little room, and code that does not know a position.
"""

import json
from collections.abc import Sequence
from datetime import timedelta
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
    event,
)
from asyncflow.activation import Activation
from asyncflow.definition import Definition
from asyncflow.leases import Run, failed, lapsed, release, renew
from tests.unit.documents import START, Stored

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
            return S(Try(Step("asked", self.ask, then=self.put, undo=self.back), wait).Except(Cancelled, WaitEvent(self.reset)))

        return S(ForEach("each", lambda: self.items, body, parallel=2), ForEach("in order", lambda: self.items, body))


class Crowd(Base):
    def definition(self) -> Section[Any]:
        def worker(name: str) -> Section[Any]:
            return Section(name, Try(Step("asked", self.ask, into="n")).Finally(Step("tidied", self.work, retry=SCARCE)))

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


class Drive(Stored):
    """One instance, driven as a runner does; every document that is saved is held against the law."""

    def keep(self, act: Activation, runs: Sequence[Run] = ()) -> Sequence[Run]:
        kept = super().keep(act, runs)
        if act.changed:
            self.check()
        return kept

    # -- the law -------------------------------------------------------------------------------------------------------

    def check(self) -> None:
        instance = self.instance
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
            assert what(act.document or self.text) != what(self.text), f"due at {due}, and a wake-up changed nothing"

    # -- calls ---------------------------------------------------------------------------------------------------------

    def call(self, verb: str, number: int) -> None:
        note(f"{verb} {number}")
        if verb == "wake":
            self.write(room=number)
        elif verb == "send":
            self.send(EVENTS[number])
        elif verb == "say":
            self.say(VERBS[number])
        elif verb == "clock":
            due = self.instance.due_at
            at = self.now + timedelta(seconds=[1, 60, 3_600, 200_000][number % 4])
            self.now = max(self.now, due) if number > 3 and due is not None else at
        elif self.runs:
            self.end(verb, self.runs.pop(number % len(self.runs)))

    def end(self, verb: str, run: Run) -> None:
        errors = {"fail": ValueError("no"), "terminal": TerminalError("no"), "time out": TimeoutError()}
        if verb == "finish":
            self.finish(run, room=1)
        elif verb in errors:
            if run.alone:
                run.body.revert()
            self.write(failed(run, errors[verb], at=self.now), room=1)
        elif verb == "lapse":
            self.write(lapsed(run, at=self.now))
        elif verb == "release":
            self.operate(lambda act: release(act, run.token))
        elif self.operate(lambda act: renew(act, run.token, run.timeout)):
            self.runs.append(run)


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
    drive.runs = []
    drive.write()
    for call in more:
        drive.call(*call)
    drive.definition = Definition.of(codes[0])
    drive.runs = []
    note("the code is back")
    drive.write()
    for call in calls:
        drive.call(*call)


@pytest.mark.parametrize("due", ["2024-05-01T00:00:00Z", "2030-05-01T00:00:00Z", None])
def test_the_law_itself_can_fail(due: str | None) -> None:
    drive = Drive(Timers())
    drive.check()
    drive.text = json.dumps({**json.loads(drive.text), "due_at": due}).encode()
    with pytest.raises(AssertionError, match="changed"):
        drive.check()
