"""Where each write is a commit of its own, nobody waits for another's."""

import threading
from collections.abc import Iterator, Sequence
from queue import SimpleQueue

import pytest

from asyncflow.errors import Unavailable
from runner.stores.base import Failed, Outcome, Outcomes, Saved, Write
from runner.stores.memory import MemoryStore
from runner.work.committer import Committer
from tests.conformance.records import ORDER, record
from tests.runner.gates import PATIENCE


class Far(MemoryStore):
    """A store in which the write of "slow" takes until it is let go, and that of "broken" raises."""

    remote = True
    commits_apart = True

    def __init__(self) -> None:
        super().__init__()
        self.here = threading.Event()
        self.go = threading.Event()

    def commit(self, writes: Sequence[Write]) -> Outcomes:
        (write,) = writes
        if write.record.id == "broken":
            raise RuntimeError("a fault of the driver")
        if write.record.id == "slow":
            self.here.set()
            assert self.go.wait(PATIENCE)
        return super().commit(writes)


@pytest.fixture
def store() -> Iterator[Far]:
    store = Far()
    yield store
    store.go.set()


def test_a_slow_write_holds_up_no_other(store: Far) -> None:
    committer = Committer(store)
    told: SimpleQueue[tuple[str, Outcome]] = SimpleQueue()
    names = ["slow", *(f"o-{number}" for number in range(20)), "broken"]
    committer.submit([
        (Write(record(name), None), lambda outcome, name=name: told.put((name, outcome)))  # type: ignore[misc]
        for name in names
    ])  # fmt: skip
    assert store.here.wait(PATIENCE)
    assert isinstance(committer.save(Write(record("mine"), None)), Saved)
    first = dict(told.get(timeout=PATIENCE) for _ in names[1:])
    assert set(first) == {*names[1:]}
    broken = first.pop("broken")
    assert isinstance(broken, Failed)
    assert broken.in_doubt
    assert all(isinstance(outcome, Saved) for outcome in first.values())
    assert store.get(ORDER, "slow") is None
    store.go.set()
    committer.close()
    name, outcome = told.get(timeout=PATIENCE)
    assert (name, type(outcome)) == ("slow", Saved), "what is pending is finished before the end"


def test_after_the_end_nothing_is_saved(store: Far) -> None:
    committer = Committer(store)
    committer.close()
    told: list[Outcome] = []
    committer.submit([(Write(record("o-1"), None), told.append)])
    for outcome in (*told, committer.save(Write(record("o-2"), None))):
        assert isinstance(outcome, Failed)
        assert isinstance(outcome.error, Unavailable)
        assert not outcome.in_doubt
    assert store.list().items == ()


def test_one_who_fails_to_hear_disturbs_nobody(store: Far, caplog: pytest.LogCaptureFixture) -> None:
    committer = Committer(store)

    def deaf(outcome: Outcome) -> None:
        raise RuntimeError("deaf")

    told: list[Outcome] = []
    committer.submit([(Write(record("o-1"), None), deaf), (Write(record("o-2"), None), told.append)])
    committer.close()
    assert [type(outcome) for outcome in told] == [Saved]
    assert store.get(ORDER, "o-1") is not None
    assert "failed to hear" in caplog.text
