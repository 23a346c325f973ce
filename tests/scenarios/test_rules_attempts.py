"""Rule 16, docs/statements.md: how often, and when, a step is tried again, and what follows the last attempt."""

from datetime import timedelta

import pytest

from asyncflow import (
    Failure,
    Go,
    Retry,
    Return,
    S,
    Section,
    Simulation,
    Step,
    TerminalError,
    Try,
    WaitEvent,
    WaitFor,
    With,
    event,
)
from tests.scenarios.drivers import START, evicted
from tests.scenarios.traced import Traced, trace

SECOND = timedelta(seconds=1)
HOUR = timedelta(hours=1)
LONG = timedelta(days=1)


def fails() -> None:
    raise ConnectionError("no route")


class Calling(Traced):
    """One step under the policy that a subclass names."""

    def call(self) -> None:
        self.mark("called")

    @classmethod
    def policy(cls) -> Retry:
        return Retry(jitter=0)

    def definition(self) -> Section[None]:
        return S(Step(self.call, retry=self.policy()))


class Doubling(Calling):
    @classmethod
    def policy(cls) -> Retry:
        return Retry(max_attempts=4, delay=SECOND, factor=2, jitter=0)


class Capped(Calling):
    @classmethod
    def policy(cls) -> Retry:
        return Retry(max_attempts=5, delay=10 * SECOND, factor=2, max_delay=15 * SECOND, jitter=0)


class SlowStart(Calling):
    @classmethod
    def policy(cls) -> Retry:
        return Retry(max_attempts=3, delay=HOUR, factor=2, max_delay=timedelta(minutes=15), jitter=0)


class Endless(Calling):
    @classmethod
    def policy(cls) -> Retry:
        return Retry(max_attempts=None, delay=HOUR, factor=1, jitter=0)


def times_of(workflow: Calling, most: int) -> list[float]:
    """Give the seconds from the start at which the attempts of a step that always fails begin."""
    run = evicted(workflow, stubs={Calling.call: fails}, skip_backoff=False, now=START)
    found = [0.0]
    while len(found) < most and run.status == "Running":
        run.advance(SECOND)
        if len(run.steps) > len(found):
            found.append((run.now - START).total_seconds())
    return found


def test_delays_grow_by_the_factor_and_the_last_attempt_parks() -> None:
    assert times_of(Doubling(), 9) == [0, 1, 3, 7]


def test_max_delay_caps_the_growth() -> None:
    assert times_of(Capped(), 9) == [0, 10, 25, 40, 55]


def test_max_delay_never_shortens_the_first_delay() -> None:
    run = evicted(SlowStart(), stubs={Calling.call: fails}, now=START)
    assert run.status == "Paused"
    assert run.now == START + 2 * HOUR


def test_the_default_policy_gives_up_after_twenty_attempts_and_about_three_hours() -> None:
    run = evicted(Calling(), stubs={Calling.call: fails}, now=START)
    assert run.status == "Paused"
    assert len(run.steps) == 20
    assert timedelta(hours=2) < run.now - START < timedelta(hours=4)


def test_without_a_limit_a_step_is_tried_for_ever() -> None:
    run = evicted(Endless(), stubs={Calling.call: fails}, skip_backoff=False)
    run.advance(100 * HOUR)
    assert run.status == "Running"
    assert len(run.steps) == 101


class Beside(Traced):
    def call(self) -> None:
        self.mark("called")

    def definition(self) -> Section[None]:
        return S(
            Go("clock", WaitFor("nap", timedelta(seconds=2), Step("tick", self.mark, "tick"))),
            Step(self.call, retry=Retry(max_attempts=3, delay=SECOND, factor=2, jitter=0)),
        )


def test_timers_on_the_way_to_the_next_attempt_fire() -> None:
    """docs/testing.md, skip_backoff: attempts at 0, 1 and 3 s; the timer is due at 2 s."""
    outcomes = iter([ConnectionError("one"), ConnectionError("two"), None])

    def call() -> None:
        if error := next(outcomes):
            raise error

    run = evicted(Beside(), stubs={Beside.call: call}, now=START)
    assert run.steps == ["call", "call", "tick", "call"]
    assert run.now == START + 3 * SECOND


class Editing(Traced):
    """A step that fails while the price is zero, and an event that sets the price."""

    price: int = 0

    @event
    def set_price(self, price: int) -> None:
        self.price = price

    def charge(self) -> None:
        KEYS.append(self.context.idempotency_key)
        self.mark(f"attempt {self.context.attempt}")
        if self.price == 0:
            self.price = 99
            raise ValueError("no price")

    def definition(self) -> Section[None]:
        return S(Go("desk", WaitEvent(self.set_price)), Step(self.charge), Step("again", self.charge))


KEYS: list[str] = []
"""The idempotency keys that attempts saw; what a failed attempt writes into its state is gone."""


def test_a_failed_attempt_changes_nothing_and_the_next_sees_the_state_as_it_is_then() -> None:
    KEYS.clear()
    run = evicted(Editing(), skip_backoff=False)
    assert run.state.price == 0
    assert trace(run) == ""
    run.send(Editing.set_price, 5)
    run.advance(SECOND)
    assert run.state.price == 5
    assert trace(run) == "attempt 2;attempt 1"


def test_all_attempts_of_a_visit_have_one_key_and_each_visit_its_own() -> None:
    """Rule 3."""
    KEYS.clear()
    run = evicted(Editing(), skip_backoff=False)
    run.send(Editing.set_price, 5)
    run.advance(SECOND)
    first, second, other = KEYS
    assert first == second != other


class Picky(Traced):
    caught: list[Failure] = []

    def call(self) -> None: ...

    def note(self, failure: Failure) -> None:
        self.caught.append(failure)

    def definition(self) -> Section[str]:
        policy = Retry(max_attempts=3, on=(ConnectionError, TimeoutError), exhausted="raise", jitter=0)
        return S(
            Try(Step(self.call, retry=policy), Return("called")).Except(Exception, self.note),
            Return("caught"),
        )


def caught(error: Exception) -> tuple[Simulation[Picky], Failure]:
    def call() -> None:
        raise error

    run = evicted(Picky(), stubs={Picky.call: call})
    assert run.output == "caught"
    (failure,) = run.state.caught
    return run, failure


def test_what_the_policy_does_not_name_is_raised_at_once() -> None:
    run, failure = caught(KeyError("x"))
    assert run.steps == ["call"]
    assert (failure.type, failure.attempt, failure.path) == ("KeyError", 1, "call")


def test_a_used_up_policy_may_raise_the_last_error_into_the_tree() -> None:
    run, failure = caught(ConnectionResetError("cut off"))
    assert run.steps == ["call"] * 3
    assert (failure.type, failure.message, failure.attempt) == ("ConnectionResetError", "cut off", 3)
    assert "builtins.ConnectionError" in failure.bases


def test_a_terminal_error_is_never_tried_again() -> None:
    run, failure = caught(TerminalError("no such card", code=422, details={"card": "x"}))
    assert run.steps == ["call"]
    assert (failure.type, failure.code, failure.details) == ("TerminalError", 422, {"card": "x"})


def test_a_time_out_is_the_built_in_error_and_counts_as_an_attempt() -> None:
    run = evicted(Picky(), hold={Picky.call})
    for attempt in (1, 2, 3):
        held = run.held(Picky.call)
        assert held.attempt == attempt
        held.fail(TimeoutError("too slow"))
    assert run.output == "caught"
    assert run.state.caught[0].type == "TimeoutError"


def test_a_terminal_error_that_nobody_catches_fails_the_instance() -> None:
    def call() -> None:
        raise TerminalError("no such card", code=422)

    run = evicted(Calling(), stubs={Calling.call: call})
    assert run.status == "Failed"
    assert run.error is not None
    assert (run.error.type, run.error.message, run.error.code) == ("TerminalError", "no such card", 422)
    assert run.threads == {}
    assert run.output is None


class Regions(Traced):
    def plain(self) -> None: ...

    def inner(self) -> None: ...

    def own(self) -> None: ...

    def outside(self) -> None: ...

    def definition(self) -> Section[None]:
        def times(number: int) -> Retry:
            return Retry(max_attempts=number, jitter=0, exhausted="raise")

        def tries(name: str, step: Step) -> Section[None]:
            return Section(name, Try(step).Except(ConnectionError))

        return S(
            With(retry=times(2))(
                tries("a", Step(self.plain)),
                With(retry=times(3))(tries("b", Step(self.inner)), tries("c", Step(self.own, retry=times(4)))),
            ),
            tries("d", Step(self.outside, retry=times(1))),
        )


@pytest.mark.parametrize("step, attempts", [("plain", 2), ("inner", 3), ("own", 4), ("outside", 1)])
def test_a_step_goes_by_its_own_policy_then_by_the_innermost_region(step: str, attempts: int) -> None:
    stubs = {Regions.plain: fails, Regions.inner: fails, Regions.own: fails, Regions.outside: fails}
    run = evicted(Regions(), stubs=stubs)
    assert run.status == "Finished"
    assert run.steps.count(step) == attempts


class Async(Traced):
    async def fetch(self) -> int:
        return 3

    def fetched(self, number: int) -> None:
        self.mark(f"fetched {number}")

    async def work(self) -> None:
        self.mark("work")

    def definition(self) -> Section[None]:
        return S(Step(self.fetch, then=self.fetched), Step(self.work))


def test_actions_may_be_coroutines() -> None:
    assert trace(evicted(Async())) == "fetched 3;work"
