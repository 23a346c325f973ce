"""When a task is made, and what it costs: the table of section 8 of the protocol, row by row."""

from datetime import timedelta

import pytest

from asyncflow import After, Go, Join, On, S, Section, Select, Status, Step, Workflow, event
from tests.runner.clocks import Clock
from tests.runner.gates import Gate
from tests.tasks.conftest import Open, Site
from tests.tasks.workflows import DAY, Bell, Cart, Far, Flaky, Row, Shelf

GATE = Gate()


class Held(Row):
    """The same, whose second step stands at the gate."""

    async def two(self) -> None:
        await GATE.hold_async()
        self.done.append("two")


class Count:
    """Counts reads, writes, tried writes and tasks between two looks."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._made = len(site.queue.made)
        site.counts.clear()

    @property
    def now(self) -> tuple[int, int, int]:
        counts = self._site.counts
        return counts.reads, counts.writes, len(self._site.queue.made) - self._made

    @property
    def tried(self) -> int:
        return self._site.counts.tried


@pytest.fixture
def site(serving: Open, clock: Clock) -> Site:
    site = serving(Row, Cart, Bell, Shelf, Far, Flaky, Held, clock=clock)
    site.queue.pause()
    site.count()
    return site


def test_a_start_that_waits_is_one_write_and_one_task(site: Site, clock: Clock) -> None:
    count = Count(site)
    site.runner.start(Cart(), id="c")
    assert count.now == (0, 1, 1)
    [task] = site.queue.made
    assert (task.key, task.at) == ("Cart/c", clock.now() + DAY)


def test_a_start_at_a_row_of_steps_is_one_task_and_n_plus_one_writes_in_it(site: Site) -> None:
    count = Count(site)
    site.runner.start(Row(), id="r")
    assert count.now == (0, 1, 1)
    count = Count(site)
    site.queue.resume()
    site.queue.settle()
    assert count.now == (1, 3 + 1, 0), "nobody is woken for a wait without a deadline"
    assert site.runner.get(Row, "r").state.done == ["one", "two", "three"]


def test_a_start_that_waits_for_an_event_alone_is_no_task(site: Site) -> None:
    site.runner.start(Shelf(count=3), id="none")
    assert not site.queue.made


def test_an_event_after_which_it_waits_anew_is_one_task_for_the_new_deadline(site: Site, clock: Clock) -> None:
    cart = site.runner.start(Cart(), id="c")
    clock.advance(timedelta(hours=1))
    count = Count(site)
    cart.send(Cart.add, "tea")
    assert count.now == (1, 1, 1)
    assert site.queue.made[-1].at == clock.now() + DAY


def test_an_event_that_leaves_the_deadline_as_it_is_is_no_task(site: Site) -> None:
    shelf = site.runner.start(Shelf(), id="s")
    count = Count(site)
    shelf.send(Shelf.put)
    assert count.now == (1, 1, 0)


def test_an_event_with_steps_and_another_wait_behind_it(site: Site) -> None:
    cart = site.runner.start(Cart(), id="c")
    site.queue.empty()
    count = Count(site)
    cart.send(Cart.submit)
    assert count.now == (1, 1, 1)
    site.queue.resume()
    site.queue.settle()
    assert count.now == (2, 2 + 2, 2), "2 reads, N + 2 writes, 2 tasks"
    assert cart.threads == {"main": "door"}


def test_an_event_while_held_costs_the_holder_one_lost_write_and_no_task(site: Site, gate: Gate) -> None:
    held = site.runner.start(Held(), id="h")
    site.queue.resume()
    gate.wait(came=1)
    count = Count(site)
    laid = site.client.post("/workflows/Held/h/events/go", headers={"Prefer": "wait=0"}, status=202)
    assert count.now == (2, 1, 0), "one read for the event, one to look for its answer"
    gate.open()
    site.queue.settle()
    assert count.now == (2 + 1, 1 + 2, 0)
    assert count.tried == 1
    assert held.result(timeout=0) == ["one", "two", "three"]
    assert laid.status_code == 202


def test_a_timer_is_one_read_and_one_write(site: Site, clock: Clock) -> None:
    site.runner.start(Bell(), id="b")
    site.queue.resume()
    clock.advance(DAY)
    count = Count(site)
    site.queue.settle()
    assert count.now == (1, 1, 1), "the task is for the second timer"
    clock.advance(DAY)
    count = Count(site)
    site.queue.settle()
    assert count.now == (1, 1 + 1, 0), "and N writes for its steps"


def test_a_stale_timer_is_one_read(site: Site, clock: Clock) -> None:
    cart = site.runner.start(Cart(), id="c")
    clock.advance(timedelta(hours=1))
    cart.send(Cart.add, "tea")
    clock.advance(DAY - timedelta(hours=1))
    site.queue.resume()
    count = Count(site)
    site.queue.settle()
    assert count.now == (1, 0, 0)
    assert cart.status is Status.Running


def test_a_backoff_is_a_wait(site: Site, clock: Clock) -> None:
    flaky = site.runner.start(Flaky(), id="f")
    site.queue.resume()
    site.queue.settle()
    assert [task.at for task in site.queue.waiting] == [clock.now() + timedelta(seconds=1)]
    clock.advance(timedelta(seconds=1))
    site.queue.settle()
    clock.advance(timedelta(seconds=1))
    site.queue.settle()
    assert flaky.status is Status.Finished
    assert len(site.queue.made) == 3


class Aside(Workflow):
    """A step on a copy is in flight while an event takes the only deadline away."""

    async def work(self) -> str:
        await GATE.hold_async()
        return "done"

    def note(self, what: str) -> None: ...

    @event
    def go(self) -> None: ...

    def definition(self) -> Section[None]:
        return S(
            Go("work", Step(self.work, then=self.note)),
            Select("soon", On(self.go), After(timedelta(seconds=10))),
            Join(),
        )


def test_the_end_of_a_lease_is_left_to_the_sweeper(serving: Open, clock: Clock, gate: Gate) -> None:
    site = serving(Aside, clock=clock)
    aside = site.runner.start(Aside(), id="a")
    gate.wait(came=1)
    count = Count(site)
    aside.send(Aside.go)
    assert count.now[2] == 0
    gate.open()
    site.queue.settle()
    assert aside.status is Status.Finished


@pytest.mark.parametrize("verb, tasks", [("cancel", 0), ("kill", 0), ("pause", 0)])
def test_an_operators_word_that_leaves_nothing_due_is_no_task(site: Site, verb: str, tasks: int) -> None:
    cart = site.runner.start(Cart(), id="c")
    count = Count(site)
    getattr(cart, verb)()
    assert count.now == (1, 1, tasks)


def test_a_resume_wakes_for_the_deadline_again(site: Site) -> None:
    cart = site.runner.start(Cart(), id="c")
    cart.pause()
    count = Count(site)
    cart.resume()
    assert count.now == (1, 1, 1)


def test_a_timer_beyond_the_queues_horizon_is_left_to_the_sweeper(site: Site, clock: Clock) -> None:
    far = site.runner.start(Far(at=clock.now() + timedelta(days=45)), id="far")
    assert not site.queue.made
    clock.advance(timedelta(days=45))
    assert site.sweep() == {"woken": 0, "ran": 0, "waiting": 0, "left": 0, "deleted": 0}, "it has its grace"
    clock.advance(timedelta(seconds=5))
    assert site.sweep()["woken"] == 1
    site.queue.resume()
    site.queue.settle()
    assert far.result(timeout=0) == "up"


def test_an_end_is_nothing_to_wake_anybody_for(serving: Open, clock: Clock) -> None:
    site = serving(Far, clock=clock, retention=timedelta(seconds=3))
    far = site.runner.start(Far(at=clock.now() + DAY), id="far")
    clock.advance(DAY)
    site.queue.settle()
    assert far.status is Status.Finished
    assert len(site.queue.made) == 1


def test_a_task_is_for_this_app_and_the_key_alone(site: Site) -> None:
    site.runner.start(Cart(), id="c")
    [task] = site.queue.made
    assert task.url == f"{site.url}/tasks/wake"
    assert task.body == b'{"workflow":"Cart","id":"c"}'
    assert (task.deadline, task.made.name) == (600.0, "")
    assert not task.made.http_request.oidc_token.service_account_email
