"""A Cloud Tasks server of the tests' own: gRPC in front, deliveries over real HTTP behind, and all that can go wrong between.

It runs in threads of the test process and listens on loopback. A test has queues of its own, with a clock that may stand
still: nothing is delivered before its time by that clock. `CreateTask` is answered as the service would, its limits included.
"""

import http.client
import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, Final, TypeAlias
from urllib.parse import urlsplit

import grpc
import pytest
from google.cloud import tasks_v2

SERVICE: Final = "google.cloud.tasks.v2.CloudTasks"
PARENT: Final = "projects/demo/locations/here/queues"
DELIVERIES_AT_ONCE: Final = 16
PATIENCE_SECONDS: Final = 30.0
"""Until a test gives up: only a hang meets it, however busy the machine is."""
TASK_BYTES_MAX: Final = 100 * 1024
AHEAD_MAX: Final = timedelta(days=30)
DEADLINES: Final = (timedelta(seconds=15), timedelta(minutes=30))

Bearer: TypeAlias = Callable[[str, str], str]
"""Makes an OIDC token for an e-mail address and an audience."""


def wall_clock() -> datetime:
    return datetime.now(UTC)


@dataclass
class Task:
    """One task as it was made, and how its deliveries went."""

    n: int
    url: str
    headers: dict[str, str]
    body: bytes
    at: datetime
    deadline: float
    made: tasks_v2.Task
    answers: list[int] = field(default_factory=list)
    """The status of each delivery; 0 where there was none."""

    @property
    def key(self) -> str:
        """Whom it wakes, as `Workflow/id`."""
        said = json.loads(self.body)
        assert said.keys() == {"workflow", "id"}, "a wake-up carries a key and nothing else (rule 21)"
        return f"{said['workflow']}/{said['id']}"


class Queue:
    """One queue. Tasks are delivered in the background, unless it is paused."""

    def __init__(self, name: str, bearer: Bearer | None) -> None:
        self.path = f"{PARENT}/{name}"
        self.clock: Callable[[], datetime] = wall_clock
        self.made: list[Task] = []
        """Every task that was accepted."""
        self.refuses: grpc.StatusCode | None = None
        """With what `CreateTask` fails; the service says NOT_FOUND of a queue that was deleted."""
        self.twice = False
        """Every task is delivered a second time, whatever came of the first."""
        self.dice: Random | None = None
        """Due tasks are delivered in random order, and each with a random delay of up to *late*."""
        self.late = timedelta(0)
        self.loses: Callable[[Task], bool] = lambda _: False
        """Which tasks are accepted, and never delivered."""
        self.attempts_max = 100
        self._bearer = bearer
        self._changed = threading.Condition()
        self._waiting: list[Task] = []
        self._flying = 0
        self._paused = False
        self._closed = False
        self._pool = ThreadPoolExecutor(DELIVERIES_AT_ONCE, thread_name_prefix="queue-delivery")
        self._thread = threading.Thread(target=self._dispatch, name="queue", daemon=True)
        self._thread.start()

    # -- what tests do with it -----------------------------------------------------------------------------------------

    def pause(self) -> None:
        with self._changed:
            self._paused = True

    def resume(self) -> None:
        with self._changed:
            self._paused = False
            self._changed.notify_all()

    def look(self) -> None:
        """The clock was moved."""
        with self._changed:
            self._changed.notify_all()

    def settle(self) -> None:
        """Wait until nothing is being delivered, and nothing is due by the clock."""
        with self._changed:
            self._changed.notify_all()
            rested = self._changed.wait_for(lambda: not self._flying and not self._due(), PATIENCE_SECONDS)
        assert rested, f"{self._flying} deliveries do not end; {len(self._waiting)} tasks wait"

    def empty(self) -> None:
        """Throw away what waits."""
        with self._changed:
            self._waiting.clear()

    @property
    def waiting(self) -> list[Task]:
        """What has not been delivered yet, the first due first."""
        with self._changed:
            return sorted(self._waiting, key=lambda task: task.at)

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()
        self._pool.shutdown()

    # -- the service ---------------------------------------------------------------------------------------------------

    def create(self, task: tasks_v2.Task, context: grpc.ServicerContext) -> tasks_v2.Task:
        if self.refuses is not None:
            context.abort(self.refuses, "the queue refuses, as the test wants it")
        if fault := _fault_of(task):
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, fault)
        now = wall_clock()
        request = task.http_request
        headers = dict(request.headers)
        if request.oidc_token.service_account_email:
            assert self._bearer is not None, "this server makes no tokens"
            token = self._bearer(request.oidc_token.service_account_email, request.oidc_token.audience or request.url)
            headers["Authorization"] = f"Bearer {token}"
        at = task.schedule_time or self.clock()
        if task.schedule_time and task.schedule_time - min(now, self.clock()) > AHEAD_MAX:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "scheduleTime is more than 30 days ahead")
        with self._changed:
            taken = Task(
                len(self.made), request.url, headers, request.body, at, task.dispatch_deadline.total_seconds(), task,
            )  # fmt: skip
            self.made.append(taken)
            if not self.loses(taken):
                self._put(taken)
                if self.twice:
                    self._put(taken)
            self._changed.notify_all()
        return tasks_v2.Task(mapping=task, name=f"{self.path}/tasks/{taken.n}")

    def _put(self, task: Task) -> None:
        if self.dice is not None and self.late:
            task.at += self.late * self.dice.random()
        self._waiting.append(task)

    # -- delivering ----------------------------------------------------------------------------------------------------

    def _due(self) -> list[Task]:
        now = self.clock()
        return [task for task in self._waiting if task.at <= now] if not self._paused else []

    def _dispatch(self) -> None:
        while True:
            with self._changed:
                if self._closed:
                    return
                due = sorted(self._due(), key=lambda task: task.at)
                if not due:
                    self._changed.wait(0.02)  # a clock may stand still, or run: it tells nobody
                    continue
                task = due[0] if self.dice is None else self.dice.choice(due)
                self._waiting.remove(task)
                self._flying += 1
            self._pool.submit(self._deliver, task)

    def _deliver(self, task: Task) -> None:
        status = post(task.url, task.headers | {"X-CloudTasks-QueueName": self.path}, task.body, task.deadline)
        with self._changed:
            task.answers.append(status)
            self._flying -= 1
            if not 200 <= status < 300 and len(task.answers) < self.attempts_max and not self._closed:
                task.at = self.clock() + timedelta(seconds=min(0.05 * 2 ** len(task.answers), 1.0))
                self._waiting.append(task)
            self._changed.notify_all()


def post(url: str, headers: dict[str, str], body: bytes, seconds: float = PATIENCE_SECONDS) -> int:
    """Make one request; give its status, 0 where none came."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=seconds)
    try:
        connection.request("POST", parts.path, body, headers)
        answer = connection.getresponse()
        answer.read()
    except (OSError, http.client.HTTPException):
        return 0
    else:
        return answer.status
    finally:
        connection.close()


def _fault_of(task: tasks_v2.Task) -> str | None:
    """What the service would not take."""
    parts = urlsplit(task.http_request.url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return "httpRequest.url is no absolute address"
    if not DEADLINES[0] <= task.dispatch_deadline <= DEADLINES[1]:
        return "dispatchDeadline is not between 15 s and 30 min"
    if tasks_v2.Task.pb(task).ByteSize() > TASK_BYTES_MAX:
        return "the task is too large"
    return None


class Server:
    """The gRPC side: answers for all queues that tests have made."""

    def __init__(self) -> None:
        self._queues: dict[str, Queue] = {}
        self._made = 0
        handlers = {
            "CreateTask": _unary(self._create, tasks_v2.CreateTaskRequest, tasks_v2.Task),
            "GetQueue": _unary(self._get_queue, tasks_v2.GetQueueRequest, tasks_v2.Queue),
        }
        self._server = grpc.server(ThreadPoolExecutor(16, thread_name_prefix="cloudtasks"))
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
        self.host = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def new_queue(self, bearer: Bearer | None = None) -> Queue:
        """Make an empty queue under a name that nobody has used."""
        self._made += 1
        queue = Queue(f"q{self._made}", bearer)
        self._queues[queue.path] = queue
        return queue

    def close(self) -> None:
        self._server.stop(None).wait()

    def _create(self, request: tasks_v2.CreateTaskRequest, context: grpc.ServicerContext) -> tasks_v2.Task:
        if request.task.name:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "tasks are never named here (rule 21)")
        return self._find(request.parent, context).create(request.task, context)

    def _get_queue(self, request: tasks_v2.GetQueueRequest, context: grpc.ServicerContext) -> tasks_v2.Queue:
        queue = self._find(request.name, context)
        return tasks_v2.Queue(name=queue.path, state=tasks_v2.Queue.State.RUNNING)

    def _find(self, path: str, context: grpc.ServicerContext) -> Queue:
        queue = self._queues.get(path)
        if queue is None:
            context.abort(grpc.StatusCode.NOT_FOUND, f"there is no queue {path}")
        return queue


def _unary(method: Callable[..., Any], request: Any, response: Any) -> "grpc.RpcMethodHandler[Any, Any]":
    return grpc.unary_unary_rpc_method_handler(
        method, request_deserializer=request.deserialize, response_serializer=response.serialize
    )


@pytest.fixture(scope="session")
def cloud_tasks() -> Iterator[Server]:
    """The server of this test process."""
    server = Server()
    yield server
    server.close()
