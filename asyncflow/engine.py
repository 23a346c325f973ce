"""The engine: `post` lays a message down, `advance` runs the instance to rest, `take` hands out leases, `due_at` says when next.

Whoever writes a document does: load, decide with these, one compare-and-set, then wake (rule 6). Nothing here does any of that.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from asyncflow import limits
from asyncflow.activation import MAIN, Activation, Answer, CallableFailed, DecideAgain
from asyncflow.answers import settle
from asyncflow.definition import Definition
from asyncflow.errors import Awaited, NotAwaited, NotFound, TerminalError, TooLarge
from asyncflow.instance import ENDED, Frame, Instance, Message, Stray, Thread, ThreadStatus
from asyncflow.messages import OPERATOR, handle, stands_still, take_event, taker, void_after_grace
from asyncflow.post import answer_of, post
from asyncflow.resume import Exhausted, check_forks, deadline, park_runaway, walk
from asyncflow.retry import DEFAULT_RETRY
from asyncflow.tree import FORKS, Case, ItemGone, ItemsFailed, Place
from asyncflow.unwind import cancel_late, check_ends, drop_gone, go_on, leave, raising


def start(definition: Definition[Any], state: bytes, *, id: str, uid: str, now: datetime) -> Instance:
    """Make a new instance whose main thread is about to enter the definition. `advance` and save it.

    Args:
        state: The workflow object as JSON text (`StateCodec.dump`).
        uid: Random: an id deleted and used again is another instance.
    """
    instance = Instance(definition.name, id, uid, now, now, state)
    instance.threads[MAIN] = Thread(MAIN, MAIN, "", ThreadStatus.Resuming, definition.tree.first.at, 0, now, frames=[Frame()])
    return instance


THREADS_NAMED: Final = 10
"""In the refusal of an event for a thread that does not take it: a fan-out has a thousand that do."""

# Names of their own: an enumeration's member is looked up anew each time.
_RESUMING: Final = ThreadStatus.Resuming
_EXECUTING: Final = ThreadStatus.Executing
_WAITING: Final = ThreadStatus.Waiting

# -- advance -----------------------------------------------------------------------------------------------------------


def advance(act: Activation) -> None:
    """Run the instance to rest: walk, handle messages and timers by their times, then conditions (rule 10).

    Raises:
        DecideAgain: load again and decide with `careful`.
    """
    if act.instance.status in ENDED:
        return
    if act.leases:
        _lapse(act)
    if act.strays and act.instance.control.pause is None:
        _look_for_strays(act)
    try:
        while _move(act):
            pass
        _refuse_at_rest(act)
    except Exhausted:
        _stop_walking(act)
    act.settle_status()


def _move(act: Activation) -> bool:
    """Do the next thing; False when there is none, or the instance has ended."""
    if act.instance.status in ENDED:
        return False
    control = act.instance.control
    if act.held is not None:
        return _handle_of_hold(act)
    if control.pause is not None:
        return _handle_first(act, OPERATOR)
    if act.strays:
        _look_for_strays(act)  # a pause was lifted
    if control.failing is not None:
        if _walk_all(act, only=control.failing.thread) or _handle_first(act, OPERATOR | {"result", "lapse"}):
            return True
        return check_ends(act)
    if act.ready:
        act.ready = False
        waiting = act.threads_ended or (act.items_changed and len(act.instance.threads) > 1)
        if act.items_changed:
            act.items_changed = False
            if act.definition.items:
                drop_gone(act)
        moved = _walk_all(act)
        if (waiting or act.threads_ended) and act.instance.status not in ENDED:
            act.threads_ended = False
            moved = check_forks(act) or moved
            moved = check_ends(act) or moved
            act.ready = act.ready or moved
        # A thread that has walked stands at something that blocks: only what says so here gives others a way to go.
        if act.ready or act.items_changed or act.threads_ended or act.instance.status in ENDED:
            act.ready = True
            return True
    return _handle_next(act) or _first_condition(act)


def _walk_all(act: Activation, only: str | None = None) -> bool:
    moved = False
    for thread in act.in_order():
        if thread.status is not _RESUMING or thread.stray is not None or (only is not None and thread.id != only):
            continue
        if not act.alive(thread):
            continue
        if act.cramped:
            text = f"the document would pass {limits.DOCUMENT_BYTES} bytes: make room in the state, then retry"
            act.park(thread, thread.position, TooLarge(text), attempt=1)
            return True
        walk(act, thread)
        moved = moved or _has_moved(act, thread)
        if act.instance.status in ENDED or (act.instance.control.failing is not None and only is None):
            return True
    return moved


def _has_moved(act: Activation, thread: Thread) -> bool:
    return thread.status is not _RESUMING or not act.alive(thread)


def _stop_walking(act: Activation) -> None:
    """10,000 statements: save as it is, due now; a thread that changed nothing by them is parked (rule 11)."""
    if not act.progress:
        walking = (thread for thread in act.in_order() if thread.status is ThreadStatus.Resuming)
        for thread in walking:
            park_runaway(act, thread)
            break
    act.touch()


def _handle_of_hold(act: Activation) -> bool:
    """While a plain step is held, only its own result or lapse is handled (rule 13)."""
    held = act.held
    assert held is not None
    assert held.lease is not None
    for position, message in enumerate(act.instance.inbox):
        if message.token == held.lease.token and message.token:
            if _holds_still(act, message):
                held.lease.alone = False  # it lies there for code that knows the position; the others go on
                act.touch()
            else:
                _handle(act, position)
            return True
    return False


def _handle(act: Activation, position: int) -> None:
    message = act.instance.inbox.pop(position)
    act.progress = act.ready = True
    if message.lain:
        act.touch()
    handle(act, message)


def _handle_first(act: Activation, kinds: frozenset[str]) -> bool:
    for position, message in enumerate(act.instance.inbox):
        if message.kind in kinds:
            _handle(act, position)
            return True
    return False


def _handle_next(act: Activation) -> bool:
    """Handle the earliest message that can be, or due timer; the message first at the same instant."""
    timer = _first_timer(act)
    if timer is None and not act.instance.inbox:
        return False
    for position, message in enumerate(act.instance.inbox):
        if timer is not None and timer[0] < message.at:
            break
        if message.kind != "event":
            if message.kind in ("result", "lapse") and _holds_still(act, message):
                continue
            _handle(act, position)
            return True
        taken = taker(act, message)
        if taken is not None:
            act.instance.inbox.pop(position)
            before = act.instance.pc
            thread, case = taken
            take_event(act, message, thread, case)
            act.progress = act.ready = act.progress or act.instance.pc != before
            act.ready = True
            return True
    if timer is not None:
        _fire(act, *timer[1:])
        return True
    return False


def _holds_still(act: Activation, message: Message) -> bool:
    """Whether a result is for a position this code does not know: whoever knows it will handle it."""
    for thread in act.instance.threads.values():
        if thread.lease is not None and thread.lease.token == message.token:
            return act.place_of(thread) is None and thread.stray is not None
    return False


def _first_timer(act: Activation) -> tuple[datetime, Thread, Place, Case] | None:
    found: tuple[datetime, Thread, str] | None = None
    for thread in act.instance.threads.values():
        if thread.deadlines and thread.status is _WAITING:
            for name, at in thread.deadlines.items():
                if at is not None and at <= act.now and (found is None or at < found[0]):
                    place = act.place_of(thread)
                    if place is not None and any(case.name == name for case in place.cases):
                        found = (at, thread, name)
    if found is None:
        return None
    at, thread, name = found
    place = act.place_of(thread)
    assert place is not None
    return at, thread, place, next(case for case in place.cases if case.name == name)


def _fire(act: Activation, thread: Thread, place: Place, case: Case) -> None:
    act.record("timer", thread, case.path)
    _win(act, thread, place, case)


def _win(act: Activation, thread: Thread, place: Place, case: Case) -> None:
    """Run the handler of a timer or condition that has won; then its thread goes on, if it still stands there."""
    act.progress = act.ready = True
    visit = thread.visit
    if case.handler is not None:
        try:
            act.change(act.context(thread, case.path), case.handler)
        except DecideAgain:
            raise
        except TerminalError as error:
            go_on(act, thread, leave(act, thread, place.region, raising(act.failure(error, case.path, 1))))
            return
        except Exception as error:  # noqa: BLE001 - whatever a handler raises parks its thread
            act.park(thread, case.path, error, attempt=1)
            return
    if stands_still(act, thread, visit):
        act.resume(thread, case.first)


def _first_condition(act: Activation) -> bool:
    for thread in act.in_order():
        if thread.status is not _WAITING:
            continue
        place = act.place_of(thread)
        if place is None:
            continue
        for case in place.cases:
            if case.kind != "when":
                continue
            try:
                true = act.look(case.path, case.statement.cond)
            except CallableFailed as failed:
                act.park(thread, failed.path, failed.cause, attempt=1)
                return True
            if true:
                act.record("condition", thread, case.path)
                _win(act, thread, place, case)
                return True
    return False


def _lapse(act: Activation) -> None:
    """Turn leases that are over, or whose process is dead, into messages (rules 9, 15); void those whose grace is over."""
    for thread in act.in_order():
        lease = thread.lease
        if lease is None or lease.till is None:
            continue
        if lease.till <= act.now or (lease.by is not None and lease.by in act.dead):
            at = min(lease.till, act.now)
            lapse = Message(f"lapse-{lease.token}", "lapse", at, token=lease.token)
            lease.till = None
            act.changed = True
            inbox = act.instance.inbox
            position = next((n for n, message in enumerate(inbox) if message.at > at), len(inbox))
            inbox.insert(position, lapse)
        elif lease.grace is not None and lease.grace <= act.now and act.held in (None, thread):
            void_after_grace(act, thread)


def at_rest(act: Activation) -> bool:
    """Whether no thread is on its way to its next wait."""
    return not any(
        thread.status in (ThreadStatus.Executing, ThreadStatus.Resuming) or thread.stray is not None
        for thread in act.instance.threads.values()
    )


def _refuse_at_rest(act: Activation) -> None:
    """Refuse the events that nobody awaits, once nobody is on the way (rule 25)."""
    instance = act.instance
    if instance.status in ENDED:
        instance.inbox = []
        return
    if not instance.inbox or instance.control.pause is not None or instance.control.failing is not None or not at_rest(act):
        return
    for message in list(instance.inbox):
        spec = act.definition.events.get(message.name)
        if message.kind == "event" and spec is not None and not spec.queue:  # one that this code does not know is left alone
            instance.inbox.remove(message)
            if message.lain:
                act.touch()
            refusal = not_awaited(act, message)
            settle(act, message, Answer(409, error=refusal))
            if message.lain:
                said = {"message": refusal.message}
                act.record("refused", event=message.name, message_id=message.id, caller=message.caller, error=said)


def not_awaited(act: Activation, message: Message) -> NotAwaited:
    """The refusal of an event, naming what is awaited."""
    found = awaits(act)
    what = ", ".join(sorted({one.event for one in found})) or "nothing"
    name = f"{act.instance.workflow}/{act.instance.id}"
    if message.thread is None:
        text = f"{name} does not await the event {message.name!r}; it awaits: {what}"
    else:
        there = "" if message.thread in act.instance.threads else ", which is not there"
        text = f"{name} does not await the event {message.name!r} in the thread {message.thread!r}{there}; "
        takers = [one.thread for one in found if one.event == message.name][:THREADS_NAMED]
        text += f"it is awaited in: {', '.join(takers)}" if takers else f"it awaits: {what}"
    return NotAwaited(text, awaits=found)


def awaits(act: Activation) -> list[Awaited]:
    """What the instance would take now, also while it would first lie in the inbox."""
    found: list[Awaited] = []
    for thread in act.in_order():
        if thread.status is ThreadStatus.Waiting:
            place = act.place_of(thread)
            for case in place.cases if place is not None else ():
                if case.event is not None:
                    spec = act.definition.events[case.event]
                    found.append(Awaited(event=case.event, thread=thread.id, role=spec.role, schema=spec.input.schema))  # type: ignore[call-arg]
    return found


# -- strays ------------------------------------------------------------------------------------------------------------


def _look_for_strays(act: Activation) -> None:
    """Look whether this code knows every position; try the others again by the default policy (rule 24)."""
    act.strays = False
    for thread in act.in_order():
        if not act.alive(thread) or (thread.lease is not None and thread.lease.till is not None):
            continue  # whoever holds the lease knows the position
        try:
            place = act.body.place_of(thread)
        except (ItemGone, ItemsFailed):
            continue
        if place is not None and _fits(thread, place):
            _place_again(act, thread)
        elif thread.status is ThreadStatus.Paused:
            continue
        elif thread.stray is None:
            thread.stray = Stray(1, act.now + DEFAULT_RETRY.delay_after(1, act.jitter))
            act.notice("stray", thread, thread.position)
            act.changed = True
        elif thread.stray.retry_at <= act.now:
            _retry_stray(act, thread, thread.stray)


def _fits(thread: Thread, place: Place) -> bool:
    """Whether a thread can stand at a place as it does: newer code may have another statement of the same name there."""
    if thread.status is ThreadStatus.Executing:
        return place.kind in ("step", "undo")
    if thread.status is ThreadStatus.Waiting:
        return bool(place.cases) or place.kind in ("join", "end", *FORKS)
    return True


def _place_again(act: Activation, thread: Thread) -> None:
    """Go on with a thread whose position this code knows."""
    if thread.stray is not None:
        thread.stray = None
        act.touch()
        act.ready = act.threads_ended = True
    if thread.status is ThreadStatus.Waiting:
        _add_timers(act, thread)
    if act.instance.control.failing is None:
        cancel_late(act, thread)


def _add_timers(act: Activation, thread: Thread) -> None:
    """Give a Select the timers that new code has added: they count from when it was entered (rule 2)."""
    place = act.place_of(thread)
    for case in place.cases if place is not None else ():
        if case.kind in ("after", "at") and case.name not in (thread.deadlines or {}):
            try:
                at = deadline(act, thread, case.path, case.statement, thread.since)
            except CallableFailed as failed:
                act.park(thread, failed.path, failed.cause, attempt=1)
                return
            thread.deadlines = {**(thread.deadlines or {}), case.name: at}
            act.touch()


def _retry_stray(act: Activation, thread: Thread, stray: Stray) -> None:
    if stray.tries >= limits.RETRY_ATTEMPTS:
        text = (
            f"this code has no statement {thread.position!r}: bring it back, or skip, or let newer code take over; "
            f"tried {stray.tries} times since {thread.since.isoformat()}"
        )
        thread.stray = None
        act.park(thread, thread.position, NotFound(text), attempt=1)
    else:
        thread.stray = Stray(stray.tries + 1, act.now + DEFAULT_RETRY.delay_after(stray.tries + 1, act.jitter))
        act.changed = True


def due_at(act: Activation) -> datetime | None:
    """The first instant at which `advance` or `take` would change this document (rule 20); None: only a message does."""
    instance, now = act.instance, act.now
    if instance.outbox:
        return now
    if instance.status in ENDED:
        return instance.expires_at
    if act.statements > limits.STATEMENTS_PER_WRITE:
        return now
    held = act.held is not None
    failing = instance.control.failing
    paused = instance.control.pause is not None
    due: datetime | None = None
    for thread in instance.threads.values():
        at = _due_of(act, thread, held=held, paused=paused, failing=None if failing is None else failing.thread)
        if at is not None and (due is None or at < due):
            due = at
    return due


def _due_of(act: Activation, thread: Thread, *, held: bool, paused: bool, failing: str | None) -> datetime | None:
    lease = thread.lease
    if lease is not None and lease.till is not None:
        if lease.grace is not None and not (held and not lease.alone):
            return min(lease.till, lease.grace)
        return lease.till
    if paused:
        return None
    if thread.stray is not None:
        return thread.stray.retry_at
    if lease is not None or (failing is not None and thread.id != failing):
        return None
    if thread.status is _EXECUTING:
        place = act.place_of(thread)
        if place is None or (held and (place.plain or place.kind == "undo")):
            return None
        return max(thread.retry_at, act.now) if thread.retry_at is not None else act.now
    if held:
        return None
    if thread.status is ThreadStatus.Resuming:
        return act.now
    if thread.status is ThreadStatus.Waiting and thread.deadlines:
        place = act.place_of(thread)
        known = {case.name for case in place.cases} if place is not None else set()
        return min((at for name, at in thread.deadlines.items() if at is not None and name in known), default=None)
    return None


__all__ = ["advance", "answer_of", "at_rest", "awaits", "due_at", "not_awaited", "post", "start"]
