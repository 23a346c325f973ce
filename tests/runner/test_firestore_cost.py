"""What things cost on Firestore: reads and writes of documents, counted at the client, against the table of PROTOCOL 8.

Queries of a worker's look-out are counted apart: they are what local workers cost beside the work, and a queue has none.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta

import pytest

from asyncflow import Pending, Return, S, Section, Step, WaitEvent, Workflow, event
from runner import Handle, Runner
from runner.stores import open_store
from runner.stores.base import Write
from runner.work import worker
from tests.conformance.records import NOW, ORDER, entries, record, revision
from tests.runner.clocks import Clock
from tests.runner.gates import PATIENCE, Gate
from tests.servers.firestore import SERVER, firestore_url
from tests.servers.firestore_meter import DAY, Cart, Cost, Meter, meters

__all__ = ["firestore_url", "meters"]

pytestmark = SERVER

LOOKS = 2
"""Queries of one look for due work: what is due, and when the next will be."""
LOOKS_AT_START = 1 + LOOKS
"""And one for what other code could not place or read."""

GATE = Gate()
HOUR = timedelta(hours=1)


class Desk(Workflow):
    """A plain step at the gate, then events."""

    notes: int = 0

    async def hold(self) -> None:
        await GATE.hold_async()

    @event
    def note(self) -> int:
        self.notes += 1
        return self.notes

    def definition(self) -> Section[int]:
        return S(Step(self.hold, timeout=HOUR), WaitEvent(self.note), Return(lambda: self.notes))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def gate() -> Iterator[Gate]:
    global GATE  # noqa: PLW0603 (the actions of this test stand at it)
    GATE = Gate()
    yield GATE
    GATE.open()


@pytest.fixture
def runner(firestore_url: str, meters: list[Meter], clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Iterator[Runner]:
    """A Runner whose workers look for due work only when they are told to: not just while something is on its way."""
    monkeypatch.setattr(worker, "LOOK_FAR_SECONDS", 1_000.0)
    with Runner([Cart, Desk], store=firestore_url, clock=clock) as runner:
        until(lambda: meters[0].cost.queries == LOOKS_AT_START)
        yield runner


@contextmanager
def measured(meters: list[Meter], runner: Runner) -> Iterator[Cost]:
    """Give what is used until everything rests again."""
    (meter,) = meters
    meter.cost = used = Cost()
    yield used
    assert runner._worker is not None
    settle(runner)
    meter.cost = Cost()


def settle(runner: Runner) -> None:
    """Wait until nobody is at work; without a look for due work, which would be counted."""
    at_work = runner._worker
    assert at_work is not None
    until(lambda: at_work.busy == 0)


def until(fits: Callable[[], bool]) -> None:
    gate = Gate()
    for _ in range(int(PATIENCE / 0.005)):
        if fits():
            return
        gate.pause()
    raise AssertionError("it did not come to rest")


def cart(runner: Runner) -> Handle[Cart]:
    """Start one. Its deadline is so far off that the look-out, which looks before it anyway, is not told."""
    return runner.start(Cart(), id="c-1")


def test_a_start_is_one_write(meters: list[Meter], runner: Runner) -> None:
    with measured(meters, runner) as cost:
        runner.start(Cart(), id="c-1")
    assert (cost.reads, cost.writes) == (0, 1)


def test_an_event_is_one_read_and_one_write(meters: list[Meter], runner: Runner) -> None:
    handle = cart(runner)
    for number in (1, 2, 3):
        with measured(meters, runner) as cost:
            assert handle.send(Cart.add) == number
        assert (cost.reads, cost.writes) == (1, 1)


@pytest.mark.parametrize("steps", [1, 4, 10])
def test_an_event_and_its_steps_are_two_reads_and_two_writes_more_than_steps(
    steps: int, meters: list[Meter], runner: Runner
) -> None:
    handle = cart(runner)
    with measured(meters, runner) as cost:
        handle.send(Cart.work, steps)
        until(lambda: meters[0].cost.writes == steps + 2)
    assert (cost.reads, cost.writes, cost.lost) == (2, steps + 2, 0)
    assert handle.state.done == steps


def test_a_timer_is_one_read_and_one_write_and_a_step_one_more(meters: list[Meter], runner: Runner, clock: Clock) -> None:
    handle = cart(runner)
    with measured(meters, runner) as cost:
        clock.advance(DAY)
        runner._worker.wake(handle._key)  # type: ignore[union-attr]
        until(lambda: meters[0].cost.writes == 1 + 2)
    assert (cost.reads, cost.writes, cost.lost) == (1, 1 + 2, 0)
    assert handle.state.done == 2


def test_a_wake_up_that_finds_nothing_due_is_one_read(meters: list[Meter], runner: Runner) -> None:
    handle = cart(runner)
    with measured(meters, runner) as cost:
        assert runner._worker is not None
        runner._worker.wake(handle._key)
        until(lambda: meters[0].cost.reads == 1)
    assert (cost.reads, cost.writes) == (1, 0)


def test_an_event_while_a_step_holds_is_one_write_and_a_second_look_of_the_holder(
    meters: list[Meter], runner: Runner, gate: Gate
) -> None:
    handle = runner.start(Desk(), id="d-1")
    gate.wait(here=1)
    with measured(meters, runner) as cost:
        with pytest.raises(Pending):
            handle.send(Desk.note, timeout=0)
        assert cost.writes == 1
        gate.open()
        until(lambda: meters[0].cost.writes == 2)
    # One for the sender and one for his poll; the holder is told of the write in its own process, elsewhere its finish loses.
    assert (cost.reads + cost.lost, cost.writes) == (1 + 1 + 1, 1 + 1)
    assert handle.output == 1


def test_a_holder_that_was_not_told_loses_once(
    meters: list[Meter], runner: Runner, gate: Gate, firestore_url: str, clock: Clock
) -> None:
    runner.start(Desk(), id="d-1")
    gate.wait(here=1)
    beside = Runner([Desk], store=firestore_url, clock=clock)
    holder, sender = meters
    holder.cost, sender.cost = Cost(), Cost()
    with pytest.raises(Pending):
        beside.get(Desk, "d-1").send(Desk.note, timeout=0)
    assert (sender.cost.reads, sender.cost.writes) == (1 + 1, 1)
    gate.open()
    until(lambda: holder.cost.writes == 1)
    assert (holder.cost.reads, holder.cost.lost) == (1, 1)
    beside.close()


def test_a_lease_is_renewed_by_one_write_each_third(
    meters: list[Meter], firestore_url: str, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "LOOK_FAR_SECONDS", 1_000.0)
    # By the real clock; longer than a worker looks ahead, which would see its own lease end.
    lease = timedelta(seconds=worker.RECOVER_SECONDS + 1)
    with Runner([Desk], store=firestore_url, lease=lease) as runner:
        until(lambda: meters[0].cost.queries == LOOKS_AT_START)
        handle = runner.start(Desk(), id="d-1")
        gate.wait(here=1)
        first = handle._loaded().instance().threads["main"].lease
        with measured(meters, runner) as cost:
            until(lambda: meters[0].cost.writes == 1)
            renewed = replace(cost)
            again = handle._loaded().instance().threads["main"].lease
            gate.open()
        assert (renewed.reads, renewed.writes, renewed.lost) == (0, 1, 0)
        assert first is not None
        assert again is not None
        assert again.token == first.token
        assert lease / 3 <= again.till - first.till < lease / 2  # type: ignore[operator]


def test_what_waits_for_room_is_not_loaded_again_and_again(
    meters: list[Meter], firestore_url: str, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "LOOK_FAR_SECONDS", 0.01)
    monkeypatch.setattr(worker, "SPARE_SECONDS", 0.01)
    with Runner([Desk], store=firestore_url, concurrency=1) as runner:
        for number in range(3):
            runner.start(Desk(), id=f"d-{number}")
        gate.wait(here=1)
        until(lambda: len(runner._worker._starved) == 2)  # type: ignore[union-attr]
        settled = meters[0].cost.queries
        until(lambda: meters[0].cost.queries >= settled + 2 * LOOKS)
        meters[0].cost = cost = Cost()
        until(lambda: cost.queries >= 10 * LOOKS)
        assert (cost.reads, cost.writes) == (0, 0)
        gate.open()


def test_what_has_expired_is_deleted_at_once_with_few_looks(meters: list[Meter], firestore_url: str) -> None:
    with Runner([Cart], store=firestore_url, retention=timedelta(seconds=1)) as runner:
        handle = cart(runner)
        meters[0].cost = cost = Cost()
        handle.kill()
        until(lambda: cost.writes == 2)
        assert cost.reads <= 4, "the operator's, the worker's, the sweep's; one more where looks overlap"
        assert runner.store.get("Cart", "c-1") is None


def test_what_each_call_costs(meters: list[Meter], firestore_url: str) -> None:
    """The numbers that the docstrings of the driver and docs/firestore.md give."""
    store = open_store(firestore_url)

    def cost_of(call: Callable[[], object]) -> tuple[int, int, int]:
        meters[0].cost = Cost()
        call()
        used = meters[0].cost
        return used.reads, used.writes, used.queries

    plain = [Write(record(f"o-{number}", due_at=NOW), None) for number in range(3)]
    assert cost_of(lambda: store.commit(plain)) == (0, 3, 0)
    assert cost_of(lambda: store.commit([Write(record("h-1"), None, entries(1, 2))])) == (0, 2, 0)
    at = revision(store, "h-1")
    ended = Write(record("h-1", status="Finished", expires_at=NOW), at, entries(3))
    assert cost_of(lambda: store.commit([ended])) == (0, 3, 0), "the save, its entries, the marker of the ended"
    assert cost_of(lambda: store.get(ORDER, "o-1")) == (1, 0, 0)
    assert cost_of(lambda: store.due([ORDER, "Trip", "Other"], now=NOW, limit=9)) == (0, 0, 1)
    assert cost_of(lambda: store.next_due([ORDER, "Trip", "Other"])) == (0, 0, 1)
    assert cost_of(lambda: store.due([ORDER, "Trip", "Other", "Fourth"], now=NOW, limit=9)) == (0, 0, 2)
    assert cost_of(lambda: store.unfit([ORDER])) == (0, 0, 1)
    assert cost_of(lambda: store.expired([ORDER, "Trip"], now=NOW, limit=9)) == (0, 0, 2)
    assert cost_of(lambda: store.list([ORDER, "Trip"])) == (0, 0, 1)
    assert cost_of(lambda: store.list([ORDER, "Trip"], status="Failed", filter="labels.a = 1")) == (0, 0, 2)
    assert cost_of(store.list) == (0, 0, 1)
    assert cost_of(lambda: store.history(ORDER, "h-1")) == (1, 0, 1)
    assert cost_of(lambda: store.park(ORDER, "o-1", revision(store, "o-1"), "why")) == (1 + 1, 1, 0)
    assert cost_of(lambda: store.defer(ORDER, "o-2", revision(store, "o-2"), until=NOW)) == (1 + 1, 1, 0)
    assert cost_of(lambda: store.delete(ORDER, "o-1", revision(store, "o-1"))) == (1, 1, 0)
    assert cost_of(lambda: store.prune_history([ORDER], before=NOW)) == (0, 0, 1)
    for call in (store.changed, store.processes, lambda: store.held_by("host-1"), lambda: store.dead(["host-1"]), store.now):
        assert cost_of(call) == (0, 0, 0)
    store.close()
