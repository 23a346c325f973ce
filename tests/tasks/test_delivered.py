"""What `/tasks/wake` does with a delivery: true, stale, doubled, early, invented, while draining, with too little time."""

import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import grpc
import pytest
from pydantic import BaseModel

from asyncflow import ForEach, Go, Join, Return, S, Section, Status, Step, WaitEvent, WaitFor, Workflow, event
from asyncflow.errors import Unavailable
from asyncflow.leases import take
from runner import Runner
from runner.stores.base import Failed, Key
from runner.work.request_seat import Seat
from tests.runner.clocks import Clock
from tests.runner.gates import PATIENCE, Gate
from tests.tasks.conftest import Open, Site
from tests.tasks.workflows import DAY, Bell, Cart, Row, Slow

GATE = Gate()
NOTHING = {"attempts": 0, "saves": 0, "due": False, "refused": False}


class Held(Workflow):
    """One step that stands at the gate, sync or async, and one behind it."""

    sync: bool = False
    stopped: bool = False

    def wait(self) -> Any:
        if self.sync:
            GATE.hold()
            return None
        return GATE.hold_async()

    def after(self) -> None: ...

    def definition(self) -> Section[str]:
        return S(Step(self.wait), Step(self.after), Return("through"))


class Beside(Workflow):
    """Two threads, each with a step that stands at the gate."""

    seen: list[int] = []

    async def work(self, number: int) -> int:
        await GATE.hold_async()
        return number

    def note(self, number: int) -> None:
        self.seen.append(number)

    def definition(self) -> Section[list[int]]:
        return S(
            Go("a", Step("work", self.work, 1, then=self.note)),
            Go("b", Step("work", self.work, 2, then=self.note)),
            Join(),
            Return(lambda: sorted(self.seen)),
        )


@pytest.fixture
def site(serving: Open, clock: Clock) -> Site:
    site = serving(Held, Beside, Cart, Bell, Row, Slow, clock=clock)
    site.queue.pause()
    return site


# -- what is not due ---------------------------------------------------------------------------------------------------


def test_a_delivery_for_nobody_is_answered_well(site: Site) -> None:
    assert site.wake("Row", "none") == NOTHING
    assert site.wake("Elsewhere", "x") == NOTHING, "whoever has its code finds it by its own sweep"


def test_a_delivery_for_what_is_not_due_changes_nothing(site: Site) -> None:
    site.runner.start(Cart(), id="c")
    before = site.runner.store.get("Cart", "c")
    assert site.wake("Cart", "c") == NOTHING
    assert site.runner.store.get("Cart", "c") == before
    assert len(site.queue.made) == 1, "its wake-up is on its way already"


def test_a_delivery_for_what_has_ended_changes_nothing(site: Site) -> None:
    row = site.runner.start(Row(), id="r")
    row.kill()
    assert site.wake("Row", "r") == NOTHING
    assert len(site.queue.made) == 1


@pytest.mark.parametrize(
    "body", [{}, {"workflow": "Row"}, {"id": "r"}, {"workflow": 1, "id": "r"}, {"workflow": "Row", "id": None}, []]
)
def test_a_delivery_without_a_key_is_refused(site: Site, body: Any) -> None:
    assert site.client.post("/tasks/wake", body, status=None).status_code in (400, 422)


def test_a_delivery_with_more_than_a_key_is_refused(site: Site) -> None:
    site.client.post("/tasks/wake", {"workflow": "Row", "id": "r", "state": {}}, status=422)
    site.client.post("/tasks/wake", {"workflow": "Row", "id": "r" * 5000}, status=413)
    site.client.ask("POST", "/tasks/wake", raw=b"{", status=400)
    site.client.ask("GET", "/tasks/wake", status=405)


# -- twice, and together -----------------------------------------------------------------------------------------------


def test_a_foreign_lease_is_told_of_once_more_at_its_end(site: Site, clock: Clock, gate: Gate) -> None:
    site.runner.start(Held(), id="h")
    site.queue.resume()
    gate.wait(came=1)
    made = len(site.queue.made)
    assert site.wake("Held", "h") == NOTHING
    [task] = site.queue.made[made:]
    assert task.at == clock.now() + timedelta(seconds=330), "the end of the lease"
    gate.open()
    site.queue.settle()
    assert site.runner.get(Held, "h").status is Status.Finished
    clock.advance(timedelta(seconds=330))
    site.queue.settle()
    assert [task.answers for task in site.queue.made] == [[200], [200]], "it found nothing due, and nobody is told again"


def test_many_deliveries_at_once_run_a_step_once(site: Site, gate: Gate) -> None:
    site.runner.start(Held(), id="h")
    with ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(site.wake, "Held", "h") for _ in range(8)]
        gate.wait(came=1, here=1)
        gate.open()
        assert sorted(answer.result()["attempts"] for answer in answers) == [0] * 7 + [2]
    assert gate.came == 1


def test_a_zombies_result_changes_nothing(site: Site, clock: Clock, gate: Gate) -> None:
    held = site.runner.start(Held(), id="h")
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(site.wake, "Held", "h")
        gate.wait(came=1)
        clock.advance(timedelta(seconds=331))
        second = pool.submit(site.wake, "Held", "h")
        gate.wait(came=2)
        gate.open()
        first.result(PATIENCE)
        second.result(PATIENCE)
    assert held.status is Status.Finished
    kinds = [(entry["kind"], entry.get("attempt")) for entry in held.history() if entry["kind"] in ("step", "failed")]
    assert kinds == [("failed", 1), ("step", 2), ("step", 1)]


# -- time --------------------------------------------------------------------------------------------------------------


def test_a_delivery_that_is_a_little_early_waits(site: Site, clock: Clock) -> None:
    site.runner.start(Bell(), id="b")
    clock.advance(DAY - timedelta(milliseconds=20))
    timer = threading.Timer(0.001, clock.advance, (timedelta(milliseconds=20),))
    timer.start()
    assert site.wake("Bell", "b")["saves"] == 1
    timer.join()


def test_a_delivery_that_is_early_by_a_clock_that_stands_still_is_brought_again(site: Site, clock: Clock) -> None:
    site.runner.start(Bell(), id="b")
    clock.advance(DAY - timedelta(milliseconds=20))
    assert site.wake("Bell", "b") == NOTHING
    assert [task.at for task in site.queue.waiting] == [clock.now() + timedelta(milliseconds=20)] * 2


def test_a_step_that_would_outlast_the_request_is_left_to_the_next_one(serving: Open) -> None:
    site = serving(Slow, request_timeout=timedelta(seconds=255))
    site.queue.pause()
    slow = site.runner.start(Slow(), id="s")
    requests = site.runner.requests
    assert requests is not None
    # 249 s are left of this request when it begins: enough for one step of 240 s, not for one more 2 s later.
    site.queue.empty()
    late: list[float] = []

    def begin(seat: Seat, request: Any, real: Any = Seat._begin) -> None:
        real(seat, request)
        seat._until -= 20
        late.append(seat._until)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Seat, "_begin", begin)
        assert site.wake("Slow", "s") == {"attempts": 1, "saves": 2, "due": True, "refused": False}
    stored = site.runner.store.get("Slow", "s")
    assert stored is not None
    assert stored.record.due_at == stored.record.updated_at, "saved, due now"
    assert [task.key for task in site.queue.waiting] == ["Slow/s"]
    site.queue.resume()
    assert slow.result(timeout=PATIENCE) == 2
    assert late


def test_a_step_that_no_request_can_run_is_said_in_the_log_and_not_woken_for_again(
    site: Site, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*arguments: Any, until: Any, **others: Any) -> Any:
        return take(*arguments, until=until - timedelta(days=1), **others)

    monkeypatch.setattr("runner.work.activity.take", never)
    site.runner.start(Slow(), id="s")
    with caplog.at_level(logging.ERROR):
        assert site.wake("Slow", "s") == {**NOTHING, "due": True}
    assert "Slow/s is due and cannot be taken within a request" in caplog.text
    assert len(site.queue.made) == 1


# -- places ------------------------------------------------------------------------------------------------------------


def test_as_many_attempts_run_at_once_as_concurrency_says(serving: Open, gate: Gate) -> None:
    site = serving(Held, Beside, concurrency=3)
    held = [site.runner.start(Held(sync=number % 2 == 0), id=f"h{number}") for number in range(8)]
    beside = site.runner.start(Beside(), id="b")
    gate.wait(came=3, here=3)
    gate.open()
    site.queue.settle()
    assert gate.most == 3
    assert [one.status for one in held] == [Status.Finished] * 8
    assert beside.result(timeout=0) == [1, 2]


def test_a_place_that_becomes_free_is_taken_by_who_waits(serving: Open, gate: Gate) -> None:
    site = serving(Held, concurrency=1)
    with ThreadPoolExecutor(3) as pool:
        site.queue.pause()
        for number in range(3):
            site.runner.start(Held(), id=f"h{number}")
        answers = [pool.submit(site.wake, "Held", f"h{number}") for number in range(3)]
        gate.wait(came=1)
        gate.open()
        assert [answer.result(PATIENCE)["attempts"] for answer in answers] == [2, 2, 2]
    assert gate.most == 1


class Line(BaseModel):
    seen: bool = False

    def note(self, seen: bool) -> None:
        self.seen = seen


class Lines(Workflow):
    """Items whose steps stand at gates of their own; one that waits can be dropped."""

    lines: dict[str, Line]

    @event
    def drop(self, key: str) -> None:
        del self.lines[key]

    async def look(self, line: Line) -> bool:
        await LINES[next(key for key, one in self.lines.items() if one is line)].hold_async()
        return True

    def one(self, line: Line) -> Section:
        return S(Step(self.look, line, then=line.note))

    def definition(self) -> Section[None]:
        return S(
            Go("ears", WaitEvent(self.drop)),
            ForEach("lines", lambda: self.lines, self.one, parallel=3),
            Return(None),
        )


LINES: dict[str, Gate] = {}


def test_a_place_that_nobody_of_the_first_needs_any_more_goes_to_the_next(serving: Open, gate: Gate) -> None:
    LINES.update(a=Gate(), b=Gate(), c=Gate())
    site = serving(Lines, Held, concurrency=2)
    lines = site.runner.start(Lines(lines={key: Line() for key in "abc"}), id="l")
    LINES["a"].wait(came=1)
    LINES["b"].wait(came=1)
    site.runner.start(Held(), id="h")
    requests = site.runner.requests
    assert requests is not None
    until = time.monotonic() + PATIENCE
    while len(requests._starving) < 2:
        assert time.monotonic() < until
    lines.send(Lines.drop, "c")
    LINES["a"].open()
    gate.wait(came=1)  # while b still runs
    LINES["b"].open()
    gate.open()
    site.queue.settle()
    assert lines.status is Status.Finished
    assert LINES["c"].came == 0
    assert len(site.queue.made) == 2, "what waits for a place is woken by nobody else"


# -- operators ---------------------------------------------------------------------------------------------------------


class Patient(Workflow):
    """A step that goes on until it is told to stop."""

    heard: bool = False

    def work(self) -> None:
        with GATE:
            while not self.context.cancelled:
                if GATE.pause():
                    return
        self.heard = True

    def definition(self) -> Section[None]:
        return S(Step(self.work), WaitFor("night", DAY))


class Sleepy(Workflow):
    """An async step that ends only when it is stopped."""

    async def work(self) -> None:
        await GATE.hold_async()

    def definition(self) -> Section[None]:
        return S(Step(self.work), Return(None))


def test_a_cancel_is_seen_at_once_by_the_step_in_this_process(serving: Open, gate: Gate) -> None:
    site = serving(Patient)
    patient = site.runner.start(Patient(), id="p")
    gate.wait(came=1)
    patient.cancel()
    site.queue.settle()
    assert (patient.status, patient.state.heard) == (Status.Cancelled, True)


def test_a_kill_stops_the_step_in_this_process(serving: Open, gate: Gate) -> None:
    site = serving(Sleepy)
    sleepy = site.runner.start(Sleepy(), id="s")
    gate.wait(came=1)
    sleepy.kill()
    gate.wait(here=0)
    site.queue.settle()
    assert sleepy.status is Status.Cancelled


# -- store and process -------------------------------------------------------------------------------------------------


def test_a_store_that_is_away_is_503_and_the_queue_brings_it_again(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    row = site.runner.start(Row(), id="r")

    def away(*key: str) -> Any:
        raise Unavailable("the store is away")

    with monkeypatch.context() as patch:
        patch.setattr(site.runner.store, "get", away)
        response = site.client.post("/tasks/wake", {"workflow": "Row", "id": "r"}, status=503)
        assert response.headers["Retry-After"]
        site.client.post("/tasks/sweep", status=200)
    site.queue.resume()
    site.queue.settle()
    assert row.state.done == ["one", "two", "three"]


def test_a_store_that_takes_nothing_is_503_at_once(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    row = site.runner.start(Row(), id="r")
    with monkeypatch.context() as patch:
        patch.setattr(site.runner.store, "commit", lambda writes: [Failed(Unavailable("the disk is full"))] * len(writes))
        site.client.post("/tasks/wake", {"workflow": "Row", "id": "r"}, status=503)
    assert site.wake("Row", "r")["attempts"] == 3
    assert row.state.done == ["one", "two", "three"]


def test_a_result_is_kept_while_the_store_is_away(site: Site, gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    held = site.runner.start(Held(), id="h")
    store, calls = site.runner.store, 0
    commit = store.commit

    def shaky(writes: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 2:
            return [Failed(Unavailable("away"))] * len(writes)
        return commit(writes)

    monkeypatch.setattr(store, "commit", shaky)
    gate.open()
    assert site.wake("Held", "h") == {"attempts": 2, "saves": 3, "due": False, "refused": False}
    assert (held.status, gate.came, calls) == (Status.Finished, 1, 4)


def test_a_drain_lets_steps_end_and_leaves_the_next_one_to_others(serving: Open, clock: Clock, gate: Gate) -> None:
    site = serving(Held, clock=clock)
    held = site.runner.start(Held(), id="h")
    gate.wait(came=1)
    site.queue.pause()
    with ThreadPoolExecutor(1) as pool:
        drained = pool.submit(site.runner.drain)
        while not site.runner.draining:
            pass
        assert site.post("/tasks/wake", b'{"workflow":"Held","id":"h"}') == 503
        assert site.post("/tasks/sweep") == 503
        gate.open()
        drained.result(PATIENCE)
    assert held.threads == {"main": "after"}
    assert [task.key for task in site.queue.waiting] == ["Held/h"]


def test_a_drain_gives_back_async_steps_that_do_not_end(serving: Open, gate: Gate) -> None:
    site = serving(Sleepy)
    sleepy = site.runner.start(Sleepy(), id="s")
    gate.wait(came=1)
    site.queue.pause()
    site.runner.drain(0)
    stored = site.runner.store.get("Sleepy", "s")
    assert stored is not None
    assert not stored.record.holders
    assert b'"lease"' not in stored.record.document
    assert b'"attempt"' not in stored.record.document, "the attempt was given back too"
    assert sleepy.status is Status.Running


def test_a_wake_up_that_fails_never_fails_a_write(site: Site) -> None:
    site.queue.refuses = grpc.StatusCode.PERMISSION_DENIED
    cart = site.runner.start(Cart(), id="c")
    assert cart.send(Cart.add, "tea") == 1
    assert not site.queue.made


def test_the_answer_of_a_start_in_doubt_still_wakes(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    store, commit = site.runner.store, site.runner.store.commit

    def lost(writes: Any) -> Any:
        commit(writes)
        monkeypatch.setattr(store, "commit", commit)
        return [Failed(Unavailable("the answer was lost"), in_doubt=True)]

    monkeypatch.setattr(store, "commit", lost)
    site.runner.start(Cart(), id="c", idempotency_key="k")
    assert [task.key for task in site.queue.made] == ["Cart/c"]


def in_doubt(site: Site, monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    """Save the *at*-th write from now on, and lose the answer."""
    store, commit, calls = site.runner.store, site.runner.store.commit, 0

    def shaky(writes: Any) -> Any:
        nonlocal calls
        calls += 1
        outcomes = commit(writes)
        return [Failed(Unavailable("the answer was lost"), in_doubt=True)] if calls == at else outcomes

    monkeypatch.setattr(store, "commit", shaky)


def test_an_event_in_doubt_still_wakes(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    cart = site.runner.start(Cart(), id="c")
    in_doubt(site, monkeypatch, 1)
    cart.send(Cart.submit, idempotency_key="k")
    assert len(site.queue.made) == 2


def test_a_save_in_doubt_still_wakes_for_what_it_waits_for(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    cart = site.runner.start(Cart(), id="c")
    cart.send(Cart.submit)
    in_doubt(site, monkeypatch, 3)  # the last of take, finish and take, finish
    made = len(site.queue.made)
    assert site.wake("Cart", "c")["attempts"] == 2
    assert cart.threads == {"main": "door"}
    assert len(site.queue.made) == made + 1


class Quick(Workflow):
    """A step that takes no time."""

    def work(self) -> None: ...

    def definition(self) -> Section[None]:
        return S(Step(self.work, timeout=timedelta(milliseconds=50)), Return(None))


def test_places_of_steps_that_were_not_begun_are_given_back(serving: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("runner.work.request_seat", "runner.work.request_worker"):
        monkeypatch.setattr(f"{module}.SAVE_SECONDS", 0.05)
    site = serving(Quick, concurrency=1)
    site.queue.pause()
    rows = [site.runner.start(Quick(), id=one) for one in ("a", "b")]
    store, get = site.runner.store, site.runner.store.get
    requests = site.runner.requests
    assert requests is not None

    def away(*key: str) -> Any:
        raise Unavailable("the store is away")

    def lost(writes: Any) -> Any:
        monkeypatch.setattr(store, "get", away)
        return [Failed(Unavailable("lost"), in_doubt=True)]

    with monkeypatch.context() as patch:
        patch.setattr(store, "commit", lost)
        with pytest.raises(Unavailable):
            requests.run(Key("Quick", "a"), seconds=0.5)
    monkeypatch.setattr(store, "get", get)
    assert site.wake("Quick", "b")["attempts"] == 1
    assert [row.status for row in rows] == [Status.Running, Status.Finished]


def test_nothing_is_begun_while_the_process_is_stopped(site: Site) -> None:
    site.runner.start(Row(), id="r")
    requests = site.runner.requests
    assert requests is not None
    requests.drain()
    with pytest.raises(Unavailable, match="draining"):
        requests.run(Key("Row", "r"))


def test_a_drain_does_not_wait_for_a_sync_step_that_does_not_end(
    serving: Open, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runner.work.request_worker.GIVE_BACK_SECONDS", 0.05)
    site = serving(Held)
    site.queue.pause()
    held = site.runner.start(Held(sync=True), id="h")
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(site.wake, "Held", "h")
        gate.wait(came=1)
        site.runner.drain(0)
        assert answer.result(PATIENCE) == {"attempts": 1, "saves": 1, "due": True, "refused": False}
        assert gate.here == 1
    stored = site.runner.store.get("Held", "h")
    assert stored is not None
    assert b'"lease"' in stored.record.document, "it lapses"
    assert held.status is Status.Running


# -- without a server --------------------------------------------------------------------------------------------------


def test_there_are_no_such_routes_with_the_local_scheduler() -> None:
    runner = Runner([Row], store="memory://")
    try:
        client = runner.create_app().test_client()
        assert client.post("/tasks/wake", json={"workflow": "Row", "id": "r"}).status_code == 404
        assert client.post("/tasks/sweep").status_code == 404
        assert runner.requests is None
    finally:
        runner.close()


def test_nothing_is_begun_before_the_first_step(site: Site) -> None:
    before = threading.active_count()
    site.wake("Row", "none")
    assert threading.active_count() == before
    assert site.runner.requests is not None
    assert site.runner.requests.run(Key("Row", "none")).attempts == 0
