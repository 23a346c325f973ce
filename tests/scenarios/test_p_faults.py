"""P24, P35 and P36: code that has changed, leases that lapse, saves that fail."""

from datetime import timedelta
from typing import Literal

import pytest

from asyncflow import For, Go, On, S, Section, Select, Step, WaitEvent, WaitUntil, event
from tests.scenarios.drivers import evicted
from tests.scenarios.traced import Traced, trace

DAY = timedelta(days=1)


class Before24(Traced, name="P24"):
    def definition(self) -> Section[None]:
        return S(
            Go("worker", WaitEvent("go on"), Step("work", self.mark, "work")),
            WaitUntil("a condition", lambda: self.log == ["never"]),
        )


class WithoutGo(Traced, name="P24"):
    def definition(self) -> Section[None]:
        return S(Step("main body", self.mark, "main body"), WaitUntil("a condition", lambda: False))


class WithoutCondition(Traced, name="P24"):
    def definition(self) -> Section[None]:
        return S(
            Go("worker", WaitEvent("go on"), Step("work", self.mark, "work")),
            Step("main body", self.mark, "main body"),
        )


def parked(changed: type[Traced], position: str, thread: str) -> None:
    run = evicted(changed, document=evicted(Before24()).document)
    assert run.threads[thread] == position
    run.advance(DAY)
    assert run.status == "Paused"
    assert run.threads[thread] == position
    assert run.error is not None
    assert position in f"{run.error.path} {run.error.message}"
    assert trace(run) == ""


def test_p24_a_thread_whose_go_has_vanished_is_parked_and_runs_nothing() -> None:
    """Rule 24: tried again by the default policy, then parked with a clear error."""
    parked(WithoutGo, "worker/go on", "worker")


def test_p24_a_thread_whose_condition_has_vanished_is_parked_and_runs_nothing() -> None:
    """Rule 24."""
    parked(WithoutCondition, "a condition", "main")


class StepBefore(Traced, name="P24Step"):
    def definition(self) -> Section[None]:
        return S(Step("charge", self.mark, "charge"), Step("end", self.mark, "end"))


class StepAfter(Traced, name="P24Step"):
    def definition(self) -> Section[None]:
        return S(Step("begin", self.mark, "begin"), Step("end", self.mark, "end"))


def test_p24_a_thread_whose_step_has_vanished_is_parked_and_runs_nothing() -> None:
    """Rule 24: the attempt under way is lost with the old code, and no other step stands in for it."""
    run = evicted(StepAfter, document=evicted(StepBefore(), hold={"charge"}).document)
    run.advance(DAY)
    assert run.status == "Paused"
    assert run.threads == {"main": "charge"}
    assert trace(run) == ""
    assert run.steps == []


class P35(Traced):
    count: int = 0

    @event
    def stop(self) -> None: ...

    def charge(self) -> None:
        self.count += 1
        self.mark(f"attempt {self.context.attempt}")

    def definition(self) -> Section[None]:
        return S(Step(self.charge), WaitEvent(self.stop))


def test_p35_of_two_workers_at_one_step_one_commits() -> None:
    """Rules 14 and 15: the first worker's lease lapses, the second one's result counts, the first one's is dropped."""
    run = evicted(P35(), hold={P35.charge})
    first = run.held(P35.charge)
    first.lapse()
    second = run.held(P35.charge)
    second.finish()
    assert trace(run) == "attempt 2"
    before = run.document
    first.finish()
    assert run.document == before
    assert run.state.count == 1


def test_p35_a_worker_that_was_given_up_does_not_commit_before_the_other_one() -> None:
    """Rule 14."""
    run = evicted(P35(), hold={P35.charge})
    first = run.held(P35.charge)
    first.lapse()
    first.finish()
    assert run.threads == {"main": "charge"}
    assert run.state.count == 0
    run.held(P35.charge).finish()
    assert trace(run) == "attempt 2"


class P36(Traced):
    @event
    def go(self) -> None:
        self.mark("go")

    def definition(self) -> Section[None]:
        return S(
            Step("a", self.mark, "a"),
            Select("wait", On(self.go, Step("b", self.mark, "b"))),
            For("twice", lambda: len(self.log) < 5, Step("c", self.mark, "c")),
        )


@pytest.mark.parametrize("save", range(1, 9))
@pytest.mark.parametrize("way", ["before", "after", "lost"])
def test_p36_a_save_that_fails_leaves_no_effect_behind(way: Literal["before", "after", "lost"], save: int) -> None:
    """Rules 6 and 7: whatever was told about a save, what follows is decided from the stored document alone."""
    run = evicted(P36(), crash=(way, save))
    run.send(P36.go)
    assert run.status == "Finished"
    assert trace(run) == "a;go;b;c;c"


def test_p36_the_crashes_of_the_scenario_cover_each_of_its_saves() -> None:
    """Rules 4 and 12: create, then two saves around the first step; the event, and four more to the end."""
    run = evicted(P36())
    run.send(P36.go)
    assert run.document["rev"] == 8
