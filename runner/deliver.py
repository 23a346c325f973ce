"""Bringing a message to an instance: load, decide, save, wake, answer. Used by `Handle`, HTTP and the command line alike."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any, Final

from asyncflow import engine, limits
from asyncflow.activation import Activation, Answer
from asyncflow.definition import Definition
from asyncflow.errors import AlreadyExists, KeyReused, NotFound, Pending, PreconditionFailed, Unavailable
from asyncflow.instance import Message
from asyncflow.write import decide
from runner.bell import Bell, Patience
from runner.committer import Committer
from runner.records import Loaded, write_of
from runner.stores.base import Conflict, Exists, Failed, Key, Saved, Store, Stored

POLL_SECONDS: Final = (0.2, 0.5, 1.0, 2.0, 4.0)
"""When a waiting caller looks at the document of another process again (rule 28); the last one repeats."""
DOUBT_RETRY_SECONDS: Final = 0.05
"""How long to wait after a store answered neither yes nor no, before looking what it has."""

Woken = Callable[[Key, Activation], None]


class Delivery:
    """Delivers messages to instances of one store."""

    def __init__(
        self, store: Store, committer: Committer, bell: Bell, *, retention: Callable[[str], timedelta | None], history: bool, woken: Woken
    ) -> None:
        self._store = store
        self._committer = committer
        self._bell = bell
        self._retention = retention
        self._history = history
        self._woken = woken
        self._locks: dict[Key, tuple[threading.Lock, int]] = {}
        self._locks_lock = threading.Lock()

    # -- start ---------------------------------------------------------------------------------------------------------

    def start(
        self, definition: Definition[Any], state: bytes, *, id: str, uid: str, key: tuple[str, str] | None = None, input: Any = None  # noqa: A002
    ) -> bool:
        """Create an instance; False when the same key has started it before.

        Args:
            key: Idempotency key and hash of what was started.

        Raises:
            AlreadyExists: the id is taken.
            KeyReused: the key has started something else.
            Unavailable: the store is away; whether it was started is unknown, the same key will tell.
        """
        until = time.monotonic() + limits.DOUBT_SECONDS

        def load() -> Activation:
            instance = engine.start(definition, state, id=id, uid=uid, now=self._store.now())
            instance.start_key, instance.input = key, input
            return Activation(definition, definition.body(state), instance, instance.created_at, history=self._history)

        while True:
            act, _ = decide(load, (), _start_record, retention=self._retention(definition.name))
            outcome = self._committer.save(write_of(act, None, history=self._history))
            definition.release(act.body)
            if isinstance(outcome, Saved):
                self._after(Key(definition.name, id), act)
                return True
            if isinstance(outcome, Exists | Conflict) or (isinstance(outcome, Failed) and outcome.in_doubt):
                known = self._same_start(definition, id, uid, key)
                if known is not None:
                    return known
            if isinstance(outcome, Failed) and (not outcome.in_doubt or time.monotonic() > until):
                raise outcome.error
            time.sleep(DOUBT_RETRY_SECONDS)

    def _same_start(self, definition: Definition[Any], id: str, uid: str, key: tuple[str, str] | None) -> bool | None:  # noqa: A002
        """True: it is our own create; False: the same key came before; None: nothing is there."""
        stored = self._store.get(definition.name, id)
        if stored is None:
            return None
        if stored.record.uid == uid:
            return True
        if key is not None:
            before = Loaded(definition, stored).instance().start_key
            if before is not None and before[0] == key[0]:
                if before[1] != key[1]:
                    raise KeyReused(f"the idempotency key {key[0]!r} has started {definition.name}/{id} with something else")
                return False
        raise AlreadyExists(f"there is a {definition.name}/{id} already: choose another id, or start it with the key it was started with")

    # -- deliver -------------------------------------------------------------------------------------------------------

    def deliver(self, definition: Definition[Any], key: Key, message: Message, *, patience: float, if_pc: int | None = None) -> Answer:
        """Lay a message down, and wait up to *patience* seconds for its answer.

        Raises:
            NotFound: there is no such instance.
            Pending: it is stored and will be handled; the same key gets the answer.
            PreconditionFailed: the instance is no longer at *if_pc*.
            Unavailable: the store is away, or this code cannot read the document.
        """
        waiting = Patience()
        self._bell.expect(message.id, waiting.take)
        try:
            with self._alone(key):
                answer = self._write(definition, key, message, if_pc)
            if answer is not None:
                return answer
            if message.kind != "event":
                return Answer(202)
            return self._await(definition, key, message, waiting, patience)
        finally:
            self._bell.forget(message.id)

    def _write(self, definition: Definition[Any], key: Key, message: Message, if_pc: int | None) -> Answer | None:
        until = time.monotonic() + limits.DOUBT_SECONDS
        while True:
            loaded = self._load(definition, key)

            def load(loaded: Loaded = loaded) -> Activation:
                act = loaded.activate(self._store.now(), jitter=random.random(), history=self._history)  # noqa: S311
                if if_pc is not None and act.instance.pc != if_pc and not _known(act, message):
                    text = f"expected {key.workflow}/{key.id} at {if_pc}, found {act.instance.pc}: look at it again"
                    raise PreconditionFailed(text)
                return act

            try:
                act, _ = decide(load, (message,), _nothing, retention=self._retention(key.workflow))
            except Unavailable:
                if message.kind != "resume":
                    raise
                if self._look_again(key, loaded):
                    return Answer(202)
                continue
            if not act.changed:
                definition.release(act.body)
                return act.answers.get(message.id)
            outcome = self._committer.save(write_of(act, loaded.revision, history=self._history))
            definition.release(act.body)
            if isinstance(outcome, Saved):
                self._bell.tell(act.answers)
                self._after(key, act)
                return act.answers.get(message.id)
            if isinstance(outcome, Failed):
                if not outcome.in_doubt:
                    raise outcome.error
                if time.monotonic() > until:
                    raise Unavailable(f"whether {key.workflow}/{key.id} was written is unknown: ask again with the same key")
                time.sleep(DOUBT_RETRY_SECONDS)

    def _look_again(self, key: Key, loaded: Loaded) -> bool:
        """Make due now, in columns alone, what this code cannot read: a worker's may (rule 23). False when it was written."""
        return self._store.defer(key.workflow, key.id, loaded.revision, until=self._store.now())

    def _await(self, definition: Definition[Any], key: Key, message: Message, waiting: Patience, patience: float) -> Answer:
        until = time.monotonic() + patience
        polls = iter(POLL_SECONDS)
        rest = POLL_SECONDS[-1]
        while True:
            left = until - time.monotonic()
            if left <= 0:
                break
            rest = next(polls, rest)
            if waiting.wait(min(left, rest)) and isinstance(waiting.value, Answer):
                return waiting.value
            answer = self._look_for(definition, key, message)
            if answer is not None:
                return answer
        text = f"the event {message.name!r} lies in the inbox of {key.workflow}/{key.id}; its key is {message.id!r}"
        raise Pending(text, idempotency_key=message.id)

    def _look_for(self, definition: Definition[Any], key: Key, message: Message) -> Answer | None:
        act = self._load(definition, key).activate(self._store.now(), history=False)
        try:
            return engine.answer_of(act, message)
        finally:
            definition.release(act.body)

    def _load(self, definition: Definition[Any], key: Key) -> Loaded:
        return Loaded(definition, self.get(key))

    def get(self, key: Key) -> Stored:
        """Give what is stored.

        Raises:
            NotFound: there is no such instance.
            Unavailable: the store is away.
        """
        stored = self._store.get(key.workflow, key.id)
        if stored is None:
            raise NotFound(f"there is no {key.workflow}/{key.id}")
        return stored

    def _after(self, key: Key, act: Activation) -> None:
        self._bell.ring(key, ended=act.instance.ended)
        self._woken(key, act)

    @contextmanager
    def _alone(self, key: Key) -> Iterator[None]:
        """One sender of this process at a time for one instance: many at once would only make each other's saves conflict."""
        with self._locks_lock:
            lock, count = self._locks.get(key, (threading.Lock(), 0))
            self._locks[key] = (lock, count + 1)
        try:
            with lock:
                yield
        finally:
            with self._locks_lock:
                lock, count = self._locks[key]
                if count == 1:
                    del self._locks[key]
                else:
                    self._locks[key] = (lock, count - 1)


def _nothing(act: Activation) -> None:  # noqa: ARG001
    return None


def _start_record(act: Activation) -> None:
    act.records.insert(0, {"n": 0, "at": act.now, "kind": "started"})


def _known(act: Activation, message: Message) -> bool:
    """Whether the message has come before: then its own effect may be what moved the counter."""
    return any(one.id == message.id for one in [*act.instance.seen, *act.instance.inbox])


def now_of(store: Store) -> datetime:
    """The store's clock."""
    return store.now()
