"""Rules 10 and 11: what goes first when several things may."""

from datetime import timedelta
from typing import Never

import pytest
from pydantic import BaseModel

from asyncflow import (
    After,
    At,
    Break,
    For,
    ForEach,
    Go,
    If,
    Join,
    On,
    Pending,
    Return,
    S,
    Section,
    Select,
    Step,
    WaitEvent,
    WaitFor,
    WaitUntil,
    When,
    event,
)
from tests.scenarios.drivers import START, evicted
from tests.scenarios.traced import Traced, trace

HOUR = timedelta(hours=1)


class CreationOrder(Traced):
    def definition(self) -> Section[None]:
        return S(
            Go("z", Step("z", self.mark, "z")),
            Go("a", Step("a", self.mark, "a")),
            Step("m", self.mark, "m"),
            Join(),
        )


def test_threads_walk_main_first_then_in_order_of_creation() -> None:
    """Rules 10 and 12: who walked first stands at its step longest, and is served first."""
    assert trace(evicted(CreationOrder())) == "m;z;a"


class Semaphore(Traced):
    free: bool = False

    @event
    def release(self) -> None:
        self.free = True

    def acquire(self) -> None:
        self.free = False
        self.mark(self.context.thread)

    def definition(self) -> Section[None]:
        return S(
            Go("first", WaitUntil("turn", lambda: self.free, self.acquire)),
            Go("second", WaitUntil("turn", lambda: self.free, self.acquire)),
            For("releasing", True, Select("next", On(self.release))),
        )


def test_one_true_condition_is_handled_before_the_next_is_looked_at() -> None:
    run = evicted(Semaphore())
    run.send(Semaphore.release)
    assert trace(run) == "first"
    assert set(run.threads) == {"main", "second"}
    run.send(Semaphore.release)
    assert trace(run) == "first;second"
    assert run.state.free is False


class CaseOrder(Traced):
    go: bool = False

    @event
    def start_it(self) -> None:
        self.go = True

    def definition(self) -> Section[str]:
        return S(
            Go(
                "other",
                Select(
                    "race",
                    When("no", lambda: False, Step("no", self.mark, "no")),
                    When("one", lambda: self.go, Step("one", self.mark, "one")),
                    When("two", lambda: self.go, Step("two", self.mark, "two")),
                ),
            ),
            WaitEvent(self.start_it),
            Join(),
            Return("done"),
        )


def test_of_two_true_conditions_the_first_case_wins() -> None:
    run = evicted(CaseOrder())
    run.send(CaseOrder.start_it)
    assert trace(run) == "one"


class ThreeTimers(Traced):
    def note(self) -> None:
        self.mark(f"{self.context.thread} {(self.context.now - START) / HOUR:g}")

    def definition(self) -> Section[None]:
        return S(
            Go("three", Select("nap", After(3 * HOUR, self.note))),
            Go("one", Select("nap", After(HOUR, self.note), On("wake")), Select("again", After(HOUR, self.note))),
            Join(),
        )


def test_timers_fire_in_order_each_at_its_instant() -> None:
    run = evicted(ThreeTimers(), now=START)
    run.advance(24 * HOUR)
    assert trace(run) == "one 1;one 2;three 3"
    assert run.now == START + 24 * HOUR


class Entering(Traced):
    @event(queue=True)
    def queued(self) -> None: ...

    def definition(self) -> Section[str]:
        return S(
            WaitFor("asleep", 4 * HOUR),
            Select(
                "entering",
                When("true at once", lambda: True, Return("condition")),
                At(lambda: START + 2 * HOUR, Return("instant")),
                On(self.queued, Return("message")),
            ),
        )


@pytest.mark.parametrize("sent_at, winner", [(1, "message"), (2, "message"), (3, "instant")])
def test_what_has_come_already_goes_first_by_its_time(sent_at: int, winner: str) -> None:
    """docs/statements.md, Select: the earliest message or passed instant, and only then the first true condition."""
    run = evicted(Entering(), now=START)
    run.advance(sent_at * HOUR)
    with pytest.raises(Pending):
        run.send(Entering.queued)
    run.advance((4 - sent_at) * HOUR)
    assert run.output == winner


class EnteringWithCondition(Traced):
    def definition(self) -> Section[str]:
        return S(
            Select(
                "entering",
                At(lambda: START + 2 * HOUR, Return("instant")),
                After(lambda: None, Return("never")),
                When("true at once", lambda: True, Return("condition")),
            ),
        )


def test_a_true_condition_goes_before_an_instant_that_has_not_passed() -> None:
    run = evicted(EnteringWithCondition(), now=START)
    assert run.output == "condition"


class NoDelay(Traced):
    def definition(self) -> Section[str]:
        return S(
            Select(
                "entering",
                When("true at once", lambda: True, Return("condition")),
                After(timedelta(0), Return("timer")),
            ),
        )


def test_a_delay_of_nothing_has_passed_on_entering() -> None:
    """docs/statements.md, Select: what has come already goes before the first true condition."""
    assert evicted(NoDelay()).output == "timer"


class DelayInLoop(Traced):
    @event
    def tick(self) -> None:
        self.mark("tick")

    def definition(self) -> Section[str]:
        return S(For("loop", True, Select("next", On(self.tick), After(HOUR, Return("quiet for an hour")))))


def test_a_delay_counts_from_each_pass() -> None:
    run = evicted(DelayInLoop())
    for _ in range(3):
        run.advance(HOUR - timedelta(seconds=1))
        run.send(DelayInLoop.tick)
    assert run.status == "Running"
    run.advance(HOUR)
    assert run.output == "quiet for an hour"


class TwoMessages(Traced):
    @event(queue=True)
    def a(self) -> None:
        self.mark("a")

    @event(queue=True)
    def b(self) -> None:
        self.mark("b")

    @event
    def open_up(self) -> None: ...

    def definition(self) -> Section[None]:
        return S(
            WaitEvent(self.open_up),
            For("reading", lambda: len(self.log) < 3, Select("next", On(self.a), On(self.b))),
        )


def test_messages_are_handled_in_the_order_of_their_times_whatever_the_cases_say() -> None:
    run = evicted(TwoMessages())
    for name in ("b", "a", "b"):
        with pytest.raises(Pending):
            run.send(name)
        run.advance(timedelta(seconds=1))
    run.send(TwoMessages.open_up)
    assert trace(run) == "b;a;b"
    assert run.status == "Finished"


class Row(BaseModel):
    number: int


class LongWalk(Traced):
    rows: list[Row]

    def one(self, row: Row) -> Section[Never]:
        return S(If("below zero", lambda: row.number < 0, Step("bad", self.mark, "bad")))

    def definition(self) -> Section[str]:
        return S(ForEach("rows", lambda: self.rows, self.one), Return("walked"))


def test_a_walk_longer_than_a_write_goes_on_in_the_next() -> None:
    """Rule 11: the position in the loop has changed, so it is saved as it is, due now."""
    run = evicted(LongWalk(rows=[Row(number=number) for number in range(12_000)]))
    assert run.output == "walked"
    assert run.document["rev"] != 1


class Spinning(Traced):
    stopped: bool = False

    @event
    def spin(self) -> None: ...

    def definition(self) -> Section[None]:
        return S(
            WaitEvent(self.spin),
            For("spinning", True, If("stopped", lambda: self.stopped, Break())),
        )


def test_a_loop_that_does_not_end_is_parked() -> None:
    """Rule 11: the event is saved; the write after it changes nothing more, and parks the thread."""
    run = evicted(Spinning())
    run.send(Spinning.spin)
    assert run.status == "Paused"
    assert run.error is not None
    assert run.error.type == "RunawayWorkflow"
    assert run.threads["main"].startswith("spinning")


class NoClockInConditions(Traced):
    def definition(self) -> Section[None]:
        return S(WaitUntil("late", lambda: self.context.now > START, self.nothing))

    def nothing(self) -> None: ...


def test_a_condition_that_waits_has_no_context() -> None:
    """docs/statements.md: nothing wakes an instance when only the clock has moved, so the thread is parked instead of asleep."""
    run = evicted(NoClockInConditions())
    assert run.status == "Paused"
    assert run.threads == {"main": "late"}
