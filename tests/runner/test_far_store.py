"""A worker on a store that is far away: the loop waits for no call, and what is away for a while costs nothing but time.

The store is that in memory, which here says that it is far away.
"""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from datetime import datetime, timedelta
from typing import Any

import pytest

from asyncflow import Return, S, Section, Step, WaitFor, Workflow
from asyncflow.errors import Unavailable
from runner import Runner
from runner.stores.base import Failed, Outcomes, Stored, Write
from runner.stores.memory import MemoryRows, MemoryStore
from runner.work import activity, asking, worker
from runner.work.asking import LOAD_AT_ONCE
from tests.runner.conftest import Open
from tests.runner.gates import PATIENCE, Gate

GATE = Gate()
RUNS: list[str] = []


class Order(Workflow):
    """One step, which is counted, and perhaps has to wait at the gate."""

    waits: bool = False
    packed: int = 0

    async def pack(self) -> None:
        RUNS.append(self.context.id)
        if self.waits:
            await GATE.hold_async()
        self.packed += 1

    def definition(self) -> Section[int]:
        return S(Step(self.pack), Return(lambda: self.packed))


class Later(Workflow):
    """Ends after a moment."""

    def definition(self) -> Section[str]:
        return S(WaitFor("a moment", timedelta(milliseconds=50)), Return("done"))


class FarStore(MemoryStore):
    """Says that it is far away; may be away altogether, and tells of others if it was told to."""

    remote = True

    def __init__(self, rows: MemoryRows | None = None) -> None:
        super().__init__(rows)
        self.away = False
        self.met = threading.Event()
        """Somebody has found it away."""
        self.loaded: list[list[str]] = []
        self.held_up: dict[str, Future[None]] = {}
        self.holding = threading.Event()
        self.threads: set[str] = set()
        self.tells = False
        self.heard: Callable[[], None] = lambda: None

    def call(self) -> None:
        self.threads.add(threading.current_thread().name)
        if self.away:
            self.met.set()
            raise Unavailable("the server is away")

    def commit(self, writes: Sequence[Write]) -> Outcomes:
        try:
            self.call()
        except Unavailable as error:
            return [Failed(error)] * len(writes)
        return super().commit(writes)

    def get_many(self, keys: Sequence[tuple[str, str]]) -> Sequence[Stored | None]:
        self.call()
        self.loaded.append([id_ for _, id_ in keys])
        for _, id_ in keys:
            if id_ in self.held_up:
                self.holding.set()
                self.held_up[id_].result(PATIENCE)
        return super().get_many(keys)

    def due(self, *args: Any, **named: Any) -> Any:
        self.call()
        return super().due(*args, **named)

    def next_due(self, workflows: Any) -> datetime | None:
        self.call()
        return super().next_due(workflows)

    def unfit(self, workflows: Any) -> Any:
        self.call()
        return super().unfit(workflows)

    def changed(self) -> Any:
        self.call()
        assert not self.tells, "who is told does not ask"
        return super().changed()

    def expired(self, *args: Any, **named: Any) -> Any:
        self.call()
        return super().expired(*args, **named)

    def defer(self, *args: Any, **named: Any) -> bool:
        self.call()
        return super().defer(*args, **named)

    def listen(self, heard: Callable[[], None]) -> bool:
        self.heard = heard
        return self.tells


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    RUNS.clear()
    monkeypatch.setattr(activity, "RETRY_SAVE_SECONDS", 0.001)
    monkeypatch.setattr(activity, "RETRY_SAVE_SECONDS_MAX", 0.01)
    monkeypatch.setattr(worker, "STORE_AWAY_SECONDS", 0.01)
    monkeypatch.setattr(asking, "STORE_AWAY_SECONDS", 0.01)
    monkeypatch.setattr(worker, "LOOK_FAR_SECONDS", 0.02)


@pytest.fixture
def far(opened: Open) -> Callable[..., tuple[Runner, FarStore]]:
    """Open a Runner on a far store."""

    def open_far(*workflows: type[Workflow], rows: MemoryRows | None = None, **arguments: Any) -> tuple[Runner, FarStore]:
        runner = opened(*workflows, **arguments)
        store = FarStore(rows)
        runner.store = runner.delivery._store = runner._committer._store = store
        return runner, store

    return open_far


Far = Callable[..., tuple[Runner, FarStore]]


def test_no_call_is_made_on_the_loop(far: Far, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "RECOVER_SECONDS", 0.0)
    runner, store = far(Order, Later, retention=timedelta(hours=1))
    with runner:
        assert [runner.start(Order()).result(PATIENCE), runner.start(Later()).result(PATIENCE)] == [1, "done"]
        assert runner.wait_idle(PATIENCE)
        store.defer("Order", "nobody", None, until=store.now())
    assert "asyncflow-worker" not in store.threads
    assert any(name.startswith("asyncflow-asking") for name in store.threads)


def test_what_is_due_in_one_turn_is_loaded_together(far: Far) -> None:
    runner, store = far(Order, concurrency=100)
    for number in range(LOAD_AT_ONCE + 8):
        runner.start(Order(), id=f"o-{number}")
    with runner:
        assert runner.wait_idle(PATIENCE)
    assert sorted(len(keys) for keys in store.loaded[:2]) == [8, LOAD_AT_ONCE]
    assert len(RUNS) == LOAD_AT_ONCE + 8


def test_a_slow_call_holds_nobody_else_up(far: Far) -> None:
    runner, store = far(Order)
    store.held_up["slow"] = Future()
    with runner:
        slow = runner.start(Order(), id="slow")
        assert store.holding.wait(PATIENCE)
        assert [runner.start(Order(), id=f"o-{number}").result(PATIENCE) for number in range(5)] == [1] * 5
        assert slow.state.packed == 0
        store.held_up["slow"].set_result(None)
        assert slow.result(PATIENCE) == 1


def test_a_result_is_kept_until_the_store_is_back(far: Far, gate: Gate) -> None:
    runner, store = far(Order)
    with runner:
        handle = runner.start(Order(waits=True))
        gate.wait(here=1)
        store.away = True
        gate.open()
        assert store.met.wait(PATIENCE)
        store.met.clear()
        assert store.met.wait(PATIENCE), "it is tried again and again"
        assert runner.healthy
        store.away = False
        assert handle.result(PATIENCE) == 1
    assert [handle.id] == RUNS


def test_what_could_not_be_loaded_is_loaded_when_the_store_is_back(far: Far) -> None:
    rows = MemoryRows()
    runner, store = far(Order, rows=rows)
    other, _ = far(Order, rows=rows)
    with runner:
        store.away = True
        handle = other.start(Order())
        runner._worker.wake(handle._key)  # type: ignore[union-attr]
        for _ in range(3):
            store.met.clear()
            assert store.met.wait(PATIENCE)
        store.away = False
        assert handle.result(PATIENCE) == 1
    assert [handle.id] == RUNS


def test_a_drain_while_the_store_is_away_ends_and_loses_nothing(far: Far, gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "GIVE_BACK_SECONDS", 0.05)
    rows = MemoryRows()
    runner, store = far(Order, rows=rows)
    runner.__enter__()
    handle = runner.start(Order(waits=True))
    gate.wait(here=1)
    store.away = True
    gate.open()
    assert store.met.wait(PATIENCE)
    runner.drain(0.05)
    runner.close()
    again, _ = far(Order, rows=rows)
    with again:
        assert again.get(Order, handle.id).result(PATIENCE) == 1, "its process is gone, so its lease lapses"


def test_who_is_told_asks_only_then(far: Far, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "RECOVER_SECONDS", 600.0)
    rows = MemoryRows()
    runner, store = far(Order, rows=rows)
    store.tells = True
    other, _ = far(Order, rows=rows)
    with runner:
        assert runner.wait_idle(PATIENCE)
        handle = other.start(Order())
        store.heard()
        assert handle.result(PATIENCE) == 1
    store.heard()  # too late, and harmless


def test_who_is_not_told_looks_by_himself(far: Far, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "RECOVER_SECONDS", 600.0)
    rows = MemoryRows()
    runner, _ = far(Order, rows=rows)
    other, _ = far(Order, rows=rows)
    with runner:
        assert runner.wait_idle(PATIENCE)
        assert other.start(Order()).result(PATIENCE) == 1


def test_a_call_that_fails_otherwise_leaves_the_instance_for_later(far: Far, monkeypatch: pytest.MonkeyPatch) -> None:
    runner, store = far(Order)
    get_many, failures = store.get_many, [ValueError("a fault of the driver")]

    def faulty(keys: Sequence[tuple[str, str]]) -> Sequence[Stored | None]:
        if failures:
            raise failures.pop()
        return get_many(keys)

    monkeypatch.setattr(store, "get_many", faulty)
    handle = runner.start(Order())
    with runner:
        assert runner.wait_idle(PATIENCE)
        assert not failures
        runner._worker.wake(handle._key)  # type: ignore[union-attr]
        assert handle.result(PATIENCE) == 1
