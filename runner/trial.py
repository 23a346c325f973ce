"""What one instance costs: run on a store in memory, under a clock that is moved, with a queue that counts.

Reads, writes and tasks are those of the very loop that runs in production with a scheduler that delivers
(`runner.work.request_seat`), so they are what Firestore and Cloud Tasks would be asked for when nothing goes wrong (the table in
section 8 of the protocol).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from heapq import heappop, heappush
from typing import Any, ClassVar, Final

from pydantic import ValidationError

from asyncflow import Workflow
from asyncflow.errors import Malformed, Pending
from asyncflow.handlers import read_json, type_of_result
from asyncflow.leases import Run, finished
from asyncflow.requests import outcome_of
from runner.durations import show_duration
from runner.runner import Runner
from runner.schedulers.base import Scheduler
from runner.starting import start_from
from runner.stores.base import Key, Outcomes, Saved, Store, Write
from runner.work.deliver import Delivery
from runner.work.request_worker import RequestWorker

BEGIN: Final = datetime(2024, 1, 1, tzinfo=UTC)
"""Where the clock stands at first: a fixed day, so that the same run costs the same."""
BETWEEN: Final = timedelta(minutes=1)
"""How much later each event comes: a deadline that it sets is a new one, and no task comes a little too early for it."""
ATTEMPTS_MAX: Final = 1_000
"""How many attempts one trial begins: a loop around steps that change nothing would never end."""
WAITS_MAX: Final = 100
"""How many timers come by themselves before a trial is given up: a reminder may come for ever."""


@dataclass(slots=True)
class Cost:
    """What was asked for.

    Args:
        reads: Documents read.
        writes: Documents written.
        history: How many of these writes had entries of history; where it is kept, each is one write more.
        tasks: Tasks made.
        attempts: How many attempts of steps were begun.
    """

    reads: int = 0
    writes: int = 0
    history: int = 0
    tasks: int = 0
    attempts: int = 0

    def __sub__(self, other: Cost) -> Cost:
        return Cost(
            self.reads - other.reads, self.writes - other.writes, self.history - other.history, self.tasks - other.tasks,
            self.attempts - other.attempts,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Row:
    """What one thing that happened has cost, with everything that followed at once."""

    what: str
    cost: Cost


@dataclass(slots=True)
class _Clock:
    instant: datetime = BEGIN

    def now(self) -> datetime:
        return self.instant


class _Counting(Scheduler):
    """A queue that takes everything; a trial delivers by itself."""

    delivers: ClassVar[bool] = True

    def __init__(self, cost: Cost) -> None:
        self._cost = cost
        self.tasks: list[tuple[datetime, int, Key]] = []

    def wake(self, key: Key, at: datetime) -> bool:
        """See `Scheduler.wake`."""
        self._cost.tasks += 1
        heappush(self.tasks, (at, self._cost.tasks, key))
        return True

    def close(self) -> None:
        """See `Scheduler.close`."""


@dataclass
class _Stubs:
    """Ends attempts at once with given results, without running their actions; stands for `runner.work.actions.Actions`."""

    worker: RequestWorker
    cost: Cost
    results: Mapping[str, bytes]
    used: set[str] = field(default_factory=set)
    healthy: ClassVar[bool] = True

    def begin(self, runs: Sequence[Run]) -> None:
        self.cost.attempts += len(runs)
        if self.cost.attempts > ATTEMPTS_MAX:
            raise Malformed(
                f"more than {ATTEMPTS_MAX} attempts: steps that are not run change nothing, so a loop around them may never end"
            )
        for run in runs:
            self.worker.ended(run.token, finished(run, self._result_of(run), at=self.worker.store.now()))
        self.worker.settled()

    def _result_of(self, run: Run) -> Any:
        name = run.name if run.name in self.results else run.path
        given = self.results.get(name)
        if given is not None:
            self.used.add(name)
        if run.alone:
            return None
        adapter = type_of_result(run.body.definition.cls, run.place.statement)
        try:
            return read_json(adapter, b"null" if given is None else given)
        except ValidationError as error:
            why = error.errors(include_url=False)[0]["msg"]
            raise Malformed(f"the step {run.path!r} needs a result, and {_shown(given)} cannot be one: {why}") from error

    def cancelled(self, token: str) -> Any:  # noqa: ARG002 - nothing runs
        return lambda: False

    def stop(self, *, cancelled: Collection[str] = (), gone: Collection[str] = ()) -> None:
        """Nothing runs."""

    def stop_all(self) -> int:
        return 0

    def close(self) -> None:
        """Nothing runs."""


def _shown(given: bytes | None) -> str:
    return "null" if given is None else given.decode()


class Trial:
    """One instance, from its start on. Close it in the end.

    Args:
        workflow: Its class.
        results: Of steps with `then=` or `into=`, as JSON text by name or path; the actions themselves are not run, and a
            plain step changes nothing.

    Raises:
        DefinitionError: the workflow has problems.
        Malformed: a step of it cannot be run within a request.
    """

    def __init__(self, workflow: type[Workflow], *, results: Mapping[str, bytes] | None = None) -> None:
        self._clock = _Clock()
        self._runner = Runner(
            [workflow], store="memory://", clock=self._clock, history=True,
            scheduler="cloudtasks://trial/here/queue", base_url="http://localhost",
        )  # fmt: skip
        worker = self._runner.requests
        assert worker is not None
        self._cost = Cost()
        self._worker = worker
        self._queue = _Counting(self._cost)
        self._runner.scheduler, worker.wake = self._queue, self._queue.wake
        self._stubs = _Stubs(worker, self._cost, results or {})
        worker.actions = self._stubs  # type: ignore[assignment]
        _count(self._runner.store, self._cost)
        [self._definition] = self._runner.definitions.values()
        self._key = Key(self._definition.name, "trial")
        self.rows: list[Row] = []

    @property
    def _delivery(self) -> Delivery:
        return self._runner.delivery

    @property
    def total(self) -> Cost:
        """What everything has cost so far."""
        return replace(self._cost)

    @property
    def to_come(self) -> int:
        """How many tasks have not been delivered yet: each costs a read at least when it comes, a stale one too."""
        return len(self._queue.tasks)

    @property
    def unused(self) -> set[str]:
        """Results of steps that were not come to."""
        return set(self._stubs.results) - self._stubs.used

    @property
    def status(self) -> str:
        """Of the instance, as it was saved last; costs nothing."""
        [item] = self._runner.store.list([self._key.workflow]).items
        return item.status

    def start(self, body: bytes | None) -> None:
        """Start it from JSON text, as over HTTP, and let come what comes at once.

        Raises: as `runner.starting.start_from`.
        """
        before = self.total
        start_from(self._delivery, self._definition, body, id=self._key.id)
        self._row("start", before)

    def send(self, event: str, body: bytes | None, *, thread: str | None = None) -> None:
        """Send an event a minute later, and let come what follows at once.

        Raises:
            AsyncflowError: it is refused.
        """
        self.wait(BETWEEN)
        before = self.total
        message = self._delivery.message("event", None, name=event, thread=thread, value=body)
        try:
            outcome_of(self._delivery.deliver(self._definition, self._key, message, patience=0))
        except Pending:
            event = f"{event} (lies in the inbox)"
        self._row(event, before)

    def wait(self, by: timedelta) -> None:
        """Let time pass, and timers come."""
        end = self._clock.now() + by
        while self._queue.tasks and self._queue.tasks[0][0] <= end:
            self._next()
        self._clock.instant = max(end, self._clock.now())

    def wait_on(self) -> bool:
        """Let timers come until nothing comes by itself any more; False when that took too many."""
        for _ in range(WAITS_MAX):
            if not self._queue.tasks:
                return True
            self._next()
        return False

    def close(self) -> None:
        """Forget it."""
        self._runner.close()

    def _next(self) -> None:
        before, at = self.total, self._queue.tasks[0][0]
        passed = at - self._clock.now()
        self._clock.instant = at
        self._row(f"after {show_duration(_rounded(passed))}", before)

    def _row(self, what: str, before: Cost) -> None:
        while self._queue.tasks and self._queue.tasks[0][0] <= self._clock.now():
            self._worker.run(heappop(self._queue.tasks)[2])
        self.rows.append(Row(what, self.total - before))


def _rounded(length: timedelta) -> timedelta:
    return timedelta(seconds=round(length.total_seconds()))


def _count(store: Store, cost: Cost) -> None:
    get, commit = store.get, store.commit

    def counted_get(workflow: str, id: str) -> Any:
        cost.reads += 1
        return get(workflow, id)

    def counted_commit(writes: Sequence[Write]) -> Outcomes:
        outcomes = commit(writes)
        for write, outcome in zip(writes, outcomes, strict=True):
            if isinstance(outcome, Saved):
                cost.writes += 1
                cost.history += bool(write.entries)
        return outcomes

    store.get, store.commit = counted_get, counted_commit  # type: ignore[method-assign]
