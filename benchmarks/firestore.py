"""What an app behind a queue uses of Firestore: documents read and written, and tasks made, counted on an emulator."""

from __future__ import annotations

import os
import secrets
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final
from unittest.mock import patch

from runner import Runner
from runner.http.app import create_app
from tests.servers.cloudtasks import Queue, Server
from tests.servers.firestore import COLLECTION, HOW_TO_GET_IT, VARIABLE, emulator, find_jar
from tests.servers.firestore_meter import Cart, Cost, Meter, metered

EVENTS: Final = 20
"""So many are sent for a mean: each must cost the same, so a broken number shows something that comes now and then."""
STEPS: Final = 10


def is_there() -> bool:
    """Whether there is an emulator; says on stderr how to get one if not."""
    if VARIABLE in os.environ or (find_jar() is not None and shutil.which("java") is not None):
        return True
    print(f"skipped, as there is no Firestore emulator: {HOW_TO_GET_IT}", file=sys.stderr)
    return False


@dataclass
class Cloud:
    """An empty store on the emulator, and a queue that keeps what it is given."""

    store: str
    scheduler: str
    queue: Queue


@contextmanager
def cloud() -> Iterator[Cloud]:
    """A cloud of one's own, to which the environment points meanwhile."""
    server = Server()
    queue = server.new_queue()
    queue.pause()
    _, project, _, location, _, name = queue.path.split("/")
    store = f"firestore://demo-{secrets.token_hex(6)}/{COLLECTION}"
    try:
        with patch.dict(os.environ, {VARIABLE: emulator(), "CLOUD_TASKS_EMULATOR_HOST": server.host}):
            yield Cloud(store, f"cloudtasks://{project}/{location}/{name}", queue)
    finally:
        queue.close()
        server.close()


@dataclass
class Counted:
    """A Runner on a cloud, and what it uses."""

    runner: Runner
    queue: Queue
    meter: Meter
    client: Any

    def deliver(self) -> None:
        """Bring what is due, as the queue would."""
        now = self.queue.clock()
        due = [task for task in self.queue.waiting if task.at <= now]
        self.queue.empty()
        for task in due:
            answer = self.client.post("/tasks/wake", data=task.body, content_type="application/json")
            assert answer.status_code == 200, answer.text

    def use(self, event: str, times: int, value: Any = None) -> tuple[Cost, int]:
        """Send an event so often, each to its rest; give what it has cost, and how many tasks were made."""
        cart = self.runner.start(Cart())
        self.meter.cost, made = Cost(), len(self.queue.made)
        for _ in range(times):
            cart.send(event, value)
            self.deliver()
        return self.meter.cost, len(self.queue.made) - made


@contextmanager
def counted() -> Iterator[Counted]:
    """Count what is sent from now on."""
    with cloud() as there, metered() as meters:
        runner = Runner([Cart], store=there.store, scheduler=there.scheduler, base_url="http://localhost")
        try:
            client = create_app(runner, insecure=True).test_client()
            runner.start(Cart())  # the first call connects, and asks for the time
            yield Counted(runner, there.queue, meters[0], client)
        finally:
            runner.close()


def cost_figures() -> dict[str, float]:
    """Give reads and tasks of an event that waits for a day again, and writes of one with ten steps behind it, its own included."""
    if not is_there():
        return {}
    with counted() as site:
        waits, tasks = site.use("add", EVENTS)
        steps, _ = site.use("work", 1, STEPS)
    return {
        "firestore_reads_per_activation": waits.reads / EVENTS,
        "firestore_writes_per_10_steps": steps.writes,
        "firestore_tasks_per_wait": tasks / EVENTS,
    }
