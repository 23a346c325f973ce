"""P17 to P21, P25, P26 and P34: timers, retries and conditions."""

from collections.abc import Iterator
from datetime import timedelta

import pytest

from asyncflow import (
    After,
    At,
    Ended,
    Go,
    NotAwaited,
    On,
    Pending,
    Retry,
    Return,
    S,
    Section,
    Select,
    Step,
    WaitEvent,
    WaitUntil,
    When,
    event,
)
from tests.scenarios.drivers import START, Drive, evicted, scenario
from tests.scenarios.traced import Traced, trace

SECOND = timedelta(seconds=1)
HOUR = timedelta(hours=1)


class TwoTimers(Traced):
    first: timedelta
    second: timedelta

    def definition(self) -> Section[None]:
        return S(
            Select(
                "race",
                After(lambda: self.first, Step("one", self.mark, "first")),
                After(lambda: self.second, Step("two", self.mark, "second")),
            )
        )


@scenario()
def test_p17_two_timers_of_one_select_are_told_apart(drive: Drive) -> None:
    run = drive.start(TwoTimers(first=10 * SECOND, second=5 * SECOND))
    drive.advance(5 * SECOND)
    assert trace(run) == "second"
    drive.advance(5 * SECOND)
    assert trace(run) == "second"


@scenario()
def test_p17_of_two_timers_due_at_once_the_first_case_wins(drive: Drive) -> None:
    """Rule 10: deadlines at the same instant go by the order of cases."""
    run = drive.start(TwoTimers(first=5 * SECOND, second=5 * SECOND))
    drive.advance(5 * SECOND)
    assert trace(run) == "first"


class P18(Traced):
    def definition(self) -> Section[None]:
        return S(Select("nap", After(timedelta(seconds=1.5), Step("awake", self.mark, "awake"))))


@scenario()
def test_p18_a_fraction_of_a_second_counts(drive: Drive) -> None:
    run = drive.start(P18())
    drive.advance(timedelta(seconds=1.499))
    assert trace(run) == ""
    drive.advance(timedelta(milliseconds=1))
    assert trace(run) == "awake"


class P19(Traced):
    def definition(self) -> Section[None]:
        return S(Select("wait", On("never"), When("at once", lambda: True, Step("x", self.mark, "x"))))


@scenario()
def test_p19_a_true_condition_wins_at_once(drive: Drive) -> None:
    run = drive.start(P19())
    assert trace(run) == "x"
    assert run.status == "Finished"


class World:
    """The service that the steps call: up or down, whatever the workflow's state says."""

    down = False


@pytest.fixture(autouse=True)
def _service_is_up() -> Iterator[None]:
    World.down = False
    yield
    World.down = False


class Calling(Traced):
    def call(self) -> None:
        self.mark("called")
        if World.down:
            raise ConnectionError("no route")


class P20(Calling):
    def definition(self) -> Section[None]:
        return S(
            Step(self.call, retry=Retry(max_attempts=5, delay=HOUR, factor=1, jitter=0)),
            Step("end", self.mark, "end"),
        )


@scenario()
def test_p20_attempts_follow_each_other_by_the_delay_of_the_policy(drive: Drive) -> None:
    World.down = True
    run = drive.start(P20())
    assert run.status == "Running"
    assert run.threads == {"main": "call"}
    drive.advance(HOUR)
    assert trace(run) == ""
    World.down = False
    drive.advance(HOUR - SECOND)
    assert trace(run) == ""
    drive.advance(SECOND)
    assert trace(run) == "called;end"


class CountsAttempts(Traced):
    def first(self) -> None:
        self.mark(f"first {self.context.attempt}")
        if self.context.attempt < 3:
            raise ConnectionError("no route")

    def second(self) -> None:
        self.mark(f"second {self.context.attempt}")

    def definition(self) -> Section[None]:
        retry = Retry(max_attempts=5, delay=HOUR, factor=1, jitter=0)
        return S(Step(self.first, retry=retry), Step(self.second, retry=retry))


def test_p20_three_attempts_and_a_fresh_count_for_the_next_step() -> None:
    run = evicted(CountsAttempts(), now=START)
    assert run.steps == ["first", "first", "first", "second"]
    assert trace(run) == "first 3;second 1"
    assert run.now == START + 2 * HOUR


class P21(Calling):
    def definition(self) -> Section[None]:
        return S(
            Step(self.call, retry=Retry(max_attempts=3, delay=SECOND, factor=1, jitter=0)),
            Step("end", self.mark, "end"),
        )


def park(drive: Drive) -> None:
    drive.advance(SECOND)
    drive.advance(SECOND)


@scenario(crash=False)
def test_p21_a_used_up_policy_parks_with_error_and_attempts(drive: Drive) -> None:
    World.down = True
    run = drive.start(P21())
    park(drive)
    assert run.status == "Paused"
    assert run.threads == {"main": "call"}
    error = run.error
    assert error is not None
    assert (error.type, error.message, error.path, error.attempt) == ("ConnectionError", "no route", "call", 3)
    assert "ConnectionError" in error.traceback
    assert "builtins.OSError" in error.bases
    drive.advance(24 * HOUR)
    assert run.status == "Paused"


@scenario(crash=False)
def test_p21_a_parked_step_can_be_tried_again_by_hand(drive: Drive) -> None:
    World.down = True
    run = drive.start(P21())
    park(drive)
    World.down = False
    run.retry()
    assert trace(run) == "called;end"
    assert run.status == "Finished"
    assert run.error is None


@scenario(crash=False)
def test_p21_a_parked_step_can_be_skipped(drive: Drive) -> None:
    World.down = True
    run = drive.start(P21())
    park(drive)
    run.skip()
    assert trace(run) == "end"
    assert run.status == "Finished"


class P25(Traced):
    locked: int = 0

    def lock(self) -> None:
        self.locked = 1

    def unlock(self) -> None:
        self.locked = 0
        self.mark("unlock")

    def acquire(self) -> None:
        self.locked = 1
        self.mark("acq")

    def definition(self) -> Section[None]:
        return S(
            Step(self.lock),
            Go("other", Step(self.unlock)),
            WaitUntil("free", lambda: self.locked == 0, self.acquire),
            Step("end", self.mark, "end"),
        )


@scenario()
def test_p25_a_handler_may_consume_the_condition_it_waited_for(drive: Drive) -> None:
    run = drive.start(P25())
    assert trace(run) == "unlock;acq;end"
    assert run.state.locked == 1
    assert run.status == "Finished"


class P26(Traced):
    def definition(self) -> Section[None]:
        return S(WaitUntil("at once", lambda: True), Step("end", self.mark, "end"))


@scenario()
def test_p26_a_condition_needs_no_handler(drive: Drive) -> None:
    run = drive.start(P26())
    assert trace(run) == "end"


class P34(Traced):
    @event
    def answer(self) -> None:
        self.mark("answer")

    @event
    def stop(self) -> None: ...

    def definition(self) -> Section[None]:
        return S(
            Select("race", On(self.answer), After(HOUR, Step("late", self.mark, "late"))),
            WaitEvent(self.stop),
        )


@scenario()
def test_p34_a_timer_that_lost_has_no_effect(drive: Drive) -> None:
    run = drive.start(P34())
    run.send(P34.answer)
    drive.advance(2 * HOUR)
    assert trace(run) == "answer"
    assert run.threads == {"main": "stop"}


@scenario()
def test_p34_an_event_after_the_timeout_is_refused(drive: Drive) -> None:
    run = drive.start(P34())
    drive.advance(HOUR)
    with pytest.raises(NotAwaited):
        run.send(P34.answer)
    assert trace(run) == "late"
    run.send(P34.stop)
    with pytest.raises(Ended):
        run.send(P34.answer)


class AtOnce(Traced):
    """A step that holds everything up, so that an event and a timer come to be handled in one write."""

    @event
    def answer(self) -> None:
        self.mark("answer")

    def definition(self) -> Section[str]:
        return S(
            Go("slow", Step("work", self.mark, "work")),
            Select(
                "race",
                On(self.answer, Return("answered")),
                At(lambda: START + HOUR, Return("timed out")),
            ),
        )


@pytest.mark.parametrize(
    "sent_at, output",
    [(HOUR - SECOND, "answered"), (HOUR, "answered"), (HOUR + SECOND, "timed out")],
)
def test_p34_of_both_at_once_the_earlier_wins_and_the_event_on_a_tie(sent_at: timedelta, output: str) -> None:
    """Rule 10: a step in between does not hurt an early event, a late task does not help a late one."""
    run = evicted(AtOnce(), hold={"work"}, now=START)
    run.advance(sent_at)
    with pytest.raises(Pending):
        run.send(AtOnce.answer)
    run.advance(2 * HOUR - sent_at)
    assert run.status == "Running"
    run.held("work").finish()
    assert run.output == output
