"""docs/statements.md, Errors: Try, Except and Finally, and what passes through them."""

from datetime import timedelta
from typing import Never

import pytest

from asyncflow import (
    After,
    Break,
    Continue,
    Failure,
    For,
    Go,
    If,
    Join,
    Parallel,
    Raise,
    Return,
    S,
    Section,
    Select,
    Step,
    TerminalError,
    Try,
    WaitEvent,
    event,
)
from tests.scenarios.drivers import evicted
from tests.scenarios.traced import Traced, trace


class NoStock(TerminalError): ...


class NoMoney(TerminalError): ...


class Failing(Traced):
    """Words for bodies that fail: `self.fail` raises what `error` names."""

    error: str = ""
    caught: list[Failure] = []
    i: int = 0

    def fail(self) -> None:
        match self.error:
            case "stock":
                raise NoStock("none left", code=409, details={"left": 0})
            case "money":
                raise NoMoney("card refused")
            case _:
                self.mark("fine")

    def note(self, failure: Failure) -> None:
        self.caught.append(failure)
        self.mark(f"caught {failure.type}")

    def inc(self) -> None:
        self.i += 1

    def step(self, name: str) -> Step:
        return Step(name, self.mark, name)


class Catching(Failing):
    def definition(self) -> Section[None]:
        return S(
            Try(Step(self.fail), self.step("rest"))
            .Except(NoStock, self.note, self.step("stock body"))
            .Except((NoMoney, ConnectionError), self.note, WaitEvent("ask"), self.step("money body"))
            .Finally(self.step("finally")),
            self.step("end"),
        )


def test_a_body_that_ends_well_runs_finally_alone() -> None:
    run = evicted(Catching())
    assert trace(run) == "fine;rest;finally;end"


def test_the_first_matching_except_runs_then_finally_then_what_follows() -> None:
    run = evicted(Catching(error="stock"))
    assert trace(run) == "caught NoStock;stock body;finally;end"
    (failure,) = run.state.caught
    assert (failure.message, failure.code, failure.details) == ("none left", 409, {"left": 0})
    assert (failure.path, failure.attempt) == ("fail", 1)
    assert "asyncflow.TerminalError" in failure.bases
    assert failure.bases[0].endswith("NoStock")


def test_an_except_of_several_classes_is_named_after_them() -> None:
    run = evicted(Catching(error="money"))
    assert run.threads == {"main": "except NoMoney|ConnectionError/ask"}
    run.send("ask")
    assert trace(run) == "caught NoMoney;money body;finally;end"


class ByBase(Failing):
    def definition(self) -> Section[str]:
        return S(
            Try(
                "outer",
                Try("inner", Step(self.fail)).Except(NoMoney, self.note).Finally(self.step("inner finally")),
                self.step("rest"),
            )
            .Except(Exception, self.note, Return("outer"))
            .Finally(self.step("outer finally")),
        )


def test_an_error_that_no_except_names_goes_on_outwards_through_finally() -> None:
    run = evicted(ByBase(error="stock"))
    assert trace(run) == "inner finally;caught NoStock;outer finally"
    assert run.output == "outer"


class SecondError(Failing):
    def definition(self) -> Section[str]:
        return S(
            Try("outer", Try("inner", Step(self.fail)).Except(NoStock, Raise(NoMoney("second"))).Finally(self.step("f")))
            .Except(NoStock, Return("first"))
            .Except(NoMoney, Return("second")),
            Return("none"),
        )


def test_an_error_of_an_except_body_leaves_its_try() -> None:
    run = evicted(SecondError(error="stock"))
    assert run.output == "second"
    assert trace(run) == "f"


class NoHandler(Failing):
    def definition(self) -> Section[None]:
        return S(Try(Step(self.fail)).Finally(self.step("finally")), self.step("end"))


def test_an_error_that_nobody_names_fails_the_instance_after_finally() -> None:
    run = evicted(NoHandler(error="money"))
    assert run.status == "Failed"
    assert trace(run) == "finally"
    assert run.error is not None
    assert (run.error.type, run.error.path) == ("NoMoney", "fail")


class RaiseItself(Traced):
    number: int = 3

    def definition(self) -> Section[None]:
        return S(Raise(lambda: NoStock(f"only {self.number}")))


def test_raise_makes_its_error_when_it_is_reached() -> None:
    run = evicted(RaiseItself())
    assert run.status == "Failed"
    assert run.error is not None
    assert (run.error.message, run.error.path) == ("only 3", "raise")


class Leaving(Failing):
    """Return, Break and Continue out of a Try inside a loop, chosen by the round."""

    def body(self) -> Section[str]:
        return S(
            Try(
                If("first", lambda: self.i == 1, Continue())
                .Elif("third", lambda: self.i == 3, Break())
                .Elif("fifth", lambda: self.i == 5, Return("left by return")),
                self.step("tail"),
            ).Finally(self.step("finally")),
        )

    def definition(self) -> Section[str]:
        return S(
            For("once", True, Step("inc", self.inc), self.body()),
            self.step("between"),
            Section("again", For("twice", True, Step("inc", self.inc), self.body())),
            Return("ran off"),
        )


def test_return_break_and_continue_pass_through_finally() -> None:
    run = evicted(Leaving())
    assert trace(run) == "finally;tail;finally;finally;between;tail;finally;finally"
    assert run.output == "left by return"


class FinallyReturns(Failing):
    def definition(self) -> Section[str]:
        return S(Try(Step(self.fail), Return("body")).Finally(Return("finally")))


@pytest.mark.parametrize("error", ["", "stock"])
def test_a_return_of_finally_replaces_a_return_and_an_error(error: str) -> None:
    run = evicted(FinallyReturns(error=error))
    assert run.output == "finally"
    assert run.status == "Finished"


class FinallyBreaks(Failing):
    def definition(self) -> Section[str]:
        return S(For("loop", True, Try(Step(self.fail), Return("body")).Finally(Break())), Return("after the loop"))


@pytest.mark.parametrize("error", ["", "stock"])
def test_a_break_of_finally_replaces_a_return_and_an_error(error: str) -> None:
    assert evicted(FinallyBreaks(error=error)).output == "after the loop"


class FinallyRaises(Failing):
    def definition(self) -> Section[str]:
        return S(
            Try("outer", Try("inner", Step(self.fail), Return("body")).Finally(Raise(NoMoney("at the end"))))
            .Except(NoMoney, Return("replaced"))
            .Except(NoStock, Return("kept")),
        )


@pytest.mark.parametrize("error", ["", "stock"])
def test_an_error_of_finally_replaces_a_return_and_an_error(error: str) -> None:
    assert evicted(FinallyRaises(error=error)).output == "replaced"


class LongFinally(Failing):
    def definition(self) -> Section[str]:
        return S(Try(Step(self.fail), Return("body")).Finally(WaitEvent("go on"), self.step("cleaned")))


def test_what_was_under_way_survives_a_wait_in_finally() -> None:
    run = evicted(LongFinally())
    assert run.threads == {"main": "finally/go on"}
    run.send("go on")
    assert run.output == "body"
    failing = evicted(LongFinally(error="stock"))
    assert failing.status == "Running"
    failing.send("go on")
    assert failing.status == "Failed"
    assert trace(failing) == "cleaned"


class Branches(Failing):
    def branch(self, name: str) -> Section[Never]:
        return Section(name, Try(WaitEvent(f"{name} goes on"), self.step(f"{name} done")).Finally(self.step(f"{name} finally")))

    def definition(self) -> Section[str]:
        return S(
            Try(
                Parallel("both", Section("bad", WaitEvent("fail now"), Step(self.fail)), self.branch("good")),
                self.step("rest"),
            ).Except(NoStock, self.note, Return("caught")),
        )


def test_an_error_of_a_branch_cancels_the_others_and_goes_on_in_the_thread_that_waits() -> None:
    run = evicted(Branches(error="stock"))
    assert run.threads["both/good"] == "both/good/good goes on"
    run.send("fail now")
    assert trace(run) == "good finally;caught NoStock"
    assert run.output == "caught"


def test_branches_that_end_well_are_waited_for() -> None:
    run = evicted(Branches())
    run.send("fail now")
    assert set(run.threads) == {"main", "both/good"}
    run.send("good goes on")
    assert trace(run) == "fine;good done;good finally;rest"


class FromGo(Failing):
    def definition(self) -> Section[str]:
        return S(
            Try(
                Go("child", WaitEvent("fail now"), Step(self.fail)),
                Join(),
                Return("joined"),
            )
            .Except(NoStock, Return("caught"))
            .Finally(self.step("finally")),
        )


def test_an_error_that_leaves_a_go_thread_meets_no_try_outside_it() -> None:
    """It fails the instance as one of main would; no other thread walks any more (rules 30 and 32)."""
    run = evicted(FromGo(error="stock"))
    run.send("fail now")
    assert run.status == "Failed"
    assert trace(run) == ""
    assert run.threads == {}
    assert run.error is not None
    assert run.error.type == "NoStock"


class BadCallables(Traced):
    """A condition at fault, reached after an event and a step have done their work."""

    n: int = 0

    @event
    def set_n(self, n: int) -> int:
        self.n = n
        return n * 2

    def definition(self) -> Section[None]:
        return S(
            WaitEvent(self.set_n),
            If("even", lambda: 10 % self.n == 0, Step("even", self.mark, "even")),
            WaitEvent("end"),
        )


def test_an_exception_in_a_condition_parks_and_does_not_touch_the_event_that_led_to_it() -> None:
    run = evicted(BadCallables())
    assert run.send(BadCallables.set_n, 0) == 0
    assert run.status == "Paused"
    assert run.state.n == 0
    assert run.threads == {"main": "even"}
    assert run.error is not None
    assert run.error.type == "ZeroDivisionError"
    run.skip(value=True)
    assert trace(run) == "even"
    assert run.threads == {"main": "end"}


class BadTimer(Failing):
    def ring(self) -> None:
        self.mark("ring")
        if self.error == "stock":
            raise NoStock("none left")
        raise ValueError("a fault of the code")

    def definition(self) -> Section[str]:
        return S(
            Try(Select("nap", After(timedelta(hours=1), self.ring)), Return("rang")).Except(Exception, Return("caught")),
        )


def test_a_timers_handler_that_raises_parks_its_thread_with_nothing_changed() -> None:
    run = evicted(BadTimer())
    run.advance(timedelta(hours=1))
    assert run.status == "Paused"
    assert run.threads == {"main": "nap"}
    assert trace(run) == ""


def test_a_terminal_error_of_a_timers_handler_goes_into_the_tree() -> None:
    run = evicted(BadTimer(error="stock"))
    run.advance(timedelta(hours=1))
    assert run.output == "caught"
    assert trace(run) == ""


class BadExcept(Failing):
    def stumble(self, failure: Failure) -> None:
        self.mark("stumble")
        raise ValueError("a fault of the code")

    def definition(self) -> Section[None]:
        return S(Try(Step(self.fail)).Except(NoStock, self.stumble).Finally(self.step("finally")))


def test_an_except_handler_that_raises_parks_its_thread() -> None:
    run = evicted(BadExcept(error="stock"))
    assert run.status == "Paused"
    assert trace(run) == ""
    assert run.error is not None
    assert run.error.type == "ValueError"
