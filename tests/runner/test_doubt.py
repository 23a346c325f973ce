"""A store that answers neither yes nor no, or is away for a while: everything happens once all the same (rule 6)."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import pytest

from asyncflow import For, Return, S, Section, Step, WaitEvent, Workflow, event
from asyncflow.errors import Unavailable
from runner import Runner
from runner.stores.base import Failed, Key, Outcomes, Stored, Write
from runner.work import activity, asking, worker
from runner.work import deliver as delivering
from tests.runner.conftest import Open, wait_for
from tests.runner.gates import PATIENCE

Fault = Callable[[Sequence[Write], Callable[[Sequence[Write]], Outcomes]], Outcomes]
T = TypeVar("T")
RUNS: list[str] = []


class Order(Workflow):
    """Steps and events in turn; everything is counted."""

    added: int = 0
    packed: int = 0

    @event
    def add(self) -> int:
        self.added += 1
        return self.added

    def pack(self) -> None:
        RUNS.append(self.context.idempotency_key)
        self.packed += 1

    def definition(self) -> Section[tuple[int, int]]:
        return S(
            For("more", lambda: self.added < 2, WaitEvent(self.add), Step(self.pack)),
            Return(lambda: (self.added, self.packed)),
        )


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait no longer between two tries than a test can spare."""
    RUNS.clear()
    monkeypatch.setattr(activity, "RETRY_SAVE_SECONDS", 0.001)
    monkeypatch.setattr(activity, "RETRY_SAVE_SECONDS_MAX", 0.002)
    monkeypatch.setattr(delivering, "DOUBT_RETRY_SECONDS", 0.001)
    monkeypatch.setattr(worker, "STORE_AWAY_SECONDS", 0.001)
    monkeypatch.setattr(asking, "STORE_AWAY_SECONDS", 0.001)


def stored_but_not_told(writes: Sequence[Write], commit: Callable[[Sequence[Write]], Outcomes]) -> Outcomes:
    commit(writes)
    return [Failed(Unavailable("the answer was lost"), in_doubt=True)] * len(writes)


def not_stored_and_not_told(writes: Sequence[Write], commit: Callable[[Sequence[Write]], Outcomes]) -> Outcomes:
    return [Failed(Unavailable("the answer was lost"), in_doubt=True)] * len(writes)


def refused(writes: Sequence[Write], commit: Callable[[Sequence[Write]], Outcomes]) -> Outcomes:
    return [Failed(Unavailable("the disk is full"))] * len(writes)


def raising(writes: Sequence[Write], commit: Callable[[Sequence[Write]], Outcomes]) -> Outcomes:
    raise RuntimeError("a fault of the driver")


def with_fault(runner: Runner, fault: Fault, every: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let every so manieth commit meet a fault; gives the list of those that did."""
    commit = runner.store.commit
    met: list[int] = []
    count = 0

    def faulty(writes: Sequence[Write]) -> Outcomes:
        nonlocal count
        count += 1
        if count % every == 0:
            met.append(count)
            return fault(writes, commit)
        return commit(writes)

    monkeypatch.setattr(runner.store, "commit", faulty)
    return met


def repeat(call: Callable[[], T]) -> T:
    """As a sender does who is told that the store is away: once more, with the same key."""
    while True:
        try:
            return call()
        except Unavailable:
            pass


def run_one(runner: Runner, number: int) -> tuple[int, int]:
    key = f"order {number}"
    handle = runner.get(Order, f"o-{number}")
    repeat(lambda: runner.start(Order(), id=handle.id, idempotency_key=key))
    for event_number in (1, 2):
        send = partial(handle.send, "add", idempotency_key=f"{key} event {event_number}")
        assert repeat(send) == event_number
    return handle.result(PATIENCE)


@pytest.mark.parametrize("every", [2, 3, 5])
@pytest.mark.parametrize("fault", [stored_but_not_told, not_stored_and_not_told, refused, raising])
def test_a_fault_of_any_save_changes_no_count(fault: Fault, every: int, working: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    runner = working(Order)
    met = with_fault(runner, fault, every, monkeypatch)
    for number in range(6):
        assert run_one(runner, number) == (2, 2)
    assert met
    assert len(RUNS) == len(set(RUNS)) == 12  # no attempt ran without its lease, or twice for one lease


def test_a_store_that_is_away_costs_a_result_nothing(working: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    runner = working(Order)
    handle = runner.start(Order(), id="o-1")
    handle.send(Order.add)
    get, failed = runner.store.get, 0

    def away(workflow: str, id: str) -> Stored | None:
        nonlocal failed
        if failed < 5:
            failed += 1
            raise Unavailable("the store is away")
        return get(workflow, id)

    monkeypatch.setattr(runner.store, "get", away)
    assert repeat(lambda: handle.send(Order.add, idempotency_key="k")) == 2
    assert repeat(lambda: handle.result(PATIENCE)) == (2, 2)
    assert failed == 5


def test_a_look_out_that_fails_goes_on(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    runner = opened(Order)
    handle = runner.start(Order())
    handle.send(Order.add)  # the step is due, and nobody has been woken for it
    due, failed = runner.store.due, 0

    def away(*arguments: Any, **keywords: Any) -> Sequence[Key]:
        nonlocal failed
        failed += 1
        if failed < 4:
            raise Unavailable("the store is away")
        return due(*arguments, **keywords)

    monkeypatch.setattr(runner.store, "due", away)
    with runner:
        wait_for(runner, handle, lambda: handle.state.packed == 1)
    assert failed >= 4
