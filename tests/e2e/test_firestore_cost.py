"""What an app behind a queue costs on Firestore: reads, writes and tasks together, counted where they are sent.

Each row is one of the table in section 8 of the protocol. The database answers by itself here how many documents were read
and written; tests/tasks counts calls of a store instead, and tests/runner the same documents under local workers.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import pytest

from asyncflow import Status
from runner.work import sweeper
from tests.runner.clocks import Clock
from tests.servers.firestore import SERVER, firestore_url
from tests.servers.firestore_meter import DAY, Cart, Cost, Meter, meters
from tests.tasks.conftest import Open, Site, cloud_tasks, issuer, queue, serving
from tests.tasks.workflows import Far, Flaky, Row

__all__ = ["cloud_tasks", "firestore_url", "issuer", "meters", "queue", "serving"]

pytestmark = SERVER


@dataclass(frozen=True)
class Books:
    """Counts between two looks."""

    site: Site
    meter: Meter

    @contextmanager
    def page(self, reads: int, writes: int, tasks: int) -> Iterator[None]:
        """Expect this until the queue rests, and no query and no lost write."""
        made = len(self.site.queue.made)
        self.meter.cost = cost = Cost()
        yield
        self.site.queue.settle()
        found = (cost.reads, cost.writes, len(self.site.queue.made) - made, cost.lost, cost.queries)
        assert found == (reads, writes, tasks, 0, 0), "reads, writes, tasks, lost writes, queries"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def books(serving: Open, firestore_url: str, meters: list[Meter], clock: Clock) -> Books:
    site = serving(Cart, Row, Far, Flaky, store=firestore_url, clock=clock)
    (meter,) = meters
    return Books(site, meter)


def test_a_start_that_waits_is_one_write_and_one_task(books: Books) -> None:
    with books.page(reads=0, writes=1, tasks=1):
        books.site.runner.start(Cart(), id="c")


def test_a_start_at_n_steps_is_one_task_more_for_them(books: Books) -> None:
    with books.page(reads=1, writes=1 + 3 + 1, tasks=1):
        row = books.site.runner.start(Row(), id="r")
    assert row.state.done == ["one", "two", "three"]


def test_an_event_after_which_it_waits_again_is_one_read_one_write_and_its_new_deadline(books: Books, clock: Clock) -> None:
    cart = books.site.runner.start(Cart(), id="c")
    for number in (1, 2, 3):
        clock.advance(timedelta(minutes=1))
        with books.page(reads=1, writes=1, tasks=1):
            assert cart.send(Cart.add) == number


@pytest.mark.parametrize("steps", [1, 3, 10])
def test_an_event_and_n_steps_are_two_reads_n_plus_two_writes_and_two_tasks(steps: int, books: Books) -> None:
    cart = books.site.runner.start(Cart(), id="c")
    with books.page(reads=2, writes=steps + 2, tasks=2):
        cart.send(Cart.work, steps)
    assert cart.state.done == steps


def test_a_timer_is_one_read_and_one_write_and_its_steps_one_each_more(books: Books, clock: Clock) -> None:
    cart = books.site.runner.start(Cart(), id="c")
    clock.advance(DAY)
    with books.page(reads=1, writes=1 + 2, tasks=1):
        pass
    assert cart.state.done == 2


def test_a_stale_timer_is_one_read(books: Books, clock: Clock) -> None:
    cart = books.site.runner.start(Cart(), id="c")
    clock.advance(timedelta(hours=1))
    cart.send(Cart.add)
    clock.advance(DAY - timedelta(hours=1))
    with books.page(reads=1, writes=0, tasks=0):
        pass


def test_a_task_that_comes_a_second_time_is_one_read(books: Books) -> None:
    row = books.site.runner.start(Row(), id="r")
    books.site.queue.settle()
    [task] = books.site.queue.made
    with books.page(reads=1, writes=0, tasks=0):
        assert books.site.post("/tasks/wake", task.body) == 200
    assert row.state.done == ["one", "two", "three"]


def test_a_retry_is_one_task_and_one_write_for_its_end_and_its_next_beginning(books: Books, clock: Clock) -> None:
    with books.page(reads=1, writes=1 + 2, tasks=2):
        flaky = books.site.runner.start(Flaky(), id="f")
    clock.advance(timedelta(seconds=1))
    with books.page(reads=1, writes=2, tasks=1):
        pass
    clock.advance(timedelta(seconds=1))
    with books.page(reads=1, writes=2, tasks=0):
        pass
    assert flaky.status is Status.Finished


def test_a_timer_in_forty_five_days_is_woken_by_the_sweeper_alone(books: Books, clock: Clock) -> None:
    """The queue takes nothing beyond thirty days, so nothing is made at the start, nor before the instant."""
    far = clock.now() + timedelta(days=45)
    with books.page(reads=0, writes=1, tasks=0):
        handle = books.site.runner.start(Far(at=far), id="far")
    clock.advance(timedelta(days=14))
    assert books.site.sweep()["woken"] == 0
    with books.page(reads=1, writes=0, tasks=0):
        books.site.wake("Far", "far")
    assert handle.status is Status.Running
    clock.advance(timedelta(days=31) + sweeper.GRACE)
    assert books.site.sweep()["woken"] == 1
    books.site.queue.settle()
    assert handle.result(timeout=0) == "up"
    assert len(books.site.queue.made) == 1
