"""Rules 12 to 14: leases, what lies down while a plain step runs, and results that come late or twice."""

from datetime import timedelta

import pytest
from pydantic import BaseModel

from asyncflow import (
    After,
    ForEach,
    Go,
    Join,
    Parallel,
    Pending,
    Return,
    S,
    Section,
    Select,
    Step,
    WaitEvent,
    WaitUntil,
    event,
)
from tests.scenarios.drivers import START, evicted
from tests.scenarios.traced import Traced, trace

HOUR = timedelta(hours=1)


class PlainAndThen(Traced):
    """A plain step of main beside a `then` step, a timer and a condition of other threads."""

    number: int = 0

    @event
    def poke(self) -> str:
        self.mark("poke")
        return f"poked {self.number}"

    def work(self) -> None:
        self.number += 1
        self.mark("work")

    def fetch(self) -> int:
        return 7

    def fetched(self, number: int) -> None:
        self.mark(f"fetched {number}")

    def tick(self) -> None:
        self.mark("tick")

    def definition(self) -> Section[str]:
        return S(
            Go("fetching", Step(self.fetch, then=self.fetched)),
            Go("clock", Select("nap", After(HOUR, self.tick))),
            Go("watch", WaitUntil("worked", lambda: self.number > 0), Step("seen", self.mark, "seen")),
            Go("ear", WaitEvent(self.poke)),
            Step(self.work),
            Join(),
            Return("done"),
        )


def test_a_plain_step_and_a_then_step_are_in_flight_together() -> None:
    run = evicted(PlainAndThen(), hold={PlainAndThen.work, PlainAndThen.fetch})
    assert run.running == {"work", "fetch"}


def test_all_but_its_own_result_lies_down_while_a_plain_step_runs() -> None:
    """Rule 13: event, other result and timer wait for the end of the hold, then go by their times."""
    run = evicted(PlainAndThen(), hold={PlainAndThen.work, PlainAndThen.fetch}, now=START)
    with pytest.raises(Pending):
        run.send(PlainAndThen.poke)
    run.advance(timedelta(minutes=30))
    run.held(PlainAndThen.fetch).finish(9)
    run.advance(HOUR)
    assert trace(run) == ""
    assert run.now == START + timedelta(minutes=90)
    assert run.running == {"work"}
    run.held(PlainAndThen.work).finish()
    assert trace(run) == "work;poke;fetched 9;tick;seen"
    assert run.output == "done"


def test_an_event_is_handled_at_once_beside_a_then_step() -> None:
    run = evicted(PlainAndThen(), hold={PlainAndThen.fetch})
    assert run.send(PlainAndThen.poke) == "poked 1"
    run.advance(HOUR)
    assert trace(run) == "work;seen;poke;tick"
    run.held(PlainAndThen.fetch).finish()
    assert run.state.log[-1] == "fetched 7"
    assert run.status == "Finished"


def test_the_hold_ends_with_a_failed_attempt() -> None:
    """Rule 16: during the backoff events go on, and the next attempt sees the state as it is then."""
    run = evicted(PlainAndThen(), hold={PlainAndThen.work}, skip_backoff=False, now=START)
    run.held(PlainAndThen.work).fail(ConnectionError("no route"))
    assert run.running == set()
    assert run.send(PlainAndThen.poke) == "poked 0"
    run.advance(timedelta(seconds=1))
    again = run.held(PlainAndThen.work)
    assert again.attempt == 2
    again.finish()
    assert trace(run) == "fetched 7;poke;work;seen"


def test_the_hold_ends_with_a_lapse_and_the_next_attempt_begins_at_once() -> None:
    """Rule 16: the first `Lost` of a visit is followed at once, from the second on by the backoff."""
    run = evicted(PlainAndThen(), hold={PlainAndThen.work}, skip_backoff=False)
    with pytest.raises(Pending):
        run.send(PlainAndThen.poke)
    run.held(PlainAndThen.work).lapse()
    assert run.state.log[-1] == "poke"
    assert run.held(PlainAndThen.work).attempt == 2
    run.held(PlainAndThen.work).lapse()
    assert run.running == set()
    run.advance(timedelta(seconds=2))
    assert run.held(PlainAndThen.work).attempt == 3


def test_a_zombie_of_a_then_step_changes_nothing() -> None:
    """Rule 14."""
    run = evicted(PlainAndThen(), hold={PlainAndThen.fetch})
    zombie = run.held(PlainAndThen.fetch)
    zombie.lapse()
    zombie.finish(1)
    assert "fetched 1" not in run.state.log
    run.held(PlainAndThen.fetch).finish(2)
    assert "fetched 2" in run.state.log


def test_a_zombie_of_a_held_instance_changes_nothing_either() -> None:
    """Rules 13 and 14: while a plain step runs the lapse lies down, and what comes after it is too late."""
    run = evicted(PlainAndThen(), hold={PlainAndThen.fetch, PlainAndThen.work})
    zombie = run.held(PlainAndThen.fetch)
    zombie.lapse()
    zombie.finish(1)
    run.held(PlainAndThen.work).finish()
    run.held(PlainAndThen.fetch).finish(2)
    assert [entry for entry in run.state.log if entry.startswith("fetched")] == ["fetched 2"]


def test_a_result_that_lies_down_is_not_run_again() -> None:
    """Rule 13: it takes away the `till` of its lease, so the clock does not let it lapse."""
    run = evicted(PlainAndThen(), hold={PlainAndThen.fetch, PlainAndThen.work})
    run.held(PlainAndThen.fetch).finish(9)
    run.advance(2 * HOUR)
    run.held(PlainAndThen.work).finish()
    assert run.steps.count("fetch") == 1
    assert "fetched 9" in run.state.log


class TwoPlain(Traced):
    def left(self) -> None:
        self.mark("left")

    def right(self) -> None:
        self.mark("right")

    def definition(self) -> Section[None]:
        return S(Parallel("both", Step(self.left), Step(self.right)))


def test_plain_steps_of_two_threads_run_one_at_a_time() -> None:
    run = evicted(TwoPlain(), hold={TwoPlain.left, TwoPlain.right})
    assert run.running == {"left"}
    run.held(TwoPlain.left).finish()
    assert run.running == {"right"}
    run.held(TwoPlain.right).finish()
    assert trace(run) == "left;right"


class TwoRows(Traced):
    """Two threads, each a row of plain steps."""

    def definition(self) -> Section[None]:
        return S(
            Parallel(
                "both",
                Section("a", *(Step(f"a{n}", self.mark, f"a{n}") for n in (1, 2, 3))),
                Section("b", *(Step(f"b{n}", self.mark, f"b{n}") for n in (1, 2, 3))),
            )
        )


def test_the_step_that_stands_longest_is_taken_so_that_no_thread_starves() -> None:
    """Rule 12."""
    assert trace(evicted(TwoRows())) == "a1;b1;a2;b2;a3;b3"


class Item(BaseModel):
    name: str
    size: int = 0

    def sized(self, size: int) -> None:
        self.size = size


class FanOut(Traced):
    items: dict[str, Item]

    def measure(self, item: Item) -> int:
        return len(item.name)

    def one(self, item: Item) -> Section[None]:
        return S(Step(self.measure, item, then=item.sized))

    def definition(self) -> Section[None]:
        return S(ForEach("items", lambda: self.items, self.one, parallel=10), Step("end", self.mark, "end"))


def test_then_steps_of_several_items_end_in_any_order() -> None:
    run = evicted(FanOut(items={name: Item(name=name) for name in ("a", "bb", "ccc")}), hold={FanOut.measure})
    for thread in ("items/ccc", "items/a", "items/bb"):
        run.held(FanOut.measure, thread).finish()
    assert {key: item.size for key, item in run.state.items.items()} == {"a": 1, "bb": 2, "ccc": 3}
    assert run.status == "Finished"


def test_a_row_of_steps_costs_one_save_each_and_one_more() -> None:
    """Rule 12, docs/testing.md: save 1 is the create, so N steps from a start are N + 2 saves."""

    class Row(Traced):
        def definition(self) -> Section[None]:
            return S(*(Step(f"s{n}", self.mark, f"s{n}") for n in range(5)))

    run = evicted(Row())
    assert run.status == "Finished"
    assert run.document["rev"] == 7


class MainReturns(Traced):
    def slow(self) -> int:
        return 1

    def came(self, number: int) -> None:
        self.mark(f"came {number}")

    def definition(self) -> Section[str]:
        return S(Go("slow", Step(self.slow, then=self.came)), WaitEvent("stop"), Return("stopped"))


def test_a_result_in_flight_is_dropped_when_main_has_returned() -> None:
    """Rule 30: an ended document does not change."""
    run = evicted(MainReturns(), hold={MainReturns.slow})
    held = run.held(MainReturns.slow)
    run.send("stop")
    assert run.output == "stopped"
    before = run.document
    held.finish()
    assert run.document == before
    assert trace(run) == ""
