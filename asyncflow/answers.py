"""What the sender of a message is told, and what of it is kept for a repeat (rule 27)."""

from __future__ import annotations

from typing import Any

from pydantic_core import from_json

from asyncflow import limits
from asyncflow.activation import Activation, Answer
from asyncflow.errors import Ended
from asyncflow.instance import Message, Seen, Status


def settle(act: Activation, message: Message, answer: Answer) -> None:
    """Answer a message, and keep what a repeat must find (rule 27)."""
    act.answers[message.id] = answer
    refused = answer.error is not None
    if refused and not message.lain:
        return  # the same key may try again
    act.changed = True
    if not (message.keyed or message.lain):
        act.instance.seen.append(Seen(message.id))
        return
    kept: Any
    if answer.error is not None:
        failure = act.failure(answer.error, "")  # cut to the limits, and JSON whatever the details were
        kept = {"message": failure.message, "details": failure.details, "type": failure.type}
    else:
        kept = None if answer.value is None else from_json(answer.value)
    dropped = answer.value is not None and len(answer.value) > limits.ANSWER_BYTES
    act.instance.seen.append(Seen(message.id, act.now, message.hash, answer.status, None if dropped else kept, dropped))


def answer_the_rest(act: Activation) -> None:
    """Answer what lies in the inbox of an instance that has just ended: its turn will not come (rule 30)."""
    instance = act.instance
    for message in instance.inbox:
        if message.kind in ("result", "lapse") or not (message.kind == "event" or message.lain):
            continue  # a verb returns when it is saved (rule 31), and this save is the instance's end
        if message.kind in ("cancel", "kill") and instance.status is Status.Cancelled:
            settle(act, message, Answer(200, b"null"))  # it is what was asked for
            continue
        what = f"the event {message.name!r}" if message.kind == "event" else message.kind
        text = f"{instance.workflow}/{instance.id} has ended ({instance.status}) before {what} had its turn"
        settle(act, message, Answer(410, error=Ended(text)))
        if message.lain:
            act.record(
                "refused", event=message.name or message.kind, message_id=message.id, caller=message.caller,
                error={"message": text},
            )  # fmt: skip
