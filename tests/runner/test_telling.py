"""What an operator reads in the log: failed attempts and what follows, parked threads, ends, strays, large documents."""

import json
import logging
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from asyncflow import (
    For,
    Retry,
    Return,
    S,
    Section,
    Step,
    TerminalError,
    Try,
    WaitEvent,
    WaitUntil,
    Workflow,
    event,
    limits,
)
from asyncflow.leases import take
from asyncflow.write import decide
from runner import Runner
from runner.work.records import Loaded, write_of
from tests.runner.clocks import Clock
from tests.runner.conftest import Open
from tests.runner.gates import PATIENCE

MINUTE = timedelta(minutes=1)
FAULTS: list[BaseException] = []
"""What the next attempts raise, the first one first."""


class Pay(Workflow):
    """One step, tried twice."""

    note: str = "the secret is 4711"

    def pay(self) -> None:
        if FAULTS:
            raise FAULTS.pop(0)

    @event
    def write(self, text: str) -> None:
        self.note = text

    def definition(self) -> Section[str]:
        return S(
            Step(self.pay, retry=Retry(max_attempts=2, delay=MINUTE, jitter=0)),
            For("open", True, WaitEvent(self.write)),
            Return("end"),
        )


class Tried(Pay):
    """Its errors go into the tree."""

    def definition(self) -> Section[str]:
        return S(Try(Step(self.pay)).Except(TerminalError), Return("end"))


class Fails(Pay):
    def definition(self) -> Section[str]:
        return S(Step(self.pay), Return("end"))


class Asks(Workflow):
    def wrong(self) -> bool:
        raise ValueError("what is that?")

    def definition(self) -> Section[None]:
        return S(WaitUntil("never", self.wrong))


class Renamed(Pay, name="Pay"):
    def definition(self) -> Section[str]:
        return S(Step("paid", self.pay), For("opened", True, WaitEvent(self.write)), Return("end"))


Lines = Callable[[], list[tuple[str, str]]]


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Lines:
    """The lines that an operator has got since the last look: level and text."""
    FAULTS.clear()
    caplog.set_level(logging.INFO)

    def look() -> list[tuple[str, str]]:
        found = [one for one in caplog.records if one.name == "asyncflow"]
        for one in found:
            name = one.__dict__["instance"]
            assert one.getMessage().startswith(f"{name}: "), "each line names its instance"
            assert "4711" not in one.getMessage() + json.dumps(one.__dict__, default=str)
        caplog.clear()
        return [(one.levelname, one.getMessage().partition(": ")[2]) for one in found]

    return look


@pytest.mark.parametrize("history", [True, False])
def test_a_failed_attempt_is_told_with_what_follows(history: bool, working: Open, clock: Clock, lines: Lines) -> None:
    FAULTS.extend([ConnectionError("no\nanswer " + "x" * 1_000), ConnectionError("still none"), OSError("nor now")])
    runner = working(Pay, clock=clock, history=history)
    pay = runner.start(Pay(), id="p-1")
    assert runner.wait_idle(PATIENCE)
    [(level, text)] = lines()
    assert level == "WARNING"
    assert text.startswith("attempt 1 of pay failed (ConnectionError: no answer xx")
    assert text.endswith("…); the next attempt is at 2024-02-28T00:01:00Z")
    clock.advance(MINUTE)
    assert runner.wait_idle(PATIENCE)
    assert lines() == [
        (
            "WARNING",
            "attempt 2 of pay failed (ConnectionError: still none); the thread main is parked: it waits for a retry or a skip",
        )
    ]
    pay.retry()
    assert runner.wait_idle(PATIENCE)
    assert [text.partition(";")[0] for _, text in lines()] == ["attempt 1 of pay failed (OSError: nor now)"]
    clock.advance(MINUTE)
    assert runner.wait_idle(PATIENCE)
    assert lines() == [], "what goes well is not told"


def test_an_error_that_goes_into_the_tree_is_told_as_that(working: Open, lines: Lines) -> None:
    FAULTS.append(TerminalError("no money"))
    runner = working(Tried)
    assert runner.start(Tried()).result(timeout=PATIENCE) == "end"
    assert lines() == [("WARNING", "attempt 1 of pay failed (TerminalError: no money); no other attempt follows")]


def test_an_instance_that_has_failed_is_an_error(working: Open, lines: Lines) -> None:
    FAULTS.append(TerminalError("no money"))
    runner = working(Fails)
    runner.start(Fails())
    assert runner.wait_idle(PATIENCE)
    assert [level for level, _ in lines()] == ["WARNING", "ERROR"]
    FAULTS.append(TerminalError("no money"))
    runner.start(Fails())
    assert runner.wait_idle(PATIENCE)
    assert lines()[1] == ("ERROR", "has failed at pay (TerminalError: no money)")


def test_a_thread_that_stops_itself_is_told_also_by_a_sender(opened: Open, lines: Lines) -> None:
    opened(Asks).start(Asks())
    text = "the thread main is parked at never (ValueError: what is that?): it waits for a retry or a skip"
    assert lines() == [("WARNING", text)]


def test_a_lost_attempt_is_told(working: Open, opened: Open, clock: Clock, lines: Lines, url: str) -> None:
    dead = opened(Pay, store=url, clock=clock)
    pay = dead.start(Pay(), id="p-1")
    take_and_die(dead, pay.id)
    clock.advance(timedelta(seconds=limits.LEASE_SECONDS))
    runner = working(Pay, store=url, clock=clock)
    assert runner.wait_idle(PATIENCE)
    [(level, text)] = lines()
    assert level == "WARNING"
    assert text.startswith("attempt 1 of pay was lost (")
    assert text.endswith("; the next attempt begins at once")


def take_and_die(runner: Runner, id_: str) -> None:
    """Give the step's lease to a worker that never ends it."""
    definition: Any = runner.definitions["Pay"]
    stored = runner.store.get("Pay", id_)
    assert stored is not None
    loaded = Loaded(definition, stored)
    act, runs = decide(lambda: loaded.activate(runner.store.now()), (), lambda act: take(act, lambda: "token", room=1))
    assert len(runs) == 1
    runner.store.commit([write_of(act, stored.revision, history=True)])


def test_a_position_that_the_code_does_not_know_is_told_once(
    working: Open, opened: Open, clock: Clock, lines: Lines, url: str
) -> None:
    FAULTS.append(ConnectionError("no answer"))
    with opened(Pay, store=url, clock=clock) as old:
        old.start(Pay(), id="p-1")
        assert old.wait_idle(PATIENCE)
    lines()
    clock.advance(MINUTE)
    new = working(Renamed, store=url, clock=clock)
    assert new.wait_idle(PATIENCE)
    [(level, text)] = lines()
    assert (level, text.partition(":")[0]) == ("WARNING", "this code has no statement 'pay', at which the thread main stands")
    clock.advance(MINUTE)
    assert new.wait_idle(PATIENCE)
    assert lines() == []


def test_a_document_that_has_become_large_is_told_when_it_does(working: Open, lines: Lines) -> None:
    runner = working(Pay)
    pay = runner.start(Pay(note=""))
    assert runner.wait_idle(PATIENCE)
    large = "x" * (limits.BODY_BYTES - 100)
    pay.send(Pay.write, large[: limits.BODY_BYTES // 2])
    assert lines() == []
    pay.send(Pay.write, large)
    [(level, text)] = lines()
    assert level == "WARNING"
    assert text.startswith("its document has 256 KiB now: each save writes all of it, and more than 900 KiB are refused")
    pay.send(Pay.write, large)
    assert lines() == []
