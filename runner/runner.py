"""`Runner`: workflows on a store, with or without workers in this process."""

from __future__ import annotations

import builtins
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, Self, TypeVar

from asyncflow import Status, Workflow, limits
from asyncflow.activation import Activation
from asyncflow.definition import Definition
from asyncflow.errors import Malformed, NotApplicable, NotFound
from asyncflow.nodes import described
from asyncflow.requests import request_hash
from runner.handle import Handle
from runner.ids import check_id, id_for
from runner.questions import check_filter
from runner.schedulers import delivers, faults, open_scheduler
from runner.schedulers.base import REQUEST, Scheduler, Terms
from runner.schedulers.local import LocalScheduler
from runner.settings import CONCURRENCY, load_settings
from runner.stores import open_store
from runner.stores.base import Key, Store
from runner.stores.encoding import utc_now
from runner.work.activity import Plan
from runner.work.bell import Bell
from runner.work.committer import Committer
from runner.work.deliver import Delivery
from runner.work.records import hint_for
from runner.work.request_worker import RequestWorker, too_long
from runner.work.sweeper import Sweeper
from runner.work.worker import Worker

if TYPE_CHECKING:
    from flask import Blueprint, Flask

W = TypeVar("W", bound=Workflow)

DELETE_AT_ONCE: Final = 200
"""How many expired instances one sweep deletes: the rest is for the next."""


class Clock(Protocol):
    """What tells the time: the host's clock, or one under test."""

    def now(self) -> datetime:
        """The present instant, aware, in UTC."""
        ...


class Runner:
    """Runs workflows: starts, finds and drives their instances; with `with runner:` local workers run their steps.

    A Runner sees, runs, sweeps and lists only the workflows it was given; several Runners with different ones may share a store.
    Without `with runner:` start and send save and decide, and no step runs here.

    Args:
        workflows: The workflow classes.
        store: `sqlite:///file.db`, `firestore://PROJECT/COLLECTION`, `memory://`.
        scheduler: `local`: threads of this process and the store's due index. `cloudtasks://PROJECT/LOCATION/QUEUE`: a queue
            that delivers wake-ups to `/tasks/wake` of the app; steps run in those requests, and there are no workers.
        retention: How long ended instances stay, for all or by workflow name; None: until they are deleted.
        concurrency: How many attempts run at once in this process.
        history: Whether transitions are kept; a timedelta keeps those of ended instances that long. None: as the store is by
            default, which is True but on Firestore.
        clock: For tests: what tells the time.
        lease: How long a step's lease holds without a renewal; above every step's time-out but the renewed ones.
        base_url: For a scheduler that delivers: the address of the app as the scheduler sees it.
        audience: Of its OIDC tokens; default: *base_url*.
        service_account: The e-mail address of the account in whose name it delivers; its tokens are verified.
        hmac_keys: Deliveries are signed with the first of these, and accepted with any.
        verified_by: Who looks at the signatures of those tokens: the app, or the platform in front of it, which lets nobody else
            in and takes the signatures off (Cloud Run, for a service that is not public).
        request_timeout: How long a request may take; every step's time-out is shorter, and the lease is longer.
        watch_copies: Look after each action of a `then` step whether it has changed its copy, as `simulate` does (slow).

    Raises:
        DefinitionError: a workflow has problems: all of them, with path and source line.
        Malformed: a store or scheduler that is none; settings or time-outs that cannot work together, all of them.
    """

    def __init__(
        self,
        workflows: Sequence[type[Workflow]],
        /,
        *,
        store: str = "sqlite:///asyncflow.db",
        scheduler: str = "local",
        retention: timedelta | Mapping[str, timedelta] | None = None,
        concurrency: int = CONCURRENCY,
        history: bool | timedelta | None = None,
        clock: Clock | None = None,
        lease: timedelta = timedelta(seconds=limits.LEASE_SECONDS),
        base_url: str | None = None,
        audience: str | None = None,
        service_account: str | None = None,
        hmac_keys: Sequence[str] = (),
        request_timeout: timedelta = REQUEST,
        verified_by: Literal["app", "platform"] = "app",
        watch_copies: bool = False,
    ) -> None:
        self.definitions: dict[str, Definition[Any]] = _definitions_of(workflows)
        if concurrency < 1:
            raise Malformed(f"concurrency is at least 1, found {concurrency}")
        address = None if base_url is None else base_url.rstrip("/")
        self.terms = Terms(address, audience, service_account, tuple(hmac_keys), request_timeout, verified_by)
        """How a scheduler that delivers reaches the app, and proves itself."""
        _check_terms(scheduler, self.terms, lease, self.definitions)
        self._retention = retention
        self._clock = clock
        self._lease = lease
        self.concurrency = concurrency
        self._watch_copies = watch_copies
        self.process = ""
        """This Runner's name in leases, while it works."""
        self.store: Store = open_store(store, clock=clock.now if clock is not None else utc_now)
        self._history = self.store.history_by_default if history is None else history
        self.bell = Bell()
        self._committer = Committer(self.store)
        self.delivery = Delivery(
            self.store,
            self._committer,
            self.bell,
            retention=self._retention_of,
            history=self._history is not False,
            woken=self._woken,
            wake=self._wake,
        )
        self._worker: Worker | None = None
        self.draining = False
        """It is being stopped, or has been: nothing new is to be brought to it."""
        self.scheduler: Scheduler = open_scheduler(scheduler, self.terms, now=self.store.now)
        self.requests: RequestWorker | None = self._request_worker() if self.scheduler.delivers else None
        """What runs instances within requests, for a scheduler that delivers."""

    @classmethod
    def from_env(cls, workflows: Sequence[type[Workflow]], /) -> Self:
        """Make a Runner from the settings: `ASYNCFLOW_STORE` … of the environment, else `[tool.asyncflow]` of pyproject.toml.

        Used are those named as the arguments, from store to request_timeout. Durations are
        written as `7d`, `12h`, `30s`, `P7D`, or a number of seconds.

        Raises:
            SettingsError: All that is wrong with the settings, each with where it came from; a `Malformed`.
        """
        return cls(workflows, **load_settings().settings.runner_arguments())

    # -- instances -----------------------------------------------------------------------------------------------------

    def start(
        self, workflow: W, /, *, id: str | None = None, idempotency_key: str | None = None, caller: str | None = None
    ) -> Handle[W]:
        """Start an instance from an object.

        Args:
            workflow: The object: its fields are the state to start from.
            id: `[A-Za-z0-9_-]{1,128}`; default: made from the key's hash, or random.
            idempotency_key: The same start with the same key gives the first handle.
            caller: Who starts it, for the history.

        Raises:
            AlreadyExists: the id is taken, by another start.
            KeyReused: the key has started something else.
            Malformed: the id cannot be one.
            InvalidState: the object's state cannot be stored.
        """
        if not isinstance(workflow, Workflow):
            raise TypeError(f"expected an object of a workflow, as Order(…), found {described(workflow)}")
        definition = self._definition(type(workflow))
        state = definition.codec.dump(workflow)
        hash_ = request_hash("start", definition.name, None, state)
        own = id_for(id, idempotency_key)
        key = None if idempotency_key is None else (idempotency_key, hash_)
        self.delivery.start(definition, state, id=own, uid=secrets.token_hex(16), key=key, caller=caller)
        return Handle(self, definition, own)

    def get(self, workflow: type[W], id: str, /) -> Handle[W]:
        """Give a handle; it reads nothing, so it does not say whether the instance is there."""
        check_id(id)
        return Handle(self, self._definition(workflow), id)

    def list(self, workflow: type[W], /, *, status: Status | None = None, filter: str | None = None) -> Iterator[Handle[W]]:
        """Give the instances, newest first; what is started meanwhile moves nothing."""
        definition = self._definition(workflow)
        check_filter(filter, [definition])
        token: str | None = None
        while True:
            page = self.store.list([definition.name], status=status, filter=filter or "", page_token=token)
            for item in page.items:
                yield Handle(self, definition, item.id)
            token = page.next_page_token
            if token is None:
                return

    def _definition(self, workflow: type[Workflow]) -> Definition[Any]:
        definition = self.definitions.get(workflow.__workflow_name__)
        if definition is None or definition.cls is not workflow:
            known = ", ".join(self.definitions) or "none"
            raise NotFound(f"this Runner was not given {workflow.__name__}; it has: {known}")
        return definition

    # -- HTTP ----------------------------------------------------------------------------------------------------------

    def create_app(self, *, clients: bool = True) -> Flask:
        """Make the Flask app with all routes, for pages and programs of this machine alone: there is no authentication yet.

        Args:
            clients: False: only for the verified deliveries of its scheduler, under whatever name; everybody else is refused.

        Raises:
            Malformed: its scheduler delivers over HTTP, and neither `service_account` nor `hmac_keys` is given.
        """
        from runner.http.app import create_app  # noqa: PLC0415 - dear to import

        return create_app(self, clients=clients)

    def blueprint(self) -> Blueprint:
        """Make the routes for an app of your own: `app.register_blueprint(runner.blueprint())`, with a prefix if you like."""
        from runner.http.app import create_blueprint  # noqa: PLC0415 - dear to import

        return create_blueprint(self)

    # -- workers -------------------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        """Begin to work: leases of dead processes lapse at once, due instances go on.

        With a scheduler that delivers nothing is begun here: steps run in its requests, wherever the app is served.
        """
        self.draining = False
        if self.requests is not None:
            self.requests.draining = False
            return self
        # A new name each time: the children of a fork share everything that was made before.
        self.process = f"{os.getpid()}-{secrets.token_hex(6)}"
        if self.store.knows_processes:
            self.store.enter(self.process)
        worker = Worker(
            self.store,
            self._committer,
            self.bell,
            self.definitions,
            self._plan(),
            concurrency=self.concurrency,
            process=self.process,
            watch_copies=self._watch_copies,
            on_sweep=self._sweep,
            retention=self._retention_of,
        )
        worker.start()
        self._worker = worker
        if isinstance(self.scheduler, LocalScheduler):
            self.scheduler.worker = worker
        return self

    def _plan(self) -> Plan:
        return Plan(lease=self._lease, retention=None, history=self._history is not False)

    def _request_worker(self) -> RequestWorker:
        return RequestWorker(
            self.store,
            self._committer,
            self.bell,
            self.definitions,
            self._plan(),
            wake=self.scheduler.wake,
            request=self.terms.request,
            concurrency=self.concurrency,
            retention=self._retention_of,
            watch_copies=self._watch_copies,
        )

    def sweeper(self) -> Sweeper:
        """Make what finds due instances that were not woken; for a scheduler that delivers.

        Raises:
            NotApplicable: the workers of a local scheduler do that by themselves.
        """
        if self.requests is None:
            raise NotApplicable("the workers of the scheduler 'local' sweep by themselves")
        return Sweeper(self.store, self.scheduler, self.requests, builtins.list(self.definitions), tidy=self._sweep)

    def __exit__(self, *exc: object) -> None:
        """Drain: take nothing more, let what runs end, and close the store."""
        self.drain()
        self.close()

    def drain(self, patience: float | None = None) -> None:
        """Stop the workers, take no more deliveries; what runs may end within *patience* seconds (25)."""
        self.draining = True
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.stop() if patience is None else worker.stop(patience)
        if self.requests is not None:
            self.requests.drain(patience)

    def close(self) -> None:
        """Finish pending saves and close the store."""
        self.drain()
        if self.requests is not None:
            self.requests.close()
        self._committer.close()
        self.scheduler.close()
        self.store.close()

    @property
    def healthy(self) -> bool:
        """Whether its workers can begin steps; a Runner without workers leaves them to others."""
        worker = self.requests if self.requests is not None else self._worker
        return worker is None or worker.healthy

    @property
    def works(self) -> bool:
        """Whether steps run in this process: by its workers, or in requests that a scheduler delivers to it."""
        return self._worker is not None or self.requests is not None

    def wait_idle(self, timeout: float = 10) -> bool:
        """Wait until no action runs and nothing is due; False when *timeout* seconds were not enough."""
        return self._worker is None or self._worker.wait_idle(timeout)

    def _woken(self, key: Key, act: Activation, before: datetime | None) -> None:
        """See to it that somebody looks at what a sender has saved, when it is due."""
        if self.requests is not None:
            self.requests.written(key, act.instance)
            at = hint_for(before, act)
            if at is not None:
                self.scheduler.wake(key, at)
            return
        worker, due = self._worker, act.instance.due_at
        if worker is None:
            return
        if due is None or due > act.now:
            # What is at work on it holds an older document; a later deadline may be the first one now.
            worker.wake_if_at_work(key)
        if due is not None:
            self.scheduler.wake(key, due)

    def _wake(self, key: Key, at: datetime) -> bool:
        return self.scheduler.wake(key, at)

    # -- sweeping ------------------------------------------------------------------------------------------------------

    def _retention_of(self, workflow: str) -> timedelta | None:
        if isinstance(self._retention, Mapping):
            return self._retention.get(workflow)
        return self._retention

    def _sweep(self, now: datetime) -> int:
        """Delete what has expired and forget old history; nothing of a live instance is ever swept. Give how many are gone."""
        names = builtins.list(self.definitions)
        deleted = 0
        for workflow, id_ in self.store.expired(names, now=now, limit=DELETE_AT_ONCE):
            stored = self.store.get(workflow, id_)
            if stored is not None and Status(stored.record.status).ended:
                deleted += self.store.delete(workflow, id_, stored.revision)
        if isinstance(self._history, timedelta):
            self.store.prune_history(names, before=now - self._history)
        return deleted


def _definitions_of(workflows: Sequence[type[Workflow]]) -> dict[str, Definition[Any]]:
    if isinstance(workflows, type):
        raise TypeError(f"expected a list of workflow classes, as [{workflows.__name__}], found the class alone")
    found: dict[str, Definition[Any]] = {}
    for workflow in workflows:
        given: object = workflow
        if not (isinstance(given, type) and issubclass(given, Workflow)):
            raise TypeError(f"expected classes made from Workflow, found {described(given)}")
        definition = Definition.of(workflow)
        if definition.name in found:
            raise Malformed(f"two workflows are called {definition.name!r}: give one of them a name=")
        found[definition.name] = definition
    return found


def _check_terms(scheduler: str, terms: Terms, lease: timedelta, definitions: Mapping[str, Definition[Any]]) -> None:
    """Refuse what cannot work with a scheduler that delivers: timeout < request < lease < dispatch, for every step."""
    if delivers(scheduler):
        problems = [f"{name}: {what}" for name, what in faults(scheduler, terms, lease)]
        problems += too_long(definitions.values(), terms.request)
        if problems:
            raise Malformed("\n".join(problems))
