"""The engine and the interpreter see the same, for the same results of actions and the same order of messages.

PROTOCOL 11: the committed trace is one of a plain recursive interpreter of the tree; evicting after every save and
crashing at every save change no committed trace but for repeated attempts.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, note, settings

from asyncflow import simulate
from asyncflow.testing import Simulate, every_crash
from tests.property.compare import Call, Observation, interpret, observe
from tests.property.programs import Program
from tests.property.show import show
from tests.property.strategies import Features, Move, programs, schedules

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*has plain steps"),  # they are asked for
    pytest.mark.timeout(900),  # seconds; a failing example is shrunk for up to five minutes
]
SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
PARKING = Features(parking=True)
STEADY = Features(failing=False)  # a lost attempt uses up a policy and moves the clock, which is allowed to be seen


def assert_same(calls: Sequence[Call], expected: list[Observation], seen: list[Observation]) -> None:
    for call, right, found in zip((None, *calls), expected, seen, strict=True):
        assert found == right, f"after {call}"


def check(program: Program, moves: list[Move], *, evict: bool, skip_backoff: bool = True) -> None:
    note(show(program))
    calls, expected = interpret(program, moves, skip_backoff=skip_backoff)
    note("\n".join(map(str, calls)))
    assert_same(calls, expected, observe(simulate, program, calls, evict=evict, skip_backoff=skip_backoff))


@settings(max_examples=220, suppress_health_check=SLOW)
@given(programs(PARKING), schedules())
def test_in_memory(program: Program, moves: list[Move]) -> None:
    check(program, moves, evict=False)


@settings(max_examples=180, suppress_health_check=SLOW)
@given(programs(PARKING), schedules())
def test_evicted_after_every_save(program: Program, moves: list[Move]) -> None:
    check(program, moves, evict=True)


@settings(max_examples=100, suppress_health_check=SLOW)
@given(programs(PARKING), schedules())
def test_with_backoffs_that_wait(program: Program, moves: list[Move]) -> None:
    check(program, moves, evict=False, skip_backoff=False)


def committed(seen: list[Observation]) -> list[Observation]:
    """What was saved: all but the attempts, which a crash may repeat."""
    return [(answer, replace(look, steps=())) for answer, look in seen]


@settings(max_examples=12, suppress_health_check=SLOW)
@given(programs(STEADY, size=16), schedules(least=2, most=5))
def test_crashed_at_every_save(program: Program, moves: list[Move]) -> None:
    note(show(program))
    calls, expected = interpret(program, moves)
    note("\n".join(map(str, calls)))

    def run(crashing: Simulate) -> Any:
        return committed(observe(crashing, program, calls))

    assert_same(calls, committed(expected), every_crash(run))
