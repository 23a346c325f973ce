"""How many writes things cost: results that are ready together go into one, and so do saves into one transaction."""

import asyncio
from collections.abc import Sequence

import pytest

from asyncflow import ForEach, Return, S, Section, Step, Workflow
from asyncflow.errors import Unavailable
from runner import Runner
from runner.stores.base import Failed, Outcomes, Saved, Write
from runner.stores.memory import MemoryStore
from runner.work.committer import BATCH_WRITES_MAX, Committer
from tests.conformance.records import ORDER, record
from tests.runner.conftest import Open
from tests.runner.gates import PATIENCE, Gate


class Counted:
    """Counts the writes of a Runner: how many of each commit."""

    def __init__(self, runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
        self.commits: list[int] = []
        commit = runner.store.commit

        def counted(writes: Sequence[Write]) -> Outcomes:
            self.commits.append(len(writes))
            return commit(writes)

        monkeypatch.setattr(runner.store, "commit", counted)

    @property
    def writes(self) -> int:
        return sum(self.commits)


class FanOut(Workflow):
    """Items side by side."""

    items: list[int]
    done: dict[int, int] = {}

    async def work_async(self, item: int) -> int:
        return item

    def work(self, item: int) -> int:
        return item

    def count(self, item: int) -> None:
        self.done[item] = self.done.get(item, 0) + 1

    def each(self, item: int) -> Section:
        return S(Step("work", self.work, item, then=self.count))

    def definition(self) -> Section[list[int]]:
        return S(ForEach("items", lambda: self.items, self.each, parallel=1_000), Return(self.ends))

    def ends(self) -> list[int]:
        return [self.done.get(item, 0) for item in self.items]


class AsyncFanOut(FanOut):
    """As FanOut, with coroutine functions."""

    def each(self, item: int) -> Section:
        return S(Step("work", self.work_async, item, then=self.count))


@pytest.mark.slow
@pytest.mark.parametrize("workflow", [FanOut, AsyncFanOut])
def test_a_thousand_steps_twenty_at_once_cost_few_writes(
    workflow: type[FanOut], working: Open, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = working(workflow, store=url, concurrency=20)
    counted = Counted(runner, monkeypatch)
    handle = runner.start(workflow(items=list(range(1_000))))
    assert handle.result(PATIENCE) == [1] * 1_000
    assert counted.writes <= 150


class Together(Workflow):
    """Steps whose actions all end in one turn of the loop."""

    items: list[int]
    order: list[int] = []

    async def work(self, item: int) -> int:
        return await MEETING.come(item)

    def keep(self, item: int) -> None:
        self.order.append(item)

    def each(self, item: int) -> Section:
        return S(Step("work", self.work, item, then=self.keep))

    def definition(self) -> Section[list[int]]:
        return S(ForEach("items", lambda: self.items, self.each, parallel=10), Return(lambda: self.order))


class Meeting:
    """Lets nobody go before all have come; then the last one to come goes first."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._waiting: list[asyncio.Future[None]] = []

    async def come(self, item: int) -> int:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        if len(self._waiting) == self._size:
            for one in reversed(self._waiting):
                one.set_result(None)
        await future
        return item


MEETING = Meeting(7)


def test_results_that_are_ready_together_go_into_one_write_in_the_order_taken(
    working: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = working(Together)
    counted = Counted(runner, monkeypatch)
    handle = runner.start(Together(items=list(range(7))))
    assert handle.result(PATIENCE) == list(range(7))
    assert counted.writes == 3  # the start, the take of all, all results


class Row(Workflow):
    """Plain steps in a row."""

    count: int = 0

    def add(self) -> None:
        self.count += 1

    def definition(self) -> Section[int]:
        return S(*(Step(f"add {number}", self.add) for number in range(10)), Return(lambda: self.count))


def test_steps_in_a_row_cost_one_write_each_and_one(working: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    runner = working(Row)
    counted = Counted(runner, monkeypatch)
    assert runner.start(Row()).result(PATIENCE) == 10
    assert counted.writes == 1 + 10 + 1


# -- the committer -----------------------------------------------------------------------------------------------------


def test_what_comes_during_a_commit_goes_into_the_next_one_together(monkeypatch: pytest.MonkeyPatch) -> None:
    store, gate = MemoryStore(), Gate()
    sizes: list[int] = []
    commit = store.commit

    def slow(writes: Sequence[Write]) -> Outcomes:
        sizes.append(len(writes))
        if len(sizes) == 1:
            gate.hold()
        return commit(writes)

    monkeypatch.setattr(store, "commit", slow)
    committer = Committer(store)
    outcomes: list[object] = []
    committer.submit([(Write(record("first"), None), outcomes.append)])
    gate.wait(here=1)
    for number in range(BATCH_WRITES_MAX + 10):
        committer.submit([(Write(record(f"o-{number}"), None), outcomes.append)])
    gate.open()
    committer.close()
    assert sizes == [1, BATCH_WRITES_MAX, 10]
    assert len(outcomes) == BATCH_WRITES_MAX + 11
    assert all(isinstance(outcome, Saved) for outcome in outcomes)


def test_a_close_finishes_what_is_pending_and_then_saves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore()
    committer = Committer(store)
    assert isinstance(committer.save(Write(record(), None)), Saved)
    committer.close()
    outcome = committer.save(Write(record("o-2"), None))
    assert isinstance(outcome, Failed)
    assert isinstance(outcome.error, Unavailable)
    assert not outcome.in_doubt
    assert store.get(ORDER, "o-2") is None


def test_a_store_that_raises_leaves_its_saves_in_doubt(monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore()

    def broken(writes: Sequence[Write]) -> Outcomes:
        raise RuntimeError("a driver with a fault")

    monkeypatch.setattr(store, "commit", broken)
    committer = Committer(store)
    outcome = committer.save(Write(record(), None))
    assert isinstance(outcome, Failed)
    assert outcome.in_doubt
    monkeypatch.undo()
    assert isinstance(committer.save(Write(record(), None)), Saved)
    committer.close()


def test_whoever_fails_to_hear_an_outcome_stops_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    committer = Committer(MemoryStore())

    def deaf(outcome: object) -> None:
        raise RuntimeError("not at home")

    committer.submit([(Write(record(), None), deaf)])
    assert isinstance(committer.save(Write(record("o-2"), None)), Saved)
    committer.close()
