"""Rules 17 and 18: results that do not fit, steps that must not run twice, `then` and `into`."""

from datetime import timedelta
from decimal import Decimal

import pytest

from asyncflow import (
    Failure,
    Retry,
    Return,
    S,
    Section,
    Step,
    Try,
    Uncertain,
    With,
)
from tests.scenarios.drivers import evicted
from tests.scenarios.traced import Traced, trace


class Fetching(Traced):
    price: Decimal = Decimal(0)
    count: int = 0

    def fetch(self) -> Decimal:
        return Decimal(7)

    def fetched(self, price: Decimal) -> None:
        if price < 0:
            self.price = price
            raise ValueError("a price below zero")
        self.price = price
        self.mark("fetched")

    def definition(self) -> Section[Decimal]:
        return S(Step(self.fetch, then=self.fetched), Return(lambda: self.price))


def test_then_gets_the_result_and_changes_the_state() -> None:
    run = evicted(Fetching())
    assert run.output == Decimal(7)
    assert trace(run) == "fetched"


def negative() -> Decimal:
    return Decimal(-1)


def test_an_exception_in_then_parks_at_once_and_changes_nothing() -> None:
    """Rule 18: it is a fault of the code, so no attempt follows by itself."""
    run = evicted(Fetching(), stubs={Fetching.fetch: negative})
    assert run.status == "Paused"
    assert run.threads == {"main": "fetch"}
    assert run.steps == ["fetch"]
    assert run.error is not None
    assert (run.error.type, run.error.message) == ("ValueError", "a price below zero")
    assert run.state.price == 0


def test_a_retry_of_such_a_step_runs_the_action_again() -> None:
    """Rule 18."""
    results = iter([Decimal(-1), Decimal(8)])
    run = evicted(Fetching(), stubs={Fetching.fetch: lambda: next(results)})
    run.retry()
    assert run.output == Decimal(8)
    assert run.steps == ["fetch", "fetch"]


def test_a_skip_with_a_value_applies_it_as_the_result() -> None:
    """Rule 18."""
    run = evicted(Fetching(), stubs={Fetching.fetch: negative})
    run.skip(value=Decimal(5))
    assert run.output == Decimal(5)
    assert trace(run) == "fetched"
    assert run.steps == ["fetch"]


class Copying(Traced):
    """A `then` step that changes what it must not."""

    def fetch(self) -> int:
        self.mark("fetch")
        return 1

    def fetched(self, number: int) -> None:
        self.mark(f"fetched {number}")

    def definition(self) -> Section[None]:
        return S(Step(self.fetch, then=self.fetched))


def test_a_then_step_that_changes_its_copy_is_parked() -> None:
    """Rule 18, docs/statements.md: looked for in simulate after each action."""
    run = evicted(Copying())
    assert run.status == "Paused"
    assert run.threads == {"main": "fetch"}
    assert trace(run) == ""


class Into(Fetching):
    def definition(self) -> Section[Decimal]:
        return S(Step(self.fetch, into="price"), Return(lambda: self.price))


def test_into_puts_the_result_into_the_field() -> None:
    assert evicted(Into()).output == Decimal(7)


def test_a_result_that_is_not_of_the_type_of_its_field_parks() -> None:
    """Rule 18: an invalid state after an action."""
    run = evicted(Into(), stubs={Fetching.fetch: lambda: "much"})
    assert run.status == "Paused"
    assert run.state.price == 0
    run.skip(value=Decimal(2))
    assert run.output == Decimal(2)


class Breaking(Traced):
    """A plain step that leaves the value of its stub's choice in a field."""

    count: int = 0
    anything: object = None

    def work(self) -> None:
        self.mark("work")
        for name, value in LEFT_BEHIND.items():
            self.__dict__[name] = value

    def definition(self) -> Section[None]:
        return S(Step(self.work), Step("end", self.mark, "end"))


LEFT_BEHIND: dict[str, object] = {}


@pytest.mark.parametrize(
    "left",
    [
        {"count": "many"},
        {"count": None},
        {"anything": float("nan")},
        {"anything": float("inf")},
        {"anything": 2**53},
        {"anything": "\ud800"},
        {"anything": "a\0b"},
        {"anything": object()},
    ],
    ids=["wrong type", "missing", "nan", "infinity", "large integer", "surrogate", "nul", "no json"],
)
def test_a_state_that_is_not_valid_or_no_restricted_json_parks_the_step(left: dict[str, object]) -> None:
    """Rules 5 and 18: validated before every save; nothing of the action is kept."""
    LEFT_BEHIND.clear()
    LEFT_BEHIND.update(left)
    run = evicted(Breaking())
    assert run.status == "Paused"
    assert run.threads == {"main": "work"}
    assert run.steps == ["work"]
    assert trace(run) == ""
    LEFT_BEHIND.clear()
    run.retry()
    assert trace(run) == "work;end"


def nested(depth: int) -> object:
    value: object = "bottom"
    for _ in range(depth):
        value = [value]
    return value


def test_a_state_deeper_than_its_limit_parks_the_step() -> None:
    """Rule 5 and docs/limits.md: depth 64."""
    LEFT_BEHIND.clear()
    LEFT_BEHIND["anything"] = nested(60)
    assert evicted(Breaking()).status == "Finished"
    LEFT_BEHIND["anything"] = nested(65)
    assert evicted(Breaking()).status == "Paused"
    LEFT_BEHIND.clear()


class Output(Traced):
    value: object = None

    def definition(self) -> Section[int]:
        return S(Return(lambda: self.value))  # type: ignore[arg-type, return-value]


def test_an_output_that_is_not_of_its_type_parks_main() -> None:
    """docs/statements.md, Output and Errors: checked by pydantic before the save; a callable of the tree at fault parks."""
    assert evicted(Output(value=3)).output == 3
    run = evicted(Output(value="three"))
    assert run.status == "Paused"
    assert run.threads == {"main": "return"}


class AtMostOnce(Traced):
    caught: list[Failure] = []

    def charge(self) -> None:
        self.mark("charge")

    def note(self, failure: Failure) -> None:
        self.caught.append(failure)

    def definition(self) -> Section[str]:
        return S(
            With(retry=Retry(max_attempts=5, jitter=0))(
                Try(Step(self.charge, idempotent=False), Return("charged"))
                .Except(Uncertain, self.note, Return("uncertain"))
                .Except(Exception, self.note, Return("failed")),
            ),
        )


def test_an_exception_of_a_step_at_most_once_is_raised_into_the_tree() -> None:
    """Rule 17: no attempt follows by itself, and an inherited policy is ignored."""

    def charge() -> None:
        raise ConnectionError("cut off")

    run = evicted(AtMostOnce(), stubs={AtMostOnce.charge: charge})
    assert run.output == "failed"
    assert run.steps == ["charge"]
    assert run.state.caught[0].type == "ConnectionError"


def test_a_lapse_of_a_step_at_most_once_is_uncertain() -> None:
    """Rule 17."""
    run = evicted(AtMostOnce(), hold={AtMostOnce.charge})
    held = run.held(AtMostOnce.charge)
    held.lapse()
    assert run.output == "uncertain"
    assert run.steps == ["charge"]
    failure = run.state.caught[0]
    assert (failure.type, failure.path, failure.attempt) == ("Uncertain", "charge", 1)
    held.finish()
    assert trace(run) == ""


def test_a_crash_in_a_step_at_most_once_is_uncertain() -> None:
    """Rules 12 and 17: save 2 is the take; the process ends after it, and nobody knows what the action did."""
    run = evicted(AtMostOnce(), crash=("after", 2))
    assert run.output == "uncertain"


def test_a_step_at_most_once_that_was_not_taken_runs_after_a_crash() -> None:
    run = evicted(AtMostOnce(), crash=("before", 2))
    assert run.output == "charged"
    assert trace(run) == "charge"


class InRegion(Traced):
    def charge(self) -> None:
        self.mark("charge")

    def definition(self) -> Section[str]:
        return S(
            With(idempotent=False)(
                Try(Step(self.charge), Step("own", self.charge, idempotent=True), Return("charged")).Except(
                    Uncertain, Return("uncertain")
                )
            )
        )


def test_a_region_may_make_its_steps_at_most_once() -> None:
    run = evicted(InRegion(), hold={InRegion.charge})
    run.held("charge").lapse()
    assert run.output == "uncertain"


def test_a_step_says_otherwise_than_its_region() -> None:
    run = evicted(InRegion(), hold={"own"})
    run.held("own").lapse()
    run.held("own").finish()
    assert run.output == "charged"


class Slow(Traced):
    def work(self) -> None:
        self.mark("work")

    def definition(self) -> Section[None]:
        return S(Step(self.work, timeout=timedelta(seconds=1)))


def test_the_clock_alone_does_not_time_out_a_held_attempt() -> None:
    """docs/testing.md, hold."""
    run = evicted(Slow(), hold={Slow.work})
    run.advance(timedelta(days=1))
    assert run.running == {"work"}
    run.held(Slow.work).finish()
    assert trace(run) == "work"
