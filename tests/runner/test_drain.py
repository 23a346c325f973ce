"""A drain: nothing new is taken, what runs may end, and what was stopped is given back with its attempt."""

import threading
import time
from collections.abc import Sequence
from datetime import timedelta

import pytest

from asyncflow import Return, S, Section, Step, Try, Uncertain, Workflow
from runner import Runner
from runner.stores.base import Outcomes, Write
from tests.runner.conftest import Open
from tests.runner.gates import PATIENCE, Gate

GATE = Gate()
AT_ONCE = 0.05
MINUTE = timedelta(minutes=1)


class Sync(Workflow):
    """Counts its attempts outside: a plain function."""

    attempt: int = 0

    def work(self) -> None:
        GATE.hold()
        self.attempt = self.context.attempt

    def definition(self) -> Section[int]:
        return S(Step(self.work, timeout=MINUTE), Return(lambda: self.attempt))


class Async(Workflow):
    """As Sync: a coroutine function."""

    attempt: int = 0

    async def work(self) -> None:
        await GATE.hold_async()
        self.attempt = self.context.attempt

    def definition(self) -> Section[int]:
        return S(Step(self.work, timeout=MINUTE), Return(lambda: self.attempt))


class Once(Workflow):
    """A coroutine function that must not run twice."""

    async def work(self) -> None:
        await GATE.hold_async()

    def definition(self) -> Section[str]:
        return S(
            Try(Step(self.work, idempotent=False)).Except(Uncertain, Return("uncertain")),
            Return("done"),
        )


class OnceSync(Workflow):
    """A plain function that must not run twice."""

    def work(self) -> None:
        GATE.hold()

    def definition(self) -> Section[str]:
        return S(
            Try(Step(self.work, idempotent=False)).Except(Uncertain, Return("uncertain")),
            Return("done"),
        )


def draining(runner: Runner, patience: float | None = None) -> threading.Thread:
    """Begin to drain, and return when nothing is taken any more."""
    worker = runner._worker
    assert worker is not None
    thread = threading.Thread(target=runner.drain, args=(patience,))
    thread.start()
    deadline = time.monotonic() + PATIENCE
    while not worker._draining:
        assert time.monotonic() < deadline
        threading.Event().wait(0.001)
    return thread


@pytest.mark.parametrize("workflow", [Sync, Async])
def test_a_drain_waits_for_what_runs_and_takes_nothing_more(
    workflow: type[Sync] | type[Async], working: Open, url: str, gate: Gate
) -> None:
    runner = working(workflow, store=url)
    running = runner.start(workflow())
    gate.wait(here=1)
    drain = draining(runner)
    later = runner.start(workflow())
    gate.open()
    drain.join(PATIENCE)
    assert not drain.is_alive()
    assert running.result(0) == 1
    assert gate.came == 1
    assert later.state.attempt == 0
    next_one = working(workflow, store=url)
    assert next_one.get(workflow, later.id).result(PATIENCE) == 1


@pytest.mark.parametrize("disk", ["quick", "slow"])
def test_an_async_step_that_is_stopped_is_given_back_with_its_attempt(
    disk: str, working: Open, url: str, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = working(Async, store=url, concurrency=50)
    if disk == "slow":
        commit = runner.store.commit

        def slow(writes: Sequence[Write]) -> Outcomes:
            threading.Event().wait(0.05)  # what a worn disk takes
            return commit(writes)

        monkeypatch.setattr(runner.store, "commit", slow)
    handles = [runner.start(Async()) for _ in range(50)]
    gate.wait(here=50)
    runner.drain(AT_ONCE)
    gate.wait(here=0)
    for handle in handles:
        (thread,) = handle._loaded().instance().threads.values()
        assert (thread.lease, thread.attempt, thread.retry_at) == (None, 0, None)
    runner.close()
    next_one = working(Async, store=url, concurrency=50)
    gate.wait(here=50)
    gate.open()
    for handle in handles:
        after = next_one.get(Async, handle.id)
        assert after.result(PATIENCE) == 1
        assert [entry["kind"] for entry in after.history()] == ["started", "step", "ended"]


def test_a_sync_step_that_does_not_end_is_left_to_lapse(working: Open, url: str, gate: Gate) -> None:
    runner = working(Sync, store=url)
    handle = runner.start(Sync())
    gate.wait(here=1)
    began = time.monotonic()
    runner.drain(AT_ONCE)
    assert time.monotonic() - began < 10  # far more than it takes, far less than the step's minute
    runner.close()
    next_one = working(Sync, store=url)
    gate.wait(came=2)
    gate.open()
    again = next_one.get(Sync, handle.id)
    assert again.result(PATIENCE) == 2
    failed = [entry for entry in again.history() if entry["kind"] == "failed"]
    assert [entry["error"]["type"] for entry in failed] == ["Lost"]


def test_what_must_not_run_twice_is_uncertain_once_it_is_stopped(working: Open, url: str, gate: Gate) -> None:
    runner = working(Once, store=url)
    handle = runner.start(Once())
    gate.wait(here=1)
    runner.drain(AT_ONCE)
    assert handle.result(0) == "uncertain"
    assert gate.came == 1


def test_what_must_not_run_twice_is_uncertain_once_its_process_has_gone(working: Open, url: str, gate: Gate) -> None:
    runner = working(OnceSync, store=url)
    handle = runner.start(OnceSync())
    gate.wait(here=1)
    runner.drain(AT_ONCE)
    runner.close()
    next_one = working(OnceSync, store=url)
    assert next_one.get(OnceSync, handle.id).result(PATIENCE) == "uncertain"
    assert gate.came == 1


@pytest.mark.parametrize("workflow", [Once, OnceSync])
def test_a_drain_waits_for_what_must_not_run_twice(
    workflow: type[Once] | type[OnceSync], working: Open, url: str, gate: Gate
) -> None:
    runner = working(workflow, store=url)
    handle = runner.start(workflow())
    gate.wait(here=1)
    drain = draining(runner)
    gate.open()
    drain.join(PATIENCE)
    assert handle.result(0) == "done"
    assert gate.came == 1


def test_events_are_taken_during_and_after_a_drain(working: Open, url: str, gate: Gate) -> None:
    """Without workers a Runner starts, delivers and answers all the same."""
    runner = working(Sync, store=url)
    runner.drain()
    handle = runner.start(Sync())
    assert handle.state.attempt == 0
    handle.cancel()
    assert handle.status.ended
