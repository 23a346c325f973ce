"""The test kit is told what it cannot do: keys that name no step, clocks that go back, what is no workflow."""

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest

from asyncflow import (
    Go,
    NotApplicable,
    NotAwaited,
    NotFound,
    Retry,
    Return,
    S,
    Section,
    Select,
    Step,
    WaitEvent,
    Workflow,
    event,
    simulate,
)
from asyncflow import On as Case
from asyncflow.stepkeys import key_name
from asyncflow.testing import Simulate, every_crash


class Trip(Workflow):
    """A car that can be given back, a fee, and a customer who may be late."""

    notes: list[str] = []

    @event
    def keep(self, why: str = "no reason") -> str:
        self.notes.append(why)
        return why

    @event
    def maybe(self, number: int | None = 5) -> int | None:
        return number

    def book_car(self, kind: str) -> str:
        return kind

    def give_back(self, kind: str) -> None: ...

    def fee(self) -> None: ...

    def other(self) -> None: ...

    def definition(self) -> Section[str]:
        return S(
            Step("car", self.book_car, "red", undo=self.give_back),
            Section("late", Step(self.fee, retry=Retry(max_attempts=3))),
            Select("end", Case(self.keep, Return("kept")), Case(self.maybe, Return("maybe"))),
            Return("end"),
        )


def quiet(*given: object) -> None:
    """Stands in for any action."""


@pytest.mark.parametrize(
    "key", [Trip.book_car, Trip.give_back, "car", "late/fee", "fee", "undo car", "car/undo", Trip().fee], ids=key_name
)
def test_a_step_is_named_by_its_function_its_name_or_its_path(key: Any) -> None:
    assert simulate(Trip(), stubs={key: quiet}).waiting == {"keep", "maybe"}
    simulate(Trip(), hold={key})


@pytest.mark.parametrize(
    "key, hint", [("fees", "did you mean 'fee'"), ("late", ""), (Trip.other, ""), ("book_car", ""), ("keep", "")], ids=key_name
)
@pytest.mark.parametrize("argument", ["stubs", "hold"])
def test_what_names_no_step_is_told_with_the_steps_there_are(argument: str, key: Any, hint: str) -> None:
    given: dict[str, Any] = {"stubs": {key: quiet}} if argument == "stubs" else {"hold": {key}}
    with pytest.raises(NotFound, match=f"{argument}= names no step of Trip: .*{hint}.*; there are: car, fee"):
        simulate(Trip(), **given)


def test_one_step_alone_is_no_collection() -> None:
    with pytest.raises(TypeError, match="a collection of steps"):
        simulate(Trip(), hold="fee")


def test_no_clock_goes_back() -> None:
    sim = simulate(Trip())
    with pytest.raises(ValueError, match="only goes forward"):
        sim.advance(timedelta(seconds=-1))
    with pytest.raises(ValueError, match="with a time zone"):
        simulate(Trip(), now=datetime(2024, 1, 1))  # noqa: DTZ001 - that is the mistake


@pytest.mark.parametrize("thing", [3, int, None, "Trip"], ids=repr)
def test_what_is_no_workflow_is_told(thing: Any) -> None:
    with pytest.raises(TypeError, match="made from Workflow"):
        simulate(thing)


def test_what_is_no_document_is_told() -> None:
    with pytest.raises(ValueError, match=r"expected document= to be what sim\.document gives, found an object with a"):
        simulate(Trip, document={"a": 1})


@pytest.mark.parametrize("way", ["before", "after", "lost"])
def test_what_a_run_of_every_crash_raises_says_which_crash_it_was(way: str) -> None:
    runs: list[int] = []

    def run(start: Simulate) -> None:
        runs.append(1)
        start(Trip())
        assert len(runs) != 5 + ["before", "after", "lost"].index(way)

    with pytest.raises(AssertionError) as failed:
        every_crash(run)
    assert [note.partition(":")[0] for note in failed.value.__notes__] == [
        f"this was the run of every_crash with crash=('{way}', 2)"
    ]


def test_what_fails_without_a_crash_says_so() -> None:
    def run(start: Simulate) -> None:
        start(Trip(), stubs={"nothing": quiet})

    with pytest.raises(NotFound) as failed:
        every_crash(run)
    assert "without a crash" in failed.value.__notes__[0]


# -- events ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "say, answer",
    [
        (lambda sim: sim.send(Trip.keep), "no reason"),
        (lambda sim: sim.send("keep"), "no reason"),
        (lambda sim: sim.send("keep", "because"), "because"),
        (lambda sim: sim.send(Trip.maybe), 5),
        (lambda sim: sim.send(Trip.maybe, None), None),
        (lambda sim: sim.send("maybe", None), None),
        (lambda sim: sim.send("maybe", 0), 0),
    ],
)
def test_an_input_that_has_a_default_may_be_left_out(say: Callable[[Any], Any], answer: object) -> None:
    assert say(simulate(Trip())) == answer
    late = simulate(Trip(), hold={"fee"})
    key = "late"
    with pytest.raises(Exception, match="lies in the inbox"):
        say(Keyed(late, key))
    late.held("fee").finish()
    assert say(Keyed(late, key)) == answer, "it has lain in the document"


class Keyed:
    """A simulation to which everything is sent under one key."""

    def __init__(self, sim: Any, key: str) -> None:
        self._sim, self._key = sim, key

    def send(self, *given: Any) -> Any:
        return self._sim.send(*given, idempotency_key=self._key)


class Two(Workflow):
    """Waits in two threads."""

    @event
    def a(self) -> None: ...
    @event
    def b(self) -> None: ...
    @event
    def nobody(self) -> None: ...

    def work(self) -> None: ...

    def definition(self) -> Section[str]:
        return S(Go("side", WaitEvent(self.b)), WaitEvent(self.a), Step(self.work), Return("end"))


def test_an_event_for_a_thread_that_does_not_take_it_is_told_who_does() -> None:
    sim = simulate(Two())
    with pytest.raises(NotAwaited, match=r"in the thread 'main'; it is awaited in: side$"):
        sim.send(Two.b, thread="main")
    with pytest.raises(NotAwaited, match=r"in the thread 'sid', which is not there; it is awaited in: side$"):
        sim.send(Two.b, thread="sid")
    sim.send(Two.b)
    with pytest.raises(NotAwaited, match=r"does not await the event 'b'; it awaits: a$"):
        sim.send(Two.b)


def test_an_event_that_is_declared_and_awaited_nowhere_is_told_so() -> None:
    with pytest.raises(
        NotFound, match=r"no event 'nobody' in its tree: Two\.nobody is one, but no statement awaits it; it has: a, b"
    ):
        simulate(Two()).send("nobody")


def test_an_event_that_lay_when_the_instance_ended_is_told_so_for_ever() -> None:
    sim = simulate(Two(), hold={Two.work})
    sim.send(Two.b)
    sim.send(Two.a)
    for key in ("once", "again"):
        with pytest.raises(Exception, match="lies in the inbox"):
            sim.send(Two.a, idempotency_key=key)
    sim.held(Two.work).finish()
    assert sim.output == "end"
    for _ in range(2):
        with pytest.raises(Exception, match=r"Two/simulation has ended \(Finished\) before the event 'a' had its turn"):
            sim.send(Two.a, idempotency_key="once")
    with pytest.raises(Exception, match="comes too late"):
        sim.send(Two.a)


# -- operators ---------------------------------------------------------------------------------------------------------


class Stuck(Workflow):
    """Two steps that never succeed, side by side."""

    def fail(self) -> None:
        raise ConnectionError("no answer")

    def definition(self) -> Section[None]:
        policy = Retry(max_attempts=2, delay=timedelta(hours=1))
        return S(Go("side", Step("there", self.fail, retry=policy)), Step("here", self.fail, retry=policy), WaitEvent("x"))


def refusal(call: Callable[[], Any]) -> str:
    with pytest.raises(NotApplicable) as refused:
        call()
    return str(refused.value)


def test_a_retry_that_fits_nobody_says_whom_it_would_fit() -> None:
    sim = simulate(Stuck(), skip_backoff=False)
    everybody = refusal(lambda: sim._operate("retry"))
    assert everybody == (
        "no thread of Stuck/simulation is parked, and without a thread retry is for those alone; "
        "in backoff: main, side (name the thread that is meant)"
    )
    assert "has no thread 'sid' that skip could be for; in backoff: main, side" in refusal(lambda: sim.skip("sid"))
    sim.advance(timedelta(hours=2))
    sim.skip()
    assert sim.threads["main"] == "x"
    wrong = refusal(sim.retry)
    assert wrong == (
        "the thread 'main' of Stuck/simulation is neither parked nor in backoff, so retry does not fit now; "
        "parked or in backoff: side (name the thread that is meant)"
    )


# -- generators --------------------------------------------------------------------------------------------------------


class Collects(Workflow):
    """Its step has a plain action."""

    def collect(self) -> None: ...

    def definition(self) -> Section[None]:
        return S(Step(self.collect), WaitEvent("x"))


def gives_a_generator() -> Iterator[int]:
    yield 1


def test_an_action_that_gives_a_generator_has_not_run() -> None:
    sim = simulate(Collects(), stubs={Collects.collect: gives_a_generator})
    assert sim.status == "Paused"
    assert sim.error is not None
    assert "gave a generator" in sim.error.message
