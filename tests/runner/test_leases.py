"""Leases: renewed while an action runs, over at once when their process is dead, void when they are not renewed."""

import threading
from datetime import timedelta
from typing import Any

from asyncflow import For, Parallel, Return, S, Section, Step, WaitEvent, Workflow, event
from runner import Handle, Runner
from tests.runner.conftest import Open, wait_for
from tests.runner.gates import PATIENCE, Gate

GATE = Gate()
SHORT = timedelta(milliseconds=300)
LONG = timedelta(hours=1)


class Job(Workflow):
    """One step that may run far longer than a lease."""

    done: int = 0

    async def work(self) -> None:
        await GATE.hold_async()
        self.done += 1

    def definition(self) -> Section[int]:
        return S(Step(self.work, timeout=LONG), Return(lambda: self.done))


def leases_of(runner: Runner, handle: Handle[Any]) -> list[Any]:
    threads = handle._loaded().instance().threads.values()
    return [thread.lease for thread in threads if thread.lease is not None]


def test_a_lease_is_renewed_while_its_action_runs(working: Open, gate: Gate) -> None:
    runner = working(Job, lease=SHORT)
    handle = runner.start(Job())
    gate.wait(here=1)
    (first,) = leases_of(runner, handle)
    wait_for(runner, handle, lambda: leases_of(runner, handle)[0].till > first.till + 2 * SHORT)
    (last,) = leases_of(runner, handle)
    assert last.token == first.token
    gate.open()
    assert handle.result(PATIENCE) == 1
    assert gate.came == 1


def test_renewals_move_no_program_counter_and_leave_no_history(working: Open, gate: Gate) -> None:
    runner = working(Job, lease=SHORT)
    handle = runner.start(Job())
    gate.wait(here=1)
    instance = handle._loaded().instance()
    wait_for(runner, handle, lambda: handle._loaded().instance().rev >= instance.rev + 3)
    assert handle._loaded().instance().pc == instance.pc
    assert [entry["kind"] for entry in handle.history()] == ["started"]


def test_the_leases_of_a_dead_process_lapse_at_once(opened: Open, working: Open, url: str, gate: Gate) -> None:
    """Without its lock a process counts as dead, even one whose action still runs: what that gives is dropped."""
    dead = working(Job, store=url)
    handle = dead.start(Job())
    gate.wait(came=1)
    dead.store._locks.leave()  # type: ignore[attr-defined]
    other = working(Job, store=url)
    gate.wait(came=2)
    gate.open()
    assert other.get(Job, handle.id).result(PATIENCE) == 1
    assert dead.wait_idle(PATIENCE)
    attempts = [entry.get("attempt") for entry in handle.history() if entry["kind"] in ("failed", "step")]
    assert attempts == [1, 2]
    assert handle.state.done == 1


KEYS: list[str] = []


class Keyed(Workflow):
    """Notes under which key its step runs."""

    async def work(self) -> None:
        KEYS.append(self.context.idempotency_key)
        await GATE.hold_async()

    def definition(self) -> Section[None]:
        return S(Step(self.work))


def test_the_first_loss_is_followed_at_once_and_under_the_same_key(working: Open, url: str, gate: Gate) -> None:
    first = working(Keyed, store=url)
    handle = first.start(Keyed())
    gate.wait(came=1)
    first.store._locks.leave()  # type: ignore[attr-defined]
    second = working(Keyed, store=url)
    gate.wait(came=2)
    gate.open()
    second.get(Keyed, handle.id).result(PATIENCE)
    assert len(KEYS) == 2
    assert KEYS[0] == KEYS[1]


class Patient(Workflow):
    """Two steps side by side that look whether they should stop."""

    told: int = 0

    def watch(self) -> int:
        with GATE:
            while not self.context.cancelled:
                if GATE.pause():
                    return 0
        return 1

    def add(self, value: int) -> None:
        self.told += value

    def definition(self) -> Section[int]:
        return S(
            Parallel("both", S(Step("one", self.watch, then=self.add)), S(Step("two", self.watch, then=self.add))),
            Return(lambda: self.told),
        )


def test_cancelled_turns_true_at_once_in_the_same_process(working: Open, gate: Gate) -> None:
    """The leases are long and never renewed: only word of the cancel can have come."""
    runner = working(Patient)
    handle = runner.start(Patient())
    gate.wait(here=2)
    handle.cancel()
    wait_for(runner, handle, lambda: handle.status.ended)
    assert gate.here == 0
    assert handle.state.told == 2


def test_cancelled_turns_true_at_the_next_renewal_elsewhere(working: Open, opened: Open, url: str, gate: Gate) -> None:
    runner = working(Patient, store=url, lease=SHORT)
    handle = runner.start(Patient())
    gate.wait(here=2)
    opened(Patient, store=url).get(Patient, handle.id).cancel()
    wait_for(runner, handle, lambda: handle.status.ended)
    assert handle.state.told == 2


def test_a_kill_stops_an_async_action_at_once(working: Open, gate: Gate) -> None:
    runner = working(Job)
    handle = runner.start(Job())
    gate.wait(here=1)
    handle.kill()
    gate.wait(here=0)
    assert handle.status.ended
    assert handle.state.done == 0


class Desk(Workflow):
    """A step that runs while events come."""

    notes: list[str] = []

    async def work(self) -> None:
        await GATE.hold_async()

    @event
    def note(self, text: str) -> int:
        self.notes.append(text)
        return len(self.notes)

    def definition(self) -> Section[list[str]]:
        return S(
            Step(self.work),
            For("open", lambda: len(self.notes) < 2, WaitEvent(self.note)),
            Return(lambda: self.notes),
        )


def test_an_event_during_a_renewed_step_does_not_disturb_it(working: Open, gate: Gate) -> None:
    runner = working(Desk, lease=SHORT)
    handle = runner.start(Desk())
    gate.wait(here=1)
    answers: list[int] = []
    sender = threading.Thread(target=lambda: answers.append(handle.send(Desk.note, "a", timeout=PATIENCE)))
    sender.start()
    wait_for(runner, handle, lambda: bool(handle._loaded().instance().inbox))
    rev = handle._loaded().instance().rev
    wait_for(runner, handle, lambda: handle._loaded().instance().rev >= rev + 2)
    gate.open()
    sender.join(PATIENCE)
    assert answers == [1]
    assert handle.send(Desk.note, "b") == 2
    assert handle.result(PATIENCE) == ["a", "b"]
    assert gate.came == 1
