"""docs/testing.md: the test kit itself."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import pytest
from pydantic import BaseModel

import asyncflow
from asyncflow import (
    After,
    For,
    On,
    Retry,
    Return,
    S,
    Section,
    Select,
    Simulation,
    Step,
    TerminalError,
    WaitEvent,
    event,
    simulate,
)
from asyncflow.testing import Simulate, every_crash
from tests.scenarios.drivers import START
from tests.scenarios.traced import Traced, trace

HOUR = timedelta(hours=1)


class Trip(Traced):
    """A car, a hotel, a customer who confirms."""

    price: int = 0

    @event
    def confirm(self, name: str) -> str:
        self.mark(f"confirmed by {name}")
        return name.upper()

    def book_car(self, kind: str) -> int:
        return 10 + len(kind)

    def booked(self, price: int) -> None:
        self.price += price

    def notify(self) -> None:
        self.mark("notified")

    def definition(self) -> Section[int]:
        return S(
            Step(self.book_car, "suv", then=self.booked),
            Section("again", Step("car", self.book_car, "van", then=self.booked)),
            Step(self.notify),
            Select("wait", On(self.confirm), After(HOUR, Return(-1))),
            Return(lambda: self.price),
        )


def test_it_runs_until_all_is_blocked() -> None:
    sim = simulate(Trip())
    assert sim.status == "Running"
    assert sim.waiting == {"confirm"}
    assert sim.steps == ["book_car", "car", "notify"]
    assert sim.threads == {"main": "wait"}
    assert sim.running == set()
    assert sim.send(Trip.confirm, "ann") == "ANN"
    assert sim.status == "Finished"
    assert sim.output == 26
    assert sim.state.log == ["notified", "confirmed by ann"]


def test_before_the_end_there_is_neither_output_nor_error() -> None:
    sim = simulate(Trip())
    assert sim.output is None
    assert sim.error is None


def test_the_clock_starts_where_it_is_told_and_moves_by_advance_alone() -> None:
    start = datetime(2030, 1, 1, tzinfo=UTC)
    sim = simulate(Trip(), now=start)
    assert sim.now == start
    sim.advance(timedelta(minutes=59))
    assert sim.status == "Running"
    sim.advance(timedelta(minutes=1))
    assert sim.output == -1
    assert sim.now == start + HOUR


def test_a_stub_by_method_stands_in_for_every_step_of_it_and_gets_the_arguments() -> None:
    seen: list[str] = []

    def free(kind: str) -> int:
        seen.append(kind)
        return 0

    sim = simulate(Trip(), stubs={Trip.book_car: free})
    assert seen == ["suv", "van"]
    assert sim.state.price == 0
    assert sim.steps == ["book_car", "car", "notify"]


@pytest.mark.parametrize("key", ["car", "again/car"])
def test_a_stub_by_name_or_path_stands_in_for_that_step(key: str) -> None:
    sim = simulate(Trip(), stubs={key: lambda kind: 0})
    assert sim.state.price == 13


def test_a_stub_may_be_a_coroutine() -> None:
    async def free(kind: str) -> int:
        return 1

    assert simulate(Trip(), stubs={Trip.book_car: free}).state.price == 2


def test_the_argument_is_not_changed() -> None:
    trip = Trip()
    simulate(trip)
    assert trip == Trip()


def test_what_it_gives_out_is_a_copy() -> None:
    sim = simulate(Trip())
    sim.state.log.append("changed")
    sim.document["state"] = {}
    sim.steps.append("changed")
    assert trace(sim) == "notified"
    assert sim.document["state"] != {}
    assert sim.steps == ["book_car", "car", "notify"]


@pytest.mark.parametrize("key, price", [(Trip.book_car, 13), ("book_car", 26)])
def test_a_held_step_stays_in_flight(key: str | Callable[..., Any], price: int) -> None:
    """The method is also the action of another step, which is held in its turn; the name is that of one alone."""
    sim = simulate(Trip(), hold={key})
    assert sim.running == {"book_car"}
    assert sim.steps == ["book_car"]
    held = sim.held(key)
    assert held.attempt == 1
    held.finish()
    assert sim.state.price == price


def test_a_held_step_may_be_given_its_result() -> None:
    sim = simulate(Trip(), hold={"again/car"})
    sim.held("again/car").finish(100)
    assert sim.state.price == 113


def test_a_held_step_may_fail() -> None:
    sim = simulate(Trip(), hold={Trip.notify})
    sim.held(Trip.notify).fail(TerminalError("no post"))
    assert sim.status == "Failed"
    assert sim.error is not None
    assert sim.error.message == "no post"


def test_a_held_step_with_a_stub_runs_the_stub_when_it_is_finished() -> None:
    sim = simulate(Trip(), hold={"book_car"}, stubs={"book_car": lambda kind: 1})
    sim.held("book_car").finish()
    assert sim.state.price == 14


def test_without_skip_backoff_an_attempt_waits_for_advance() -> None:
    outcomes = iter([ConnectionError("no route"), None])

    def notify() -> None:
        if error := next(outcomes):
            raise error

    sim = simulate(Trip(), stubs={Trip.notify: notify}, skip_backoff=False)
    assert sim.threads == {"main": "notify"}
    assert sim.status == "Running"
    sim.advance(timedelta(seconds=1))
    assert sim.threads == {"main": "wait"}


def test_another_simulation_goes_on_from_a_document() -> None:
    first = simulate(Trip(), now=START)
    second = simulate(Trip, document=first.document, now=first.now)
    assert second.steps == []
    assert second.state.price == 26
    second.send(Trip.confirm, "bob")
    assert second.output == 26
    assert first.status == "Running"


class Request(BaseModel):
    goal: str


class WithStart(Traced):
    goal: str

    @classmethod
    def start(cls, request: Request) -> "WithStart":
        return cls(goal=request.goal, log=["started by request"])

    def definition(self) -> Section[None]:
        return S(WaitEvent("stop"))


def test_start_is_for_http_a_simulation_starts_from_an_object() -> None:
    assert trace(simulate(WithStart(goal="x"))) == ""


CRASHES = [(way, save) for way in ("before", "after", "lost") for save in range(1, 8)]


@pytest.mark.parametrize("way, save", CRASHES)
def test_a_crash_at_any_save_ends_as_without(way: Literal["before", "after", "lost"], save: int) -> None:
    sim = simulate(Trip(), crash=(way, save))
    assert sim.send(Trip.confirm, "ann") == "ANN"
    assert sim.output == 26
    assert trace(sim) == "notified;confirmed by ann"


def test_a_crash_in_front_of_a_finish_repeats_the_attempt() -> None:
    """Save 1 is the create, 2 the take of the first step, 3 its finish."""
    assert simulate(Trip(), crash=("before", 3)).steps == ["book_car", "book_car", "car", "notify"]
    assert simulate(Trip(), crash=("before", 2)).steps == ["book_car", "car", "notify"]


def test_after_a_lost_answer_no_step_runs_twice() -> None:
    """Rule 6: what is done already shows by its own mark."""
    for save in range(1, 6):
        assert simulate(Trip(), crash=("lost", save)).steps == ["book_car", "car", "notify"]


def test_every_crash_gives_what_all_runs_gave() -> None:
    runs: list[int] = []

    def run(simulate: Simulate) -> int | None:
        sim: Simulation[Trip] = simulate(Trip())
        sim.send(Trip.confirm, "ann")
        runs.append(1)
        return sim.output

    assert every_crash(run) == 26
    saves = simulate(Trip()).document["rev"]
    assert isinstance(saves, int)
    assert len(runs) == 1 + 3 * (saves + 1)


def test_every_crash_names_save_and_way_where_a_run_differs() -> None:
    def run(simulate: Simulate) -> int:
        sim: Simulation[Trip] = simulate(Trip())
        return len(sim.steps)

    with pytest.raises(AssertionError, match=r"before|after"):
        every_crash(run)


def test_the_fixture_is_the_function(simulate: Simulate) -> None:
    sim: Simulation[Trip] = simulate(Trip(), stubs={Trip.book_car: lambda kind: 5})
    assert sim.state.price == 10


class Loop(Traced):
    def definition(self) -> Section[None]:
        return S(
            For("loop", lambda: len(self.log) < 3, Step("a", self.mark, "a")),
            WaitEvent("stop"),
        )


def test_evicting_after_every_save_changes_nothing() -> None:
    plain, evicted = simulate(Loop(), now=START), simulate(Loop(), now=START, evict=True)
    for sim in (plain, evicted):
        sim.send("stop")
    assert plain.steps == evicted.steps == ["a", "a", "a"]
    assert plain.state.log == evicted.state.log
    assert plain.document["pc"] == evicted.document["pc"]
    assert plain.document["rev"] == evicted.document["rev"]


class Parks(Traced):
    def fail(self) -> None:
        raise ValueError("a fault of the code")

    def definition(self) -> Section[None]:
        return S(Step(self.fail, retry=Retry(max_attempts=1)))


def test_error_is_that_of_the_first_parked_thread() -> None:
    sim = simulate(Parks())
    assert sim.status == "Paused"
    assert sim.error is not None
    assert (sim.error.type, sim.error.path) == ("ValueError", "fail")
    assert sim.error.at == sim.now


def test_the_names_are_exported_by_the_package() -> None:
    assert asyncflow.simulate is simulate
    assert asyncflow.testing.simulate is simulate
