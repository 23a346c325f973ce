"""Leaving statements: the one way out for Return, Break, Continue, an error and a cancel.

`leave` goes outward over the regions a thread is in, until one takes the signal: a loop its Break, a Try its error, the thread its
end. What it passes is undone (errors and cancels) and goes through its Finally. Everything it has to remember lies in the frames,
so a reload in the middle changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final, TypeAlias

from pydantic_core import from_json

from asyncflow import limits
from asyncflow.activation import MAIN, Activation, DecideAgain, item_chain
from asyncflow.answers import answer_the_rest
from asyncflow.errors import Cancelled, Failure, Full, NotFound
from asyncflow.handlers import dump_json
from asyncflow.instance import Control, Failing, Frame, Signal, Status, Thread, ThreadStatus, Undo
from asyncflow.tree import END, FORKS, UNDO, ItemGone, ItemsFailed, Place, Region, again

KeptItem: TypeAlias = tuple[str, str | int, Any]
"""Statement, key, and the item as JSON."""
NEXT: Final = Signal("next")
GRACE: Final = timedelta(seconds=limits.CANCEL_GRACE_SECONDS)


def raising(failure: Failure) -> Signal:
    """The signal of an error."""
    return Signal("raise", failure=failure)


def is_cancel(failure: Failure | None) -> bool:
    """Whether an error is the one a cancel raises."""
    return failure is not None and failure.matches((Cancelled,))


def leave(act: Activation, thread: Thread, region: Region | None, signal: Signal) -> Place | None:
    """Leave statements from *region* outward; give where the thread goes on, None when it blocks or has ended."""
    while region is not None:
        place = region.place
        if region.kind == "loop":
            assert place is not None
            if signal.kind == "break":
                return place.next
            if signal.kind == "continue":
                return place
        elif region.kind == "each":
            assert place is not None
            if signal.kind == "continue":
                return again(place, region)
            del thread.frames[region.depth - 1 :]
            if signal.kind == "break":
                return place.next
        elif region.kind == "try":
            taken, onward = _leave_try(act, thread, region, signal)
            if taken:
                return onward
        else:
            end_thread(act, thread, signal)
            return None
        region = region.outer
    raise AssertionError("a region chain ends in its thread")


def go_on(act: Activation, thread: Thread, place: Place | None) -> None:
    """Let a thread that left something be about to enter *place*, if there is one."""
    if place is not None and act.alive(thread):
        act.resume(thread, place)


# -- Try ---------------------------------------------------------------------------------------------------------------


def _leave_try(act: Activation, thread: Thread, region: Region, signal: Signal) -> tuple[bool, Place | None]:
    frame = thread.frames[region.depth - 1]
    del thread.frames[region.depth :]
    if signal.kind == "raise" and frame.undos:
        frame.before, frame.phase, frame.error = frame.phase, "undo", signal.failure
        frame.undos.sort(key=_finished)
        _begin_undo(act, thread)
        return True, None
    return _settle_try(thread, region, frame, signal)


def _settle_try(thread: Thread, region: Region, frame: Frame, signal: Signal) -> tuple[bool, Place | None]:
    """What follows in a Try once nothing is left to undo: a matching Except, Finally, or on outward."""
    place = region.place
    assert place is not None
    failure = signal.failure
    if failure is not None and frame.phase == "":
        for clause in place.clauses:
            if failure.matches(clause.statement.types):
                frame.phase, frame.error = "except", failure
                return True, clause
    if place.final is not None and frame.phase != "finally":
        frame.phase, frame.error, frame.after = "finally", None, signal
        return True, place.final
    drop_try(thread, region)
    return False, None


def drop_try(thread: Thread, region: Region) -> None:
    """Leave a Try for good; what can still be undone goes to the next one outward."""
    frame = thread.frames[region.depth - 1]
    del thread.frames[region.depth - 1 :]
    undo_frame(thread, region.outer).undos.extend(frame.undos)


def undo_frame(thread: Thread, region: Region | None) -> Frame:
    """The frame of the nearest Try from *region* outward, else the thread's own."""
    while region is not None and region.kind not in ("try", "thread"):
        region = region.outer
    return thread.frames[0 if region is None else region.depth - 1]


def end_of_try(act: Activation, thread: Thread, place: Place) -> Place | None:
    """Come to the end of a body of a Try: on to its Finally, or behind it."""
    region = place.region
    frame = thread.frames[region.depth - 1]
    if frame.phase != "finally":
        assert region.place is not None
        if region.place.final is not None:
            frame.phase, frame.error, frame.after = "finally", None, NEXT
            return region.place.final
        drop_try(thread, region)
        return place.next
    after = frame.after or NEXT
    drop_try(thread, region)
    return place.next if after.kind == "next" else leave(act, thread, region.outer, after)


# -- undo --------------------------------------------------------------------------------------------------------------


def items_of(act: Activation, thread: Thread) -> list[KeptItem]:
    """The items around a thread as JSON, outermost first; those behind one that is gone are left out."""
    kept: list[KeptItem] = []
    scope = act.body.root
    for at, key in item_chain(thread):
        try:
            inner = scope.item(at, key)
            item = scope.places[at].statement.items()[key]
            kept.append((at, key, from_json(dump_json(act.definition.items[at], item, round_trip=True))))
        except (ItemGone, ItemsFailed):
            break
        except ValueError as error:
            if act.body.dirty:
                raise DecideAgain from error  # another change of this write has left what cannot be stored
            raise
        scope = inner
    return kept


def note_undo(act: Activation, thread: Thread, place: Place, before: Sequence[KeptItem] = (), *, always: bool = False) -> None:
    """Keep how to undo the step at *place*, which has finished or whose outcome is unknown.

    Args:
        before: The items around it before its result: an item that the step itself took out of the state is kept as it was then.
        always: Also past the limit, where nobody could be told.

    Raises:
        Full: there are 1,000 entries.
    """
    if place.undo is None:
        return
    kept = items_of(act, thread)
    kept += before[len(kept) :]
    if len(kept) < len(item_chain(thread)):
        return  # the thread ends with its item
    total = len(act.instance.undos) + sum(len(f.undos) for t in act.instance.threads.values() for f in t.frames)
    if total >= limits.UNDO_ENTRIES and not always:
        raise Full(f"expected at most {limits.UNDO_ENTRIES} steps that can be undone, found one more: leave a Try earlier")
    undo_frame(thread, place.region).undos.append(Undo(place.at, thread.visit, act.instance.pc, kept))


def _begin_undo(act: Activation, thread: Thread) -> None:
    """Stand at the last entry's undo, as at a step."""
    entry = thread.frames[-1].undos[-1]
    thread.visit = act.touch()
    thread.position = entry.at + UNDO
    thread.status = ThreadStatus.Executing
    thread.since = act.now
    thread.attempt, thread.retry_at, thread.error, thread.lease, thread.deadlines = 0, None, None, None, None
    thread.doubt, thread.losses, thread.result = False, 0, None


def after_undo(act: Activation, thread: Thread) -> None:
    """Go on when one undo has ended: to the next, else to what the error does then."""
    frame = thread.frames[-1]
    region = None
    if frame.at and len(frame.undos) == 1:
        try:
            region = act.body.scope_of(thread).places[frame.at].inner
        except ItemGone:
            _leave_gone(act, thread)
            return
        except (ItemsFailed, LookupError) as error:
            act.park(
                thread, f"{frame.at}{UNDO}", NotFound(f"the undo is done, but this code finds no Try at {frame.at!r}: {error}")
            )
            return
    frame.undos.pop()
    if frame.undos:
        _begin_undo(act, thread)
        return
    assert frame.error is not None
    signal = raising(frame.error)
    frame.phase, frame.before, frame.error = frame.before, "", None
    if not frame.at:
        if frame.phase == "ending":
            _conclude(act)
        else:
            end_thread(act, thread, signal)
        return
    assert region is not None
    taken, place = _settle_try(thread, region, frame, signal)
    go_on(act, thread, place if taken else leave(act, thread, region.outer, signal))


def _leave_gone(act: Activation, thread: Thread) -> None:
    """The last undo has ended in an item that is gone: what is around the item goes on (`drop_gone`)."""
    frame = thread.frames[-1]
    frame.undos.pop()
    frame.after = Signal("raise", failure=frame.error) if is_cancel(frame.error) else None
    frame.phase, frame.before, frame.error = frame.before, "", None
    thread.position, thread.status = frame.at, ThreadStatus.Resuming
    act.ready = act.items_changed = True


def _undo_own(act: Activation, thread: Thread, failure: Failure, phase: str) -> bool:
    """Undo what the thread's own frame has left; False when that is nothing."""
    frame = thread.frames[0]
    if not frame.undos:
        return False
    frame.before, frame.phase, frame.error = phase, "undo", failure
    frame.undos.sort(key=_finished)
    _begin_undo(act, thread)
    return True


def _finished(entry: Undo) -> int:
    """When a step finished: undos go from the last to the first, whatever branches they were in."""
    return entry.done


# -- ends of threads ---------------------------------------------------------------------------------------------------


def end_thread(act: Activation, thread: Thread, signal: Signal) -> None:
    """End a thread: ran off its end, returned, or an error leaves it."""
    del thread.frames[1:]
    if thread.parent is not None:
        _end_child(act, thread, signal)
        return
    control = act.instance.control
    failure = signal.failure
    if failure is None:
        if thread.id != MAIN:
            act.instance.undos += thread.frames[0].undos
            remove(act, thread)
        elif control.cancel is not None:
            control.cancel.main = signal
            _await_others(act, thread)
        else:
            finish(act, Status.Finished, output=signal.value)
    elif control.cancel is None:
        _fail(act, thread, failure)
    elif not _undo_own(act, thread, failure, ""):
        if thread.id == MAIN:
            control.cancel.main = signal
            _await_others(act, thread)
        else:
            if not is_cancel(failure) and control.cancel.error is None:
                control.cancel.error = failure
            remove(act, thread)


def remove(act: Activation, thread: Thread) -> None:
    """Take a thread out of the document; those that waited for it may go on."""
    act.instance.threads.pop(thread.id, None)
    act.touch()
    act.record("thread", thread, ended=True)
    act.ready = act.threads_ended = True


def _await_others(act: Activation, main: Thread) -> None:
    """Main has come to its end under a cancel: it waits for the other threads (rule 29)."""
    _stand_at_end(act, main)
    act.ready = True


def _stand_at_end(act: Activation, thread: Thread) -> None:
    act.threads_ended = True
    thread.frames[0].phase = "ending"
    thread.visit = act.touch()
    thread.position, thread.status, thread.since = END, ThreadStatus.Waiting, act.now
    thread.deadlines = thread.retry_at = thread.error = thread.lease = None
    thread.attempt = 0


def _fail(act: Activation, thread: Thread, failure: Failure) -> None:
    """An error has left main or a Go thread: undo everything, then the instance is Failed (rule 32)."""
    control = act.instance.control
    if control.failing is not None:
        return
    control.failing = Failing(act.now, thread.id, failure)
    _stand_at_end(act, thread)
    for other in act.in_order():
        if other.lease is not None:
            other.lease.cancel, other.lease.grace = True, act.now + GRACE
    act.ready = True


def check_ends(act: Activation) -> bool:
    """Go on with an end that waited for other threads; whether something moved."""
    instance = act.instance
    failing, cancel = instance.control.failing, instance.control.cancel
    if failing is not None:
        thread = instance.threads[failing.thread]
        if thread.frames[0].phase != "ending" or any(t.lease for t in instance.threads.values() if t is not thread):
            return False
        entries = list(instance.undos)
        for one in act.in_order():
            if one is not thread:
                _note_doubt(act, one)
            for frame in one.frames:
                entries += frame.undos
            if one is not thread:
                instance.threads.pop(one.id)
        instance.undos = []
        thread.frames[0].undos = entries
        if not _undo_own(act, thread, failing.error, "ending"):
            _conclude(act)
        return True
    if cancel is not None and cancel.main is not None and len(instance.threads) == 1:
        main = instance.threads[MAIN]
        if main.frames[0].phase != "ending":
            return False
        main.frames[0].undos, instance.undos = instance.undos, []
        if not _undo_own(act, main, act.failure(Cancelled("cancelled"), ""), "ending"):
            _conclude(act)
        return True
    return False


def _note_doubt(act: Activation, thread: Thread) -> None:
    """A step left while the outcome of an attempt is unknown can be undone too."""
    if thread.doubt:
        place = act.place_of(thread)
        if place is not None and place.kind == "step":
            note_undo(act, thread, place, always=True)


def _conclude(act: Activation) -> None:
    control = act.instance.control
    if control.failing is not None:
        finish(act, Status.Failed, error=control.failing.error)
        return
    assert control.cancel is not None
    assert control.cancel.main is not None
    made = control.cancel.main
    error = control.cancel.error
    if made.failure is not None and not is_cancel(made.failure):
        error = made.failure
    if error is not None:
        finish(act, Status.Failed, error=error)
    elif made.failure is not None:
        finish(act, Status.Cancelled)
    else:
        finish(act, Status.Finished, output=made.value)


def finish(act: Activation, status: Status, *, output: Any = None, error: Failure | None = None) -> None:
    """End the instance: other threads vanish, leases are void, the inbox is answered 410 (rule 30)."""
    instance = act.instance
    instance.status = status
    instance.output = output
    instance.error = error
    instance.threads = {}
    instance.undos = []
    instance.control = Control()
    act.touch()
    answer_the_rest(act)
    if status is Status.Failed:
        act.notice("ended", failure=error)
    act.record("ended", error=None if error is None else error.model_dump(exclude={"traceback"}), status=status)


# -- forks -------------------------------------------------------------------------------------------------------------


def children_of(act: Activation, thread: Thread) -> list[Thread]:
    """The threads that *thread* waits for."""
    made = (thread.id, thread.visit)
    return [child for child in act.in_order() if child.parent == made]


def _end_child(act: Activation, thread: Thread, signal: Signal) -> None:
    assert thread.parent is not None
    parent = act.instance.threads[thread.parent[0]]
    fork = parent.frames[-1]
    fork.undos += thread.frames[0].undos
    remove(act, thread)
    if signal.failure is not None and not is_cancel(signal.failure):
        if fork.error is None:
            fork.error = signal.failure
            parent.status, parent.error = ThreadStatus.Waiting, None
            for sibling in children_of(act, parent):
                cancel_thread(act, sibling)
        else:
            act.record("failed", thread, signal.failure.path, error=signal.failure.model_dump(exclude={"traceback"}))


def leave_fork(act: Activation, parent: Thread, place: Place) -> Place | None:
    """Go on behind a fork whose children have all ended."""
    fork = parent.frames.pop()
    # Branches hand theirs over when they end: in the order in which the steps finished they are undone.
    undo_frame(parent, place.region).undos.extend(fork.undos)
    if fork.error is not None:
        return leave(act, parent, place.region, raising(fork.error))
    if fork.cancelled:
        return leave(act, parent, place.region, raising(act.failure(Cancelled("cancelled"), place.path)))
    return place.next


def is_fork(thread: Thread, place: Place) -> bool:
    """Whether a thread waits at *place* for threads it has begun, or is parked there while they run."""
    return place.kind in FORKS and len(thread.frames) > place.region.depth


# -- cancel ------------------------------------------------------------------------------------------------------------


def cancel_thread(act: Activation, thread: Thread) -> None:
    """Raise `Cancelled` in a thread, once: now, after a running result, or behind a Finally or an undo (rule 29)."""
    own = thread.frames[0]
    if own.cancelled or own.phase == "ending" or not act.alive(thread):
        return
    cancelled = act.failure(Cancelled("cancelled"), "")
    for frame in thread.frames:
        if frame.phase == "undo":
            own.cancelled, frame.error = True, cancelled
            return
        if frame.phase == "finally":
            own.cancelled, frame.after = True, raising(cancelled)
            return
    if thread.lease is not None:
        own.cancelled = thread.lease.cancel = True
        thread.lease.grace = act.now + GRACE
        return
    place = act.place_of(thread)
    if place is None:
        return
    own.cancelled = True
    act.touch()
    if is_fork(thread, place):
        thread.frames[-1].cancelled = True
        thread.status, thread.error = ThreadStatus.Waiting, None
        for child in children_of(act, thread):
            cancel_thread(act, child)
        act.ready = act.threads_ended = True
        return
    raise_cancelled(act, thread, place)


def is_shielded(act: Activation, thread: Thread) -> bool:
    """Whether a thread is a branch begun in a Finally, which a cancel of the instance does not interrupt."""
    parent = act.instance.threads.get(thread.parent[0]) if thread.parent else None
    while parent is not None:
        if any(frame.phase == "finally" for frame in parent.frames):
            return True
        parent = act.instance.threads.get(parent.parent[0]) if parent.parent else None
    return False


def cancel_late(act: Activation, thread: Thread) -> None:
    """Raise a cancel that came while the code did not know where the thread stood (rule 24)."""
    cancel = act.instance.control.cancel
    parent = act.instance.threads.get(thread.parent[0]) if thread.parent else None
    missed = cancel is not None and thread.visit <= cancel.pc and not is_shielded(act, thread)
    if missed or (parent is not None and (parent.frames[-1].error is not None or parent.frames[-1].cancelled)):
        cancel_thread(act, thread)


def raise_cancelled(act: Activation, thread: Thread, place: Place) -> None:
    """Raise `Cancelled` at the statement a thread stands at."""
    _note_doubt(act, thread)
    thread.lease = None
    failure = act.failure(Cancelled("cancelled"), place.path, thread.attempt)
    go_on(act, thread, leave(act, thread, place.region, raising(failure)))


# -- items that are gone -----------------------------------------------------------------------------------------------


def drop_gone(act: Activation) -> None:
    """End what runs in items whose key is gone."""
    for thread in act.in_order():
        if not act.alive(thread) or (len(thread.frames) == 1 and not thread.frames[0].items):
            continue
        try:
            depth = _gone_at(act, thread)
        except ItemsFailed as failed:
            if thread.status is not ThreadStatus.Paused:
                act.park(thread, failed.path, failed.__cause__ or failed, attempt=1)
            continue
        if depth == 0:
            _drop_thread(act, thread)
        elif depth is not None:
            _skip_item(act, thread, depth)


def _gone_at(act: Activation, thread: Thread) -> int | None:
    """The index of the frame whose item is gone, 0 for the items around the thread, None when all are there."""
    scope = act.body.root
    for depth, frame in enumerate(thread.frames):
        try:
            for at, key in frame.items:
                scope = scope.item(at, key)
            if frame.key is not None:
                scope = scope.item(frame.at, frame.key)
        except ItemGone:
            return depth
        except LookupError:
            return None
    return None


def _take_undos(act: Activation, thread: Thread, frames: list[Frame]) -> list[Undo]:
    """The entries of *frames* and of the threads begun for them, which end."""
    entries = [entry for frame in frames for entry in frame.undos]
    for child in children_of(act, thread):
        entries += _take_undos(act, child, child.frames)
        remove(act, child)
    return entries


def _drop_thread(act: Activation, thread: Thread) -> None:
    entries = _take_undos(act, thread, thread.frames)
    parent = act.instance.threads.get(thread.parent[0]) if thread.parent else None
    remove(act, thread)
    if parent is not None and parent.visit == (thread.parent or ("", 0))[1]:
        parent.frames[-1].undos += entries
    else:
        act.instance.undos += entries


def _skip_item(act: Activation, thread: Thread, depth: int) -> None:
    frame = thread.frames[depth]
    inside = thread.frames[depth + 1 :]
    entries = _take_undos(act, thread, inside)
    cancelled = _cancel_in(inside) or (thread.lease is not None and thread.lease.grace is not None)
    del thread.frames[depth + 1 :]
    frame.key = None
    place = act.body.scope_of(thread).places[frame.at]
    region = Region("each", place, place.region)
    undo_frame(thread, place.region).undos.extend(entries)
    if cancelled:
        failure = act.failure(Cancelled("cancelled"), place.path)
        go_on(act, thread, leave(act, thread, region, raising(failure)))
    else:
        act.resume(thread, again(place, region))


def _cancel_in(frames: list[Frame]) -> bool:
    """Whether a cancel was waiting in these frames for what is dropped with them: children, a Finally, an undo."""
    return any(
        frame.cancelled
        or (frame.after is not None and is_cancel(frame.after.failure))
        or (frame.phase == "undo" and is_cancel(frame.error))
        for frame in frames
    )
