"""Two processes on one file: how soon one does what the other has made due, and what an idle one costs."""

import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from asyncflow.errors import Pending
from runner import Handle
from tests.runner.conftest import Open
from tests.runner.elsewhere import Beside, Desk, Later, Stamp
from tests.runner.gates import PATIENCE

ROOT = Path(__file__).parents[2]


class Elsewhere:
    """The other process."""

    def __init__(self, url: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.runner.elsewhere", url],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.hear() == ["ready"]

    def tell(self, command: str) -> None:
        assert self._process.stdin is not None
        print(command, file=self._process.stdin, flush=True)

    def hear(self) -> list[str]:
        """Give the words of its next line."""
        assert self._process.stdout is not None
        return self._process.stdout.readline().split()

    def heard_to_begin(self, what: str) -> float:
        """Wait until it begins *what*; give when that was."""
        said, name, at = self.hear()
        assert (said, name) == ("began", what)
        return float(at)

    def seconds_used(self) -> float:
        self.tell("cpu")
        said, seconds = self.hear()
        assert said == "cpu"
        return float(seconds)

    def end(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture
def elsewhere(url: str) -> Iterator[Elsewhere]:
    other = Elsewhere(url)
    yield other
    other.end()


@pytest.mark.slow
def test_what_another_process_makes_due_begins_within_a_second(elsewhere: Elsewhere, opened: Open, url: str) -> None:
    runner = opened(Stamp, store=url)
    late: list[float] = []
    for number in range(50):
        handle = runner.start(Stamp(), id=f"s-{number}")
        due = time.monotonic()
        late.append(elsewhere.heard_to_begin(handle.id) - due)
    assert max(late) <= 1.0, sorted(late)  # of 50 the 99th percentile is the last


def test_a_timer_that_another_process_has_set_fires_in_its_time(elsewhere: Elsewhere, opened: Open, url: str) -> None:
    runner = opened(Later, store=url)
    handle = runner.start(Later())
    due = time.monotonic() + 0.3
    assert -0.05 <= elsewhere.heard_to_begin(handle.id) - due <= 1.0


@pytest.mark.slow
def test_an_idle_process_costs_next_to_nothing(elsewhere: Elsewhere, opened: Open, url: str) -> None:
    opened(Stamp, store=url).start(Stamp(), id="s")
    elsewhere.heard_to_begin("s")
    seconds = 4.0
    before = elsewhere.seconds_used()
    time.sleep(seconds)  # the one thing measured here is what happens while nothing happens
    assert elsewhere.seconds_used() - before <= 0.005 * seconds


def test_an_event_for_an_instance_at_work_elsewhere_is_answered(elsewhere: Elsewhere, opened: Open, url: str) -> None:
    runner = opened(Desk, store=url)
    handle = runner.start(Desk(), id="d-1")
    elsewhere.heard_to_begin("d-1")
    with pytest.raises(Pending) as pending:
        handle.send(Desk.note, "a", timeout=0)
    with ThreadPoolExecutor(1) as pool:
        second = pool.submit(lambda: handle.send(Desk.note, "b", timeout=PATIENCE))
        wait_until_laid_down(handle, 2)
        elsewhere.tell("open")
        assert second.result(PATIENCE) == 2
    key = pending.value.idempotency_key
    assert handle.send(Desk.note, "a", idempotency_key=key) == 1
    assert handle.result(PATIENCE) == ["a", "b"]


def test_a_step_begins_beside_one_that_runs_on_elsewhere(elsewhere: Elsewhere, opened: Open, url: str) -> None:
    """The instance is at work there, on a long step: what an event makes due begins all the same."""
    handle = opened(Beside, store=url).start(Beside())
    elsewhere.heard_to_begin("long")
    handle.send(Beside.go)
    due = time.monotonic()
    assert elsewhere.heard_to_begin("short") - due <= 1.0
    elsewhere.tell("open")
    assert handle.result(PATIENCE) == 1


def wait_until_laid_down(handle: Handle[Desk], count: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while len(handle._loaded().instance().inbox) < count:
        assert time.monotonic() < deadline
