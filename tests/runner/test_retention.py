"""What is deleted, and when: ended instances after their retention or at a word, history by its age; nothing alive."""

from datetime import timedelta
from typing import Any

import pytest

from asyncflow import Status, WaitEvent, Workflow, event
from asyncflow.errors import NotApplicable, NotFound
from asyncflow.statements import S, Section
from runner import Handle, Runner
from tests.runner.clocks import Clock
from tests.runner.conftest import Open

DAY = timedelta(days=1)


class Order(Workflow):
    """Ends at its event."""

    @event
    def end(self) -> None: ...

    def definition(self) -> Section[None]:
        return S(WaitEvent(self.end))


class Parcel(Workflow):
    """As Order, of another name."""

    @event
    def end(self) -> None: ...

    def definition(self) -> Section[None]:
        return S(WaitEvent(self.end))


def ended(runner: Runner, workflow: Any = Order) -> Handle[Any]:
    handle = runner.start(workflow())
    handle.send("end")
    assert handle.status is Status.Finished
    return handle


def sweep(runner: Runner) -> None:
    runner._sweep(runner.store.now())


def there(handle: Handle[Any]) -> bool:
    return handle._runner.store.get(handle._key.workflow, handle.id) is not None


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, url: str) -> str:
    return url if request.param == "sqlite" else "memory://"


def test_ended_instances_are_deleted_when_their_retention_is_over(opened: Open, clock: Clock, store: str) -> None:
    runner = opened(Order, store=store, clock=clock, retention=DAY)
    first = ended(runner)
    clock.advance(DAY / 2)
    second = ended(runner)
    sweep(runner)
    assert there(first)
    clock.advance(DAY / 2)
    sweep(runner)
    assert (there(first), there(second)) == (False, True)
    with pytest.raises(NotFound):
        list(first.history())


def test_a_live_instance_is_never_swept(opened: Open, clock: Clock, store: str) -> None:
    runner = opened(Order, store=store, clock=clock, retention=timedelta(0), history=timedelta(0))
    alive, paused = runner.start(Order()), runner.start(Order())
    paused.pause()
    for _ in range(3):
        clock.advance(1_000 * DAY)
        sweep(runner)
    assert (alive.status, paused.status) == (Status.Running, Status.Paused)
    assert [len(list(handle.history())) for handle in (alive, paused)] == [1, 2]


def test_without_a_retention_they_stay(opened: Open, clock: Clock, store: str) -> None:
    runner = opened(Order, store=store, clock=clock)
    handle = ended(runner)
    clock.advance(1_000 * DAY)
    sweep(runner)
    assert there(handle)


def test_retention_is_by_workflow(opened: Open, clock: Clock, store: str) -> None:
    runner = opened(Order, Parcel, store=store, clock=clock, retention={"Order": DAY})
    order, parcel = ended(runner), ended(runner, Parcel)
    clock.advance(2 * DAY)
    sweep(runner)
    assert (there(order), there(parcel)) == (False, True)


def test_a_runner_sweeps_its_own_workflows_only(opened: Open, clock: Clock, url: str) -> None:
    both = opened(Order, Parcel, store=url, clock=clock, retention=DAY)
    order, parcel = ended(both), ended(both, Parcel)
    clock.advance(2 * DAY)
    sweep(opened(Order, store=url, clock=clock, retention=DAY))
    assert (there(order), there(parcel)) == (False, True)


def test_a_runner_at_work_sweeps_by_itself(working: Open, clock: Clock, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runner.work.worker.RECOVER_SECONDS", 0.01)
    runner = working(Order, store=url, clock=clock, retention=DAY)
    handle = ended(runner)
    clock.advance(2 * DAY)
    before = runner.store.changed()
    other = ended(runner)
    runner.wait_idle()
    while there(handle):
        assert runner.wait_idle()
    assert there(other)
    assert runner.store.changed() != before


def test_history_of_ended_instances_is_pruned_by_its_age(opened: Open, clock: Clock, store: str) -> None:
    runner = opened(Order, store=store, clock=clock, history=DAY)
    old, alive = ended(runner), runner.start(Order())
    clock.advance(2 * DAY)
    new = ended(runner)
    sweep(runner)
    assert [len(list(handle.history())) for handle in (old, alive, new)] == [0, 1, 3]
    assert (there(old), old.status) == (True, Status.Finished)


def test_without_history_there_is_none(opened: Open, store: str) -> None:
    runner = opened(Order, store=store, history=False)
    assert list(ended(runner).history()) == []


def test_an_ended_instance_is_deleted_with_its_history(opened: Open, store: str) -> None:
    runner = opened(Order, store=store)
    handle = ended(runner)
    handle.delete()
    assert not there(handle)
    for use in (lambda: handle.status, handle.delete, lambda: list(handle.history())):
        with pytest.raises(NotFound):
            use()
    again = runner.start(Order(), id=handle.id)
    assert [entry["kind"] for entry in again.history()] == ["started"]


def test_a_live_instance_is_not_deleted(opened: Open, store: str) -> None:
    runner = opened(Order, store=store)
    alive, paused = runner.start(Order()), runner.start(Order())
    paused.pause()
    for handle in (alive, paused):
        with pytest.raises(NotApplicable, match="has not ended"):
            handle.delete()
        assert there(handle)
