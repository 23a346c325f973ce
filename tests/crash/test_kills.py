"""A real process, killed again and again while it works: nothing acknowledged is lost, nothing happens twice.

`make crash` does the same for as long as one likes; docs/crash-proof.md has the figures of a long run.
"""

from pathlib import Path

import pytest

from tests.crash import ledger as ledgers
from tests.crash.audit import audit
from tests.crash.life import POINTS
from tests.crash.siege import Figures, Lives, besiege, besiege_two, end, stop_beyond_the_lease, terminate_under_load

RESTART_SECONDS = 2.0
"""Within this time after a restart what a kill has cut off goes on."""

pytestmark = pytest.mark.slow


def check(figures: Figures) -> None:
    account = figures.account
    assert account.faults == []
    assert account.instances
    assert account.events
    assert account.steps


def check_waits(waits: list[float]) -> None:
    """All but a few, for the machine may be busy with other things; and none waits for a lease."""
    assert waits
    assert sorted(waits)[len(waits) * 95 // 100] <= RESTART_SECONDS, sorted(waits)
    assert max(waits) <= 10 * RESTART_SECONDS


@pytest.mark.parametrize("seed", [1, 2])
def test_kills_lose_nothing_and_repeat_nothing(seed: int, tmp_path: Path) -> None:
    figures = besiege(tmp_path, seed, kills=20)
    check(figures)
    assert figures.kills == 20
    check_waits(figures.account.waits)


def test_kills_of_one_of_two_processes_lose_nothing_and_repeat_nothing(tmp_path: Path) -> None:
    figures = besiege_two(tmp_path, seed=3, kills=20)
    check(figures)
    assert figures.kills == 20


def test_a_process_may_die_at_each_point(tmp_path: Path) -> None:
    with Lives(tmp_path) as lives:
        for point in POINTS:
            running = lives.begin(dies_at=(point, 3))
            assert running.wait_end() == -9, point
            running.kill()
        end(lives)
    account = audit(tmp_path)
    assert account.faults == []
    assert account.repeated


def test_a_process_that_stood_still_beyond_its_leases_changes_nothing_any_more(tmp_path: Path) -> None:
    figures = stop_beyond_the_lease(tmp_path, seed=4, stops=3)
    check(figures)
    assert figures.account.repeated


def test_sigterm_under_load_burns_no_attempt(tmp_path: Path) -> None:
    drain_seconds = 0.5
    figures, longest = terminate_under_load(tmp_path, seed=5, times=4, drain_seconds=drain_seconds)
    check(figures)
    assert figures.account.repeated, "nothing was given back"
    assert {line.attempt for line in ledgers.read(tmp_path / "ledger") if line.what == "run"} == {1}
    assert longest <= drain_seconds + 5  # the process itself has to end too, on a busy machine
