"""The scheduler on Google Cloud Tasks: a wake-up is a task without a name, whose body is the key (rule 21).

Its libraries are imported by the first wake-up: a command that wakes nobody starts without them. `CLOUD_TASKS_EMULATOR_HOST`
names a server that speaks the same gRPC API without TLS and credentials.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, Final
from zlib import crc32

from pydantic_core import to_json

from asyncflow import limits
from runner.deliveries import Signatures
from runner.forks import renew_after_fork
from runner.schedulers.base import WAKE_PATH, Scheduler, Terms
from runner.stores.base import Key

LOG: Final = logging.getLogger("asyncflow")

EMULATOR: Final = "CLOUD_TASKS_EMULATOR_HOST"
HORIZON: Final = timedelta(days=30) - timedelta(hours=1)
"""How far ahead a task may be scheduled: the service takes 30 days, by its own clock. What lies beyond is the sweeper's."""
CREATE_SECONDS: Final = 3.0
"""How long making a task may take in all: a sender waits for it, and his event is saved already."""
RETRY_SECONDS: Final = 0.1
"""Before a task is tried again that a queue was too busy for; doubled each time. Unnamed tasks may be made twice."""
REST_SECONDS: Final = 5.0
"""How long a queue that has refused is not asked again: while it is away, only the first of many senders waits for it."""


class CloudTasks(Scheduler):
    """Wake-ups over one queue, or several of one project and location by the hash of the key.

    Args:
        project: Its id.
        location: As `europe-west1`.
        queues: Their names.
        terms: Where the app is, and how its deliveries are proved.
        now: The store's clock: what `wake` is told is said by it.
        rest_seconds: How long a queue that has refused is not asked again.
    """

    delivers: ClassVar[bool] = True

    def __init__(
        self,
        project: str,
        location: str,
        queues: tuple[str, ...],
        terms: Terms,
        *,
        now: Callable[[], datetime],
        rest_seconds: float = REST_SECONDS,
    ) -> None:
        self._queues = [f"projects/{project}/locations/{location}/queues/{queue}" for queue in queues]
        self._terms = terms
        self._signatures = Signatures(terms.hmac_keys) if terms.hmac_keys else None
        self._now = now
        self._rest_seconds = rest_seconds
        self.refused = 0
        """How many wake-ups were refused, and left to the sweeper."""
        self.begin_anew()
        renew_after_fork(self)

    def begin_anew(self) -> None:
        """Forget the connection of another process, the parent: a channel does not survive a fork."""
        self._lock = threading.Lock()
        self._client: Any = None
        self._resting: dict[str, float] = {}
        """Until when a queue is not asked, by the monotonic clock."""

    def wake(self, key: Key, at: datetime) -> bool:
        """See `Scheduler.wake`."""
        queue = self._queues[crc32(f"{key.workflow}/{key.id}".encode()) % len(self._queues)]
        ahead = at - self._now()
        if ahead > HORIZON:
            return False
        if time.monotonic() < self._resting.get(queue, 0.0):
            self.refused += 1
            return False
        try:
            self._create(queue, key, at if ahead > timedelta(0) else None)
        except Exception as error:  # noqa: BLE001 - whatever the library raises: a wake-up never fails a write (rule 7)
            self.refused += 1
            self._resting[queue] = time.monotonic() + self._rest_seconds
            LOG.warning("%s/%s: no wake-up, %s refuses; what is not woken is left to /tasks/sweep: %s", *key, queue, error)
            return False
        return True

    def faults(self) -> list[str]:
        """See `Scheduler.faults`. Looks at each queue."""
        return [fault for queue in self._queues if (fault := self._fault_of(queue)) is not None]

    def _fault_of(self, queue: str) -> str | None:
        from google.api_core import exceptions  # noqa: PLC0415 - dear to import
        from google.cloud import tasks_v2  # noqa: PLC0415 - as above

        try:
            found = self._connected().get_queue(name=queue, timeout=CREATE_SECONDS)
        except exceptions.NotFound:
            return f"there is no {queue}: make it (gcloud tasks queues create), wait if it was deleted within 3 days"
        except Exception as error:  # noqa: BLE001 - whatever the library raises: it says why
            return f"{queue} cannot be looked at: {error}"
        if found.state != tasks_v2.Queue.State.RUNNING:
            return f"{queue} is {found.state.name.lower()}: resume it (gcloud tasks queues resume)"
        return None

    def close(self) -> None:
        """See `Scheduler.close`."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.transport.close()

    def _create(self, queue: str, key: Key, at: datetime | None) -> None:
        from google.api_core import exceptions, retry  # noqa: PLC0415 - dear to import
        from google.cloud import tasks_v2  # noqa: PLC0415 - as above

        body = to_json({"workflow": key.workflow, "id": key.id})
        headers = {"Content-Type": "application/json"}
        if self._signatures is not None:
            headers |= self._signatures.sign("wake", body, (at or datetime.now(UTC)).timestamp())
        request = tasks_v2.HttpRequest(
            url=f"{self._terms.base_url}{WAKE_PATH}", http_method=tasks_v2.HttpMethod.POST, headers=headers, body=body
        )
        if self._terms.service_account is not None:
            request.oidc_token = tasks_v2.OidcToken(
                service_account_email=self._terms.service_account, audience=self._terms.expected_audience
            )
        task = tasks_v2.Task(http_request=request, dispatch_deadline=timedelta(seconds=limits.DISPATCH_SECONDS))
        if at is not None:
            task.schedule_time = at
        busy = retry.if_exception_type(exceptions.ServiceUnavailable, exceptions.ResourceExhausted)
        self._connected().create_task(
            parent=queue,
            task=task,
            retry=retry.Retry(predicate=busy, initial=RETRY_SECONDS, multiplier=2.0, timeout=CREATE_SECONDS),
            timeout=CREATE_SECONDS,
        )

    def _connected(self) -> Any:
        with self._lock:
            if self._client is None:
                self._client = _connect(os.environ.get(EMULATOR))
            return self._client


def _connect(emulator: str | None) -> Any:
    import grpc  # noqa: PLC0415 - dear to import
    from google.cloud import tasks_v2  # noqa: PLC0415 - as above
    from google.cloud.tasks_v2.services.cloud_tasks.transports import CloudTasksGrpcTransport  # noqa: PLC0415 - as above

    if not emulator:
        return tasks_v2.CloudTasksClient()
    return tasks_v2.CloudTasksClient(transport=CloudTasksGrpcTransport(channel=grpc.insecure_channel(emulator)))
