"""What each kind of message does when its turn has come (rules 9, 14 to 18, 25, 26, 29, 31)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from pydantic import TypeAdapter
from pydantic_core import from_json

from asyncflow import limits
from asyncflow.activation import Activation, Answer, CallableFailed, DecideAgain
from asyncflow.errors import (
    AsyncflowError,
    Failure,
    Full,
    HandlerFailed,
    InvalidInput,
    Lost,
    NotApplicable,
    Rejected,
    TerminalError,
    Uncertain,
)
from asyncflow.handlers import MISSING, adapter_of, awaited_result, dump_json, signature_of
from asyncflow.instance import Cancelling, Message, Seen, Thread, ThreadStatus
from asyncflow.resume import next_item
from asyncflow.state import InvalidState, check_restricted
from asyncflow.tree import Case, ItemGone, Place
from asyncflow.unwind import after_undo, cancel_thread, go_on, is_fork, leave, note_undo, raise_cancelled, raising

# -- events ------------------------------------------------------------------------------------------------------------


def taker(act: Activation, message: Message) -> tuple[Thread, Place, Case] | None:
    """Who takes an event: the first waiting thread in order, or the one addressed."""
    wanted = message.thread
    for thread in act.in_order():
        if thread.status is not ThreadStatus.Waiting or (wanted is not None and thread.id != wanted):
            continue
        place = act.place_of(thread)
        if place is not None:
            for case in place.cases:
                if case.event == message.name:
                    return thread, place, case
    return None


def take_event(act: Activation, message: Message, thread: Thread, place: Place, case: Case) -> None:
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

        try:
            arguments = () if spec.input.adapter is None else (spec.input.parse(message.value),)
            act.change(act.context(thread, case.path, message), run, *arguments)
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
        act.alive(thread)
        and thread.visit == visit
        and thread.status is ThreadStatus.Waiting
        and act.place_of(thread) is not None
    )


def _shown(message: Message) -> Any:
    return None if message.value is None else from_json(message.value)


def _refused(act: Activation, message: Message, thread: Thread, case: Case, error: BaseException) -> None:
    if isinstance(error, Rejected | TerminalError | InvalidInput | Full):
        refusal: AsyncflowError = error
    else:
        refusal = HandlerFailed(f"the handler of the event {message.name!r} failed; nothing has changed")
        refusal.__cause__ = error
        act.record(
            "refused", thread, case.path, event=message.name, message_id=message.id, caller=message.caller,
            input=_shown(message), error=act.failure(error, case.path).model_dump(),
        )  # fmt: skip
    settle(act, message, Answer(refusal.code, error=refusal))


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
        kept = {"message": answer.error.message, "details": answer.error.details, "type": type(answer.error).__name__}
    else:
        kept = None if answer.value is None else from_json(answer.value)
    dropped = answer.value is not None and len(answer.value) > limits.ANSWER_BYTES
    act.instance.seen.append(Seen(message.id, act.now, message.hash, answer.status, None if dropped else kept, dropped))


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
        return
    if message.failure is not None:
        attempt_failed(act, thread, place, message.failure, lost=message.lost, fault=message.fault)
        return
    if not _apply(act, thread, place, message):
        return
    act.record("step", thread, place.path, attempt=thread.attempt, duration_ms=message.took_ms)
    _step_done(act, thread, place)


def _apply(act: Activation, thread: Thread, place: Place, message: Message) -> bool:
    """Bring the result into the state; False when that is a fault of the code (rule 18)."""
    if place.plain:
        assert message.base is None or message.base == act.instance.state, "the state changed while it was held (rule 14)"
        if message.state is not None and message.state is not act.body.text:
            act.body.put(message.state)
        act.touch()
        act.items_changed = True
        try:
            act.check_items()
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
        return True
    step = place.statement
    try:
        value = result_type(act, place).validate_json(message.value or b"null")
        context = act.context(thread, place.path)
        context.idempotency_key = f"{act.instance.uid}-{thread.visit}"
        context.attempt = thread.attempt
        if step.into is not None:
            act.change(context, setattr, act.body.state, step.into, value, lazily=not act.careful)
        else:
            act.change(context, step.then, value, lazily=not act.careful)
    except DecideAgain:
        raise
    except Exception as error:
        _park_with_result(act, thread, place, message, error)
        return False
    return True


def _park_with_result(act: Activation, thread: Thread, place: Place, message: Message, error: Exception) -> None:
    thread.result = None
    if message.value is not None and len(message.value) <= limits.ANSWER_BYTES:
        thread.result = message.value
    act.park(thread, place.path, error)


def result_type(act: Activation, place: Place) -> TypeAdapter[Any]:
    """The type of a step's result: what the action says it returns, else what takes it."""
    return type_of_result(act.definition.cls, place.statement)


def type_of_result(cls: type[Any], step: Any) -> TypeAdapter[Any]:
    """The type of the result of a step of the workflow *cls*."""
    annotation = MISSING if step.action is None else awaited_result(signature_of(step.action))
    if annotation is MISSING and step.then is not None:
        parameters = signature_of(step.then).parameters
        annotation = parameters[0][1] if parameters else MISSING
    if annotation is MISSING and step.into is not None:
        annotation = cls.model_fields[step.into].annotation
    return adapter_of(annotation)


def _step_done(act: Activation, thread: Thread, place: Place) -> None:
    """Go on behind a step that has ended well, or behind an undo."""
    if not act.alive(thread):
        return
    due = thread.lease is not None and thread.lease.grace is not None
    thread.lease = None
    if place.kind == "undo":
        after_undo(act, thread)
        return
    try:
        thread.doubt = False
        note_undo(act, thread, place)
    except ItemGone:
        return
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


def attempt_failed(
    act: Activation, thread: Thread, place: Place, failure: Failure, *, lost: bool, fault: bool
) -> None:
    """Count a failed attempt and decide what follows (rules 16 to 18)."""
    lease = thread.lease
    thread.lease = None
    act.touch()
    act.record("failed", thread, place.path, attempt=thread.attempt, error=failure.model_dump(exclude={"traceback"}))
    gone = failure.matches((Lost,))
    unknown = gone or lost
    if fault:
        act.park(thread, place.path, failure)
        return
    if place.kind == "step":
        thread.doubt = thread.doubt or unknown
        if act.instance.control.failing is not None:
            return
        if lease is not None and lease.grace is not None:
            raise_cancelled(act, thread, place)
            return
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
    if (most is not None and thread.attempt >= most) or (place.kind == "undo" and failure.matches((TerminalError,))):
        if place.kind == "undo" or place.retry.exhausted == "pause":
            act.park(thread, place.path, failure)
        else:
            _give_up(act, thread, place, failure)
        return
    thread.error = failure
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
        except ItemGone:
            return
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
        thread.lease = None
        act.touch()
        return
    text = f"the worker that ran {place.path!r} went away, or did not renew its lease"
    attempt_failed(act, thread, place, act.failure(Lost(text), place.path, thread.attempt), lost=True, fault=False)


def void_after_grace(act: Activation, thread: Thread) -> None:
    """The grace of a cancel is over: the running action's lease is void, its outcome unknown (rule 29)."""
    place = act.place_of(thread)
    thread.lease = None
    act.touch()
    if place is None:
        return
    thread.doubt = True
    if act.instance.control.failing is None:
        raise_cancelled(act, thread, place)


# -- operators ---------------------------------------------------------------------------------------------------------


def take_cancel(act: Activation, message: Message) -> None:
    """Raise `Cancelled` in every thread, once (rule 29). A second cancel does nothing."""
    control = act.instance.control
    if control.failing is None and control.cancel is None:
        control.pause = None
        control.cancel = Cancelling(act.now, act.touch())
        act.record("operator", message_id=message.id, caller=message.caller, event="cancel")
        for thread in act.in_order():
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
        act.ready = True
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
        who = f"the thread {message.thread!r}" if message.thread else "a thread"
        raise NotApplicable(
            f"expected {who} of {act.instance.workflow}/{act.instance.id} to be parked or in backoff, found none: "
            f"{message.kind} does not fit now"
        )
    return found


def take_retry(act: Activation, message: Message) -> None:
    """Try again what an operator has looked at: a parked thread afresh, one in backoff now (rule 31)."""
    for thread in _addressed(act, message):
        place = act.place_of(thread)
        if place is None:
            raise NotApplicable(f"this code has no {thread.position!r}: bring it back, then retry")
        act.touch()
        if thread.status is ThreadStatus.Executing:
            thread.retry_at = act.now
        elif place.kind in ("step", "undo"):
            thread.status = ThreadStatus.Executing
            thread.attempt, thread.losses, thread.error, thread.result, thread.retry_at = 0, 0, None, None, None
        elif place.cases and (thread.deadlines is not None or not _timed(place)):
            thread.status, thread.error = ThreadStatus.Waiting, None
        else:
            act.resume(thread, place)
    act.record("operator", message_id=message.id, caller=message.caller, event="retry", path=message.thread or "")
    act.ready = True
    _applied(act, message)


def _timed(place: Place) -> bool:
    return any(case.kind in ("after", "at") for case in place.cases)


def take_skip(act: Activation, message: Message) -> None:
    """Go on behind the statement a thread is stopped at, with a value where one is taken (rule 31)."""
    for thread in _addressed(act, message):
        place = act.place_of(thread)
        if place is None:
            raise NotApplicable(f"this code has no {thread.position!r}: nobody knows what comes behind it")
        _skip(act, thread, place, message.value)
    act.record("operator", message_id=message.id, caller=message.caller, event="skip", input=_shown(message))
    _applied(act, message)


def _skip(act: Activation, thread: Thread, place: Place, value: bytes | None) -> None:
    given = None if value is None else from_json(value)
    if place.kind == "undo":
        act.touch()
        thread.status = ThreadStatus.Executing
        after_undo(act, thread)
    elif place.kind == "step":
        if not place.plain:
            _skip_result(act, thread, place, value)
        if act.alive(thread):
            thread.attempt, thread.retry_at, thread.error, thread.result, thread.doubt = 0, None, None, None, False
            act.resume(thread, place.next)
    elif given is True and place.arms:
        failed_at = thread.error.path if thread.error else place.path
        arm = next((arm for arm in place.arms if arm.path == failed_at), place.arms[0])
        act.resume(thread, arm.first)
    elif given is True and place.kind == "for":
        assert place.first is not None
        act.resume(thread, place.first)
    elif given is True and any(case.kind == "when" for case in place.cases):
        failed_at = thread.error.path if thread.error else ""
        whens = [case for case in place.cases if case.kind == "when"]
        act.resume(thread, next((case for case in whens if case.path == failed_at), whens[0]).first)
    elif place.kind == "again":
        act.resume(thread, next_item(act, thread, place.next))
    elif place.kind == "end":
        raise NotApplicable("there is nothing behind the end of a thread")
    elif is_fork(thread, place):
        raise NotApplicable("the thread waits for its branches")
    else:
        act.resume(thread, place.next)


def _skip_result(act: Activation, thread: Thread, place: Place, value: bytes | None) -> None:
    """Apply the value of a skip, or the result that could not be applied, as the step's result.

    Raises:
        InvalidInput: it does not fit the result's type, or what takes it refuses it.
    """
    text = value if value is not None else thread.result
    if text is None:
        return
    step = place.statement
    try:
        typed = result_type(act, place).validate_json(text)
        take = (lambda given: setattr(act.body.state, step.into, given)) if step.into is not None else step.then
        act.change(act.context(thread, place.path), take, typed)
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
        refusal = cause if isinstance(cause, AsyncflowError) else InvalidInput(str(cause))
        settle(act, message, Answer(refusal.code, error=refusal))
        if message.lain:
            act.record(
                "refused", message_id=message.id, caller=message.caller, event=message.kind,
                error={"message": refusal.message},
            )  # fmt: skip


__all__ = ["HANDLE", "OPERATOR", "handle", "settle", "stands_still", "stopped", "take_event", "taker", "type_of_result", "void_after_grace"]
