"""The resume walk: from a thread's position to the next statement that blocks.

The position is found by path, a dictionary look-up (`Body.place_of`); the walk goes on from there through successors. Cases, loops
and Returns that lie before it have no effect, because the walk never passes them. Each function below enters one kind of
statement and gives the next place, or None when the thread blocks or has ended.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final

from pydantic_core import from_json

from asyncflow import limits
from asyncflow.activation import MAIN, Activation, CallableFailed, DecideAgain, truth
from asyncflow.errors import Failure, Full, RunawayWorkflow, TerminalError
from asyncflow.handlers import dump_json, read_json
from asyncflow.instance import Frame, Signal, Thread, ThreadStatus
from asyncflow.state import check_restricted
from asyncflow.tree import END, ItemGone, Place, again
from asyncflow.unwind import children_of, end_of_try, end_thread, go_on, leave, leave_fork, raising


class Exhausted(Exception):
    """10,000 statements were walked in one write (rule 11)."""


def walk(act: Activation, thread: Thread) -> None:
    """Walk a Resuming thread until it blocks or ends.

    Raises:
        Exhausted: this write has walked enough; the thread stays where it is, about to go on.
    """
    onward = act.place_of(thread)
    while onward is not None:
        place = onward
        act.statements += 1
        if act.statements > limits.STATEMENTS_PER_WRITE:
            thread.position = place.at
            raise Exhausted
        try:
            onward = ENTER[place.kind](act, thread, place)
        except CallableFailed as failed:
            thread.position = place.at
            thread.visit = act.touch()
            act.park(thread, failed.path, failed.cause, attempt=1)
            return
        except ItemGone:
            thread.position = place.at
            return


def park_runaway(act: Activation, thread: Thread) -> None:
    """Park a thread that walks and walks, and nothing changes (rule 11)."""
    path = thread.position.removesuffix(END)
    text = f"expected {path!r} to block, found {limits.STATEMENTS_PER_WRITE} statements without one that does"
    thread.visit = act.touch()
    act.park(thread, path, RunawayWorkflow(text), attempt=1)


# -- what blocks -------------------------------------------------------------------------------------------------------


def _step(act: Activation, thread: Thread, place: Place) -> None:
    act.arrive(thread, place, ThreadStatus.Executing)


def _select(act: Activation, thread: Thread, place: Place) -> None:
    deadlines: dict[str, datetime | None] | None = None
    for case in place.cases:
        if case.kind == "after" or case.kind == "at":
            deadlines = {} if deadlines is None else deadlines
            deadlines[case.name] = deadline(act, thread, case.path, case.statement, act.now)
    act.arrive(thread, place, ThreadStatus.Waiting)
    thread.deadlines = deadlines


def deadline(act: Activation, thread: Thread, path: str, statement: Any, since: datetime) -> datetime | None:
    """The instant of a timer of a Select entered at *since*; None: never."""
    if statement.kind == "at":
        instant = statement.instant
        given = act.evaluate(thread, path, instant) if callable(instant) else instant
        return act.evaluate(thread, path, lambda: _instant(given))
    delay = statement.delay
    given = act.evaluate(thread, path, delay) if callable(delay) else delay
    return act.evaluate(thread, path, lambda: _later(since, given))


def _instant(given: Any) -> datetime | None:
    if given is None:
        return None
    if not isinstance(given, datetime):
        raise TypeError(f"an At takes a datetime or None, found {type(given).__name__}")
    if given.tzinfo is None:
        raise ValueError(f"the instant {given.isoformat()} has no time zone: give it one, such as UTC")
    return given.astimezone(UTC)


def _later(since: datetime, given: Any) -> datetime | None:
    if given is None:
        return None
    if not isinstance(given, timedelta):
        raise TypeError(f"an After takes a timedelta or None, found {type(given).__name__}")
    return since + given


def _join(act: Activation, thread: Thread, place: Place) -> Place | None:
    if joined(act, thread, place):
        return place.next
    act.arrive(thread, place, ThreadStatus.Waiting)
    return None


def joined(act: Activation, thread: Thread, place: Place) -> bool:
    """Whether no thread that a Join waits for is alive."""
    names = place.statement.names
    gos = act.definition.gos
    own: set[str] = set()
    if not names:
        one: Thread | None = thread
        while one is not None:
            own.add(one.id)
            one = act.instance.threads.get(one.parent[0]) if one.parent else None
        roots = {at for found in gos.values() for at in found}
    else:
        roots = {at for name in names for at in gos.get(name, ())}
    return not any(other.root in roots and other.parent is None and other.id not in own for other in act.instance.threads.values())


# -- what chooses ------------------------------------------------------------------------------------------------------


def _choose(act: Activation, thread: Thread, place: Place) -> Place:
    for arm in place.arms:
        if holds(act, thread, arm.path, arm.cond):
            return arm.first
    return place.next


def holds(act: Activation, thread: Thread, path: str, cond: Any) -> bool:
    """Ask a condition of the walk."""
    return cond is True or act.evaluate(thread, path, lambda: truth(cond()))


def _for(act: Activation, thread: Thread, place: Place) -> Place:
    assert place.first is not None
    return place.first if holds(act, thread, place.path, place.statement.cond) else place.next


def _section(act: Activation, thread: Thread, place: Place) -> Place:  # noqa: ARG001
    assert place.first is not None
    return place.first


# -- items -------------------------------------------------------------------------------------------------------------


def _foreach(act: Activation, thread: Thread, place: Place) -> Place | None:
    container = act.evaluate(thread, place.path, lambda: _container(place.statement.items()))
    keys = list(container) if isinstance(container, Mapping) else None
    frame = Frame(at=place.at, keys=keys, size=len(container) if keys is None else 0)
    thread.frames.append(frame)
    if place.statement.parallel == 1:
        try:
            return next_item(act, thread, place)
        except CallableFailed:
            thread.frames.pop()  # it is parked in front of the loop
            raise
    act.arrive(thread, place, ThreadStatus.Waiting)
    if fill(act, thread, place) and not children_of(act, thread):
        return leave_fork(act, thread, place)
    return None


def _container(value: Any) -> Any:
    if isinstance(value, Mapping | list | tuple):
        return value
    raise TypeError(f"items gives a dict or a list of the state, found {type(value).__name__}")


def next_item(act: Activation, thread: Thread, place: Place) -> Place:
    """Go on with the next item of a ForEach in order, or behind it. The thread's last frame is the loop's."""
    frame = thread.frames[-1]
    frame.key = None
    container = act.evaluate(thread, place.path, lambda: _container(place.statement.items()))
    while frame.begun < (len(container) if frame.keys is None else len(frame.keys)):
        key: str | int = frame.begun if frame.keys is None else frame.keys[frame.begun]
        frame.begun += 1
        if frame.keys is None or key in container:
            frame.key = key
            act.progress = True
            try:
                return act.evaluate(thread, place.path, lambda: act.body.scope_of(thread)).first
            except CallableFailed:
                frame.key = None
                frame.begun -= 1
                raise
    thread.frames.pop()
    return place.next


def _again(act: Activation, thread: Thread, place: Place) -> Place:
    return next_item(act, thread, place.next)


def fill(act: Activation, parent: Thread, place: Place) -> bool:
    """Begin items of a parallel ForEach; False when that failed: the thread is parked, and waits for those that were begun."""
    try:
        _begin_items(act, parent, place)
    except CallableFailed as failed:
        act.park(parent, failed.path, failed.cause, attempt=1)
        return False
    return True


def _begin_items(act: Activation, parent: Thread, place: Place) -> None:
    """Begin items up to as many as may run side by side."""
    frame = parent.frames[-1]
    if frame.error is not None or frame.cancelled:
        return
    container = act.evaluate(parent, place.path, lambda: _container(place.statement.items()))
    running = len(children_of(act, parent))
    while running < place.statement.parallel:
        if frame.begun >= (len(container) if frame.keys is None else len(frame.keys)):
            return
        key: str | int = frame.begun if frame.keys is None else frame.keys[frame.begun]
        if frame.keys is None or key in container:
            first = act.evaluate(parent, place.path, partial(_first_of, act, parent, place, key))
            _begin(act, parent, place, place.name, place.at, key, first, parent=True)
            running += 1
        frame.begun += 1


def _first_of(act: Activation, parent: Thread, place: Place, key: str | int) -> Place:
    return act.body.scope_of(parent).item(place.at, key).first


def _begin(
    act: Activation, maker: Thread, place: Place, name: str, root: str, key: str | int | None, first: Place, *, parent: bool
) -> None:
    try:
        made = act.begin(name, root, key, maker, parent=parent, place=first)
    except Full as error:
        raise CallableFailed(error, place.path) from error
    act.record("thread", made, place.path, begun=True)


# -- threads -----------------------------------------------------------------------------------------------------------


def _go(act: Activation, thread: Thread, place: Place) -> Place:
    statement = place.statement
    key: str | None = None
    if statement.id is not None:
        key = act.evaluate(thread, place.path, lambda: _key(statement.id()))
    if statement.items is None:
        assert place.first is not None
        first = place.first
    else:
        assert key is not None
        first = act.evaluate(thread, place.path, lambda: _item_first(act.body.scope_of(thread), place, key))
    _begin(act, thread, place, place.name, place.at, key, first, parent=False)
    return place.next


def _key(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise TypeError(f"the id of a thread is a text that is not empty, found {value!r}")
    return value


def _item_first(scope: Any, place: Place, key: str) -> Place:
    try:
        first: Place = scope.item(place.at, key).first
    except ItemGone:
        raise KeyError(f"there is no item {key!r} to begin a thread for") from None
    return first


def _parallel(act: Activation, thread: Thread, place: Place) -> Place | None:
    if not place.branches:
        return place.next
    act.arrive(thread, place, ThreadStatus.Waiting)
    thread.frames.append(Frame(at=place.at, begun=len(place.branches)))
    for branch in place.branches:
        _begin(act, thread, place, f"{place.name}/{branch.name}", branch.at, None, branch.first, parent=True)
    return None


def check_forks(act: Activation) -> bool:
    """Let threads whose children have ended go on, begin further items, and let Joins see that nobody is left."""
    moved = False
    for thread in act.in_order():
        if thread.status is not ThreadStatus.Waiting or not act.alive(thread) or thread.position == END:
            continue
        place = act.place_of(thread)
        if place is None:
            continue
        if place.kind == "join":
            if joined(act, thread, place):
                act.resume(thread, place.next)
                moved = True
        elif place.kind == "parallel" or place.kind == "foreach":
            moved = _check_fork(act, thread, place) or moved
    return moved


def _check_fork(act: Activation, thread: Thread, place: Place) -> bool:
    before = act.instance.pc
    if place.kind == "foreach" and not fill(act, thread, place):
        return True
    if not children_of(act, thread):
        go_on(act, thread, leave_fork(act, thread, place))
        return True
    return act.instance.pc != before


# -- what leaves -------------------------------------------------------------------------------------------------------


def _return(act: Activation, thread: Thread, place: Place) -> Place | None:
    statement = place.statement
    value = None
    if thread.id == MAIN:
        value = act.evaluate(thread, place.path, lambda: _output(act, statement.value))
    return leave(act, thread, place.region, Signal("return", value))


def _output(act: Activation, value: Any) -> Any:
    """The output as JSON, checked against what the definition says it returns."""
    output = act.definition.output
    text = dump_json(output, value() if callable(value) else value)
    check_restricted(text)
    read_json(output, text)
    return from_json(text)


def _raise(act: Activation, thread: Thread, place: Place) -> Place | None:
    error = place.statement.error
    if not isinstance(error, BaseException):
        error = act.evaluate(thread, place.path, lambda: _exception(error()))
    return leave(act, thread, place.region, raising(act.failure(error, place.path, 1)))


def _exception(value: Any) -> BaseException:
    if not isinstance(value, BaseException):
        raise TypeError(f"Raise takes an exception, found {type(value).__name__}")
    return value


def _break(act: Activation, thread: Thread, place: Place) -> Place | None:
    return leave(act, thread, place.region, Signal("break"))


def _continue(act: Activation, thread: Thread, place: Place) -> Place | None:
    return leave(act, thread, place.region, Signal("continue"))


def _try(act: Activation, thread: Thread, place: Place) -> Place | None:  # noqa: ARG001
    thread.frames.append(Frame(at=place.at))
    return place.first


def _except(act: Activation, thread: Thread, place: Place) -> Place | None:
    handler = place.statement.handler
    if handler is None:
        return place.next
    failure: Failure | None = thread.frames[-1].error
    assert failure is not None
    try:
        act.change(act.context(thread, place.path), handler, failure)
    except TerminalError as error:
        onward = leave(act, thread, place.region, raising(act.failure(error, place.path, 1)))
    except DecideAgain:
        raise
    except Exception as error:
        raise CallableFailed(error, place.path) from error
    else:
        onward = place.next
    # By position, because the handler may have put another object in the item's place.
    go_on(act, thread, onward)
    return None


def _end(act: Activation, thread: Thread, place: Place) -> None:  # noqa: ARG001
    end_thread(act, thread, Signal("next"))


ENTER: Final[dict[str, Callable[[Activation, Thread, Place], Place | None]]] = {
    "section": _section,
    "step": _step,
    "select": _select,
    "waitevent": _select,
    "waitfor": _select,
    "waituntil": _select,
    "if": _choose,
    "switch": _choose,
    "for": _for,
    "foreach": _foreach,
    "again": _again,
    "go": _go,
    "join": _join,
    "parallel": _parallel,
    "return": _return,
    "raise": _raise,
    "break": _break,
    "continue": _continue,
    "try": _try,
    "tried": end_of_try,
    "except": _except,
    "end": _end,
}
"""How each kind of statement is entered."""

__all__ = ["ENTER", "Exhausted", "again", "check_forks", "deadline", "holds", "joined", "next_item", "park_runaway", "walk"]
