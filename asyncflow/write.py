"""One write: decide on a loaded document, and make it ready to be saved."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Final, TypeVar

from pydantic_core import from_json, to_json

from asyncflow import limits
from asyncflow.activation import Activation, Answer, DecideAgain
from asyncflow.codec import encode
from asyncflow.engine import advance, due_at
from asyncflow.errors import Full, TooLarge
from asyncflow.instance import Message, Seen
from asyncflow.post import post

T = TypeVar("T")

SEEN_FOR: Final = timedelta(days=limits.SEEN_DAYS)
ANSWERS_COUNTED_FROM: Final = 16
"""Fewer kept answers than this cannot matter: their sizes are not added up at every save."""


def decide(
    load: Callable[[], Activation],
    messages: Sequence[Message],
    work: Callable[[Activation], T],
    *,
    retention: timedelta | None = None,
) -> tuple[Activation, T]:
    """Post *messages*, run to rest, let *work* take steps, and seal: the decision of one write.

    It is made again, one change at a time, when several changes together leave a state or a document that cannot be stored;
    then whoever is at fault is known, and the last good document stays.

    Args:
        load: Gives a fresh activation of the stored document each time; its `careful` and `cramped` are set here.
        work: Takes what can be taken from the advanced instance.

    Returns:
        The activation, ready to be saved if its `changed` is true, and what *work* gave.
    """
    careful = cramped = False
    while True:
        act = load()
        act.careful, act.cramped = careful or act.careful, cramped
        try:
            for message in messages:
                answer = _cram(act, message) if cramped else post(act, message)
                if answer is not None:
                    act.answers[message.id] = answer
            advance(act)
            act.sync()
            act.body.renew()
            given = work(act)
            seal(act, retention)
        except DecideAgain:
            assert not careful, "a careful decision knows which change is at fault"
            careful = True
        except TooLarge:
            assert not cramped, "a cramped decision adds nothing to the document"
            careful, cramped = True, careful
        else:
            return act, given


def _cram(act: Activation, message: Message) -> Answer | None:
    """Post to a document without room: an event is refused, a result becomes a fault, an operator's word may help."""
    text = f"{act.instance.workflow}/{act.instance.id} has no room left: make room in its state, or send again later"
    if message.kind == "event":
        return Answer(429, error=Full(text))
    if message.kind == "result" and message.failure is None:
        failure = act.failure(TooLarge(text), message.name)
        message = replace(message, failure=failure, fault=True, value=None, state=None)
    return post(act, message)


def seal(act: Activation, retention: timedelta | None = None) -> bool:
    """Make the document ready to be saved: state, labels, `due_at`, revision. False when nothing changed: do not save.

    Raises:
        DecideAgain: the state several changes left cannot be stored.
        TooLarge: the document would pass 900 KiB; the last good one stays.
    """
    instance = act.instance
    if not instance.ended and any(not message.lain for message in instance.inbox):
        act.changed = True  # something has been laid down
    if not act.changed:
        return False
    act.sync()
    if instance.state is not act.body.text:
        instance.state = act.body.text
        if act.definition.labels:
            values = from_json(instance.state)
            instance.labels = {name: values.get(name) for name in act.definition.labels}
    if instance.ended:
        instance.inbox = []
        if instance.expires_at is None and retention is not None:
            instance.expires_at = act.now + retention
    _trim_seen(act)
    for entry in act.records:
        instance.entries += 1
        entry["n"] = instance.entries
    instance.rev += 1
    instance.updated_at = act.now
    for message in instance.inbox:
        message.lain = True
    instance.due_at = due_at(act)
    if act.encoded:
        act.document = encode(instance)
        size = len(act.document) + len(instance.state)
        laid = act.events or any(message.kind == "event" for message in instance.inbox)
        most = limits.DOCUMENT_EVENT_BYTES if laid and not act.cramped else limits.DOCUMENT_BYTES
        if size > most and size > act.size:
            raise TooLarge(f"expected a document of at most {most} bytes, found {size}")
    return True


def _trim_seen(act: Activation) -> None:
    seen = act.instance.seen
    oldest = act.now - SEEN_FOR
    if len(seen) <= ANSWERS_COUNTED_FROM and not (seen and seen[0].at is not None and seen[0].at < oldest):
        return
    bare = [one for one in seen if not one.status]
    if len(bare) > limits.SEEN_BARE_IDS:
        drop = {id(one) for one in bare[: len(bare) - limits.SEEN_BARE_IDS]}
        seen[:] = [one for one in seen if id(one) not in drop]
    kept = len(seen) - min(len(bare), limits.SEEN_BARE_IDS)
    if not kept:
        return
    while seen and ((seen[0].at is not None and seen[0].at < oldest) or len(seen) > limits.SEEN_IDS + limits.SEEN_BARE_IDS):
        del seen[0]
    if kept > ANSWERS_COUNTED_FROM:
        _trim_answers(seen)


def _trim_answers(seen: list[Seen]) -> None:
    sizes = [len(to_json(one.answer)) + len(one.id) + 120 if one.status else len(one.id) for one in seen]
    total = sum(sizes)
    for position, one in enumerate(seen):
        if total <= limits.SEEN_BYTES:
            return
        if one.status and one.answer is not None:
            total -= len(to_json(one.answer))
            one.answer, one.dropped = None, True
    while seen and total > limits.SEEN_BYTES:
        total -= len(seen[0].id) + 120
        del seen[0]
