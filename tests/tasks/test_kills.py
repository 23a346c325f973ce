"""A serving process is killed at every point, and told to end: the queue brings its tasks again, and nothing is lost."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from asyncflow import Status
from runner import Handle, Runner
from tests.servers.cloudtasks import PATIENCE_SECONDS, Queue, Server, post
from tests.tasks.conftest import scheduler_of
from tests.tasks.served import KEY, POINTS, Stand, Trip

ROOT = Path(__file__).parents[2]
Begin: TypeAlias = Callable[..., "Served"]


class Served:
    """One serving process; a store and a port outlive it."""

    def __init__(self, host: str, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.tasks.served", *arguments],
            cwd=ROOT,
            env={**os.environ, "CLOUD_TASKS_EMULATOR_HOST": host},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().partition(" ")[0]
        assert self.url, self.process.communicate(timeout=PATIENCE_SECONDS)[1]

    def end(self, number: int | None = None) -> tuple[int, str]:
        """Wait for its end, perhaps after a signal; give the exit code and what it has said."""
        if number is not None:
            self.process.send_signal(number)
        _, said = self.process.communicate(timeout=PATIENCE_SECONDS)
        return self.process.returncode, said


@pytest.fixture
def place(tmp_path: Path, queue: Queue) -> tuple[str, str, str]:
    """Store, port and scheduler of all processes of a test."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    return f"sqlite:///{tmp_path / 'store.db'}", port, scheduler_of(queue)


@pytest.fixture
def begin(place: tuple[str, str, str], cloud_tasks: Server) -> Iterator[Begin]:
    with ExitStack() as stack:

        def begun(*point: str) -> Served:
            served = Served(cloud_tasks.host, *place, *point)
            stack.callback(lambda: served.end(signal.SIGKILL) if served.process.poll() is None else None)
            return served

        yield begun


@pytest.fixture
def client(place: tuple[str, str, str]) -> Iterator[Runner]:
    """What starts instances; it runs no step, and the app it names is the served one."""
    store, port, scheduler = place
    runner = Runner([Trip, Stand], store=store, scheduler=scheduler, base_url=f"http://127.0.0.1:{port}")
    yield runner
    runner.close()


def end_of(handle: Handle[Any], url: str, *, sweeping: bool) -> Any:
    until = time.monotonic() + PATIENCE_SECONDS
    while handle.status is Status.Running and time.monotonic() < until:
        if sweeping:
            post(f"{url}/tasks/sweep", {}, b"")
        time.sleep(0.02)
    return handle.result(timeout=0)


@pytest.mark.parametrize("point", POINTS)
def test_nothing_is_lost_when_the_process_is_killed(point: str, begin: Begin, client: Runner, queue: Queue, tmp_path: Path) -> None:
    first = begin(point)
    ledger = tmp_path / "ledger"
    trip = client.start(Trip(ledger=str(ledger)), id="t")
    assert first.end()[0] == -signal.SIGKILL
    second = begin()
    # A wake-up that was never made, after a save that was: that is what the sweep is for.
    assert end_of(trip, second.url, sweeping=point == "before wake") == ["out", "there", "back"]
    queue.settle()
    noted = [line.split() for line in ledger.read_text("utf-8").splitlines()]
    assert [name for name, _, _ in dict.fromkeys((name, key, "") for name, key, _ in noted)] == ["out", "there", "back"]
    again = {name: count for name, count in Counter(name for name, _, _ in noted).items() if count > 1}
    assert again == ({"out": 2} if point in ("end action", "before finish") else {}), "only what was under way ran twice"
    attempts = [int(attempt) for name, _, attempt in noted if name == "out"]
    assert attempts[-1] == (2 if point in ("after take", "begin action", "end action", "before finish") else 1)
    assert second.end(signal.SIGTERM)[0] == 0


def test_a_process_that_is_told_to_end_lets_its_steps_end(begin: Begin, client: Runner, queue: Queue, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    served = begin()
    stand = client.start(Stand(pipe=str(pipe)), id="s")
    with pipe.open("w") as file:  # opens when the step has
        served.process.send_signal(signal.SIGTERM)
        until = time.monotonic() + PATIENCE_SECONDS
        while (
            status := post(f"{served.url}/tasks/wake", {"Content-Type": "application/json"}, b'{"workflow":"Stand","id":"s"}')
        ) == 200:
            assert time.monotonic() < until
        assert status == 503
        file.write("go on")
    code, said = served.end()
    assert (code, "Traceback" in said) == (0, False), said
    assert stand.threads == {"main": "after"}, "the step has ended, and the next one is left to others"
    served = begin()
    assert end_of(stand, served.url, sweeping=False) is None
    queue.settle()
    assert served.end(signal.SIGTERM)[0] == 0


def test_a_server_that_everybody_reaches_is_for_deliveries_alone(begin: Begin, place: tuple[str, str, str], queue: Queue) -> None:
    store, port, scheduler = place
    begin("nowhere", "0.0.0.0")
    url = f"http://127.0.0.1:{port}"
    runner = Runner([Trip, Stand], store=store, scheduler=scheduler, base_url=url, hmac_keys=[KEY])
    stand = runner.start(Stand(pipe=os.devnull), id="s")
    assert end_of(stand, url, sweeping=False) is None
    assert post(f"{url}/workflows/Stand", {"Content-Type": "application/json"}, b'{"pipe": ""}') == 403
    assert post(f"{url}/tasks/sweep", {}, b"") == 401
    runner.close()
