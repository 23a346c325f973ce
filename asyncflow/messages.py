"""What each kind of message does when its turn has come (rules 9, 14 to 18, 25, 26, 29, 31)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from pydantic import TypeAdapter
from pydantic_core import from_json

from asyncflow import limits
from asyncflow.activation import Activation, Answer, CallableFailed, DecideAgain
from asyncflow.answers import settle
from asyncflow.errors import (
    AsyncflowError,
    Failure,
    Full,
    HandlerFailed,
    InvalidInput,
    InvalidState,
    Lost,
    NotApplicable,
    Rejected,
    TerminalError,
    Uncertain,
)
from asyncflow.handlers import dump_json, read_json, type_of_result
from asyncflow.instance import Cancelling, Message, Thread, ThreadStatus
from asyncflow.resume import holds
from asyncflow.state import check_restricted
from asyncflow.tree import Case, Place
from asyncflow.unwind import (
    KeptItem,
    after_undo,
    cancel_thread,
    end_of_try,
    go_on,
    is_fork,
    is_shielded,
    items_of,
    leave,
    note_undo,
    raise_cancelled,
    raising,
)

# -- events ------------------------------------------------------------------------------------------------------------


def taker(act: Activation, message: Message) -> tuple[Thread, Case] | None:
    """Who takes an event: the first waiting thread in order, or the one addressed."""
    wanted = message.thread
    for thread in act.in_order():
        if thread.status is not ThreadStatus.Waiting or (wanted is not None and thread.id != wanted):
            continue
        place = act.place_of(thread)
        if place is not None:
            for case in place.cases:
                if case.event == message.name:
                    return thread, case
    return None


def take_event(act: Activation, message: Message, thread: Thread, case: Case) -> None:
    """Run an event's handler and let its thread go on; a refusal changes nothing (rule 26)."""
    spec = act.definition.events[message.name]
    visit = thread.visit
    act.events = True
    answer = b"null"
    if case.handler is not None:
        handler = case.handler
        written: list[bytes] = []

        def run(*arguments: Any) -> None:
            value = handler(*arguments)
            if spec.output is not None:
                written.append(dump_json(spec.output, value))
                check_restricted(written[0])
                read_json(spec.output, written[0])

        try:
            if message.lain:
                spec.input.check(message.value)  # the code may be another than the one that took it in
            act.change(act.context(thread, case.path, message), run, *spec.input.arguments(message.value))
        except DecideAgain:
            raise
        except Exception as error:
            _refused(act, message, thread, case, error)
            return
        answer = written[0] if written else b"null"
    settle(act, message, Answer(200, answer))
    act.record("event", thread, case.path, event=message.name, message_id=message.id, caller=message.caller, input=_shown(message))
    if stands_still(act, thread, visit):
        act.resume(thread, case.first)


def stands_still(act: Activation, thread: Thread, visit: int) -> bool:
    """Whether a thread still waits where its handler was called: that may have deleted its own item (rule 10)."""
    return (
        act.alive(thread) and thread.visit == visit and thread.status is ThreadStatus.Waiting and act.place_of(thread) is not None
    )


def _shown(message: Message) -> Any:
    return None if message.value is None else from_json(message.value)


def _refused(act: Activation, message: Message, thread: Thread, case: Case, error: BaseException) -> None:
    if isinstance(error, Rejected | TerminalError | InvalidInput | Full):
        refusal: AsyncflowError = error
    else:
        name = f"{act.instance.workflow}/{act.instance.id}"
        refusal = HandlerFailed(f"the handler of the event {message.name!r} of {name} failed; nothing has changed")
        refusal.__cause__ = error
        act.record(
            "refused", thread, case.path, event=message.name, message_id=message.id, caller=message.caller,
            input=_shown(message), error=act.failure(error, case.path).model_dump(),
        )  # fmt: skip
    settle(act, message, Answer(refusal.code, error=refusal))


# -- results -----------------------------------------------------------------------------------------------------------


def holder(act: Activation, token: str) -> Thread | None:
    """The thread whose lease has *token*."""
    for thread in act.instance.threads.values():
        if thread.lease is not None and thread.lease.token == token:
            return thread
    return None


def take_result(act: Activation, message: Message) -> None:
    """Finish an attempt: apply what it gave, or count its failure. A token that is gone drops it (rule 14)."""
    thread = holder(act, message.token)
    if thread is None:
        act.note_dropped(message)
        return
    place = act.place_of(thread)
    if place is None:
        _lose(act, thread)
        return
    if message.failure is not None:
        attempt_failed(act, thread, place, message.failure, lost=message.lost, fault=message.fault)
        return
    items = items_of(act, thread) if place.undo is not None else []
    if not _apply(act, thread, place, message):
        return
    act.record("step", thread, place.path, attempt=thread.attempt, duration_ms=message.took_ms)
    _step_done(act, thread, place, items)


def _lose(act: Activation, thread: Thread) -> None:
    """End an attempt at a position that this code does not know: whether it took effect is unknown."""
    thread.lease = None
    thread.doubt = True
    act.notice("lost", thread, thread.position, attempt=thread.attempt)
    act.touch()


def _apply(act: Activation, thread: Thread, place: Place, message: Message) -> bool:
    """Bring the result into the state; False when that is a fault of the code (rule 18)."""
    if place.plain:
        assert message.base is None or message.base == act.instance.state, "the state changed while it was held (rule 14)"
        if message.state is not None and message.state is not act.body.text:
            act.body.put(message.state)
        act.touch()
        act.items_changed = True
        try:
            sizes = act.check_items() if act.definition.items else ()
            if act.careful:
                act.check_room()
        except Full as error:
            act.body.put(act.instance.state)
            attempt_failed(act, thread, place, act.failure(error, place.path, thread.attempt), lost=False, fault=True)
            return False
        except ValueError as error:
            act.body.put(act.instance.state)
            attempt_failed(act, thread, place, act.failure(error, place.path, thread.attempt), lost=False, fault=False)
            return False
        for frame, length in sizes:
            frame.size = length
        return True
    try:
        _take_value(act, thread, place, message.value or b"null")
    except DecideAgain:
        raise
    except Exception as error:
        _park_with_result(act, thread, place, message, error)
        return False
    return True


def _take_value(act: Activation, thread: Thread, place: Place, text: bytes) -> None:
    """Give a step's result to what takes it; whatever that raises, nothing is changed."""
    step = place.statement
    value = read_json(result_type(act, place), text)
    context = act.context(thread, place.path)
    context.idempotency_key = f"{act.instance.uid}-{thread.visit}"
    context.attempt = thread.attempt
    if step.into is not None:
        act.change(context, setattr, act.body.state, step.into, value, lazily=not act.careful)
    else:
        act.change(context, step.then, value, lazily=not act.careful)


def _park_with_result(act: Activation, thread: Thread, place: Place, message: Message, error: Exception) -> None:
    failure = act.failure(error, place.path, thread.attempt)
    attempt_failed(act, thread, place, failure, lost=False, fault=True)
    if thread.status is ThreadStatus.Paused and message.value is not None and len(message.value) <= limits.ANSWER_BYTES:
        thread.result = message.value


def result_type(act: Activation, place: Place) -> TypeAdapter[Any]:
    """The type of a step's result: what the action says it returns, else what takes it."""
    return type_of_result(act.definition.cls, place.statement)


def _step_done(act: Activation, thread: Thread, place: Place, items: list[KeptItem]) -> None:
    """Go on behind a step that has ended well, or behind an undo. *items* are those around it as they were before."""
    if not act.alive(thread):
        return
    due = thread.lease is not None and thread.lease.grace is not None
    thread.lease = None
    if place.kind == "undo":
        after_undo(act, thread)
        return
    try:
        thread.doubt = False
        note_undo(act, thread, place, items)
    except Full as error:
        act.park(thread, place.path, error)
        return
    act.touch()
    if due and act.instance.control.failing is None:
        raise_cancelled(act, thread, place)
    else:
        act.resume(thread, place.next)


def _raise_at(act: Activation, thread: Thread, place: Place, failure: Failure) -> None:
    """Raise an error into the tree at the statement a thread stands at."""
    go_on(act, thread, leave(act, thread, place.region, raising(failure)))


def attempt_failed(act: Activation, thread: Thread, place: Place, failure: Failure, *, lost: bool, fault: bool) -> None:
    """Count a failed attempt and decide what follows (rules 16 to 18)."""
    lease = thread.lease
    thread.lease = None
    act.touch()
    act.record("failed", thread, place.path, attempt=thread.attempt, error=failure.model_dump(exclude={"traceback"}))
    act.notice("failed", thread, place.path, attempt=thread.attempt, failure=failure)
    gone = failure.matches((Lost,))
    unknown = gone or lost
    if place.kind == "step":
        thread.doubt = thread.doubt or unknown or fault  # after a fault the action has taken effect
        if act.instance.control.failing is not None:
            return
        if lease is not None and lease.grace is not None:
            raise_cancelled(act, thread, place)
            return
    if fault:
        act.park(thread, place.path, failure)
        return
    if place.kind == "step":
        if not place.idempotent:
            if unknown:
                text = f"whether {place.path!r} took effect is unknown: {failure.message}"
                failure = act.failure(Uncertain(text), place.path, thread.attempt)
            _give_up(act, thread, place, failure)
            return
        if not gone and (failure.matches((TerminalError,)) or not failure.matches(place.retry.on_types)):
            _give_up(act, thread, place, failure)
            return
    most = place.retry.max_attempts
    hopeless = not gone and (failure.matches((TerminalError,)) or not failure.matches(place.retry.on_types))  # of an undo
    if hopeless or (most is not None and thread.attempt >= most):
        if place.kind == "undo" or place.retry.exhausted == "pause":
            act.park(thread, place.path, failure)
        else:
            _give_up(act, thread, place, failure)
        return
    thread.error = failure
    act.cut_tracebacks(thread)
    if gone and thread.losses == 0:
        thread.losses, thread.retry_at = 1, act.now
        return
    thread.losses += gone
    thread.retry_at = act.now + place.retry.delay_after(thread.attempt, act.jitter)


def _give_up(act: Activation, thread: Thread, place: Place, failure: Failure) -> None:
    """Raise a step's last error into the tree; what may have happened can be undone (rule 32)."""
    if thread.doubt:
        try:
            note_undo(act, thread, place)
        except Full as error:
            act.park(thread, place.path, error)
            return
    _raise_at(act, thread, place, failure)


def take_lapse(act: Activation, message: Message) -> None:
    """An attempt whose worker went away has failed with `Lost` (rule 15)."""
    thread = holder(act, message.token)
    if thread is None:
        return
    place = act.place_of(thread)
    if place is None:
        _lose(act, thread)
        return
    text = f"the worker that ran {place.path!r} went away, or did not renew its lease"
    attempt_failed(act, thread, place, act.failure(Lost(text), place.path, thread.attempt), lost=True, fault=False)


def void_after_grace(act: Activation, thread: Thread) -> None:
    """The grace of a cancel is over: the running action's lease is void, its outcome unknown (rule 29)."""
    place = act.place_of(thread)
    _lose(act, thread)
    if place is None:
        thread.frames[0].cancelled = False  # raised once code that knows the position has it
    elif act.instance.control.failing is None:
        raise_cancelled(act, thread, place)


THREADS_NAMED: Final = 10
"""In a refusal: a fan-out has a thousand."""

# -- operators ---------------------------------------------------------------------------------------------------------


def take_cancel(act: Activation, message: Message) -> None:
    """Raise `Cancelled` in every thread, once (rule 29). A second cancel does nothing."""
    control = act.instance.control
    if control.failing is None and control.cancel is None:
        control.pause = None
        control.cancel = Cancelling(act.now, act.touch())
        act.record("operator", message_id=message.id, caller=message.caller, event="cancel")
        for thread in act.in_order():
            if not is_shielded(act, thread):
                cancel_thread(act, thread)
    _applied(act, message)


def take_pause(act: Activation, message: Message) -> None:
    """Stop everything that would begin; what runs may finish into the inbox (rule 31)."""
    if act.instance.control.pause is None:
        act.instance.control.pause = act.now
        act.touch()
        act.record("operator", message_id=message.id, caller=message.caller, event="pause")
    _applied(act, message)


def take_resume(act: Activation, message: Message) -> None:
    """Lift a pause; it retries nothing."""
    if act.instance.control.pause is not None:
        act.instance.control.pause = None
        act.touch()
        act.ready = act.items_changed = True
        act.record("operator", message_id=message.id, caller=message.caller, event="resume")
    _applied(act, message)


def stopped(thread: Thread) -> bool:
    """Whether retry and skip fit: parked, or in backoff."""
    return thread.status is ThreadStatus.Paused or (
        thread.status is ThreadStatus.Executing and thread.lease is None and thread.retry_at is not None
    )


def _addressed(act: Activation, message: Message) -> list[Thread]:
    """The threads a retry or skip is for.

    Raises:
        NotApplicable: none of them is parked or in backoff.
    """
    if message.thread is not None:
        thread = act.instance.threads.get(message.thread)
        found = [thread] if thread is not None and stopped(thread) else []
    else:
        found = [thread for thread in act.in_order() if thread.status is ThreadStatus.Paused]
    if not found:
        raise NotApplicable(_unfit(act, message))
    return found


def _unfit(act: Activation, message: Message) -> str:
    """Why a retry or skip fits nobody, and whom it would fit."""
    kind, threads = message.kind, act.instance.threads
    name = f"{act.instance.workflow}/{act.instance.id}"
    if message.thread is None:
        text = f"no thread of {name} is parked, and without a thread {kind} is for those alone"
    elif message.thread not in threads:
        text = f"{name} has no thread {message.thread!r} that {kind} could be for"
    else:
        text = f"the thread {message.thread!r} of {name} is neither parked nor in backoff, so {kind} does not fit now"
    stopped_now = [one.id for one in act.in_order() if stopped(one)][:THREADS_NAMED]
    backoff = all(threads[one].status is not ThreadStatus.Paused for one in stopped_now)
    if stopped_now:
        text += f"; {'in backoff' if backoff else 'parked or in backoff'}: {', '.join(stopped_now)} (name the thread that is meant)"
    return text


def _each_addressed(act: Activation, message: Message, do: Callable[[Thread, Place], None]) -> None:
    """Do what an operator says to each thread it is for; those that it does not fit stay as they are.

    Raises:
        NotApplicable, InvalidInput, CallableFailed: it fits none of them.
    """
    done, refusal = False, None
    for thread in _addressed(act, message):
        if not (act.alive(thread) and stopped(thread)):
            continue
        place = act.place_of(thread)
        try:
            if place is None:
                raise NotApplicable(f"this code finds no {thread.position!r}: bring it back, then {message.kind}")
            do(thread, place)
            done = True
        except (NotApplicable, InvalidInput, CallableFailed) as error:
            refusal = refusal or error
    if refusal is not None and not done:
        raise refusal


def take_retry(act: Activation, message: Message) -> None:
    """Try again what an operator has looked at: a parked thread afresh, one in backoff now (rule 31)."""
    _each_addressed(act, message, lambda thread, place: _retry(act, thread, place))
    act.record("operator", message_id=message.id, caller=message.caller, event="retry", path=message.thread or "")
    act.ready = True
    _applied(act, message)


def _retry(act: Activation, thread: Thread, place: Place) -> None:
    act.touch()
    if thread.status is ThreadStatus.Executing:
        thread.retry_at = act.now
    elif is_fork(thread, place):
        thread.status, thread.error, act.threads_ended = ThreadStatus.Waiting, None, True
    elif place.kind in ("step", "undo"):
        thread.status = ThreadStatus.Executing
        thread.attempt, thread.losses, thread.error, thread.result, thread.retry_at = 0, 0, None, None, None
    elif place.cases and (thread.deadlines is not None or not _timed(place)):
        thread.status, thread.error = ThreadStatus.Waiting, None
    else:
        act.resume(thread, place)


def _timed(place: Place) -> bool:
    return any(case.kind in ("after", "at") for case in place.cases)


def take_skip(act: Activation, message: Message) -> None:
    """Go on behind the statement a thread is stopped at, with a value where one is taken (rule 31)."""
    _each_addressed(act, message, lambda thread, place: _skip(act, thread, place, message.value))
    act.record("operator", message_id=message.id, caller=message.caller, event="skip", input=_shown(message))
    _applied(act, message)


def _skip(act: Activation, thread: Thread, place: Place, value: bytes | None) -> None:
    if place.kind == "undo":
        act.touch()
        thread.status = ThreadStatus.Executing
        after_undo(act, thread)
    elif place.kind == "step":
        _skip_step(act, thread, place, value)
    elif place.kind == "end":
        raise NotApplicable("there is nothing behind the end of a thread")
    elif is_fork(thread, place):
        raise NotApplicable("the thread waits for its branches")
    elif place.kind == "tried":
        go_on(act, thread, end_of_try(act, thread, place))
    elif place.kind == "again":
        thread.frames.pop()
        act.resume(thread, place.next.next)
    else:
        act.resume(thread, _behind(act, thread, place, None if value is None else from_json(value)))


def _behind(act: Activation, thread: Thread, place: Place, given: Any) -> Place:
    """What comes behind a statement whose condition is *given*, or which is passed over (None).

    Raises:
        InvalidInput: a condition is true or false.
        CallableFailed: the next condition raises too.
    """
    whens = [case for case in place.cases if case.kind == "when"]
    if given is None or not (place.arms or whens or place.kind == "for"):
        return place.next
    if not isinstance(given, bool):
        raise InvalidInput(f"the condition of {place.path!r} is true or false, found {given!r}")
    failed_at = thread.error.path if thread.error else place.path
    if place.arms:
        failed = next((number for number, arm in enumerate(place.arms) if arm.path == failed_at), 0)
        if given:
            return place.arms[failed].first
        others = (arm.first for arm in place.arms[failed + 1 :] if holds(act, thread, arm.path, arm.cond))
        return next(others, place.next)
    if not given:
        return place.next
    if whens:
        return next((case for case in whens if case.path == failed_at), whens[0]).first
    assert place.first is not None
    return place.first


def _skip_step(act: Activation, thread: Thread, place: Place, value: bytes | None) -> None:
    text = value if value is not None else thread.result
    items = items_of(act, thread) if place.undo is not None else []
    if not place.plain and text is not None:
        _skip_result(act, thread, place, text)
    if (text is not None and not place.plain) or thread.doubt:
        note_undo(act, thread, place, items, always=True)  # it has finished, or nobody knows (rule 32)
    act.resume(thread, place.next)


def _skip_result(act: Activation, thread: Thread, place: Place, text: bytes) -> None:
    """Apply the value of a skip, or the result that could not be applied, as the step's result.

    Raises:
        InvalidInput: it does not fit the result's type, or what takes it refuses it.
    """
    try:
        _take_value(act, thread, place, text)
    except DecideAgain:
        raise
    except Exception as error:
        raise InvalidInput(f"the value does not fit as the result of {place.path!r}: {error}") from error


def _applied(act: Activation, message: Message) -> None:
    settle(act, message, Answer(200, b"null"))


HANDLE: Final[dict[str, Callable[[Activation, Message], None]]] = {
    "result": take_result,
    "lapse": take_lapse,
    "cancel": take_cancel,
    "pause": take_pause,
    "resume": take_resume,
    "retry": take_retry,
    "skip": take_skip,
}
"""What each kind of message but an event does. goto and edit find their place here."""

OPERATOR: Final = frozenset({"cancel", "pause", "resume", "retry", "skip"})
"""The operators' words: the only messages handled during a pause."""


def handle(act: Activation, message: Message) -> None:
    """Let a message take its turn; a verb that no longer fits is dropped and stands in the history as refused."""
    try:
        HANDLE[message.kind](act, message)
    except (NotApplicable, InvalidInput, InvalidState, CallableFailed) as error:
        cause = error.cause if isinstance(error, CallableFailed) else error
        told = isinstance(cause, AsyncflowError) and not isinstance(cause, InvalidState)  # the verb is what does not fit
        refusal: AsyncflowError = cause if told else InvalidInput(str(cause))  # type: ignore[assignment]
        settle(act, message, Answer(refusal.code, error=refusal))
        if message.lain:
            act.record(
                "refused", message_id=message.id, caller=message.caller, event=message.kind,
                error={"message": refusal.message},
            )  # fmt: skip


__all__ = ["HANDLE", "OPERATOR", "handle", "stands_still", "stopped", "take_event", "taker", "void_after_grace"]
