"""`post`: lay a message into the inbox, or give its answer at once (rules 9, 14, 25, 27)."""

from __future__ import annotations

from typing import Any

from pydantic_core import to_json

from asyncflow import errors, limits
from asyncflow.activation import Activation, Answer
from asyncflow.answers import settle
from asyncflow.errors import (
    Ended,
    Full,
    InvalidInput,
    KeyReused,
    Malformed,
    NotApplicable,
    TooLarge,
)
from asyncflow.instance import Message, Seen, Status
from asyncflow.messages import HANDLE
from asyncflow.state import check_restricted
from asyncflow.unwind import finish


def post(act: Activation, message: Message) -> Answer | None:
    """Lay a message into the inbox, or give its answer at once: it came before, or it can never be handled.

    Nothing is handled here; `advance` does it in the same write. A result or lapse whose token is gone is dropped before it
    reaches the inbox (rule 14); kill alone acts at once (rule 9).
    """
    instance = act.instance
    message.lain = False  # the same message is posted again when its save met a conflict
    message.at = min(message.at, act.now)  # its own time, also when a conflict or a queue made this write later (rule 10)
    if message.kind in ("result", "lapse"):
        _post_result(act, message)
        return None
    repeated = _seen_before(act, message)
    if repeated is not None:
        return repeated if repeated.status else None
    if instance.ended:
        return _post_to_ended(act, message)
    if message.kind == "event":
        refusal = _check_event(act, message)
        if refusal is not None:
            return refusal
    if message.kind == "kill":
        act.record("operator", message_id=message.id, caller=message.caller, event="kill")
        finish(act, Status.Cancelled)
        settle(act, message, Answer(200, b"null"))
        return act.answers[message.id]
    if message.kind not in HANDLE and message.kind != "event":
        return Answer(409, error=NotApplicable(f"{message.kind} comes with a later release"))
    _lay(act, message)
    if message.kind in ("cancel", "pause") and act.held is not None:
        act.touch()  # what the instance shows as `control` has changed
        if message.kind == "cancel":
            for thread in instance.threads.values():
                if thread.lease is not None:
                    thread.lease.cancel = True
    return None


def _post_to_ended(act: Activation, message: Message) -> Answer:
    if message.kind in ("cancel", "kill") and act.instance.status is Status.Cancelled:
        return Answer(200, b"null")  # a second one does nothing
    instance = act.instance
    what = f"the event {message.name!r}" if message.kind == "event" else message.kind
    text = f"{instance.workflow}/{instance.id} has ended ({instance.status}): {what} comes too late"
    return Answer(410, error=Ended(text))


def _post_result(act: Activation, message: Message) -> None:
    for thread in act.instance.threads.values():
        lease = thread.lease
        if lease is not None and lease.token == message.token and lease.till is not None:
            lease.till = None  # it lies in the inbox now: nobody may lapse it
            _lay(act, message)
            return
    act.note_dropped(message)


def _lay(act: Activation, message: Message) -> None:
    """Put a message into the inbox by its time; results of one write stay in the order in which they were taken (rule 14)."""
    inbox = act.instance.inbox
    if inbox and message.kind == "result":
        before = next((one for one in reversed(inbox) if one.kind == "result" and not one.lain), message)
        message.at = max(message.at, before.at)
    position = len(inbox)
    while position and inbox[position - 1].at > message.at:
        position -= 1
    inbox.insert(position, message)


def _seen_before(act: Activation, message: Message) -> Answer | None:
    """The answer of a repeat; an Answer with status 0 when it lies in the inbox."""
    for known in act.instance.inbox:
        if known.id == message.id:
            if known.hash != message.hash:
                return _reused(message)
            return Answer(0)
    for seen in reversed(act.instance.seen):
        if seen.id == message.id:
            if not seen.status:
                return Answer(200, b"null", dropped=True)
            if seen.hash != message.hash:
                return _reused(message)
            return _kept(seen)
    return None


def _reused(message: Message) -> Answer:
    text = f"the idempotency key {message.id!r} came before, for something else: use a new key for a new call"
    return Answer(422, error=KeyReused(text))


def _kept(seen: Seen) -> Answer:
    if seen.dropped:
        return Answer(seen.status, dropped=True)
    if seen.status == 200:
        return Answer(200, to_json(seen.answer))
    return Answer(seen.status, error=stored_refusal(seen))


def stored_refusal(seen: Seen) -> Any:
    """The error a message that had lain was refused with, made again from what was kept."""
    kept = seen.answer if isinstance(seen.answer, dict) else {}
    cls = getattr(errors, str(kept.get("type")), errors.AsyncflowError)
    try:
        return cls(str(kept.get("message")), code=seen.status, details=kept.get("details"))
    except TypeError:
        return errors.AsyncflowError(str(kept.get("message")), code=seen.status, details=kept.get("details"))


def _check_event(act: Activation, message: Message) -> Answer | None:
    """Check an event on arrival: known, its input, room in the inbox (rule 25)."""
    spec = act.definition.events.get(message.name)
    if spec is None:
        return Answer(404, error=act.definition.no_event(message.name))
    if message.value is not None and len(message.value) > limits.BODY_BYTES:
        return Answer(413, error=TooLarge(f"expected an input of at most {limits.BODY_BYTES} bytes, found {len(message.value)}"))
    try:
        if message.value is not None:
            check_restricted(message.value)
        spec.input.check(message.value)
    except InvalidInput as error:
        return Answer(error.code, error=error)
    except ValueError as error:
        return Answer(400, error=Malformed(f"the input is no JSON that can be kept: {error}"))
    inbox = act.instance.inbox
    if inbox:
        events = [one for one in inbox if one.kind == "event"]
        size = sum(len(one.value or b"") for one in events) + len(message.value or b"")
        if len(events) >= limits.INBOX_EVENTS or size > limits.INBOX_BYTES:
            text = f"the inbox of {act.instance.workflow}/{act.instance.id} is full ({len(events)} events): send again later"
            return Answer(429, error=Full(text))
    return None


def answer_of(act: Activation, message: Message) -> Answer | None:
    """The answer of a message that was laid down, None while it lies there (rule 28)."""
    found = _seen_before(act, message)
    if found is not None:
        return found if found.status else None
    return _post_to_ended(act, message) if act.instance.ended else None
