"""Between the engine's instance and the store's record."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, TypeVar

from pydantic_core import from_json, to_json

from asyncflow.activation import Activation
from asyncflow.codec import decode
from asyncflow.definition import Body, Definition
from asyncflow.errors import InvalidState, Unavailable
from asyncflow.instance import Instance, Message
from asyncflow.workflow import Workflow
from runner.stores.base import Record, Revision, Stored, Write

T = TypeVar("T")


def write_of(act: Activation, expected: Revision | None, *, history: bool) -> Write:
    """The write of a sealed activation; *expected* None creates the instance."""
    instance = act.instance
    entries = from_json(to_json(act.records)) if history and act.records else ()
    record = Record(
        workflow=instance.workflow,
        id=instance.id,
        uid=instance.uid,
        rev=instance.rev,
        status=instance.status.value,
        document=act.document,
        state=instance.state,
        created_at=instance.created_at,
        updated_at=instance.updated_at,
        due_at=instance.due_at,
        expires_at=instance.expires_at,
        labels=instance.labels,
        holders=instance.holders,
        unplaced=instance.unplaced,
    )
    return Write(record, expected, entries)


def lease_end(instance: Instance) -> datetime | None:
    """Give the first instant at which an attempt in flight lapses by itself; None where none is in flight."""
    leases = [thread.lease for thread in instance.threads.values() if thread.lease is not None]
    ends = [end for lease in leases for end in (lease.till, lease.grace) if end is not None]
    return min(ends, default=None)


def hint_for(before: datetime | None, act: Activation) -> datetime | None:
    """Give the instant at which somebody is to be woken after this save of a sender; None: nobody is.

    Whoever runs an attempt looks at the document when it ends, so the end of its lease is left to the sweeper; what expires
    is, too. An instant that the document named before has had its wake-up.

    Args:
        before: When the document was due that this was decided from; None for a start.
        act: What was saved.
    """
    instance = act.instance
    due = instance.due_at
    if due is None or instance.ended:
        return None
    if due <= act.now:
        return due
    return None if due == before or due == lease_end(instance) else due


def _applies(ahead: Message | None, instance: Instance, body: Body[Any]) -> bool:
    """Whether that result will be the first thing handled, so that its state may be there already."""
    if ahead is None or ahead.state is not body.text or instance.control.pause is not None:
        return False
    leases = [thread.lease for thread in instance.threads.values() if thread.lease is not None and thread.lease.alone]
    return any(lease.token == ahead.token and lease.till is not None for lease in leases)


class Loaded:
    """A document as it was loaded or saved last, from which decisions are made, again and again if need be."""

    __slots__ = ("_body", "_definition", "_document", "_instance", "_state", "due_at", "marked", "ours", "revision")

    def __init__(self, definition: Definition[Any], stored: Stored) -> None:
        self._definition = definition
        self._document = stored.record.document
        self._state = stored.record.state
        self._instance: Instance | None = None
        self._body: Body[Any] | None = None
        self.revision = stored.revision
        self.marked = stored.reason is not None or stored.tries > 0
        """Other code could not read it, and has said so in the store's columns (rule 23)."""
        self.ours = False
        """Whether it is what `keep` was given, not what was loaded."""
        self.due_at: datetime | None = None
        """When the document that was activated last said it is due; a store's column may have been moved since."""

    @property
    def state(self) -> bytes:
        """The state as JSON text."""
        return self._state

    def keep(self, act: Activation, revision: Revision) -> None:
        """Go on from what *act* decided, now that it is saved: nothing has to be read back."""
        self._instance, self._body = act.instance, act.body
        self._document, self._state = act.document, act.instance.state
        self.revision = revision
        self.marked = False
        self.ours = True

    def keep_unchanged(self, act: Activation) -> None:
        """Go on from the values of an activation that changed nothing."""
        self._instance, self._body = act.instance, act.body

    def release(self) -> None:
        """Give the body back to its pool."""
        if self._body is not None:
            self._definition.release(self._body)
        self._instance = self._body = None

    def activate(
        self,
        now: datetime,
        *,
        dead: Callable[[frozenset[str]], frozenset[str]] | None = None,
        jitter: float = 0.5,
        history: bool = True,
        ahead: Message | None = None,
    ) -> Activation:
        """Give an activation of it, from the texts if a decision was made on the values before.

        Args:
            ahead: The result of a plain step whose body, kept here, already holds the state it left.

        Raises:
            Unavailable: this code cannot read the document, or the state does not fit the class (rule 23).
        """
        instance, self._instance = self._instance, None
        body, self._body = self._body, None
        placed = instance is not None and not instance.unplaced
        if instance is None:
            instance = decode(self._document, self._state)
        self.due_at = instance.due_at
        fits = body is not None and not body.dirty
        if not (fits and body is not None and (body.text is instance.state or _applies(ahead, instance, body))):
            body = self._fitting(self._definition.body)
        holders = instance.holders if dead is not None else frozenset[str]()
        return Activation(
            self._definition,
            body,
            instance,
            now,
            dead=dead(holders) if dead is not None and holders else frozenset(),
            jitter=jitter,
            history=history,
            size=len(self._document) + len(self._state),
            placed=placed,
        )

    def workflow(self) -> Workflow:
        """The typed workflow, a copy.

        Raises:
            Unavailable: the state does not fit the class (rule 23).
        """
        return self._fitting(self._definition.codec.parse)[0]

    def _fitting(self, read: Callable[[bytes], T]) -> T:
        try:
            return read(self._state)
        except InvalidState as error:
            raise Unavailable(f"this code cannot read the instance: {error}") from error

    def instance(self) -> Instance:
        """The instance as values of its own.

        Raises:
            Unavailable: this code cannot read the document (rule 23).
        """
        return decode(self._document, self._state)
