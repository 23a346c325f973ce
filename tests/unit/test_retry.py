"""`Retry`: which delays it gives, which values it takes (docs/statuses.md)."""

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from asyncflow import Retry
from asyncflow.retry import DEFAULT_RETRY

SECONDS = st.integers(0, 100_000).map(lambda n: timedelta(seconds=n))


def seconds(policy: Retry, *attempts: int, random: float = 0.5) -> list[float]:
    return [policy.delay_after(attempt, random).total_seconds() for attempt in attempts]


def test_the_default_doubles_from_a_second_to_a_quarter_of_an_hour() -> None:
    assert seconds(DEFAULT_RETRY, 1, 2, 3, 10, 11, 19) == [1, 2, 4, 512, 900, 900]
    three_hours = sum(seconds(DEFAULT_RETRY, *range(1, 20)))
    assert 2.5 < three_hours / 3600 < 3.5


def test_jitter_is_a_share_of_the_delay_to_both_sides() -> None:
    assert seconds(DEFAULT_RETRY, 3, random=0) == [pytest.approx(3.2)]
    assert seconds(DEFAULT_RETRY, 3, random=0.9999999) == [pytest.approx(4.8)]


def test_the_cap_is_for_the_growth_and_never_for_the_delay_itself() -> None:
    assert seconds(Retry(delay=timedelta(hours=1), max_delay=timedelta(minutes=1)), 1, 5) == [3600, 3600]


def test_a_delay_of_nothing_stays_nothing() -> None:
    assert seconds(Retry(delay=timedelta(0)), 1, 50) == [0, 0]


@given(SECONDS, SECONDS, st.floats(1, 10), st.integers(1, 40), st.floats(0, 1, exclude_max=True))
def test_every_delay_is_what_the_formula_says(
    delay: timedelta, most: timedelta, factor: float, attempt: int, random: float
) -> None:
    policy = Retry(delay=delay, max_delay=most, factor=factor, max_attempts=None)
    plain = max(delay.total_seconds(), min(most.total_seconds(), delay.total_seconds() * factor ** (attempt - 1)))
    assert seconds(policy, attempt, random=random) == [pytest.approx(plain * (1 + 0.2 * (2 * random - 1)), abs=1e-5)]


def test_an_endless_policy_does_not_overflow() -> None:
    endless = Retry(max_attempts=None, factor=1e300)
    assert seconds(endless, 10**9) == [900]


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_attempts": 0},
        {"delay": timedelta(seconds=-1)},
        {"delay": timedelta(days=10_000)},
        {"factor": 0.5},
        {"factor": float("nan")},
        {"jitter": 1.0},
        {"jitter": -0.1},
        {"on": int},
        {"on": BaseException},
        {"exhausted": "shrug"},
        {"attempts": 3},
    ],
)
def test_a_value_out_of_range_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Retry(**wrong)


def test_the_exceptions_are_always_a_tuple() -> None:
    assert Retry(on=KeyError).on_types == (KeyError,)
    assert Retry(on=(KeyError, OSError)).on_types == (KeyError, OSError)
