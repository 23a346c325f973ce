"""What a program is told that waits for what nobody does, or asks for what is no workflow."""

import logging
from datetime import timedelta
from typing import Any

import pytest

from asyncflow import InvalidState, Retry, Return, S, Section, Step, WaitEvent, Workflow
from runner import Runner
from tests.runner.clocks import Clock
from tests.runner.conftest import Open
from tests.runner.gates import PATIENCE


class Job(Workflow):
    def work(self) -> None: ...

    def fail(self) -> None:
        raise ConnectionError("no answer")

    def definition(self) -> Section[str]:
        return S(Step(self.work), WaitEvent("go"), Step(self.fail, retry=Retry(max_attempts=1)), Return("done"))


class Measure(Workflow):
    ratio: float

    def definition(self) -> Section[None]:
        return S(WaitEvent("go"))


def test_who_waits_without_workers_is_told(opened: Open, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    runner = opened(Job, clock=clock)
    job = runner.start(Job(), id="j-1")
    with pytest.raises(TimeoutError) as early:
        job.result(timeout=0.01)
    assert "worker" not in str(early.value)
    clock.advance(timedelta(seconds=5))
    with pytest.raises(TimeoutError, match="no worker has taken what is due, and none runs in this process"):
        job.result(timeout=0.01)
    assert [one.getMessage() for one in caplog.records if one.levelno == logging.WARNING] == [
        "Job/j-1: no worker has taken what is due, and none runs in this process: begin them by `with runner:`, or elsewhere"
    ]


def test_who_waits_for_an_event_is_told_nothing(opened: Open, clock: Clock, url: str) -> None:
    with opened(Job, store=url, clock=clock) as runner:
        job = runner.start(Job(), id="j-1")
        assert runner.wait_idle(PATIENCE)
    clock.advance(timedelta(days=1))
    job = opened(Job, store=url, clock=clock).get(Job, "j-1")
    with pytest.raises(TimeoutError) as late:
        job.result(timeout=0.01)
    assert "worker" not in str(late.value)


def test_the_caller_of_a_verb_is_in_the_history(working: Open) -> None:
    runner = working(Job)
    job = runner.start(Job(), id="j-1")
    job.pause(caller="ann")
    job.resume(caller="bob")
    assert runner.wait_idle(PATIENCE)
    job.send("go")
    assert runner.wait_idle(PATIENCE)
    job.retry(caller="cy")
    assert runner.wait_idle(PATIENCE)
    job.skip(caller="dora")
    job.result(timeout=PATIENCE)
    said = [(entry["event"], entry["caller"]) for entry in job.history() if entry["kind"] == "operator"]
    assert said == [("pause", "ann"), ("resume", "bob"), ("retry", "cy"), ("skip", "dora")]


@pytest.mark.parametrize("workflows, said", [(Job, r"as \[Job\]"), ([3], "found 3"), ([Job()], "an object of Job")], ids=str)
def test_what_is_no_list_of_workflows_is_told(workflows: Any, said: str) -> None:
    with pytest.raises(TypeError, match=said):
        Runner(workflows, store="memory://")


@pytest.mark.parametrize("thing, said", [(Job, "the class Job"), (3, "found 3")], ids=str)
def test_a_start_takes_an_object(opened: Open, thing: Any, said: str) -> None:
    with pytest.raises(TypeError, match=said):
        opened(Job).start(thing)


def test_an_object_that_cannot_be_stored_is_told_with_its_field(opened: Open) -> None:
    with pytest.raises(InvalidState, match="ratio: the number NaN") as refused:
        opened(Measure).start(Measure(ratio=float("nan")))
    assert (refused.value.code, isinstance(refused.value, ValueError)) == (500, True)
