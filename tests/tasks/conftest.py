"""An app that a queue delivers to over real HTTP: one Runner, served by threads of the test process."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Protocol

import pytest
from werkzeug.serving import WSGIRequestHandler, make_server

from asyncflow import Workflow
from runner import Runner
from runner.http.app import create_app
from runner.stores.base import Outcomes, Saved, Write
from tests.http.asking import Asker
from tests.runner.clocks import Clock
from tests.runner.gates import Gate
from tests.servers.certificates import issuer
from tests.servers.cloudtasks import Queue, Server, cloud_tasks, post

__all__ = ["cloud_tasks", "issuer"]


@dataclass
class Counts:
    """What was asked of a store since `clear`."""

    reads: int = 0
    writes: int = 0
    tried: int = 0
    """Writes that lost."""

    def clear(self) -> None:
        self.reads = self.writes = self.tried = 0


@dataclass
class Site:
    """One served Runner."""

    runner: Runner
    url: str
    queue: Queue
    client: Asker
    """Asks the app without a server between."""
    counts: Counts = field(default_factory=Counts)

    def post(self, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None) -> int:
        """Make a request as the scheduler does; give its status."""
        return post(self.url + path, {"Content-Type": "application/json", **(headers or {})}, body)

    def sweep(self) -> Any:
        """Sweep once; give what it says."""
        return self.client.post("/tasks/sweep").json

    def wake(self, workflow: str, id: str) -> Any:
        """Bring one wake-up; give what it says."""
        return self.client.post("/tasks/wake", {"workflow": workflow, "id": id}).json

    def count(self) -> None:
        """Count what is asked of the store from now on."""
        store, get, commit, counts = self.runner.store, self.runner.store.get, self.runner.store.commit, self.counts

        def counted_get(workflow: str, id: str) -> Any:
            counts.reads += 1
            return get(workflow, id)

        def counted_commit(writes: list[Write]) -> Outcomes:
            outcomes = commit(writes)
            saved = sum(isinstance(one, Saved) for one in outcomes)
            counts.writes += saved
            counts.tried += len(outcomes) - saved
            return outcomes

        store.get, store.commit = counted_get, counted_commit  # type: ignore[method-assign, assignment]


class Open(Protocol):
    """Serves a Runner of some workflows until the test is over."""

    def __call__(self, *workflows: type[Workflow], store: str = ..., insecure: bool = ..., **arguments: Any) -> Site: ...


class Quiet(WSGIRequestHandler):
    def log(self, *arguments: object) -> None:
        """Nobody reads it."""


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def queue(cloud_tasks: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Queue]:
    monkeypatch.setenv("CLOUD_TASKS_EMULATOR_HOST", cloud_tasks.host)
    queue = cloud_tasks.new_queue()
    yield queue
    queue.close()


@pytest.fixture
def serving(queue: Queue) -> Iterator[Open]:
    with ExitStack() as stack:

        def begin(*workflows: type[Workflow], store: str = "memory://", insecure: bool = True, **arguments: Any) -> Site:
            apps: list[Any] = []

            def late(*request: Any) -> Any:
                """The app, which needs the address of its server first."""
                return apps[0](*request)

            server = make_server(
                "127.0.0.1", 0, late, threaded=True, request_handler=Quiet
            )  # fmt: skip
            url = f"http://127.0.0.1:{server.server_port}"
            given: dict[str, Any] = {"scheduler": scheduler_of(queue), "base_url": url, **arguments}
            runner = Runner(workflows, store=store, **given)
            stack.callback(runner.close)
            if "clock" in given:
                queue.clock = given["clock"].now
            app = create_app(runner, insecure=insecure)
            apps.append(app)
            thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
            thread.start()

            def end() -> None:
                runner.drain(0)
                server.shutdown()
                thread.join()
                server.server_close()

            stack.callback(end)
            return Site(runner, url, queue, Asker(app.test_client()))

        yield begin


def scheduler_of(queue: Queue) -> str:
    _, project, _, location, _, name = queue.path.split("/")
    return f"cloudtasks://{project}/{location}/{name}"


@pytest.fixture
def gate(request: pytest.FixtureRequest) -> Iterator[Gate]:
    """The gate of this test's module, `GATE`, which its actions stand at; open from the end of the test on."""
    gate = request.module.GATE = Gate()
    yield gate
    gate.open()
