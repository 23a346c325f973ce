"""Actions that run past their time-out: what becomes of the attempt, of its place, and of the worker."""

from datetime import timedelta

import pytest

from asyncflow import Retry, Return, S, Section, Status, Step, Try, Workflow
from runner import Runner
from runner.work.worker import Worker
from tests.runner.conftest import Open, wait_for
from tests.runner.gates import PATIENCE, Gate

GATE = Gate()
SOON = timedelta(milliseconds=20)
ONCE = Retry(max_attempts=1, exhausted="raise")


class Hung(Workflow):
    """A plain function that does not come back in time."""

    touched: int = 0

    def hang(self) -> None:
        self.touched += 1
        GATE.hold()

    def definition(self) -> Section[str]:
        return S(
            Try(Step(self.hang, timeout=SOON, retry=ONCE)).Except(TimeoutError, Return("timed out")),
            Return("came back"),
        )


class HungAsync(Workflow):
    """A coroutine function that does not come back in time."""

    async def hang(self) -> None:
        await GATE.hold_async()

    def definition(self) -> Section[str]:
        return S(
            Try(Step(self.hang, timeout=SOON, retry=ONCE)).Except(TimeoutError, Return("timed out")),
            Return("came back"),
        )


class Quick(Workflow):
    """A plain function."""

    def work(self) -> None: ...

    def definition(self) -> Section[int]:
        return S(Step(self.work), Return(1))


class QuickAsync(Workflow):
    """A coroutine function."""

    async def work(self) -> None: ...

    def definition(self) -> Section[int]:
        return S(Step(self.work), Return(1))


def worker_of(runner: Runner) -> Worker:
    assert runner._worker is not None
    return runner._worker


def test_an_action_past_its_timeout_holds_no_place(working: Open, gate: Gate) -> None:
    runner = working(Hung, Quick, concurrency=1)
    assert runner.start(Hung()).result(PATIENCE) == "timed out"
    assert gate.here == 1
    assert runner.start(Quick()).result(PATIENCE) == 1
    assert gate.here == 1


def test_a_late_result_changes_nothing(working: Open, gate: Gate) -> None:
    runner = working(Hung)
    handle = runner.start(Hung())
    handle.result(PATIENCE)
    before = handle.state, list(handle.history())
    gate.open()
    gate.wait(here=0)
    assert runner.wait_idle(PATIENCE)
    assert (handle.state, list(handle.history())) == before
    assert handle.state.touched == 0


def test_an_async_action_past_its_timeout_is_stopped(working: Open, gate: Gate) -> None:
    runner = working(HungAsync, QuickAsync, concurrency=1)
    assert runner.start(HungAsync()).result(PATIENCE) == "timed out"
    gate.wait(here=0)
    assert runner.start(QuickAsync()).result(PATIENCE) == 1


def test_four_times_the_places_are_the_most_then_no_sync_step_is_taken(working: Open, gate: Gate) -> None:
    places = 2
    runner = working(Hung, Quick, QuickAsync, concurrency=places)
    worker = worker_of(runner)
    for hung in range(places * 3):
        assert worker.healthy
        assert runner.start(Hung()).result(PATIENCE) == "timed out"
        assert gate.here == hung + 1
    assert not worker.healthy

    waiting = runner.start(Quick())
    assert runner.start(QuickAsync()).result(PATIENCE) == 1
    assert waiting.status is Status.Running
    assert not [entry for entry in waiting.history() if entry["kind"] == "step"]

    gate.open()
    assert waiting.result(PATIENCE) == 1
    gate.wait(here=0)
    assert worker.healthy


class Overlapping(Workflow):
    """Times out, and is tried again while the first attempt still runs."""

    ends: int = 0

    def work(self) -> None:
        if self.context.attempt == 1:
            GATE.hold()
        self.ends += 1

    def definition(self) -> Section[int]:
        return S(Step(self.work, timeout=SOON, retry=Retry(delay=timedelta(0))), Return(lambda: self.ends))


def test_the_attempt_after_a_timeout_has_an_object_of_its_own(working: Open, gate: Gate) -> None:
    runner = working(Overlapping)
    handle = runner.start(Overlapping())
    assert handle.result(PATIENCE) == 1
    gate.open()
    gate.wait(here=0)
    assert handle.state.ends == 1


@pytest.mark.parametrize("workflow", [Hung, HungAsync])
def test_a_timeout_stands_in_the_history(workflow: type[Hung] | type[HungAsync], working: Open, gate: Gate) -> None:
    runner = working(Hung, HungAsync)
    handle = runner.start(workflow())
    wait_for(runner, handle, lambda: handle.status.ended)
    (failed,) = [entry for entry in handle.history() if entry["kind"] == "failed"]
    assert failed["attempt"] == 1
    assert failed["error"]["type"] == "TimeoutError"
