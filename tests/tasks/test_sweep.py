"""`/tasks/sweep`: finds what nobody was woken for, and runs it where the queue refuses."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest

from asyncflow import Return, S, Section, Status, Step, WaitFor, Workflow
from asyncflow.errors import Unavailable
from runner import Runner
from runner.stores.memory import MemoryStore
from tests.runner.clocks import Clock
from tests.runner.gates import PATIENCE, Gate
from tests.tasks.conftest import Open, Site
from tests.tasks.outage import outage, still_due
from tests.tasks.workflows import DAY, Bell, Far, Row, Slow

GATE = Gate()
GRACE = timedelta(seconds=5)
AGAIN = timedelta(minutes=5)
SOON = timedelta(seconds=1)
NOTHING = {"woken": 0, "ran": 0, "waiting": 0, "left": 0, "deleted": 0}


class Held(Workflow):
    """A step that stands at the gate."""

    async def wait(self) -> None:
        await GATE.hold_async()

    def definition(self) -> Section[None]:
        return S(Step(self.wait), Return(None))


@pytest.fixture
def site(serving: Open, clock: Clock) -> Site:
    return serving(Row, Bell, Far, Slow, Held, clock=clock)


@pytest.fixture
def still(monkeypatch: pytest.MonkeyPatch) -> None:
    """The store does not move what it hands out, as Firestore."""
    monkeypatch.setattr(MemoryStore, "due", still_due)


def lost(site: Site, *workflows: Workflow) -> None:
    """Start these, and lose their wake-ups."""
    site.queue.loses = lambda _: True
    for number, workflow in enumerate(workflows):
        site.runner.start(workflow, id=f"i{number}")
    site.queue.loses = lambda _: False


# -- waking ------------------------------------------------------------------------------------------------------------


def test_what_was_not_woken_is_woken_after_its_grace(site: Site, clock: Clock) -> None:
    lost(site, Row())
    assert site.sweep() == NOTHING
    clock.advance(GRACE)
    assert site.sweep() == {**NOTHING, "woken": 1}
    site.queue.settle()
    assert site.runner.get(Row, "i0").state.done == ["one", "two", "three"]
    assert site.sweep() == NOTHING


def test_a_sweep_over_nothing_says_so(site: Site) -> None:
    site.runner.start(Bell(), id="b")
    assert site.sweep() == NOTHING


@pytest.mark.usefixtures("still")
def test_what_was_woken_lately_is_not_woken_again(site: Site, clock: Clock) -> None:
    lost(site, Row(), Row())
    clock.advance(GRACE)
    site.queue.pause()
    assert site.sweep()["woken"] == 2
    clock.advance(AGAIN - timedelta(seconds=1))
    assert site.sweep() == {**NOTHING, "waiting": 2}
    clock.advance(timedelta(seconds=1))
    assert site.sweep()["woken"] == 2
    clock.advance(AGAIN)
    assert site.sweep()["woken"] == 0, "the second time it waits twice as long"
    clock.advance(AGAIN)
    assert site.sweep()["woken"] == 2


class Twice(Workflow):
    """Two waits, the second a short one."""

    def definition(self) -> Section[str]:
        return S(WaitFor("first", DAY), WaitFor("second", timedelta(minutes=2)), Return("rung"))


@pytest.mark.usefixtures("still")
def test_what_has_moved_on_and_is_due_anew_is_woken_at_once(serving: Open, clock: Clock) -> None:
    site = serving(Twice, clock=clock)
    site.queue.loses = lambda task: task.n != 1  # but the one of the first sweep
    twice = site.runner.start(Twice(), id="t")
    clock.advance(DAY + GRACE)
    assert site.sweep()["woken"] == 1
    site.queue.settle()
    clock.advance(timedelta(seconds=60))
    assert site.sweep() == NOTHING
    site.queue.loses = lambda _: False
    clock.advance(timedelta(seconds=65))
    assert site.sweep()["woken"] == 1, "though somebody was woken for it two minutes ago"
    site.queue.settle()
    assert twice.result(timeout=0) == "rung"


def test_a_store_that_hands_out_once_gives_what_was_not_done_again(site: Site, clock: Clock) -> None:
    lost(site, Row())
    clock.advance(GRACE)
    site.queue.pause()
    assert site.sweep()["woken"] == 1
    assert site.sweep() == NOTHING
    clock.advance(timedelta(seconds=30))
    assert site.sweep() == {**NOTHING, "waiting": 1}
    site.queue.empty()
    clock.advance(AGAIN)
    assert site.sweep()["woken"] == 1


@pytest.mark.usefixtures("still")
def test_more_than_a_page_is_seen_whole(site: Site, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runner.work.sweeper.PAGE", 4)
    lost(site, *(Far(at=clock.now() + SOON) for _ in range(50)))
    clock.advance(SOON + GRACE)
    site.queue.pause()
    assert site.sweep()["woken"] == 50
    assert len(site.queue.waiting) == 50


@pytest.mark.usefixtures("still")
def test_what_there_was_no_time_for_is_left_and_counted(site: Site, clock: Clock) -> None:
    lost(site, *(Far(at=clock.now() + SOON) for _ in range(30)))
    clock.advance(SOON + GRACE)
    swept = site.runner.sweeper().sweep(seconds=0)
    assert (swept.woken, swept.left) == (0, 30)


def test_two_sweeps_at_once_do_no_harm(site: Site, clock: Clock) -> None:
    lost(site, *(Row() for _ in range(20)))
    clock.advance(GRACE)
    with ThreadPoolExecutor(2) as pool:
        swept = [pool.submit(site.runner.sweeper().sweep) for _ in range(2)]
        assert sum(one.result(PATIENCE).woken for one in swept) >= 20
    site.queue.settle()
    assert all(handle.state.done == ["one", "two", "three"] for handle in site.runner.list(Row))


@pytest.mark.parametrize("moving, sweepers", [(False, 1), (False, 3), (True, 1)])
def test_after_an_outage_nobody_is_woken_more_than_three_times(
    moving: bool, sweepers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not moving:
        monkeypatch.setattr(MemoryStore, "due", still_due)
    instances = 1_000
    # As slow to drain as a hundred thousand at 500 a second.
    woken, swept, read = outage(instances, 5, sweepers=sweepers)
    assert sum(woken.values()) == instances
    assert max(woken) <= 3
    assert swept[-1].left == swept[-1].waiting == 0
    assert read <= 3 * len(swept) * instances


# -- running here ------------------------------------------------------------------------------------------------------


def test_what_the_queue_refuses_is_run_here(site: Site, clock: Clock) -> None:
    site.queue.refuses = grpc.StatusCode.NOT_FOUND
    row = site.runner.start(Row(), id="r")
    clock.advance(GRACE)
    assert site.sweep() == {**NOTHING, "ran": 1}
    assert row.state.done == ["one", "two", "three"]
    assert not site.queue.made


def test_a_step_that_would_outlast_the_sweep_is_left_to_the_next_one(site: Site, clock: Clock) -> None:
    site.queue.refuses = grpc.StatusCode.PERMISSION_DENIED
    lost(site, Slow(), Slow())
    clock.advance(GRACE)
    requests = site.runner.requests
    assert requests is not None
    requests.request_seconds = 200.0  # the steps' timeout is 240 s
    swept = site.runner.sweeper().sweep()
    assert (swept.ran, swept.left) == (0, 2)
    requests.request_seconds = 300.0
    clock.advance(timedelta(seconds=40))
    swept = site.runner.sweeper().sweep()
    assert (swept.ran, swept.left) == (2, 0)
    assert [handle.status for handle in site.runner.list(Slow)] == [Status.Finished] * 2


def test_a_sweep_ends_when_the_store_goes_away(site: Site, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    site.queue.refuses = grpc.StatusCode.PERMISSION_DENIED
    lost(site, Row(), Row())
    clock.advance(GRACE)

    def away(*key: str) -> Any:
        raise Unavailable("the store is away")

    monkeypatch.setattr(site.runner.store, "get", away)
    site.client.post("/tasks/sweep", status=503)


# -- besides -----------------------------------------------------------------------------------------------------------


def test_a_sweep_deletes_what_has_expired(serving: Open, clock: Clock) -> None:
    site = serving(Far, clock=clock, retention=DAY)
    for number in range(3):
        site.runner.start(Far(at=clock.now()), id=f"f{number}")
    site.queue.settle()
    assert len(site.queue.made) == 0, "an end is nothing to wake anybody for"
    clock.advance(DAY)
    assert site.sweep() == {**NOTHING, "deleted": 3}
    assert not list(site.runner.list(Far))


def test_leases_of_dead_processes_need_not_lapse_by_time(serving: Open, clock: Clock, tmp_path: Path, gate: Gate) -> None:
    store = f"sqlite:///{tmp_path / 'store.db'}"
    site = serving(Held, store=store, clock=clock)
    site.queue.pause()
    held = site.runner.start(Held(), id="h")
    other = Runner([Held], store=store, clock=clock, scheduler="cloudtasks://p/l/q", base_url="http://localhost")
    assert other.requests is not None
    with ThreadPoolExecutor(2) as pool:
        pool.submit(site.wake, "Held", "h")
        gate.wait(came=1)
        other.scheduler.wake = lambda key, at: False  # type: ignore[method-assign]
        assert other.sweeper().sweep().ran == 0
        # As the system does it when a process is killed.
        site.runner.store._locks.leave()  # type: ignore[attr-defined]
        swept = pool.submit(other.sweeper().sweep)
        gate.wait(came=2)
        gate.open()
        assert swept.result(PATIENCE).ran == 1
    assert held.status is Status.Finished
    other.close()
