"""The instance as programs outside see it: paths instead of addresses, and nothing that only the engine needs."""

from __future__ import annotations

from typing import Any

from asyncflow.activation import Activation
from asyncflow.definition import Definition
from asyncflow.engine import awaits
from asyncflow.errors import Failure, NotFound
from asyncflow.instance import Instance, Thread, ThreadStatus
from asyncflow.tree import END, UNDO


def visible_path(act: Activation, thread: Thread) -> str:
    """Where a thread is, as users name it; the address where this code knows no such place."""
    return path_in(act.definition, thread.position)


def path_in(definition: Definition[Any], position: str) -> str:
    """The path of a position, found without a state; the position itself where this code knows no such place."""
    found = _find(definition, position)
    return position if found is None else found


def _find(definition: Definition[Any], position: str) -> str | None:
    if position == END:
        return ""
    at = position.removesuffix(UNDO)
    for scope in definition.scopes():
        if position in scope.places:
            return scope.places[position].path
        if at in scope.places:
            return scope.places[at].path + UNDO
    return None


def place_paths(act: Activation) -> dict[str, str]:
    """The path of each thread by its id."""
    return {thread.id: visible_path(act, thread) for thread in act.in_order() if thread.position != END}


def shown_control(act: Activation) -> dict[str, Any] | None:
    """Pauses and cancels that hold, or will once the running step ends (rule 31)."""
    return control_of(act.instance)


def control_of(instance: Instance) -> dict[str, Any] | None:
    """Pauses and cancels that hold, or will once the running step ends (rule 31)."""
    control = instance.control
    shown: dict[str, Any] = {}
    if control.pause is not None:
        shown["pause"] = {"since": control.pause}
    if control.cancel is not None:
        shown["cancel"] = {"since": control.cancel.since}
    for message in instance.inbox:
        if message.kind in ("pause", "cancel"):
            shown.setdefault(message.kind, {"since": message.at})
    return shown or None


def shown_error(instance: Instance) -> Failure | None:
    """The error of an instance that failed, or of the first parked thread."""
    if instance.error is not None:
        return instance.error
    return next((thread.error for thread in instance.threads.values() if thread.status is ThreadStatus.Paused), None)


def shown(definition: Definition[Any] | None, instance: Instance) -> dict[str, Any]:
    """The instance as an item of a list: all but `state` and `awaits`. Its values are ready to be written as JSON.

    Without a definition positions are shown as they are stored. A thread at a position that this code, or the code that looked
    at it last, does not know shows that as its error, and when it is looked for again (rule 24).
    """
    error = shown_error(instance)
    return {
        "workflow": instance.workflow,
        "id": instance.id,
        "status": instance.status,
        "output": instance.output,
        "error": None if error is None else error.model_dump(),
        "threads": [_shown_thread(definition, thread) for thread in instance.threads.values()],
        "labels": instance.labels,
        "control": control_of(instance),
        "pc": instance.pc,
        "created_at": instance.created_at,
        "updated_at": instance.updated_at,
    }


def _shown_thread(definition: Definition[Any] | None, thread: Thread) -> dict[str, Any]:
    path = thread.position if definition is None else _find(definition, thread.position)
    error, retry_at, stray = thread.error, thread.retry_at, thread.stray
    if thread.status is not ThreadStatus.Paused and (path is None or stray is not None):
        position = path or thread.position
        text = f"this code has no statement {position!r}: it is looked for again and at last parked; bring it back, or skip it then"
        error = Failure.of(NotFound(text), path=position, attempt=0, at=thread.since)
        retry_at = None if stray is None else stray.retry_at
    return {
        "id": thread.id,
        "status": thread.status,
        "position": thread.position if path is None else path,
        "attempt": thread.attempt,
        "retry_at": retry_at,
        "error": None if error is None else error.model_dump(),
    }


def shown_awaits(act: Activation) -> list[dict[str, Any]]:
    """What the instance would take now, each as `{event, thread, role, schema}`; nothing once it has ended."""
    return [] if act.instance.ended else [one.model_dump(mode="json", by_alias=True) for one in awaits(act)]
