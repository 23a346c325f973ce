"""T1 to T10: the workflows of the ancestor's own tests."""

from datetime import timedelta

import pytest

from asyncflow import (
    Break,
    Case,
    DefinitionError,
    For,
    Go,
    If,
    NotFound,
    On,
    Retry,
    Return,
    S,
    Section,
    Select,
    Step,
    Switch,
    WaitEvent,
    WaitUntil,
    docs,
    event,
)
from tests.scenarios.drivers import Drive, scenario
from tests.scenarios.traced import Traced, trace

HOUR = timedelta(hours=1)


class Empty(Traced):
    def definition(self) -> Section[None]:
        return S()


@scenario()
def test_t01_an_empty_definition_finishes_at_once(drive: Drive) -> None:
    run = drive.start(Empty())
    assert run.status == "Finished"
    assert run.output is None
    assert run.threads == {}


BROKEN: set[str] = set()
"""Errors that the world outside holds ready: what a step finds is no state of the workflow."""


class OneStep(Traced):
    err: str = ""

    def step1(self) -> None:
        self.log.append("try")
        if self.err in BROKEN:
            raise RuntimeError(self.err)
        self.err = "updated"

    def definition(self) -> Section[None]:
        return S(
            Step(self.step1, retry=Retry(delay=HOUR, factor=1, jitter=0)),
            Step("end", self.mark, "end"),
        )


@scenario()
def test_t02a_a_step_that_succeeds_changes_the_state(drive: Drive) -> None:
    run = drive.start(OneStep())
    assert run.status == "Finished"
    assert run.threads == {}
    assert run.state.err == "updated"


@scenario()
def test_t02b_a_step_that_fails_is_run_again_when_the_cause_has_gone(drive: Drive) -> None:
    BROKEN.add("err1")
    run = drive.start(OneStep(err="err1"))
    assert run.status == "Running"
    assert run.threads == {"main": "step1"}
    assert trace(run) == ""
    BROKEN.clear()
    drive.advance(HOUR)
    assert run.status == "Finished"
    assert trace(run) == "try;end"


class OneHandler(Traced):
    @event("event")
    def on_event(self, text: str) -> str:
        self.log.append("sync")
        return text

    def definition(self) -> Section[None]:
        return S(
            Step("start", self.mark, "start"),
            Select("wait", On(self.on_event, Step("after handler", self.mark, "async"))),
        )


@scenario()
def test_t03_an_event_is_answered_by_its_handler_and_the_body_follows(drive: Drive) -> None:
    run = drive.start(OneHandler())
    assert run.status == "Running"
    assert run.threads == {"main": "wait"}
    assert run.waiting == {"event"}
    drive.advance(timedelta(0))
    assert run.threads == {"main": "wait"}
    with pytest.raises(NotFound):
        run.send("blabla")
    assert trace(run) == "start"
    assert run.send("event", "abc") == "abc"
    assert trace(run) == "start;sync;async"
    assert run.status == "Finished"
    assert run.waiting == set()
    assert run.threads == {}


class Looping(Traced):
    i: int = 0

    @event("event")
    def on_event(self) -> None:
        self.log.append("h")
        self.i += 1

    def step1(self) -> None:
        self.i += 1
        self.log.append("l")

    def reset(self) -> None:
        self.i = 0

    def second_loop(self) -> Section[None]:
        return S(
            Step("reset i", self.reset),
            For(
                "waiting",
                lambda: self.i < 2,
                Select("wait in loop for event", On(self.on_event, Step("step2", self.mark, "a"))),
            ),
        )


class Loops(Looping):
    def definition(self) -> Section[None]:
        return S(For("counting", lambda: self.i < 5, Step(self.step1)), self.second_loop())


class LoopsWithBreak(Looping):
    def definition(self) -> Section[None]:
        return S(
            For("counting", True, Step(self.step1), If("enough", lambda: self.i >= 5, Break())),
            self.second_loop(),
        )


def goes_through_both_loops(drive: Drive, workflow: Looping) -> None:
    run = drive.start(workflow)
    assert trace(run) == "l;l;l;l;l"
    assert run.threads == {"main": "waiting/wait in loop for event"}
    run.send("event")
    assert trace(run) == "l;l;l;l;l;h;a"
    assert run.waiting == {"event"}
    run.send("event")
    assert trace(run) == "l;l;l;l;l;h;a;h;a"
    assert run.status == "Finished"


@scenario()
def test_t04_loops_of_steps_and_of_events(drive: Drive) -> None:
    goes_through_both_loops(drive, Loops())


@scenario()
def test_t05_a_break_leaves_an_endless_loop(drive: Drive) -> None:
    goes_through_both_loops(drive, LoopsWithBreak())


class Branches(Traced):
    text: str

    @event("event")
    def on_event(self) -> None:
        self.text += "h"

    def set_to(self, text: str) -> None:
        self.text = text

    def add(self, text: str) -> None:
        self.text += text

    def double(self) -> None:
        self.text += self.text

    def definition(self) -> Section[None]:
        return S(
            If("empty", lambda: self.text == "", Step("set to b", self.set_to, "b"))
            .Elif("is c", lambda: self.text == "c", Return())
            .Else(Step("duplicate", self.double), Return()),
            Switch(
                Case("a", lambda: self.text == "a", Step("add a", self.add, "a")),
                Case(
                    "b",
                    lambda: self.text == "b",
                    Step("add b", self.add, "b"),
                    Select("wait after b", On(self.on_event)),
                ),
            ),
        )


@scenario()
def test_t06a_the_else_branch_returns_before_the_switch(drive: Drive) -> None:
    run = drive.start(Branches(text="a"))
    assert run.state.text == "aa"
    assert run.status == "Finished"
    assert run.threads == {}


@scenario()
def test_t06b_a_branch_is_not_chosen_anew_after_its_condition_has_changed(drive: Drive) -> None:
    run = drive.start(Branches(text=""))
    assert run.state.text == "bb"
    assert run.threads == {"main": "b/wait after b"}
    run.send("event")
    assert run.state.text == "bbh"
    assert run.status == "Finished"
    assert run.threads == {}


@scenario()
def test_t06c_the_elif_branch_returns(drive: Drive) -> None:
    run = drive.start(Branches(text="c"))
    assert run.state.text == "c"
    assert run.status == "Finished"


class Threads(Traced):
    i: int = 0
    wg: int = 0

    def inc(self) -> None:
        self.i += 1
        self.wg += 1

    def note(self) -> None:
        self.log.append(self.context.thread)
        self.wg -= 1

    def five_threads(self) -> Section[None]:
        return S(
            For(
                "creating",
                lambda: self.i < 5,
                Step(self.inc),
                Go("parallel", Step("log", self.note), id=lambda: str(self.i)),
            )
        )


class Goroutines(Threads):
    def definition(self) -> Section[None]:
        return S(self.five_threads(), WaitEvent("event"), Step("done", self.mark, "done"))


FIVE = [f"parallel/{number}" for number in range(1, 6)]


@scenario()
def test_t07_five_threads_with_ids_made_when_each_begins(drive: Drive) -> None:
    run = drive.start(Goroutines())
    assert sorted(run.state.log) == FIVE
    assert run.threads == {"main": "event"}
    run.send("event")
    assert sorted(run.state.log[:5]) == FIVE
    assert run.state.log[5:] == ["done"]
    assert run.status == "Finished"
    assert run.threads == {}


class WaitGroup(Threads):
    def definition(self) -> Section[None]:
        return S(
            self.five_threads(),
            WaitUntil("all are done", lambda: self.wg == 0),
            Step("done", self.mark, "done"),
        )


@scenario()
def test_t08_a_wait_group_holds_main_until_its_threads_are_done(drive: Drive) -> None:
    run = drive.start(WaitGroup())
    assert sorted(run.state.log[:5]) == FIVE
    assert run.state.log[5:] == ["done"]
    assert run.status == "Finished"


class SubDefinitions(Traced):
    def sub(self, name: str) -> Section[None]:
        return Section(name, Step("step2", self.mark, "2"), self.subsub("sub1"), self.subsub("sub2"))

    def subsub(self, name: str) -> Section[None]:
        return Section(name, Step("step3", self.mark, "3"))

    def definition(self) -> Section[None]:
        return S(Step("step1", self.mark, "1"), self.sub("sub1"), self.sub("sub1,2"))


@scenario()
def test_t09_one_sub_definition_stands_in_several_scopes(drive: Drive) -> None:
    run = drive.start(SubDefinitions())
    assert trace(run) == "1;2;3;3;2;3;3"
    assert run.status == "Finished"


class SubDefinitionTwice(Traced):
    def finish(self) -> Section[None]:
        return S(Step("finish", self.mark, "finish"))

    def definition(self) -> Section[None]:
        return S(self.finish(), self.finish())


class SubDefinitionInTwoCases(Traced):
    @event
    def confirm(self) -> None: ...

    @event
    def refuse(self) -> None: ...

    def finish(self) -> Section[None]:
        return S(Step("finish", self.mark, "finish"))

    def definition(self) -> Section[None]:
        return S(Select("decision", On(self.confirm, self.finish()), On(self.refuse, self.finish())))


def test_t10_a_sub_definition_used_twice_without_a_scope_is_refused_at_registration() -> None:
    with pytest.raises(DefinitionError) as refused:
        docs(SubDefinitionTwice)
    assert "finish" in {problem.path for problem in refused.value.problems}


@scenario()
def test_t10_a_sub_definition_in_two_cases_has_the_names_of_the_cases_as_scopes(drive: Drive) -> None:
    run = drive.start(SubDefinitionInTwoCases())
    run.send("refuse")
    assert trace(run) == "finish"
    assert run.status == "Finished"
