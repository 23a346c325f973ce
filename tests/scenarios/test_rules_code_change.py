"""Rule 24, docs/testing.md `document=`: an instance meets code that has changed since it was saved."""

from datetime import timedelta

import pytest

from asyncflow import (
    After,
    Go,
    If,
    NotFound,
    On,
    Retry,
    S,
    Section,
    Select,
    Simulation,
    Step,
    WaitEvent,
    event,
)
from tests.scenarios.drivers import START, evicted
from tests.scenarios.traced import Traced, trace

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


class Old(Traced, name="Changing"):
    dropped: int = 7

    @event
    def go_on(self) -> None:
        self.mark("go on")

    @event
    def other(self) -> None:
        self.mark("other")

    def definition(self) -> Section[None]:
        return S(
            Step("a", self.mark, "a"),
            Select("wait", On(self.go_on), On(self.other)),
            Step("b", self.mark, "b"),
        )


def waiting() -> Simulation[Old]:
    run = evicted(Old(), now=START)
    assert run.threads == {"main": "wait"}
    return run


def test_the_same_code_goes_on_where_it_stood() -> None:
    old = waiting()
    run = evicted(Old, document=old.document, now=old.now)
    run.send(Old.go_on)
    assert trace(run) == "a;go on;b"
    assert run.steps == ["b"]


class StepsAdded(Traced, name="Changing"):
    added: str = "new"

    @event
    def go_on(self) -> None:
        self.mark("go on")

    def definition(self) -> Section[None]:
        return S(
            Step("before", self.mark, "before"),
            Step("a", self.mark, "a"),
            If("new", lambda: self.added == "new", Step("c", self.mark, "c")),
            Select("wait", On(self.go_on, Step("in the case", self.mark, "in the case"))),
            Step("after", self.mark, "after"),
            Step("b", self.mark, "b"),
        )


def test_steps_may_be_added_those_before_the_position_are_not_run() -> None:
    run = evicted(StepsAdded, document=waiting().document)
    assert run.steps == []
    run.send(StepsAdded.go_on)
    assert trace(run) == "a;go on;in the case;after;b"


def test_new_fields_have_their_defaults_and_unknown_ones_are_carried_beside_the_object() -> None:
    """Rule 5: the class forbids extras, so what it does not know survives a load and a save outside of it."""
    run = evicted(StepsAdded, document=waiting().document)
    assert run.state.added == "new"
    run.send(StepsAdded.go_on)
    state = run.document["state"]
    assert isinstance(state, dict)
    assert state["dropped"] == 7
    assert "dropped" not in run.state.model_dump()


def test_an_event_whose_case_was_removed_is_not_found() -> None:
    run = evicted(StepsAdded, document=waiting().document)
    with pytest.raises(NotFound):
        run.send("other")
    assert run.waiting == {"go_on"}


class TimerAdded(Traced, name="Changing"):
    @event
    def go_on(self) -> None: ...

    def definition(self) -> Section[None]:
        return S(
            Step("a", self.mark, "a"),
            Select("wait", On(self.go_on), After(3 * HOUR, Step("late", self.mark, "late"))),
        )


def test_a_timer_that_new_code_adds_counts_from_the_arrival() -> None:
    """Rule 2."""
    old = waiting()
    old.advance(2 * HOUR)
    run = evicted(TimerAdded, document=old.document, now=old.now)
    run.advance(HOUR - timedelta(seconds=1))
    assert trace(run) == "a"
    run.advance(timedelta(seconds=1))
    assert trace(run) == "a;late"


class ConditionAdded(Traced, name="Changing"):
    def definition(self) -> Section[None]:
        return S(
            If("never", lambda: False, Select("wait", On("go_on"))),
            Step("b", self.mark, "b"),
        )


class WaitRemoved(Traced, name="Changing"):
    @event
    def go_on(self) -> None:
        self.mark("go on")

    def definition(self) -> Section[None]:
        return S(Step("a", self.mark, "a"), Select("elsewhere", On(self.go_on)), Step("b", self.mark, "b"))


@pytest.mark.parametrize("changed", [ConditionAdded, WaitRemoved])
def test_a_position_that_is_unknown_is_left_alone_then_parked(changed: type[Traced]) -> None:
    """Rule 24: also one that was moved into another statement; nothing is guessed."""
    old = waiting()
    run = evicted(changed, document=old.document, now=old.now, skip_backoff=False)
    assert run.status == "Running"
    assert run.threads == {"main": "wait"}
    assert run.steps == []
    run.advance(HOUR)
    assert run.status == "Running"
    run.advance(DAY)
    assert run.status == "Paused"
    assert run.error is not None
    assert run.threads == {"main": "wait"}
    assert trace(run) == "a"


def test_code_that_knows_the_position_goes_on_at_once() -> None:
    """Rule 24: two versions at work during a deployment must not park each other's instances."""
    old = waiting()
    unknown = evicted(WaitRemoved, document=old.document, now=old.now, skip_backoff=False)
    unknown.advance(timedelta(minutes=10))
    run = evicted(Old, document=unknown.document, now=unknown.now)
    assert run.waiting == {"go_on", "other"}
    run.send(Old.go_on)
    assert trace(run) == "a;go on;b"


class TwoThreads(Traced, name="TwoThreads"):
    def definition(self) -> Section[None]:
        return S(Go("child", WaitEvent("one")), WaitEvent("two"), Step("end", self.mark, "end"))


class ChildChanged(Traced, name="TwoThreads"):
    def definition(self) -> Section[None]:
        return S(Go("child", WaitEvent("another")), WaitEvent("two"), Step("end", self.mark, "end"))


def test_a_thread_of_unknown_position_does_not_stop_the_others() -> None:
    run = evicted(ChildChanged, document=evicted(TwoThreads()).document, skip_backoff=False)
    assert run.waiting == {"two"}
    run.send("two")
    assert run.status == "Finished"
    assert trace(run) == "end"


class Charges(Traced, name="Charges"):
    def charge(self) -> None:
        self.mark(f"charged {self.context.attempt}")

    def definition(self) -> Section[None]:
        return S(Step(self.charge, retry=Retry(delay=HOUR, factor=1, jitter=0)))


class ChargesRenamed(Charges, name="Charges"):
    def definition(self) -> Section[None]:
        return S(Step("bill", self.charge))


def fails() -> None:
    raise ConnectionError("no route")


def test_an_unknown_position_costs_its_step_no_attempt() -> None:
    """Rule 24."""
    old = evicted(Charges(), stubs={Charges.charge: fails}, skip_backoff=False, now=START)
    unknown = evicted(ChargesRenamed, document=old.document, now=old.now, skip_backoff=False)
    unknown.advance(HOUR + timedelta(minutes=1))
    assert unknown.steps == []
    run = evicted(Charges, document=unknown.document, now=unknown.now)
    assert trace(run) == "charged 2"


class Repaired(Charges, name="Charges"):
    def charge(self) -> None:
        self.mark("repaired")


def test_a_parked_step_is_tried_again_with_mended_code() -> None:
    def broken() -> None:
        raise ValueError("a fault of the code")

    old = evicted(Charges(), stubs={Charges.charge: broken}, now=START)
    assert old.status == "Paused"
    run = evicted(Repaired, document=old.document, now=old.now)
    run.retry()
    assert trace(run) == "repaired"
    assert run.status == "Finished"
