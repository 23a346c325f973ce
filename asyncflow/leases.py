"""`take`: hand out leases for the steps that are due; renew them, give them back (rules 12, 13, 15)."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import AsyncGeneratorType, GeneratorType
from typing import Any, Final

from asyncflow import limits
from asyncflow.activation import Activation
from asyncflow.definition import Body
from asyncflow.errors import Failure, InvalidState
from asyncflow.handlers import dump_json, type_of_result
from asyncflow.instance import ENDED, Lease, Message, Thread, ThreadStatus
from asyncflow.state import check_restricted
from asyncflow.tree import Place
from asyncflow.unwind import raise_cancelled
from asyncflow.workflow import CURRENT, Context

LEASE: Final = timedelta(seconds=limits.LEASE_SECONDS)
MARGIN: Final = timedelta(seconds=limits.LEASE_MARGIN_SECONDS)
STEP_TIMEOUT: Final = timedelta(seconds=limits.STEP_TIMEOUT_SECONDS)
GENERATORS: Final = (GeneratorType, AsyncGeneratorType)
"""What an action gives whose code has not run at all."""
_EXECUTING: Final = ThreadStatus.Executing


@dataclass(slots=True)
class Run:
    """One attempt whose lease has been written into the document. Run it only when that save is known (rule 12)."""

    token: str
    thread: str
    path: str
    name: str
    """The step's name, `undo NAME` for an undo."""
    alone: bool
    attempt: int
    timeout: timedelta
    action: Callable[..., Any]
    args: tuple[Any, ...]
    context: Context
    body: Body[Any]
    """The object it runs on: for a plain step the instance's own, for a `then` step a copy."""
    place: Place
    idempotent: bool

    def call(self) -> Any:
        """Call the action in the context of this attempt; give its value, or the awaitable it returned."""
        token = CURRENT.set(self.context)
        given: Any = None
        try:
            given = self.action(*self.args)
        finally:
            if not inspect.isawaitable(given):  # what is awaited later still asks for its context
                CURRENT.reset(token)
        return given


def take(
    act: Activation,
    tokens: Callable[[], str],
    *,
    room: int,
    sync: bool = True,
    by: str | None = None,
    lease: timedelta = LEASE,
    until: datetime | None = None,
    cancelled: Callable[[str], Callable[[], bool]] | None = None,
) -> list[Run]:
    """Give leases for the steps that are due (rule 12); `settle` and save before any of them runs.

    Args:
        tokens: Gives a fresh random token each time.
        room: How many attempts the worker can begin.
        sync: Whether steps whose action is a plain function may be taken: not while hung ones keep all threads.
        by: The process, where processes keep locks.
        until: The end of the request this runs in: no step is taken whose timeout ends after it (rule 15).
        cancelled: Gives, for a token, what tells the action that a cancel has come.
    """
    instance = act.instance
    if instance.status in ENDED or instance.control.pause is not None or room <= 0 or act.statements > limits.STATEMENTS_PER_WRITE:
        return []
    plain: tuple[Thread, Place] | None = None
    chosen: list[tuple[Thread, Place]] = []
    held = act.held is not None
    for thread in instance.threads.values():
        if thread.status is not _EXECUTING or thread.lease is not None:
            continue
        place = _takeable(act, thread, until)
        if place is None or (not sync and not inspect.iscoroutinefunction(_action_of(place))):
            continue
        if place.plain or place.kind == "undo":
            if not held and (plain is None or thread.visit < plain[0].visit):
                plain = (thread, place)
        else:
            chosen.append((thread, place))
    if plain is not None:
        chosen.insert(0, plain)
    runs: list[Run] = []
    copy: Body[Any] | None = None
    for thread, place in chosen[:room]:
        alone = place.plain or place.kind == "undo"
        if not alone and copy is None:
            act.sync()
            copy = act.definition.body(act.body.text)
        body = act.body if alone else copy
        assert body is not None
        runs.append(_take_one(act, thread, place, body, alone, tokens(), by, lease, cancelled))
    return runs


def _action_of(place: Place) -> Callable[..., Any]:
    action: Callable[..., Any] = place.statement.undo if place.kind == "undo" else place.statement.action
    return action


def _takeable(act: Activation, thread: Thread, until: datetime | None) -> Place | None:
    """The step that a thread without a lease stands at, if it is due; None if it is not to be taken now."""
    if thread.stray is not None or (thread.retry_at is not None and thread.retry_at > act.now):
        return None
    failing = act.instance.control.failing
    if failing is not None and thread.id != failing.thread:
        return None
    place = act.place_of(thread)
    if place is None or place.kind not in ("step", "undo"):
        return None
    if until is not None and act.now + (place.timeout or STEP_TIMEOUT) > until:
        return None
    return place


def _take_one(
    act: Activation,
    thread: Thread,
    place: Place,
    body: Body[Any],
    alone: bool,
    token: str,
    by: str | None,
    lease: timedelta,
    cancelled: Callable[[str], Callable[[], bool]] | None,
) -> Run:
    timeout = place.timeout or STEP_TIMEOUT
    till = act.now + min(lease, timeout + MARGIN)
    act.touch()
    thread.attempt += 1
    thread.retry_at = None
    thread.lease = Lease(token, till, by, alone)
    if alone:
        act.hold(thread)
    own = place if body is act.body else body.place_of(thread)
    assert own is not None
    instance = act.instance
    undo = place.kind == "undo"
    context = Context(
        id=instance.id,
        workflow=instance.workflow,
        thread=thread.id,
        step=place.name,
        attempt=thread.attempt,
        now=act.now,
        caller=None,
        idempotency_key=f"{instance.uid}-{thread.visit}",
        cancelled=cancelled(token) if cancelled is not None else None,
    )
    return Run(
        token, thread.id, place.path, f"undo {place.name}" if undo else place.name, alone, thread.attempt, timeout,
        _action_of(own), own.statement.args, context, body, own, place.idempotent,
    )  # fmt: skip


def renew(act: Activation, token: str, timeout: timedelta, lease: timedelta = LEASE) -> bool:
    """Renew a lease by its token; False when it is gone: stop that run (rule 15)."""
    for thread in act.instance.threads.values():
        if thread.lease is not None and thread.lease.token == token and thread.lease.till is not None:
            thread.lease.till = act.now + min(lease, timeout + MARGIN)
            act.changed = True
            return True
    return False


def release(act: Activation, token: str) -> bool:
    """Give back lease and attempt of a run that was stopped before its end (rule 15)."""
    for thread in act.instance.threads.values():
        if thread.lease is not None and thread.lease.token == token:
            owed = thread.lease.grace is not None and act.instance.control.failing is None
            thread.lease = None
            thread.attempt -= 1
            thread.retry_at = None
            act.touch()
            act.ready = True
            place = act.place_of(thread) if owed else None
            if place is not None:
                raise_cancelled(act, thread, place)  # a step that is given back is one not yet taken (rule 29)
            elif owed:
                thread.frames[0].cancelled = False
            return True
    return False


# -- the end of an attempt ---------------------------------------------------------------------------------------------


def finished(run: Run, value: Any, *, at: datetime, took_ms: float | None = None, watch_copy: bool = False) -> Message:
    """The message of an attempt whose action gave *value*.

    Args:
        watch_copy: Look whether the action of a `then` step has changed its copy of the state, which is an error (rule 18).
    """
    message = Message(f"result-{run.token}", "result", at, name=run.path, token=run.token, took_ms=took_ms)
    try:
        if isinstance(value, GENERATORS):
            raise TypeError(f"the action of {run.path!r} gave a generator, of which nothing has run: give a value instead of yield")
        if run.alone:
            run.body.dirty = True
            message.base = run.body.text
            message.state = run.body.sync()
        else:
            if watch_copy:
                _check_copy(run)
            message.value = dump_json(type_of_result(run.body.definition.cls, run.place.statement), value, round_trip=True)
            check_restricted(message.value)
            if len(message.value) > limits.BODY_BYTES:
                raise InvalidState(f"expected a result of at most {limits.BODY_BYTES} bytes, found {len(message.value)}")
    except Exception as error:  # noqa: BLE001 - a serializer of the user's may raise anything
        message.state = message.value = None
        message.failure = Failure.of(error, path=run.path, attempt=run.attempt, at=at)
        message.fault = True
    return message


def failed(run: Run, error: BaseException, *, at: datetime, took_ms: float | None = None) -> Message:
    """The message of an attempt that raised, or ran past its timeout (a `TimeoutError`)."""
    failure = Failure.of(error, path=run.path, attempt=run.attempt, at=at)
    return Message(
        f"result-{run.token}", "result", at, name=run.path, token=run.token, failure=failure,
        lost=isinstance(error, TimeoutError), took_ms=took_ms,
    )  # fmt: skip


def lapsed(run: Run, *, at: datetime) -> Message:
    """The message that an attempt's lease is over."""
    return Message(f"lapse-{run.token}", "lapse", at, token=run.token)


def _check_copy(run: Run) -> None:
    body = run.body
    if body.definition.codec.dump(body.state, body.extra) != body.text:
        body.revert()
        raise InvalidState(
            f"the action of {run.path!r} changed its copy of the state, which is dropped: give the change back as its result, "
            "for then= or into=, or make it a plain step"
        )
