"""A serving process on Firestore is killed at every point: nothing is lost, as on SQLite.

What is other than there: nobody can see that a process is dead, so what it had begun goes on when its lease has lapsed:
the process that comes after it lives six minutes later, and so does the queue.
"""

import multiprocessing
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import timedelta
from itertools import count
from multiprocessing.context import ForkServerContext
from typing import Any, Final

import pytest

from tests.e2e.served import live
from tests.servers.cloudtasks import PATIENCE_SECONDS, Queue, Server, wall_clock
from tests.servers.firestore import SERVER, VARIABLE, firestore_url
from tests.tasks.conftest import cloud_tasks, issuer, queue, scheduler_of
from tests.tasks.test_kills import Begin, Served, client, test_nothing_is_lost_when_the_process_is_killed

__all__ = ["client", "cloud_tasks", "firestore_url", "issuer", "queue", "test_nothing_is_lost_when_the_process_is_killed"]

pytestmark = [SERVER, pytest.mark.slow]

SIX_MINUTES: Final = timedelta(minutes=6)
"""Longer than a lease."""


class ServedAhead(Served):
    """One serving process under a clock that is ahead."""

    def __init__(self, forks: ForkServerContext, *arguments: Any) -> None:
        here, there = forks.Pipe(duplex=False)
        process = forks.Process(target=live, args=(there, *arguments), daemon=True)
        process.start()
        there.close()
        self.forked = process
        with here, os.fdopen(os.dup(here.fileno()), encoding="utf-8") as output:
            self.url = output.readline().partition(" ")[0]
        assert self.url

    def end(self, number: int | None = None) -> tuple[int, str]:
        if number is not None:
            assert self.forked.pid is not None
            os.kill(self.forked.pid, number)
        self.forked.join(PATIENCE_SECONDS)
        assert self.forked.exitcode is not None, "it does not end"
        return self.forked.exitcode, ""


@pytest.fixture(scope="module")
def forks() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.e2e.served"])
    return context


@pytest.fixture
def place(firestore_url: str, queue: Queue) -> tuple[str, str, str]:
    """Store, port and scheduler of all processes of a test."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    return firestore_url, port, scheduler_of(queue)


@pytest.fixture
def begin(place: tuple[str, str, str], cloud_tasks: Server, queue: Queue, forks: ForkServerContext) -> Iterator[Begin]:
    lives = count()
    environment = {"CLOUD_TASKS_EMULATOR_HOST": cloud_tasks.host, VARIABLE: os.environ[VARIABLE]}
    with ExitStack() as stack:

        def begun(*point: str) -> Served:
            ahead = next(lives) * SIX_MINUTES
            queue.clock = lambda: wall_clock() + ahead
            served = ServedAhead(forks, environment, ahead, *place, *point)
            stack.callback(lambda: served.end(signal.SIGKILL) if served.forked.is_alive() else None)
            return served

        yield begun
