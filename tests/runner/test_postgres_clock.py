"""The server's clock, told without asking it."""

import logging
import time

import pytest

from asyncflow import limits
from runner.stores.postgres_clock import ServerClock

SKEW = float(limits.CLOCK_SKEW_SECONDS)


def told(clock: ServerClock) -> float:
    """By how many seconds it is ahead of this host's clock."""
    return clock.now().timestamp() - time.time()


def note(clock: ServerClock, ahead: float, *, took: float = 0.001) -> None:
    """Let a server that is so far ahead of this host's clock have been asked just now."""
    answered = time.monotonic()
    clock.note(answered - took, answered, time.time() - took / 2 + ahead)


def test_it_is_the_servers_time(caplog: pytest.LogCaptureFixture) -> None:
    for ahead in (0.0, 100.0, -100.0):
        caplog.clear()
        clock = ServerClock("postgresql://host/db")
        stale = clock.stale
        note(clock, ahead)
        assert (stale, clock.stale) == (True, False)
        assert told(clock) == pytest.approx(ahead, abs=0.5)
        assert ("differs from that of this host" in caplog.text) == (abs(ahead) > SKEW)


def test_a_slow_answer_moves_nothing_that_it_does_not_know_better() -> None:
    clock = ServerClock("x")
    note(clock, 1.0, took=0.01)
    note(clock, 1.4, took=1.0)
    assert told(clock) == pytest.approx(1.0, abs=0.1)
    note(clock, 1.003, took=0.001)
    note(clock, 3.0, took=1.0)
    assert told(clock) == pytest.approx(3.0, abs=0.1)


def test_it_does_not_go_back_for_a_trifle() -> None:
    clock = ServerClock("x")
    note(clock, 2.0)
    before = clock.now()
    note(clock, 0.0)
    assert clock.now() == before
    note(clock, 2.5)
    assert clock.now() > before


def test_it_goes_back_when_the_server_was_set_back(caplog: pytest.LogCaptureFixture) -> None:
    clock = ServerClock("x")
    note(clock, 0.0)
    before = clock.now()
    with caplog.at_level(logging.WARNING):
        note(clock, -600.0)
    assert told(clock) == pytest.approx(-600.0, abs=0.5)
    assert clock.now() < before
    assert "has jumped by -600" in caplog.text
