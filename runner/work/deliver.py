"""Bringing a message to an instance: load, decide, save, wake, answer. Used by `Handle`, HTTP and the command line alike."""

from __future__ import annotations

import random
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any, Final

from asyncflow import engine, limits
from asyncflow.activation import Activation, Answer
from asyncflow.codec import decode
from asyncflow.definition import Definition
from asyncflow.errors import AlreadyExists, KeyReused, NotApplicable, NotFound, Pending, PreconditionFailed, Unavailable
from asyncflow.instance import Message, Status
from asyncflow.requests import request_hash
from asyncflow.write import decide
from runner.forks import renew_after_fork
from runner.stores.base import Failed, Key, Saved, Store, Stored
from runner.work.bell import Bell
from runner.work.committer import Committer
from runner.work.records import Loaded, write_of
from runner.work.telling import tell
from runner.work.waiting import Waiting

DOUBT_RETRY_SECONDS: Final = 0.05
"""How long to wait after a store answered neither yes nor no, before looking what it has."""

Woken = Callable[[Key, Activation, datetime | None], None]
"""Called after a save with what was decided, and with when the document was due before; None: nobody was woken for that."""


class Delivery:
    """Delivers messages to instances of one store."""

    def __init__(
        self,
        store: Store,
        committer: Committer,
        bell: Bell,
        *,
        retention: Callable[[str], timedelta | None],
        history: bool,
        woken: Woken,
        wake: Callable[[Key, datetime], object],
    ) -> None:
        self._store = store
        self._committer = committer
        self._bell = bell
        self._retention = retention
        self._history = history
        self._woken = woken
        self._wake = wake
        self.begin_anew()
        renew_after_fork(self)

    def begin_anew(self) -> None:
        """Forget who delivers in another process, the parent."""
        self._locks: dict[Key, tuple[threading.Lock, int]] = {}
        self._locks_lock = threading.Lock()

    # -- start ---------------------------------------------------------------------------------------------------------

    def start(
        self,
        definition: Definition[Any],
        state: bytes,
        *,
        id: str,
        uid: str,
        key: tuple[str, str] | None = None,
        input: Any = None,
        caller: str | None = None,
    ) -> Stored | None:
        """Create an instance, and give it as it was saved; None: it is there, and has to be read.

        That is so when the same key has started it before, or when the answer of the store was lost.

        Args:
            definition: Of which workflow.
            state: The object to start from, as JSON text.
            id: Its id.
            uid: Random; tells this create from any other.
            key: Idempotency key and hash of what was started.
            input: What the object was made from, as JSON value, where a caller outside gave it.
            caller: Who starts it.

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

        def record(act: Activation) -> None:
            said = {"caller": caller, "input": input}
            told = {name: value for name, value in said.items() if value is not None}
            act.records.insert(0, {"n": 0, "at": act.now, "kind": "started", **told})

        while True:
            act, _ = decide(load, (), record, retention=self._retention(definition.name))
            write = write_of(act, None, history=self._history)
            outcome = self._committer.save(write)
            definition.release(act.body)
            if isinstance(outcome, Saved):
                self._after(Key(definition.name, id), act, None)
                return Stored(write.record, outcome.revision)
            if not isinstance(outcome, Failed) or outcome.in_doubt:
                known = self.same_start(definition, id, key, uid=uid)
                if known:
                    self._after(Key(definition.name, id), act, None)
                if known is not None:
                    return None
            if isinstance(outcome, Failed) and (not outcome.in_doubt or time.monotonic() > until):
                raise outcome.error
            time.sleep(DOUBT_RETRY_SECONDS)

    def same_start(
        self, definition: Definition[Any], id: str, key: tuple[str, str] | None, *, uid: str | None = None
    ) -> bool | None:
        """Tell whether *id* was started by this: True by the create of *uid*, False by *key* before; None: nothing is there.

        Raises:
            AlreadyExists: it was started by another start.
            KeyReused: the key has started something else.
        """
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
        raise AlreadyExists(
            f"{definition.name}/{id} is there already: choose another id, or start it with the key it was started with"
        )

    # -- deliver -------------------------------------------------------------------------------------------------------

    def message(
        self,
        kind: str,
        key: str | None,
        *,
        name: str = "",
        thread: str | None = None,
        caller: str | None = None,
        value: bytes | None = None,
    ) -> Message:
        """Make a message that comes now, with its sender's idempotency key or a random id."""
        return Message(
            key or secrets.token_hex(16),
            kind,
            self._store.now(),
            caller=caller,
            thread=thread,
            name=name,
            value=value,
            keyed=key is not None,
            hash=request_hash(kind, name, thread, value),
        )

    def deliver(
        self, definition: Definition[Any], key: Key, message: Message, *, patience: float, if_pc: int | None = None
    ) -> Answer:
        """Lay a message down, and wait up to *patience* seconds for its answer.

        Returns:
            The answer; of an operator's word that was laid down one with status 202.

        Raises:
            NotFound: there is no such instance.
            Pending: it is stored and will be handled; the same key gets the answer.
            PreconditionFailed: the instance is no longer at *if_pc*.
            Unavailable: the store is away, or this code cannot read the document.
        """
        laid = self.lay(definition, key, message, if_pc=if_pc)
        if isinstance(laid, Answer):
            return laid
        answer = laid.here(patience)
        if answer is None:
            text = f"the event {message.name!r} lies in the inbox of {key.workflow}/{key.id}; its key is {message.id!r}"
            raise Pending(text, idempotency_key=message.id)
        return answer

    def lay(self, definition: Definition[Any], key: Key, message: Message, *, if_pc: int | None = None) -> Answer | Waiting[Answer]:
        """Lay a message down; give its answer, or the wait for it, which the caller must then begin.

        Raises: as `deliver`, but never `Pending`.
        """
        told: list[Answer] = []
        waiting = Waiting(
            lambda: told[0] if told else self._look_for(definition, key, message),
            lambda: self._bell.forget(message.id, hear),
        )

        def hear(answer: Answer) -> None:
            told.append(answer)
            waiting.tell()

        self._bell.expect(message.id, hear)
        waits = False
        try:
            with self._alone(key):
                answer = self._write(definition, key, message, if_pc)
            waits = answer is None and message.kind == "event"
        finally:
            if not waits:
                self._bell.forget(message.id, hear)
        return waiting if waits else answer or Answer(202)

    def rehearse(
        self, definition: Definition[Any], key: Key, message: Message, *, if_pc: int | None = None
    ) -> tuple[Answer, Activation]:
        """Decide what *message* would do now, and save nothing.

        Returns:
            The answer it would get (202: it would lie), and the instance as it would be; give its body back.

        Raises: as `lay`.
        """
        loaded = self._load(definition, key)
        act = self._decide(loaded, key, message, if_pc)
        return act.answers.get(message.id) or Answer(202), act

    def _decide(self, loaded: Loaded, key: Key, message: Message, if_pc: int | None) -> Activation:
        def load() -> Activation:
            act = loaded.activate(self._store.now(), jitter=random.random(), history=self._history)  # noqa: S311
            if if_pc is not None and act.instance.pc != if_pc and not _known(act, message):
                raise moved(key, if_pc, act.instance.pc)
            return act

        act, _ = decide(load, (message,), _nothing, retention=self._retention(key.workflow))
        return act

    def _write(self, definition: Definition[Any], key: Key, message: Message, if_pc: int | None) -> Answer | None:
        until = time.monotonic() + limits.DOUBT_SECONDS
        tried = False
        while True:
            loaded = self._load(definition, key)
            try:
                act = self._decide(loaded, key, message, if_pc)
            except Unavailable:
                if message.kind != "resume":
                    raise
                if self._look_again(key, loaded):
                    return Answer(202)
                continue
            if not act.changed:
                definition.release(act.body)
                if tried:
                    self._woken(key, act, None)  # it may be our own write, whose answer was lost
                return act.answers.get(message.id)
            outcome = self._committer.save(write_of(act, loaded.revision, history=self._history))
            definition.release(act.body)
            if isinstance(outcome, Saved):
                self._bell.tell(act.answers)
                self._after(key, act, loaded.due_at)
                return act.answers.get(message.id)
            tried = True
            if isinstance(outcome, Failed):
                if not outcome.in_doubt:
                    raise outcome.error
                if time.monotonic() > until:
                    raise Unavailable(f"whether {key.workflow}/{key.id} was written is unknown: ask again with the same key")
                time.sleep(DOUBT_RETRY_SECONDS)

    def _look_again(self, key: Key, loaded: Loaded) -> bool:
        """Make due now, in columns alone, what this code cannot read: a worker's may (rule 23). False when it was written."""
        now = self._store.now()
        deferred = self._store.defer(key.workflow, key.id, loaded.revision, until=now)
        if deferred:
            self._wake(key, now)
        return deferred

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

    def delete(self, key: Key, *, if_pc: int | None = None) -> None:
        """Delete an ended instance with its history.

        Raises:
            NotFound: there is no such instance.
            NotApplicable: it has not ended.
            PreconditionFailed: the instance is no longer at *if_pc*.
            Unavailable: the store is away.
        """
        while True:
            stored = self.get(key)
            if not Status(stored.record.status).ended:
                shown = Status.Paused if stored.reason is not None else stored.record.status
                raise NotApplicable(f"{key.workflow}/{key.id} has not ended ({shown}): cancel or kill it first")
            if if_pc is not None and (pc := decode(stored.record.document, stored.record.state).pc) != if_pc:
                raise moved(key, if_pc, pc)
            if self._store.delete(key.workflow, key.id, stored.revision):
                return

    def _after(self, key: Key, act: Activation, before: datetime | None) -> None:
        self._bell.ring(key, ended=act.instance.ended)
        tell(key, act.notices)
        self._woken(key, act, before)

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


def moved(key: Key, expected: int, found: int) -> PreconditionFailed:
    """The refusal of what was said to an instance as it was before."""
    return PreconditionFailed(f"expected {key.workflow}/{key.id} at {expected}, found {found}: look at it again")


def _known(act: Activation, message: Message) -> bool:
    """Whether the message has come before: then its own effect may be what moved the counter."""
    instance = act.instance
    return any(one.id == message.id for one in instance.seen) or any(one.id == message.id for one in instance.inbox)
