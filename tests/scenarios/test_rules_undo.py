"""Rule 32: what was done is undone, last first, before an error or a cancel goes on."""

from collections.abc import Iterator
from typing import Never

import pytest
from pydantic import BaseModel

from asyncflow import (
    Break,
    For,
    ForEach,
    Go,
    Join,
    On,
    Parallel,
    Raise,
    Retry,
    Return,
    S,
    Section,
    Select,
    Step,
    TerminalError,
    Try,
    Uncertain,
    WaitEvent,
    event,
)
from tests.scenarios.drivers import evicted
from tests.scenarios.traced import Traced, trace


class Broken(TerminalError): ...


CANNOT: dict[str, Exception] = {}
"""What cannot be undone, and why."""


@pytest.fixture(autouse=True)
def _all_can_be_undone() -> Iterator[None]:
    CANNOT.clear()
    yield
    CANNOT.clear()


class Booking(Traced):
    """`self.book(x)` is a step that `x` can be undone by."""

    def do(self, what: str) -> None:
        self.mark(what)

    def undo(self, what: str) -> None:
        if error := CANNOT.get(what):
            raise error
        self.mark(f"-{what}")

    def book(self, what: str) -> Step:
        return Step(what, self.do, what, undo=self.undo)

    def step(self, name: str) -> Step:
        return Step(name, self.mark, name)


class Trip(Booking):
    def definition(self) -> Section[None]:
        return S(
            self.book("before"),
            Try(self.book("car"), self.step("no undo"), self.book("hotel"), self.book("flight"), Raise(Broken("full")))
            .Except(Broken, self.step("except"))
            .Finally(self.step("finally")),
            self.step("end"),
        )


def test_an_error_undoes_the_steps_of_its_try_last_first_then_except_then_finally() -> None:
    run = evicted(Trip())
    assert trace(run) == "before;car;no undo;hotel;flight;-flight;-hotel;-car;except;finally;end"
    assert [step for step in run.steps if step.startswith("undo")] == ["undo flight", "undo hotel", "undo car"]
    assert run.status == "Finished"


class Uncaught(Booking):
    def definition(self) -> Section[None]:
        return S(self.book("a"), Section("scope", self.book("b")), Raise(Broken("full")))


def test_an_error_that_leaves_the_definition_undoes_what_stands_outside_every_try() -> None:
    run = evicted(Uncaught())
    assert run.status == "Failed"
    assert trace(run) == "a;b;-b;-a"


class HandsOn(Booking):
    def definition(self) -> Section[None]:
        return S(
            Try(
                "outer",
                Try("first", self.book("a")).Finally(self.step("f1")),
                self.book("b"),
                Try("second", self.book("c")).Except(Broken, self.step("not here")),
                Raise(Broken("full")),
            ).Except(Broken, self.step("except")),
        )


def test_a_try_that_ended_well_leaves_its_undos_to_the_next() -> None:
    run = evicted(HandsOn())
    assert trace(run) == "a;f1;b;c;-c;-b;-a;except"


class CaughtInside(Booking):
    def definition(self) -> Section[None]:
        return S(
            Try(
                "outer",
                Try("inner", self.book("a"), Raise(Broken("first"))).Except(Broken, self.book("instead")),
                Raise(Broken("second")),
            ).Except(Broken, self.step("except")),
        )


def test_what_an_except_body_did_is_undone_by_the_try_outside() -> None:
    run = evicted(CaughtInside())
    assert trace(run) == "a;-a;instead;-instead;except"


class Leaving(Booking):
    def definition(self) -> Section[str]:
        return S(
            For("once", True, Try("t", self.book("a"), Break()).Finally(self.step("f1"))),
            Try(self.book("b"), Return("left")).Except(Broken, self.step("not here")).Finally(self.step("f2")),
        )


def test_return_and_break_undo_nothing() -> None:
    run = evicted(Leaving())
    assert run.output == "left"
    assert trace(run) == "a;f1;b;f2"


class Branches(Booking):
    def definition(self) -> Section[None]:
        return S(
            Try(
                self.book("first"),
                Parallel(
                    "both",
                    Section("done", self.book("a"), self.book("b")),
                    Section("stuck", self.book("c"), WaitEvent("never")),
                    Section("bad", WaitEvent("fail now"), Raise(Broken("full"))),
                ),
            ).Except(Broken, self.step("except")),
        )


def test_an_error_of_a_branch_undoes_the_others_and_what_came_before() -> None:
    """Branches hand their undos to the thread that waits, which undoes the last finished first, whoever did it."""
    run = evicted(Branches())
    done = list(run.state.log)
    assert sorted(done) == ["a", "b", "c", "first"]
    run.send("fail now")
    assert run.state.log[len(done) :] == [*(f"-{what}" for what in reversed(done)), "except"]


class Item(BaseModel):
    name: str
    booked: int = 0


class Items(Booking):
    items: dict[str, Item] = {}

    def reserve(self, item: Item) -> None:
        item.booked += 1
        self.mark(f"{item.name}{item.booked}")

    def release(self, item: Item) -> None:
        self.mark(f"-{item.name}{item.booked}")

    @event
    def remove(self, key: str) -> None:
        del self.items[key]

    @event
    def rename(self, name: str) -> None:
        for item in self.items.values():
            item.name = name


class ItemsInOrder(Items):
    def one(self, item: Item) -> Section[Never]:
        return S(
            Step("reserve", self.reserve, item, undo=self.release),
            WaitEvent("go on"),
            Step("again", self.reserve, item, undo=self.release),
        )

    def definition(self) -> Section[None]:
        return S(
            Go("desk", For("open", True, Select("next", On(self.remove), On(self.rename)))),
            Try(
                ForEach("items", lambda: self.items, self.one),
                WaitEvent("fail now"),
                Raise(Broken("full")),
            ).Except(Broken, self.step("except")),
        )


def test_an_undo_gets_its_item_as_it_was_when_the_step_finished() -> None:
    run = evicted(ItemsInOrder(items={"x": Item(name="x")}))
    run.send("go on")
    run.send(Items.rename, "renamed")
    run.send("fail now")
    assert trace(run) == "x1;x2;-x2;-x1;except"


def test_the_undos_of_a_deleted_item_are_kept_by_the_try_around_the_loop() -> None:
    """docs/statements.md, items: its undo entries, which keep the item, go to the Try around the loop."""
    run = evicted(ItemsInOrder(items={"x": Item(name="x"), "y": Item(name="y")}))
    run.send(Items.remove, "x")
    assert run.threads["main"] == "items/go on"
    run.send("go on")
    run.send("fail now")
    assert trace(run) == "x1;y1;y2;-y2;-y1;-x1;except"


class ParallelItems(Items):
    def quote(self, item: Item) -> str:
        return item.name

    def one(self, item: Item) -> Section[Never]:
        return S(
            Step("reserve", self.quote, item, then=self.mark, undo=self.release),
            Select("wait", On("go on"), On("fail now", Raise(Broken("full")))),
        )

    def definition(self) -> Section[None]:
        return S(
            Try(
                self.book("first"),
                ForEach("items", lambda: self.items, self.one, parallel=5),
            ).Except(Broken, self.step("except")),
        )


def test_an_error_of_an_item_undoes_the_others_and_what_came_before() -> None:
    """The one that had ended, the cancelled and the failed one have all handed on theirs; last finished first."""
    run = evicted(ParallelItems(items={name: Item(name=name) for name in "xyz"}))
    run.send("go on", thread="items/x")
    run.send("fail now", thread="items/z")
    assert trace(run) == "first;x;y;z;-z0;-y0;-x0;-first;except"


class FromGo(Booking):
    def definition(self) -> Section[None]:
        return S(
            Go("child", self.book("c")),
            self.book("m1"),
            Join(),
            self.book("m2"),
            Select("then", On("fail", Raise(Broken("full"))), On("stop")),
        )


def test_a_go_thread_that_ended_well_leaves_its_undos_to_the_instance() -> None:
    """An error that leaves main undoes the entries of all threads and of the instance, last finished first."""
    run = evicted(FromGo())
    run.send("fail")
    assert run.status == "Failed"
    assert trace(run) == "m1;c;m2;-m2;-c;-m1"


def test_a_cancel_undoes_the_entries_of_the_instance_as_well() -> None:
    """Main undoes its own when `Cancelled` leaves it, the instance's come when all threads are through."""
    run = evicted(FromGo())
    run.cancel()
    assert run.status == "Cancelled"
    assert trace(run) == "m1;c;m2;-m2;-m1;-c"


def test_a_finish_undoes_nothing() -> None:
    run = evicted(FromGo())
    run.send("stop")
    assert run.status == "Finished"
    assert trace(run) == "m1;c;m2"


class FailingUndo(Booking):
    def definition(self) -> Section[None]:
        retry = Retry(max_attempts=2, jitter=0, exhausted="raise")
        return S(
            Try(
                Step("a", self.do, "a", undo=self.undo, retry=retry),
                self.book("b"),
                Raise(Broken("full")),
            ).Except(Broken, self.step("except")),
        )


def test_an_undo_has_the_policy_of_its_step_but_always_pauses() -> None:
    """Rule 32: a failed undo parks its thread, and retry goes on with it."""
    CANNOT["a"] = ConnectionError("no route")
    run = evicted(FailingUndo())
    assert run.status == "Paused"
    assert run.threads == {"main": "a/undo"}
    assert run.steps.count("undo a") == 2
    assert trace(run) == "a;b;-b"
    CANNOT.clear()
    run.retry()
    assert trace(run) == "a;b;-b;-a;except"


def test_a_failed_undo_can_be_skipped() -> None:
    CANNOT["a"] = TerminalError("cannot be undone")
    run = evicted(FailingUndo())
    assert run.status == "Paused"
    run.skip()
    assert trace(run) == "a;b;-b;except"
    assert run.status == "Finished"


class Unknown(Booking):
    def definition(self) -> Section[None]:
        return S(Try(Step("charge", self.do, "charge", undo=self.undo, idempotent=False)).Except(Uncertain, self.step("uncertain")))


def test_a_step_whose_outcome_is_unknown_is_undone() -> None:
    run = evicted(Unknown(), hold={"charge"})
    run.held("charge").lapse()
    assert trace(run) == "-charge;uncertain"


class UsedUp(Booking):
    def definition(self) -> Section[None]:
        retry = Retry(max_attempts=2, jitter=0, exhausted="raise")
        return S(
            Try(Step("charge", self.do, "charge", undo=self.undo, retry=retry)).Except(Exception, self.step("except")),
        )


@pytest.mark.parametrize("lost, expected", [(True, "-charge;except"), (False, "except")])
def test_a_used_up_policy_is_undone_if_an_attempt_of_it_was_lost(*, lost: bool, expected: str) -> None:
    run = evicted(UsedUp(), hold={"charge"})
    if lost:
        run.held("charge").lapse()
    else:
        run.held("charge").fail(ConnectionError("refused"))
    run.held("charge").fail(ConnectionError("refused"))
    assert trace(run) == expected


class Once(Booking):
    def definition(self) -> Section[None]:
        return S(Try(Step("a", self.do, "a", undo=self.undo), Step("b", self.fail, undo=self.no_args)).Except(Broken))

    def fail(self) -> None:
        raise Broken("full")

    def no_args(self) -> None:
        self.mark("-b")


def test_a_failed_step_is_not_undone() -> None:
    run = evicted(Once())
    assert trace(run) == "a;-a"
