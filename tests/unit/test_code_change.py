"""A position that the code does not know, and code that comes back (rules 17, 20, 24, 29)."""

from datetime import timedelta
from typing import Any

import pytest
from pydantic import BaseModel

from asyncflow import (
    For,
    ForEach,
    Go,
    Parallel,
    Pending,
    Raise,
    Retry,
    Return,
    S,
    Section,
    Simulation,
    Step,
    Try,
    Uncertain,
    WaitEvent,
    WaitFor,
    Workflow,
    event,
    simulate,
)

HOUR = timedelta(hours=1)


class Item(BaseModel):
    n: int = 0


class Base(Workflow):
    log: list[str] = []
    n: int = 0
    items: dict[str, Item] = {"a": Item()}

    def work(self) -> None:
        self.log.append("work")

    def fail(self) -> None:
        raise ValueError("no")

    def ask(self) -> int:
        return 1

    def back(self) -> None:
        self.log.append("undo")

    @event(queue=True)
    def later(self) -> None:
        self.log.append("later")


class Other(Base, name="Code"):
    """Code that knows none of the positions of the others."""

    def definition(self) -> Section[Any]:
        return S(Section("elsewhere", WaitEvent("nothing")))


def on(code: type[Base], sim: Simulation[Any], **arguments: Any) -> Simulation[Any]:
    return simulate(code, document=sim.document, now=sim.now, skip_backoff=False, evict=True, **arguments)


def begin(code: Base, **arguments: Any) -> Simulation[Any]:
    return simulate(code, skip_backoff=False, evict=True, **arguments)


def parked_after(sim: Simulation[Any]) -> timedelta:
    start = sim.now
    while sim.status == "Running" and sim.now - start < HOUR * 10:
        sim.advance(timedelta(minutes=10))
    return sim.now - start


# -- left alone --------------------------------------------------------------------------------------------------------


class Waits(Base, name="Code"):
    def definition(self) -> Section[Any]:
        return S(WaitEvent("go"), Return("end"))


def test_an_unknown_position_is_tried_by_the_default_policy_then_parked_and_comes_back() -> None:
    sim = on(Other, begin(Waits()))
    assert sim.status == "Running"
    assert timedelta(hours=2) < parked_after(sim) < HOUR * 4
    assert sim.error is not None
    assert sim.error.type == "NotFound"
    back = on(Waits, sim)
    back.retry()
    back.send("go")
    assert back.output == "end"


def test_code_that_knows_the_position_goes_on_at_once() -> None:
    sim = on(Other, begin(Waits()))
    with pytest.raises(Pending):
        sim.send("nothing")
    sim.advance(HOUR)
    back = on(Waits, sim)
    back.send("go")
    assert back.output == "end"


class Regions(Base, name="Code"):
    def definition(self) -> Section[Any]:
        return S(Section("a", WaitEvent("go")), Return("old"))


class MoreRegions(Base, name="Code"):
    def definition(self) -> Section[Any]:
        return S(Try("a", WaitEvent("go")).Finally(Step(self.work)), Return("new"))


class Steps(Base, name="Code"):
    def definition(self) -> Section[Any]:
        return S(Step("a", self.fail, retry=Retry(max_attempts=None, delay=timedelta(days=1))), Return("old"))


class Events(Base, name="Code"):
    def definition(self) -> Section[Any]:
        return S(WaitEvent("a"), Return("new"))


class InOrder(Base, name="Code"):
    def definition(self) -> Section[Any]:
        return S(ForEach("a", lambda: self.items, lambda item: S(WaitEvent("go"))), Return("end"))


class SideBySide(Base, name="Code"):
    def definition(self) -> Section[Any]:
        return S(ForEach("a", lambda: self.items, lambda item: S(WaitEvent("go")), parallel=2), Return("end"))


@pytest.mark.parametrize(
    "before, after",
    [
        (Regions, MoreRegions),
        (MoreRegions, Regions),
        (Steps, Events),
        (Events, Steps),
        (InOrder, SideBySide),
        (SideBySide, InOrder),
    ],
)
def test_another_statement_at_the_same_path_is_not_the_same_position(before: type[Base], after: type[Base]) -> None:
    first = begin(before())
    sim = on(after, first)
    stray = [thread for thread in sim.document["threads"] if "stray" in thread]  # type: ignore[union-attr, operator]
    assert stray
    assert sim.document["due_at"] > str(sim.now.isoformat())  # type: ignore[operator]
    back = on(before, sim)
    assert back.threads == first.threads
    assert not [thread for thread in back.document["threads"] if "stray" in thread]  # type: ignore[union-attr, operator]
    sim.cancel()
    assert parked_after(sim) < HOUR * 4
    sim.kill()
    assert sim.status == "Cancelled"


# -- cancels -----------------------------------------------------------------------------------------------------------


def test_a_cancel_reaches_a_thread_once_its_position_is_known_again() -> None:
    class Tried(Base, name="Code"):
        def definition(self) -> Section[Any]:
            return S(Try(WaitEvent("go")).Finally(Step(self.work)), Return("end"))

    sim = on(Other, begin(Tried()))
    sim.cancel()
    assert sim.status == "Running"
    back = on(Tried, sim)
    assert back.status == "Cancelled"
    assert back.state.log == ["work"]


def test_the_error_of_a_branch_reaches_the_others_once_their_positions_are_known_again() -> None:
    class Branches(Base, name="Code"):
        def definition(self) -> Section[Any]:
            return S(Parallel("p", S(WaitEvent("go"), Raise(ValueError())), S(WaitEvent("wait"))))

    class OneBranch(Base, name="Code"):
        def definition(self) -> Section[Any]:
            return S(Parallel("p", S(WaitEvent("go"), Raise(ValueError())), S(WaitEvent("renamed"))))

    sim = on(OneBranch, begin(Branches()))
    sim.send("go")
    assert sim.status == "Running"
    assert on(Branches, sim).status == "Failed"


# -- leases ------------------------------------------------------------------------------------------------------------


class Once(Base, name="Code"):
    def definition(self) -> Section[Any]:
        once = Try(Step("once", self.work, idempotent=False)).Except(Uncertain, Return("uncertain"))
        return S(Go("beside", For("for ever", True, WaitEvent("ping"))), once, Return("end"))


class NotOnce(Base, name="Code"):
    def definition(self) -> Section[Any]:
        return S(Go("beside", For("for ever", True, WaitEvent("ping"))), Try(Step("renamed", self.work)))


def test_a_lapse_at_an_unknown_position_ends_the_hold_and_waits_for_code_that_knows_what_it_means() -> None:
    sim = on(NotOnce, begin(Once(), hold={"once"}))
    sim.send("ping")
    sim.advance(HOUR)
    assert sim.steps == []
    back = on(Once, sim)
    assert back.output == "uncertain"
    assert back.steps == []


def test_a_pause_leaves_unknown_positions_alone() -> None:
    first = begin(Waits())
    first.pause()
    sim = on(Other, first)
    before = sim.document
    sim.advance(HOUR * 10)
    assert sim.document == before
    sim.resume()
    assert sim.document["due_at"] is not None
    assert on(Waits, sim).waiting == {"go"}


# -- messages, timers, undos -------------------------------------------------------------------------------------------


def test_an_event_in_the_inbox_that_the_code_does_not_know_is_left_alone() -> None:
    class Queued(Base, name="Code"):
        def definition(self) -> Section[Any]:
            return S(Section("a", WaitEvent("go")), WaitEvent(self.later), Return("end"))

    class Unaware(Base, name="Code"):
        def definition(self) -> Section[Any]:
            return S(Section("a", WaitEvent("go"), WaitEvent("go on")), WaitEvent("go"))

    sim = begin(Queued())
    with pytest.raises(Pending):
        sim.send("later")
    sim = on(Unaware, sim)
    with pytest.raises(Exception, match="no event 'later'"):
        sim.send("later")
    assert [message["name"] for message in sim.document["inbox"]] == ["later"]  # type: ignore[union-attr, index, call-overload]
    sim = on(Queued, sim)
    sim.send("go")
    assert sim.output == "end"
    assert sim.state.log == ["later"]


def test_an_item_kept_for_an_undo_that_newer_code_does_not_take_is_an_unknown_position() -> None:
    class Kept(Base, name="Code"):
        def undo(self, item: Item) -> None:
            self.log.append(f"undo {item.n}")

        def do(self, item: Item) -> None: ...

        def definition(self) -> Section[Any]:
            each = ForEach("each", lambda: self.items, lambda item: S(Step("do", self.do, item, undo=self.undo)))
            return S(Try(each, WaitEvent("go"), Raise(ValueError())).Except(ValueError), Return("end"))

    class Strict(Item):
        needed: str

    class Newer(Kept, name="Code"):
        newer: dict[str, Strict] = {}

        def undo(self, item: Any) -> None: ...

        def definition(self) -> Section[Any]:
            each = ForEach("each", lambda: self.newer, lambda item: S(Step("do", self.do, item, undo=self.undo)))
            return S(Try(each, WaitEvent("go"), Raise(ValueError())).Except(ValueError), Return("end"))

    first = begin(Kept(items={"a": Item(n=3)}))
    newer = on(Newer, first)
    newer.send("go")
    assert newer.status == "Running"
    assert newer.steps == []
    back = on(Kept, newer)
    assert back.output == "end"
    assert back.state.log == ["undo 3"]


def test_a_timer_that_new_code_adds_counts_from_when_its_select_was_entered() -> None:
    class Timed(Base, name="Code"):
        def definition(self) -> Section[Any]:
            return S(WaitFor("go", HOUR * 3), Return("timer"))

    first = begin(Waits())
    first.advance(HOUR)
    sim = on(Timed, first)
    sim.advance(HOUR)
    assert sim.status == "Running"
    sim.advance(HOUR)
    assert sim.output == "timer"
