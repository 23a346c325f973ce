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
from asyncflow.instance import ENDED, Message, Seen
from asyncflow.post import post

T = TypeVar("T")

SEEN_FOR: Final = timedelta(days=limits.SEEN_DAYS)
SEEN_ENTRY_BYTES: Final = 120
"""What an entry of `seen` with an answer has beside its id and answer: time, hash, status and their names."""


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
    ended = instance.status in ENDED
    if instance.inbox and not ended and any(not message.lain for message in instance.inbox):
        act.changed = True  # something has been laid down
    if not act.changed and not _due_is_over(act):
        return False
    act.sync()
    if instance.state is not act.body.text or not instance.rev:
        instance.state = act.body.text
        if act.definition.labels:
            values = from_json(instance.state)
            written = act.definition.codec.names
            instance.labels = {name: values.get(written.get(name, name)) for name in act.definition.labels}
    if ended:
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
        if act.size <= limits.DOCUMENT_WARN_BYTES < size:
            act.notice("large", size=size)
        laid = act.events or any(message.kind == "event" for message in instance.inbox)
        most = limits.DOCUMENT_EVENT_BYTES if laid else limits.DOCUMENT_BYTES
        if size > most and size > act.size and not act.cramped:  # cramped: nothing was added but what says so
            raise TooLarge(f"expected a document of at most {most} bytes, found {size}")
    return True


def _due_is_over(act: Activation) -> bool:
    """Whether a document says it is due and nothing is: saved once more, so that nobody is woken for nothing again (rule 11)."""
    instance = act.instance
    if instance.ended or instance.due_at is None or instance.due_at > act.now:
        return False
    due = due_at(act)
    act.changed = due is None or due > act.now
    return act.changed


def _trim_seen(act: Activation) -> None:
    """Keep of `seen` what rule 27 says: by age and number, answers dropped before ids."""
    seen = act.instance.seen
    if not seen:
        return
    oldest = act.now - SEEN_FOR
    first = next((one for one in seen if one.status), None)
    aged = first is not None and first.at is not None and first.at < oldest
    if not act.answers and not aged:
        return  # nothing has come since it was trimmed
    keyed = sum(1 for one in seen if one.status)
    bare_over, keyed_over = len(seen) - keyed - limits.SEEN_BARE_IDS, keyed - limits.SEEN_IDS
    if aged or bare_over > 0 or keyed_over > 0:
        kept: list[Seen] = []
        for one in seen:
            if not one.status and bare_over > 0:
                bare_over -= 1
            elif one.status and (keyed_over > 0 or (one.at is not None and one.at < oldest)):
                keyed_over -= 1
            else:
                kept.append(one)
        seen[:] = kept
    if seen and keyed:
        _trim_answers(seen)


def _trim_answers(seen: list[Seen]) -> None:
    answers = [0 if one.answer is None else len(to_json(one.answer)) for one in seen]
    ids, oldest = sum(_id_size(one) for one in seen), 0
    # A quarter is for answers, and the newest is kept, however large it is and however many ids there are.
    room = limits.SEEN_BYTES - max(limits.SEEN_BYTES // 4, answers[-1])
    while ids > room:
        ids -= _id_size(seen[oldest])
        oldest += 1
    del seen[:oldest], answers[:oldest]
    total = ids + sum(answers)
    for one, size in zip(seen, answers, strict=True):
        if total <= limits.SEEN_BYTES:
            return
        if size:
            total -= size
            one.answer, one.dropped = None, True


def _id_size(one: Seen) -> int:
    return len(one.id) + (SEEN_ENTRY_BYTES if one.status else 3)
