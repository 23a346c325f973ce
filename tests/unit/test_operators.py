"""Retry and skip: for whom, from where, with which value (rules 18, 31)."""

from datetime import timedelta
from typing import Any

import pytest

from asyncflow import (
    After,
    Case,
    ForEach,
    Go,
    If,
    InvalidInput,
    NotApplicable,
    Parallel,
    Raise,
    Retry,
    Return,
    S,
    Section,
    Select,
    Simulation,
    Step,
    Switch,
    Try,
    WaitEvent,
    WaitUntil,
    When,
    Workflow,
    event,
    simulate,
)
from asyncflow.leases import failed
from tests.unit.documents import Stored

ONCE = Retry(max_attempts=1)


class Base(Workflow):
    log: list[Any] = []
    broken: bool = True
    value: int | None = 7
    rows: list[int] = [1, 2]

    def note(self, text: str) -> None:
        self.log.append(text)

    def back(self) -> None:
        self.log.append("undo")

    def fail(self) -> None:
        raise ValueError("no")

    def cond(self) -> bool:
        raise ValueError("no condition")

    def ask(self) -> int | None:
        return self.value

    def put(self, value: int | None) -> None:
        if self.broken:
            raise ValueError("a fault of the code")
        self.log.append(value)

    @event
    def repair(self) -> None:
        self.broken = False

    def did(self, text: str) -> Step:
        return Step(text, self.note, text)


def run(workflow: Base, **arguments: Any) -> Simulation[Any]:
    return simulate(workflow, evict=True, skip_backoff=False, **arguments)


# -- skip of a condition -----------------------------------------------------------------------------------------------


class Choosing(Base):
    def definition(self) -> Section[Any]:
        chosen = If(self.cond, self.did("if")).Elif("no", lambda: False, self.did("no")).Else(self.did("else"))
        return S(chosen, self.did("end"))


class Switching(Base):
    def definition(self) -> Section[Any]:
        first = Case("first", lambda: False, self.did("first"))
        return S(Switch(first, Case(self.cond, self.did("if")), Case("yes", lambda: True, self.did("else"))), self.did("end"))


@pytest.mark.parametrize("workflow", [Choosing, Switching])
@pytest.mark.parametrize("value, log", [(True, ["if", "end"]), (False, ["else", "end"]), (None, ["end"])])
def test_the_value_of_a_skip_is_the_value_of_the_condition(workflow: type[Base], value: Any, log: list[str]) -> None:
    sim = run(workflow())
    assert sim.status == "Paused"
    sim.skip(value=value)
    assert sim.state.log == log


@pytest.mark.parametrize("value", [0, 1, "true", [], {"a": 1}])
def test_a_condition_is_true_or_false_and_nothing_else(value: Any) -> None:
    sim = run(Choosing())
    with pytest.raises(InvalidInput):
        sim.skip(value=value)
    assert sim.status == "Paused"


@pytest.mark.parametrize("value, log", [(True, ["when", "end"]), (None, ["end"])])
def test_a_wait_whose_condition_raises_can_be_skipped(value: Any, log: list[str]) -> None:
    class Waiting(Base):
        def definition(self) -> Section[Any]:
            wait = Select("w", After(timedelta(days=1)), When("c", self.cond, self.back, self.did("when")))
            return S(wait, self.did("end"))

    sim = run(Waiting())
    sim.skip(value=value)
    assert sim.state.log == log


def test_a_loop_parked_at_its_next_item_is_left_by_a_skip() -> None:
    class Looping(Base):
        def body(self, row: int) -> Section[Any]:
            if row == 2:
                raise ValueError("no body")
            return S(self.did("row"))

        def definition(self) -> Section[Any]:
            return S(ForEach("each", lambda: self.rows, self.body), self.did("end"))

    sim = run(Looping())
    assert sim.status == "Paused"
    assert sim.threads == {"main": "each"}
    sim.skip()
    assert sim.state.log == ["row", "end"]


# -- skip of a step ----------------------------------------------------------------------------------------------------


class Asking(Base):
    def definition(self) -> Section[Any]:
        step = Step(self.ask, then=self.put, undo=self.back)
        return S(
            Go("repair", WaitEvent(self.repair)),
            Try(step, Raise(ValueError())).Except(ValueError),
            Return(lambda: self.log),
        )


@pytest.mark.parametrize("value", [7, 0, None])
def test_a_result_that_could_not_be_applied_is_applied_by_a_skip_and_can_be_undone(value: int | None) -> None:
    sim = run(Asking(value=value))
    assert sim.status == "Paused"
    with pytest.raises(InvalidInput):
        sim.skip()
    assert sim.status == "Paused"
    sim.send("repair")
    sim.skip()
    assert sim.output == [value, "undo"]
    assert sim.steps == ["ask", "undo ask"]


@pytest.mark.parametrize("given", [0, 5])
def test_a_value_given_with_a_skip_comes_before_the_result(given: int) -> None:
    sim = run(Asking())
    sim.send("repair")
    with pytest.raises(InvalidInput):
        sim.skip(value="five")
    sim.skip(value=given)
    assert sim.output == [given, "undo"]


def test_a_step_that_never_took_effect_leaves_no_undo_when_it_is_skipped() -> None:
    class Failing(Base):
        def definition(self) -> Section[Any]:
            step = Step(self.fail, undo=self.back, retry=ONCE)
            return S(Try(step, Raise(ValueError())).Except(ValueError), Return("end"))

    sim = run(Failing())
    sim.skip()
    assert sim.output == "end"
    assert sim.state.log == []


def test_a_step_that_may_have_taken_effect_leaves_its_undo_when_it_is_skipped() -> None:
    class Lost(Base):
        def definition(self) -> Section[Any]:
            step = Step("slow", self.fail, undo=self.back, retry=ONCE)
            return S(Try(step, Raise(ValueError())).Except(ValueError), Return("end"))

    sim = run(Lost(), hold={"slow"})
    sim.held("slow").lapse()
    assert sim.status == "Paused"
    sim.skip()
    assert sim.state.log == ["undo"]


# -- for whom ----------------------------------------------------------------------------------------------------------


class Several(Base):
    def definition(self) -> Section[Any]:
        steps = [Step(name, self.fail, retry=ONCE) for name in ("a", "b")]
        backoff = Step("backoff", self.fail, retry=Retry(delay=timedelta(days=1)))
        return S(Parallel("p", *steps, backoff, S(WaitEvent("x"))), Return("end"))


def test_without_a_thread_a_verb_is_for_every_parked_thread_and_for_no_other() -> None:
    stored = Stored(Several())
    for _ in range(3):
        stored.write(room=9)
        for run_ in list(stored.runs):
            stored.runs.remove(run_)
            stored.write(failed(run_, ValueError("no"), at=stored.now))
    assert {name for name, thread in stored.instance.threads.items() if thread.status == "Paused"} == {"p/a", "p/b"}
    answer = stored.say("skip")
    assert answer is not None
    assert answer.error is None
    assert set(stored.instance.threads) == {"main", "p/backoff", "p/branch 4"}


def test_a_verb_fits_a_backoff_and_no_wait() -> None:
    sim = run(Several())
    sim.retry("p/backoff")
    assert sim.steps.count("backoff") == 2
    with pytest.raises(NotApplicable):
        sim.retry("p/branch 4")
    with pytest.raises(NotApplicable):
        sim.skip("main")
    with pytest.raises(NotApplicable):
        sim.retry("nobody")
    sim.skip("p/backoff")
    assert "p/backoff" not in sim.threads


def test_a_verb_that_fits_one_thread_and_not_another_is_done_where_it_fits() -> None:
    class Mixed(Base):
        def definition(self) -> Section[Any]:
            asks = Step("ask", self.ask, then=self.put)
            return S(Parallel("p", asks, S(If("i", self.cond, self.did("x")))), Return("end"))

    stored = Stored(Mixed(), room=9)
    for run_ in list(stored.runs):
        stored.finish(run_)
    assert stored.instance.status == "Paused"
    answer = stored.say("skip", value=b"true")
    assert answer is not None
    assert answer.error is None
    parked = {name for name, thread in stored.instance.threads.items() if thread.status == "Paused"}
    assert parked == {"p/ask"}


def test_a_handler_that_failed_runs_again_by_a_retry_and_its_timer_does_not_start_anew() -> None:
    class Timed(Base):
        def late(self) -> None:
            if self.broken:
                raise ValueError("no")
            self.log.append(str(self.context.now.hour))

        def definition(self) -> Section[Any]:
            wait = Select("w", After(timedelta(hours=2), self.late))
            return S(Go("repair", WaitEvent(self.repair)), wait, WaitUntil("never", lambda: False))

    sim = run(Timed())
    sim.advance(timedelta(hours=3))
    assert sim.status == "Paused"
    sim.send("repair")
    sim.retry()
    assert sim.state.log == ["3"]
